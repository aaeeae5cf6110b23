"""Which events are kept: one per pair, those of a value at least, users and items with enough of them. Each says what it took out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.interactions.order import order

Keep = Literal["first", "last", "max"]


def deduplicated(log: Log, keep: Keep = "first") -> Log:
    """One event per (user, item): the first or last in time (ties and unknown times: as the file has them), or that of the largest value.

    Equal largest values: the first in time. What was taken out is counted in the notes. InputError where the largest value is asked for
    and events state none.

    >>> log = Log.of(["a", "a", "b"], [1, 1, 1], value=np.array([2.0, 5.0, 3.0]))
    >>> deduplicated(log, "last").value.tolist(), deduplicated(log).notes
    ([5.0, 3.0], ('1 of 3 events repeat a pair of user and item: the first of each was kept.',))
    """
    if keep not in ("first", "last", "max"):
        raise InputError(f'of events of one pair the "first", the "last" or that of "max" value is kept, not {keep!r}')
    time = np.zeros(len(log), np.int64) if log.time is None else log.time
    if keep == "max":
        if log.value is None:
            raise InputError('events have no value: keep the "first" or the "last" of each pair')
        turn = order(time, -log.value, log.pairs())
    elif keep == "first":
        turn = order(time, log.pairs())
    else:
        turn = order(-np.arange(len(log)), -time, log.pairs())
    pairs = log.pairs()[turn]
    first = np.ones(len(log), dtype=bool)
    first[1:] = pairs[1:] != pairs[:-1]
    rows = np.sort(turn[first])
    gone = len(log) - len(rows)
    if not gone:
        return log
    kept = {"first": "the first", "last": "the last", "max": "that of the largest value"}[keep]
    return log.take(rows, f"{gone:,} of {len(log):,} events repeat a pair of user and item: {kept} of each was kept.")


def at_least(log: Log, value: float) -> Log:
    """The events whose value is at least that (ratings of 4 and more, say); the others are counted. InputError without values.

    >>> at_least(Log.of(["a", "b"], [1, 2], value=np.array([3.0, 4.0])), 4).notes
    ('1 of 2 events have a value below 4: left out.',)
    """
    if log.value is None:
        raise InputError("events have no value, so none lies below another: name their column with map={'value': 'COLUMN'}")
    kept = log.value >= value
    return log if kept.all() else log.take(kept, f"{int((~kept).sum()):,} of {len(log):,} events have a value below {value:g}: left out.")


def positives(log: Log, value: float | None = None) -> Log:
    """What users took to: events of at least that value (None: above zero, or all where events have no value), one per pair.

    The value of a pair is its largest, so that a pair counts where any of its events does.

    >>> len(positives(Log.of(["a", "a", "b"], [1, 1, 2], value=np.array([0.0, 1.0, 0.0]))))
    1
    """
    if log.value is not None:
        log = log.take(log.value > 0, *_below(log)) if value is None else at_least(log, value)
    elif value is not None:
        return at_least(log, value)
    return deduplicated(log)


def _below(log: Log) -> list[str]:
    assert log.value is not None
    gone = int((~(log.value > 0)).sum())
    return [f"{gone:,} of {len(log):,} events have a value of zero or less: left out."] if gone else []


def k_core(log: Log, users: int = 5, items: int = 5) -> Log:
    """The part in which each item has at least `items` events and each user at least `users`; ids without events go too.

    Items with too few are taken out, then users with too few, until nothing changes: the largest such part, whatever the order. Events
    are counted, not pairs, so drop repeats first. Raises InputError where nothing is left.

    >>> core = k_core(Log.of(["a", "a", "b", "b", "c"], [1, 2, 1, 2, 2]), 2, 2)
    >>> core.users.tolist(), core.items.tolist(), len(core)
    (['a', 'b'], ['1', '2'], 4)
    """
    if users < 1 or items < 1:
        raise InputError(f"a core has at least 1 event per user and per item, not {users} and {items}")
    inside = np.ones(len(log), dtype=bool)
    rounds = 0
    while True:
        before = int(inside.sum())
        for index, least, n in ((log.item, items, len(log.items)), (log.user, users, len(log.users))):
            inside &= (np.bincount(index[inside], minlength=n) >= least)[index]
        rounds += 1
        if int(inside.sum()) == before:
            break
    if not inside.any() and len(log):
        raise InputError(
            f"none of the {len(log):,} events is in the core of {users} events per user and {items} per item: the largest counts are "
            f"{int(log.counts('user').max())} and {int(log.counts('item').max())}. Ask for fewer"
        )
    u = np.bincount(log.user[inside], minlength=len(log.users)) > 0
    i = np.bincount(log.item[inside], minlength=len(log.items)) > 0
    if u.all() and i.all() and inside.all():
        return log
    said = (
        f"Core of {users} events per user and {items} per item ({rounds} rounds): {int(u.sum()):,} of {len(u):,} users, {int(i.sum()):,} "
        f"of {len(i):,} items and {int(inside.sum()):,} of {len(log):,} events."
    )
    return log.take(inside).kept_ids(u, i, said)
