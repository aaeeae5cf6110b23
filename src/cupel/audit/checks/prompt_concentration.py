"""Many rows on one prompt."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "prompt_concentration"
SCOPE: Scope = "row"
COST = 1


def check(votes: Votes, context: Context) -> Finding:
    """Share of rows on the commonest prompt (after normalising), where there are 20 prompts or more; its rows.

    Finding from a share of .10 that is also at least five times the even share 1/prompts; Severity: warning from .30, where one
    question decides what is learned, else info. Rows without a prompt ("") are not counted: they are many questions, unrecorded.
    """
    shared = context.shared(votes)
    label = shared.prompt_id[shared.prompt]
    empty = ~shared.asked[shared.prompt]
    counts = np.bincount(label[~empty], minlength=1)
    prompts, n = int((counts > 0).sum()), int(counts.sum())
    if prompts < 20:
        return not_applicable(NAME, SCOPE, f"{prompts:,} prompts; concentration needs 20", n)
    most = int(counts.argmax())
    share = float(counts[most] / n)
    details = {"prompts": prompts, "rows_of_commonest": int(counts[most]), "share": round(share, 6)}
    told = f"the commonest of {prompts:,} prompts has {int(counts[most]):,} of {n:,} rows ({percent(share)})"
    if share < max(0.10, 5 / prompts):
        return clean(NAME, SCOPE, n, told, details)
    return found(
        votes,
        ~empty & (label == most),
        name=NAME,
        scope=SCOPE,
        severity="warning" if share >= 0.30 else "info",
        message=told,
        remedy="weigh rows by prompt when you train, and read intervals over prompts, not rows",
        n=n,
        details=details,
    )
