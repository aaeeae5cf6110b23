"""What each user should have been shown: the events of a test log, checked against what is left out of every ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows

#: items with at most as many training events as this share of all items has are rare, where no count is given
RARE_QUANTILE = 0.8


@dataclass(frozen=True)
class Relevant:
    """Events of the test that count, each (user, item) once.

    rows   items by user (sorted by item within a user); `rows.event` is the row of the test log that each came from
    seen   items by user that are left out of rankings: those of the training log and of the masks
    notes  what was left out and why, one sentence each
    """

    rows: Rows
    seen: Rows
    notes: tuple[str, ...]

    @property
    def user(self) -> np.ndarray:
        """User of each event, int64 [n]."""
        return np.repeat(np.arange(len(self.rows)), self.rows.counts)

    def only(self, kept: np.ndarray) -> Rows:
        """The items of each user at which a mask [n] holds."""
        counts = np.bincount(self.user[kept], minlength=len(self.rows))
        return Rows(np.concatenate([[0], np.cumsum(counts)]), self.rows.item[kept], self.rows.event[kept])


def relevant(test: Log, train: Log, masks: Sequence[Log] = (), *, at_least: float | None = None, drop_seen: bool = False) -> Relevant:
    """The events of `test` that a ranking is judged by, and the items it leaves out.

    Events whose value is below `at_least` (by default: 0 or less) are no preferences and do not count; repeats of a (user, item) count
    once. Events of `train` and of the masks are left out of rankings, so a test event among them could never be found: InputError with
    the count, the first and the way out, or with `drop_seen` they are left out of the test.

    InputError where users or items of the logs differ, or where nothing is left.

    >>> whole = Log.of(["a", "a", "b", "b"], ["x", "y", "z", "x"])
    >>> found = relevant(whole.take([1, 3]), whole.take([0, 2]))
    >>> found.rows.lists([0, 1]), found.seen.lists([0, 1])
    ([array([1], dtype=int32), array([0], dtype=int32)], [array([0], dtype=int32), array([2], dtype=int32)])
    """
    for name, other in (("training log", train), *((f"mask {k}", mask) for k, mask in enumerate(masks))):
        _same_ids(test, other, name)
    notes = list[str]()
    rows = np.arange(len(test))
    if test.value is not None:
        limit = 0.0 if at_least is None else at_least
        good = test.value > 0 if at_least is None else test.value >= at_least
        if not good.all():
            rule = "0 or less" if at_least is None else f"below {limit:g}"
            notes.append(f"{int((~good).sum()):,} of {len(test):,} test events have a value of {rule}: no preferences, they do not count.")
        rows = rows[good]
    elif at_least is not None:
        raise InputError(f"at_least is {at_least:g}, but the test log has no values: leave it out, or name the column of values")
    pair = test.pairs()
    first = np.sort(np.unique(pair[rows], return_index=True)[1])
    if len(first) < len(rows):
        notes.append(f"{len(rows) - len(first):,} of {len(rows):,} test events repeat a (user, item): each counts once.")
    rows = rows[first]
    seen, again = left_out(train, masks), np.zeros(len(rows), dtype=bool)
    where = list[str]()
    for k, log in enumerate((train, *masks)):
        here = np.isin(pair[rows], log.pairs())
        if here.any():
            where.append(f"{int(here.sum()):,} of {'the training log' if k == 0 else 'what is masked'}")
        again |= here
    if again.any():
        u, i = (int(index[rows[np.argmax(again)]]) for index in (test.user, test.item))
        found = f"{int(again.sum()):,} of {len(rows):,} test events repeat a (user, item) that is left out of every ranking"
        if not drop_seen:
            raise InputError(
                f"{found}: {', '.join(where)} (first: user {str(test.users[u])!r}, item {str(test.items[i])!r}). No model can be right "
                f"about them. Leave them out with drop_seen=True (--drop-seen), or split again so that each (user, item) is on one side"
            )
        notes.append(f"{found} and were left out of the test: {', '.join(where)}.")
        rows = rows[~again]
    if len(rows) == 0:
        raise InputError(f"none of the {len(test):,} test events can be judged by: {' '.join(notes) or 'the test log is empty'}")
    turn = rows[np.lexsort((test.item[rows], test.user[rows]))]
    counts = np.bincount(test.user[turn], minlength=len(test.users))
    found_rows = Rows(np.concatenate([[0], np.cumsum(counts)]), test.item[turn], turn)
    notes += _cold(found_rows, train)
    return Relevant(found_rows, seen, tuple(notes))


def rare_items(counts: np.ndarray, most: int | None = None) -> tuple[np.ndarray, int]:
    """(which items are rare, bool [I]; the training count up to which they are).

    most: that count; by default the largest that at least 80 % of the items do not exceed, so that the fifth with the most is not rare.

    >>> rare_items(np.array([0, 1, 2, 3, 50]))
    (array([ True,  True,  True,  True, False]), 3)
    """
    if most is not None and most < 0:
        raise InputError(f"rare is a training count of at least 0, not {most}")
    limit = int(np.quantile(counts, RARE_QUANTILE, method="inverted_cdf")) if most is None else int(most)
    return counts <= limit, limit


def _cold(rows: Rows, train: Log) -> list[str]:
    users, items = train.counts("user"), train.counts()
    notes, asked = list[str](), np.flatnonzero(rows.counts)
    if (users[asked] == 0).any():
        notes.append(f"{int((users[asked] == 0).sum()):,} of {len(asked):,} users of the test have no training event.")
    if (items[rows.item] == 0).any():
        of, total = int((items[rows.item] == 0).sum()), len(rows.item)
        notes.append(f"{of:,} of {total:,} test events are of items without a training event: what learns from ids alone cannot find them.")
    return notes


def left_out(train: Log, masks: Sequence[Log]) -> Rows:
    """Items of each user in any of the logs, sorted, each once: what rankings leave out."""
    pairs = np.unique(np.concatenate([log.pairs() for log in (train, *masks)]))
    users, items = train.shape
    owner = pairs // items
    start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=users))])
    return Rows(start, (pairs % items).astype(np.int32), np.arange(len(pairs)))


def _same_ids(test: Log, other: Log, name: str) -> None:
    for kind, one, two in (("users", test.users, other.users), ("items", test.items, other.items)):
        if len(one) != len(two) or not np.array_equal(one, two):
            raise InputError(
                f"the test log has {len(one):,} {kind} and the {name} {len(two):,}, or they stand in another order: both have to be "
                f"parts of one log (a split shares the ids of its whole)"
            )
