"""Pairs with a side that has no text."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, found
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "empty_sides"
SCOPE: Scope = "row"
COST = 1


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows in which at least one response is empty or white space.

    Severity: error from the first row on: a trainer either divides by a length of zero or learns that silence is an answer.
    """
    shared = context.shared(votes)
    empty = shared.chars == 0
    rows = shared.either(empty)
    if not rows.any():
        return clean(NAME, SCOPE, len(votes), "no side is empty")
    both = int((empty[shared.first] & empty[shared.second]).sum())
    one, wins = shared.one_sided(empty)
    preferred = int((wins[one] > 0).sum())
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="error",
        message=(
            f"{int(np.sum(rows)):,} of {len(votes):,} pairs have an empty side ({both:,} on both sides); "
            f"the empty side was preferred {preferred:,} times"
        ),
        remedy="--drop empty_sides",
        details={"both_empty": both, "empty_preferred": preferred},
    )
