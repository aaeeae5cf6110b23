"""Labels that the amount of formatting explains: lists, headings, bold, code, tables."""

from __future__ import annotations

import re

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._stats import clustered_share
from cupel.audit.checks._table import Table
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "format_only"
SCOPE: Scope = "dataset"
COST = 1

_MIN_ROWS = 30
_KINDS = {
    "list items": re.compile(r"(?:^|\n)[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S"),
    "headings": re.compile(r"(?:^|\n)#{1,6} \S"),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
    "code": re.compile(r"```|`[^`\n]+`"),
    "tables": re.compile(r"(?:^|\n)[ \t]*\|[^\n]*\|[ \t]*(?=\n|$)"),
}
_PATTERNS = tuple(_KINDS.values())


def format_counts(texts: Table) -> np.ndarray:
    """int32 [len(texts), 5]: list items, headings, bold spans, code spans and fences, table rows of each text."""
    out = np.zeros((len(texts), len(_KINDS)), dtype=np.int32)
    looks = texts.facts.looks
    can = np.stack([looks.item, looks.heading, looks.bold, looks.tick, looks.pipe], axis=1)
    for i, text in texts.at(np.flatnonzero(can.any(axis=1))):
        for k in np.flatnonzero(can[i]).tolist():
            out[i, k] = sum(1 for _ in _PATTERNS[k].finditer(text))
    return out


def marks_in(text: str) -> list[int]:
    """List items, headings, bold spans, code spans and fences, table rows of a text.

    >>> marks_in("- one\\n- two **b**")
    [2, 0, 1, 0, 0]
    """
    return [sum(1 for _ in pattern.finditer(text)) for pattern in _PATTERNS]


def check(votes: Votes, context: Context) -> Finding:
    """Share of decided votes won by the side with more marks of formatting, over the pairs in which the sides differ in it.

    Finding when the lower 95 % end over prompts is above .60 (or the upper below .40), from at least 30 such votes: the same bar as
    for length. Severity: warning when the share itself is above .80 (below .20), since such labels can be met without reading; else
    info. `length_matched` repeats the share where the longer side has at most a quarter more characters, because formatted answers
    are also longer.
    """
    shared = context.shared(votes)
    counts = format_counts(shared.responses)
    marks = counts.sum(axis=1)
    gap = marks[shared.first] - marks[shared.second]
    use = shared.decided & (gap != 0)
    n = int(use.sum())
    if n < _MIN_ROWS:
        return not_applicable(NAME, SCOPE, f"{n:,} decided votes on sides that differ in formatting; a share needs {_MIN_ROWS}", n)
    wins = (gap > 0) == (votes.sign > 0)
    share = clustered_share(wins[use], shared.cluster[use])
    size = np.stack([shared.chars[shared.first], shared.chars[shared.second]])
    matched = use & (size.max(axis=0) <= 1.25 * size.min(axis=0))
    kinds = {}
    for k, kind in enumerate(_KINDS):
        difference = counts[shared.first, k] - counts[shared.second, k]
        rows = shared.decided & (difference != 0)
        kinds[kind] = clustered_share(((difference > 0) == (votes.sign > 0))[rows], shared.cluster[rows]).as_dict()
    details = {
        **share.as_dict(),
        "length_matched": clustered_share(wins[matched], shared.cluster[matched]).as_dict(),
        "kinds": kinds,
    }
    told = (
        f"the more formatted side won {percent(share.value)} of {n:,} decided votes in which formatting differs "
        f"(95 % {percent(share.low)} to {percent(share.high)})"
    )
    if share.low <= 0.60 and share.high >= 0.40:
        return clean(NAME, SCOPE, n, told, details)
    return found(
        votes,
        np.zeros(0, dtype=np.int64),
        name=NAME,
        scope=SCOPE,
        severity="warning" if share.value > 0.80 or share.value < 0.20 else "info",
        message=told,
        remedy="cupel review OUT (re-check pairs in which the plain side is the better one)",
        count=int(wins[use].sum()),
        n=n,
        details=details,
    )
