"""Pairs that repeat another pair with small changes."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "near_duplicate_pairs"
SCOPE: Scope = "row"
COST = 2


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose prompt and both responses are near-copies (Jaccard .8) of another, different pair's.

    Rows: those of all pairs of such a set but its first. Severity: warning from 1 % of rows, the bar of repeated votes, else info.
    """
    shared = context.shared(votes)
    near = shared.pair_key(shared.prompt_cluster, shared.response_cluster)
    # sides that are near-copies of each other collapse to one cluster, which says nothing about another pair
    apart = shared.response_cluster[shared.first] != shared.response_cluster[shared.second]
    first = np.full(int(near.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, near, np.arange(len(votes)))
    again = apart & (shared.key != shared.key[first[near]]) if len(votes) else apart
    n, count = len(votes), int(again.sum())
    if not count:
        return clean(NAME, SCOPE, n, "no pair is a near-copy of another pair")
    return found(
        votes,
        again,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.01),
        message=(
            f"{count:,} of {n:,} rows ({percent(count / n)}) are near-copies of an earlier pair: same "
            f"question, same two answers, small changes"
        ),
        remedy="--drop near_duplicate_pairs",
        details={"pairs": len(np.unique(shared.key[again]))},
    )
