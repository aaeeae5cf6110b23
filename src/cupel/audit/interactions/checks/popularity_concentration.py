"""Many events on few items."""

from __future__ import annotations

import math

import numpy as np

from cupel.audit.checks._build import clean, not_applicable, percent
from cupel.audit.interactions.context import Context, found, gini
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log

NAME = "popularity_concentration"
SCOPE: Scope = "dataset"


def check(log: Log, context: Context) -> Finding:
    """Gini coefficient of the items' events, and the share of events on the 1 % of items with most (items without events not counted).

    Finding (info) from a Gini of .80 or 20 % of the events on the top 1 %, warning from .95 or 50 %: there the popularity baseline ranks
    well, and clicks say as much of what was shown as of what was liked. Needs 100 items.
    """
    counts = log.counts()
    counts = np.sort(counts[counts > 0])[::-1]
    if len(counts) < 100:
        return not_applicable(NAME, SCOPE, f"{len(counts):,} items have events; concentration needs 100", len(log))
    top = math.ceil(len(counts) / 100)
    unequal, share = gini(counts), float(counts[:top].sum() / len(log))
    details = {"gini": round(unequal, 6), "share_of_top": round(share, 6), "top": top, "items": len(counts)}
    said = f"the most frequent {top:,} of {len(counts):,} items have {percent(share)} of the events; the Gini coefficient is {unequal:.2f}"
    if unequal < 0.80 and share < 0.20:
        return clean(NAME, SCOPE, len(log), said, details)
    turn = np.argsort(-log.counts(), kind="stable")
    return found(
        log, np.zeros(0, np.int64), name=NAME, scope=SCOPE, severity="warning" if unequal >= 0.95 or share >= 0.50 else "info",
        message=said,
        remedy="compare with the popularity baseline, state results for rare items apart, and consider a propensity treatment",
        count=int(counts[:top].sum()), examples=tuple(log.items[turn[: min(top, 10)]].tolist()), details=details,
    )  # fmt: skip
