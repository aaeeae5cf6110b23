"""Prompts that are nearly the same."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.checks.duplicate_prompts import copies
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "near_duplicate_prompts"
SCOPE: Scope = "row"
COST = 2


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose prompt shares at least .8 of its 3-word runs (exact Jaccard similarity) with a different prompt.

    .8 is where two prompts of 30 words differ in two or three neighbouring words. Severity: warning from 5 % of rows, else info:
    near-copies count as independent in every interval although they are not.
    """
    shared = context.shared(votes)
    used = np.bincount(shared.prompt, minlength=len(shared.prompts)) > 0
    flag = copies(used, shared.prompt_cluster, shared.prompt_id)
    rows = flag[shared.prompt]
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, f"no two of {int(used.sum()):,} prompts are nearly the same")
    sizes = np.unique(shared.prompt_cluster[flag], return_counts=True)[1]
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.05),
        message=(
            f"{int(flag.sum()):,} prompts ({percent(count / n)} of rows) form {len(sizes):,} sets of "
            f"near-copies (the largest has {int(sizes.max()):,})"
        ),
        remedy="keep each set on one side of the split with --map group=COLUMN",
        details={"prompts": int(flag.sum()), "sets": len(sizes), "largest": int(sizes.max())},
    )
