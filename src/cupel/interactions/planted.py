"""Corruption that is known: events that never were (false positives), and events taken away (missing positives)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import PER_EVENT, Log
from cupel.interactions.order import among, distinct

#: below this many cells the free ones are listed; above, cells are drawn until enough are free
LISTED = 10_000_000


def inject(log: Log, ratio: float, seed: int = 0, avoid: Iterable[Log] = ()) -> Log:
    """The log with round(ratio n) pairs that are in neither it nor `avoid`, uniform over all such cells: false positives.

    They stand behind the others, so the rows from len(log) on are the planted ones. What else an event has (value, time, propensity,
    event) is that of a random event of the same user, or of any where the user has none. avoid: logs of the same users and items
    (validation, test), so that no true pair is planted. InputError for a negative ratio, or where there are too few free cells.

    >>> log = Log.of(["a", "a", "b"], [1, 2, 3])
    >>> more = inject(log, 0.67)
    >>> len(more), len(np.unique(more.pairs()))
    (5, 5)
    """
    if not 0 <= ratio < np.inf:
        raise InputError(f"the ratio of planted events to events is at least 0, not {ratio}")
    need = round(ratio * len(log))
    known = [log, *avoid]
    other = next((x for x in known if x.shape != log.shape), None)
    if other is not None:
        raise InputError(f"a log to avoid has {other.shape} users and items, this one {log.shape}: give parts of one split")
    taken = distinct(np.concatenate([x.pairs() for x in known]))
    cells = len(log.users) * len(log.items)
    if need > cells - len(taken):
        raise InputError(
            f"{need:,} pairs are to be planted, but only {cells - len(taken):,} of {cells:,} are free: plant at most "
            f"{(cells - len(taken)) / max(len(log), 1):.3g} times the events"
        )
    if not need:
        return log
    rng = np.random.default_rng([seed, 31])
    pairs = _free(rng, taken, cells, need)
    user, item = (pairs // len(log.items)).astype(np.int32), (pairs % len(log.items)).astype(np.int32)
    like = _event_of(rng, log, user)
    columns: dict[str, Any] = {"user": np.concatenate([log.user, user]), "item": np.concatenate([log.item, item])}
    for name in PER_EVENT[2:]:
        x = getattr(log, name)
        if x is not None:
            columns[name] = np.concatenate([x, x[like]])
    said = f"{need:,} pairs that never were are planted behind the {len(log):,} events (seed {seed})."
    return replace(log, **columns, notes=(*log.notes, said))


def drop(log: Log, rate: float, seed: int = 0, by: Literal["uniform", "popularity"] = "uniform") -> Log:
    """The log without round(rate n) of its events: missing positives.

    by: "uniform", each event alike; "popularity", the less often an item occurs the likelier its events are missed: drawn one after the
    other with weight count(item)^(-1/2). Users left without any are counted in the notes. InputError for a rate outside [0, 1).

    >>> len(drop(Log.of(["a"] * 10, list(range(10))), 0.3))
    7
    """
    if not 0 <= rate < 1:
        raise InputError(f"the rate of dropped events lies in [0, 1), not {rate}")
    if by not in ("uniform", "popularity"):
        raise InputError(f'events are dropped "uniform" or by "popularity", not {by!r}')
    gone = round(rate * len(log))
    if not gone:
        return log
    rng = np.random.default_rng([seed, 32])
    clock = rng.exponential(size=len(log))  # the first to ring go: each next one in proportion to its weight
    if by == "popularity":
        clock *= np.sqrt(log.counts()[log.item])
    kept = np.ones(len(log), dtype=bool)
    kept[np.argsort(clock, kind="stable")[:gone]] = False
    out = log.take(kept)
    emptied = int(((log.counts("user") > 0) & (out.counts("user") == 0)).sum())
    said = f"{gone:,} of {len(log):,} events were dropped ({by}, seed {seed})"
    return out.noted(said + (f"; {emptied:,} users have none left." if emptied else "."))


def _free(rng: np.random.Generator, taken: np.ndarray, cells: int, need: int) -> np.ndarray:
    """Distinct cells that are not taken (sorted), in random order, int64 [need]."""
    if cells <= LISTED:
        free = np.ones(cells, dtype=bool)
        free[taken] = False
        return rng.choice(np.flatnonzero(free), need, replace=False)
    found = np.zeros(0, np.int64)
    while len(found) < need:
        drawn = rng.integers(0, cells, size=need - len(found) + 1024)
        drawn = drawn[~among(drawn, taken)]
        both = np.concatenate([found, drawn])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
    return found[:need]


def _event_of(rng: np.random.Generator, log: Log, user: np.ndarray) -> np.ndarray:
    """A random event of each user, or of anybody where it has none."""
    turn = np.argsort(log.user, kind="stable")
    counts = log.counts("user")
    start = np.cumsum(counts) - counts
    u = rng.random(len(user))
    own = turn[np.minimum(start[user] + (u * counts[user]).astype(np.int64), len(log) - 1)]
    return np.where(counts[user] > 0, own, (u * len(log)).astype(np.int64))
