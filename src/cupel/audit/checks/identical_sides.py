"""Pairs whose two sides are the same text, character by character."""

from __future__ import annotations

from cupel.audit.checks._build import clean, found
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "identical_sides"
SCOPE: Scope = "row"
COST = 0


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with nothing to choose.

    Severity: error from the first row on, because no preference can be true of such a pair and every pairwise loss has zero gradient
    in its content; a vote there is noise by construction.
    """
    same = votes.first == votes.second
    if not same.any():
        return clean(NAME, SCOPE, len(votes), "no pair has two identical sides")
    voted = int((votes.sign[same] != 0).sum())
    return found(
        votes,
        same,
        name=NAME,
        scope=SCOPE,
        severity="error",
        message=f"{int(same.sum()):,} of {len(votes):,} pairs have identical sides; on {voted:,} of them a side was preferred all the same",
        remedy="--drop identical_sides",
        details={"voted": voted},
    )
