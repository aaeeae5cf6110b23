"""Items of which nothing is said."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, not_applicable, percent
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log

NAME = "items_without_text"
SCOPE: Scope = "dataset"


def check(log: Log, context: Context) -> Finding:
    """Number of items with events whose text is empty. Severity: warning from 10 % of the items, else info.

    Models that read texts cannot place them; they are left out of what aligns texts with ids.
    """
    if log.texts is None:
        return not_applicable(NAME, SCOPE, "the log has no item texts")
    there = log.counts() > 0
    bare = there & np.array([not text.strip() for text in log.texts], dtype=bool)
    items, count = int(there.sum()), int(bare.sum())
    if not count:
        return clean(NAME, SCOPE, items, f"all {items:,} items have a text")
    share = count / items
    return found(
        log, np.zeros(0, np.int64), name=NAME, scope=SCOPE, severity="warning" if share >= 0.1 else "info", count=count, n=items,
        message=f"{count:,} of {items:,} items ({percent(share)}) have no text", examples=tuple(log.items[bare][:10].tolist()),
        remedy="give titles for them, or use models that need no texts",
    )  # fmt: skip
