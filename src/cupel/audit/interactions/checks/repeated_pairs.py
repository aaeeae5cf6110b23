"""Pairs of user and item with several events, and what their values say."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, percent
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log
from cupel.interactions.order import order

NAME = "repeated_pairs"
SCOPE: Scope = "dataset"


def check(log: Log, context: Context) -> Finding:
    """Number of pairs with more than one event, and of those whose values differ.

    Where events are clicks or views, repeats are what people do; they are a finding (info) because a split at random by events puts a
    pair on both sides. Severity: warning where values of one pair differ in 5 % of all pairs or more (ratings that contradict themselves).
    """
    turn = order(log.pairs())
    sorted_pairs = log.pairs()[turn]
    start = np.flatnonzero(np.r_[True, sorted_pairs[1:] != sorted_pairs[:-1]])
    pairs, counts = sorted_pairs[start], np.diff(np.append(start, len(log)))
    repeated = int((counts > 1).sum())
    if not repeated:
        return clean(NAME, SCOPE, len(pairs), "each pair of user and item has one event")
    differ = 0
    if log.value is not None:
        value = log.value[turn]
        differ = int((np.maximum.reduceat(value, start) > np.minimum.reduceat(value, start)).sum())
    said = f"{repeated:,} of {len(pairs):,} pairs ({percent(repeated / len(pairs))}) have more than one event"
    if differ:
        said += f"; the values of {differ:,} of them differ"
    return found(
        log, np.zeros(0, np.int64), name=NAME, scope=SCOPE, severity="warning" if differ >= 0.05 * len(pairs) else "info", message=said,
        remedy="split by time, or keep one event per pair before a split at random (`cupel.interactions.filters.deduplicated`)",
        count=repeated, n=len(pairs), examples=_names(log, pairs[counts > 1]), details={"values_differ": differ, "most": int(counts.max())},
    )  # fmt: skip


def _names(log: Log, pairs: np.ndarray) -> tuple[str, ...]:
    n = len(log.items)
    return tuple(f"{log.users[p // n]} {log.items[p % n]}" for p in pairs[:10].tolist())
