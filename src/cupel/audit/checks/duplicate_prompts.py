"""Prompts that differ as they came and are equal, or nearly equal, when compared."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "duplicate_prompts"
SCOPE: Scope = "row"
COST = 1


def copies(used: np.ndarray, label: np.ndarray, finer: np.ndarray) -> np.ndarray:
    """bool of texts: used, and sharing its `label` with a used text of another `finer` label.

    >>> copies(np.array([True, True, True]), np.array([0, 0, 1]), np.array([0, 1, 2])).tolist()
    [True, True, False]
    """
    pairs = np.unique(np.stack([label[used], finer[used]], axis=1), axis=0)
    return used & (np.bincount(pairs[:, 0], minlength=int(label.max(initial=-1)) + 1)[label] > 1)


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose prompt also occurs written otherwise (white space, capitals, Unicode composition).

    Severity: warning from 5 % of rows, else info: splits and groups treat such prompts as different, so that a few are noise but
    many make held-out prompts known.
    """
    shared = context.shared(votes)
    used = np.bincount(shared.prompt, minlength=len(shared.prompts)) > 0
    flag = copies(used, shared.prompt_id, np.arange(len(shared.prompts)))
    rows = flag[shared.prompt]
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, f"no two of {int(used.sum()):,} prompts become equal after normalising")
    sets = len(np.unique(shared.prompt_id[flag]))
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.05),
        message=f"{int(flag.sum()):,} prompts ({percent(count / n)} of rows) are {sets:,} prompts written in several ways",
        remedy="write them alike before splitting, or give a group column with --map group=COLUMN",
        details={"prompts": int(flag.sum()), "sets": sets},
    )
