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

    Severity: error from the first row on which a side was preferred, because no preference can be true of such a pair and every
    pairwise loss has zero gradient in its content; info where all such rows are ties or skipped, which is what they should be. The
    reader sets decided rows of this kind aside already; `details` counts them.
    """
    same = votes.first == votes.second
    aside = sum(q.reason == NAME for q in votes.quarantine)
    details = {"quarantined": aside}
    if not same.any():
        return clean(NAME, SCOPE, len(votes), "no pair has two identical sides", details)
    voted = int((votes.sign[same] != 0).sum())
    return found(
        votes,
        same,
        name=NAME,
        scope=SCOPE,
        severity="error" if voted else "info",
        message=(
            f"{int(same.sum()):,} of {len(votes):,} pairs have identical sides; on {voted:,} of them a side was preferred all the same"
        ),
        remedy="--drop identical_sides",
        details={**details, "voted": voted},
    )
