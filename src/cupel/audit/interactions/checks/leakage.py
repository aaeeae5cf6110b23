"""Pairs of training that a test set holds too."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, not_applicable, percent
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log
from cupel.interactions.order import among, distinct

NAME = "leakage"
SCOPE: Scope = "row"


def check(log: Log, context: Context) -> Finding:
    """Number of events of pairs that a log given by --against has too, ids matched by name. Severity: error, however few.

    Every such pair is an answer known in advance, and recommenders are told not to repeat what was taken, so it also spoils the ranking.
    `after_the_test_begins` is the share of these events that are later than the first of the test: it is above 0 wherever a split is not
    by time, and what is learned then knows the future.
    """
    if not context.against:
        return not_applicable(NAME, SCOPE, "no test set was given: --against TEST looks for its pairs here")
    shared = np.zeros(len(log), dtype=bool)
    details: dict[str, float | int] = {}
    for name, other in context.against.items():
        here = shared_pairs(log, other)
        shared |= here
        details[f"events of {name}"] = int(here.sum())
        if log.time is not None and other.time is not None and len(other):
            details[f"after {name} begins"] = round(float((log.time >= other.time.min()).mean()), 6)
    count = int(shared.sum())
    names = ", ".join(context.against)
    if not count:
        return clean(NAME, SCOPE, len(log), f"no pair of {names} occurs here", details)
    said = f"{count:,} of {len(log):,} events ({percent(count / len(log))}) are of pairs that occur in {names} as well"
    remedy = "leave these events out of training, or split again so that a pair is on one side (`cupel.interactions.splits`)"
    return found(log, shared, name=NAME, scope=SCOPE, severity="error", message=said, remedy=remedy, details=details)


def shared_pairs(log: Log, other: Log) -> np.ndarray:
    """Which events are of a pair that the other log has, bool [n]; users and items are matched by their ids."""
    user, item = _index(log.users, other.users), _index(log.items, other.items)
    u, i = user[other.user], item[other.item]
    known = (u >= 0) & (i >= 0)
    return among(log.pairs(), distinct(u[known] * len(log.items) + i[known]))


def _index(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Position of each of the others among the ids, -1 where it is none, int64."""
    order = np.argsort(ids, kind="stable")
    if not len(ids):
        return np.full(len(others), -1, np.int64)
    at = order[np.minimum(np.searchsorted(ids[order], others), len(ids) - 1)]
    return np.where(ids[at] == others, at, -1).astype(np.int64)
