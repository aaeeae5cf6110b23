"""Pairs whose sides differ only in white space, capitals or Unicode composition."""

from __future__ import annotations

from cupel.audit.checks._build import clean, found
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "equal_after_normalising"
SCOPE: Scope = "row"
COST = 1


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose sides differ as they came but are equal in NFC, lower case, with white space collapsed.

    Severity: warning from the first row on, not error: layout alone can be a preference (code, poems), though rarely the one meant.
    """
    shared = context.shared(votes)
    same = (votes.first != votes.second) & (shared.response_id[shared.first] == shared.response_id[shared.second])
    if not same.any():
        return clean(NAME, SCOPE, len(votes), "no pair becomes equal after normalising")
    return found(
        votes,
        same,
        name=NAME,
        scope=SCOPE,
        severity="warning",
        message=f"{int(same.sum()):,} of {len(votes):,} pairs differ only in white space, capitals or Unicode composition",
        remedy="--drop equal_after_normalising",
    )
