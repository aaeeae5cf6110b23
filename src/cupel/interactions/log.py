"""The log of interactions: one row per event of a user with an item, users and items by index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from cupel.errors import RecordError


@dataclass(frozen=True)
class Log:
    """Events of users with items, in the order of the file.

    users, items  str [U], [I]: ids by index; a user or item may be without events (a split shares the ids of its whole)
    user, item    int32 [n]: index of each event's user and item
    value         float32 [n]: rating, watch time, 1 for a click and 0 for a display without one; None where events state none
    time          int64 [n], seconds since 1970 (or any clock that orders events); None where unknown
    propensity    float64 [n] in (0, 1]: the chance with which the item was shown to the user at this event; None where unknown
    event         str [n]: "rating", "click", "view" ..., None where there is one kind
    texts         what is said about each item, [I]; None where there is nothing
    released      int64 [I], on the clock of `time`: when an item came to be; None where unknown
    notes         what the reader and the filters counted and changed, one sentence each
    """

    users: np.ndarray
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    value: np.ndarray | None = None
    time: np.ndarray | None = None
    propensity: np.ndarray | None = None
    event: np.ndarray | None = None
    texts: tuple[str, ...] | None = None
    released: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.user)
        wrong = {name: len(x) for name in PER_EVENT if (x := getattr(self, name)) is not None and len(x) != n}
        if wrong:
            raise RecordError(f"a log of {n:,} events has columns of other lengths: {wrong}")
        for name, index, ids in (("user", self.user, self.users), ("item", self.item, self.items)):
            outside = (index < 0) | (index >= len(ids))
            if outside.any():
                first = int(np.argmax(outside))
                raise RecordError(
                    f"{int(outside.sum()):,} of {n:,} events name a {name} outside the {len(ids):,} there are (first: event {first}, "
                    f"index {int(index[first])})"
                )
        for name in ("texts", "released"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.items):
                raise RecordError(f"{len(given):,} {name} for {len(self.items):,} items: give one per item, or none")

    @classmethod
    def of(cls, user: Sequence[Any] | np.ndarray, item: Sequence[Any] | np.ndarray, **columns: Any) -> Log:
        """A log from ids of any kind: users and items get indices in the sorted order of their ids (numbers as numbers).

        >>> log = Log.of(["b", "a", "b"], [10, 9, 9])
        >>> log.users.tolist(), log.items.tolist(), log.user.tolist(), log.item.tolist()
        (['a', 'b'], ['9', '10'], [1, 0, 1], [1, 0, 0])
        """
        users, u = np.unique(np.asarray(user), return_inverse=True)
        items, i = np.unique(np.asarray(item), return_inverse=True)
        return cls(users.astype(str), items.astype(str), u.astype(np.int32), i.astype(np.int32), **columns)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def shape(self) -> tuple[int, int]:
        """(number of users, number of items)."""
        return len(self.users), len(self.items)

    def take(self, rows: np.ndarray, *notes: str) -> Log:
        """Those events (indices or a mask), users and items keeping their indices; further notes are added."""
        columns = {name: x[rows] for name in PER_EVENT if (x := getattr(self, name)) is not None}
        return replace(self, **columns, notes=(*self.notes, *notes))

    def noted(self, *notes: str) -> Log:
        """The same log with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def kept_ids(self, users: np.ndarray, items: np.ndarray, *notes: str) -> Log:
        """The log of those users and items (masks [U], [I]) alone, indices closed up."""
        u, i = np.cumsum(users) - 1, np.cumsum(items) - 1
        inside = self.take(users[self.user] & items[self.item], *notes)
        return replace(
            inside, users=self.users[users], items=self.items[items], user=u[inside.user].astype(np.int32),
            item=i[inside.item].astype(np.int32), released=None if self.released is None else self.released[items],
            texts=None if self.texts is None else tuple(text for text, kept in zip(self.texts, items, strict=True) if kept),
        )  # fmt: skip

    def pairs(self) -> np.ndarray:
        """user * number of items + item of each event, int64 [n]: one number per (user, item)."""
        return self.user.astype(np.int64) * len(self.items) + self.item

    def counts(self, axis: str = "item") -> np.ndarray:
        """Events of each item (or user), int64."""
        index, n = (self.item, len(self.items)) if axis == "item" else (self.user, len(self.users))
        return np.bincount(index, minlength=n)


#: the columns that hold a value per event
PER_EVENT = ("user", "item", "value", "time", "propensity", "event")
assert set(PER_EVENT) < {field.name for field in fields(Log)}


@dataclass(frozen=True)
class Rows:
    """Items of each user: those of user u are `item[start[u]:start[u + 1]]`; `event` are their rows in the log."""

    start: np.ndarray
    item: np.ndarray
    event: np.ndarray

    def of(self, user: int) -> np.ndarray:
        """Items of one user."""
        return self.item[self.start[user] : self.start[user + 1]]

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def counts(self) -> np.ndarray:
        """Items of each user, int64 [U]."""
        return np.diff(self.start)

    def lists(self, users: Iterable[int]) -> list[np.ndarray]:
        """Items of each of those users."""
        return [self.of(int(u)) for u in users]


def by_user(log: Log, *, order: str = "time") -> Rows:
    """Events grouped by user; within a user in the order of time, ties and unknown times as the file has them; or sorted by item.

    >>> by_user(Log.of(["b", "a", "b"], [1, 2, 3], time=np.array([5, 1, 4]))).item.tolist()
    [1, 2, 0]
    """
    if order == "item":
        turn = np.lexsort((log.item, log.user))
    elif log.time is None:
        turn = np.argsort(log.user, kind="stable")
    else:
        turn = np.lexsort((np.arange(len(log)), log.time, log.user))
    start = np.concatenate([[0], np.cumsum(log.counts("user"))])
    return Rows(start, log.item[turn], turn)


@dataclass(frozen=True)
class Split:
    """A log cut in three, all of the same users and items; how: the rule in words."""

    train: Log
    validation: Log
    test: Log
    how: str
