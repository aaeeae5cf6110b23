"""Pairs whose two sides are nearly the same."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "near_duplicate_responses"
SCOPE: Scope = "row"
COST = 2


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose sides share at least .8 of their 5-word runs (exact Jaccard similarity) without being equal.

    Beside it (details) the number of different responses that have a near-copy anywhere. Severity: warning from 10 % of rows, where
    the set is about small edits rather than answers, else info: a small edit can decide (a sign in a proof), so nothing is dropped
    by default.
    """
    shared = context.shared(votes)
    a, b = shared.response_id[shared.first], shared.response_id[shared.second]
    row = np.flatnonzero(a != b)
    size = np.int64(max(len(shared.responses), 1))
    row = row[shared.response_cluster[shared.first[row]] == shared.response_cluster[shared.second[row]]]
    codes, inverse = np.unique(shared.first[row] * size + shared.second[row], return_inverse=True)
    alike = np.zeros(len(votes), dtype=bool)
    alike[row] = shared.nearly_the_same(codes // size, codes % size)[inverse.reshape(-1)]
    n, count = len(votes), int(alike.sum())
    used = np.zeros(len(shared.responses), dtype=bool)
    used[np.concatenate([shared.first, shared.second])] = True
    sets = np.unique(np.stack([shared.response_cluster[used], shared.response_id[used]], axis=1), axis=0)[:, 0]
    sizes = np.unique(sets, return_counts=True)[1]
    details = {
        "responses_with_a_near_copy": int(sizes[sizes > 1].sum()),
        "sets_of_near_copies": int((sizes > 1).sum()),
        "largest_set": int(sizes.max(initial=0)),
    }
    if not count:
        return clean(NAME, SCOPE, n, "no pair has two sides that are nearly the same", details)
    return found(
        votes,
        alike,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.10),
        message=f"{count:,} of {n:,} pairs ({percent(count / n)}) have sides that share 80 % of their 5-word runs",
        remedy="cupel review OUT (is there something to choose?), or --drop near_duplicate_responses",
        details=details,
    )
