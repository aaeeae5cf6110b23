"""Prompts and responses of the training split that come again, or nearly, in the held-out split."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, not_applicable, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import HELDOUT, TRAIN, Votes

NAME = "split_leakage"
SCOPE: Scope = "row"
COST = 2

_MIN_WORDS = 10


def check(votes: Votes, context: Context) -> Finding:
    """Number of held-out rows with a prompt, or a response of 10 words or more, that training rows have too (equal or Jaccard .8).

    Rows: the *training* rows that leak, since held-out rows stay frozen. Severity: error from 1 % of held-out rows (accuracy is
    measured to about a point, so that a leak of that size can be the whole difference between two models), else warning.
    """
    train, heldout = votes.split == TRAIN, votes.split == HELDOUT
    n = int(heldout.sum())
    if not n or not train.any():
        return not_applicable(NAME, SCOPE, "the rows are not split into training and held-out parts", n)
    shared = context.shared(votes)
    named = shared.asked[shared.prompt]
    prompt = np.where(named, shared.prompt_cluster[shared.prompt], -1)
    long = shared.words >= _MIN_WORDS
    sides = [np.where(long[s], shared.response_cluster[s], -1) for s in (shared.first, shared.second)]

    def leaks(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        by_prompt = here & named & np.isin(prompt, prompt[there & named])
        pool = np.unique(np.concatenate([s[there] for s in sides]))
        pool = pool[pool >= 0]
        return by_prompt, here & (np.isin(sides[0], pool) | np.isin(sides[1], pool))

    by_prompt, by_response = leaks(heldout, train)
    count = int((by_prompt | by_response).sum())
    details = {"heldout_rows_by_prompt": int(by_prompt.sum()), "heldout_rows_by_response": int(by_response.sum())}
    if not count:
        return clean(NAME, SCOPE, n, f"no prompt or response of {n:,} held-out rows occurs in the training rows", details)
    back = leaks(train, heldout)
    rows = back[0] | back[1]
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="error" if by_share(count, n, warning=0.01) == "warning" else "warning",
        message=(
            f"{count:,} of {n:,} held-out rows ({percent(count / n)}) have a prompt ({int(by_prompt.sum()):,}) or a response "
            f"({int(by_response.sum()):,}) that training rows have too, or nearly; {int(rows.sum()):,} training rows are concerned"
        ),
        remedy="--drop split_leakage (drops the training rows), or give a group column with --map group=COLUMN",
        count=count,
        n=n,
        details=details,
    )
