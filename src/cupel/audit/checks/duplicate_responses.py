"""Responses that answer several prompts."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import Votes

NAME = "duplicate_responses"
SCOPE: Scope = "row"
COST = 1

_MIN_WORDS = 10
_PROMPTS = 3


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a response of 10 words or more that is given, equal after normalising, to at least 3 different prompts.

    Two prompts may share an answer (and do, in debates with two sides); a text of ten words that answers three is a template, an
    error message or a shifted join. Severity: warning from 5 % of rows, else info.
    """
    shared = context.shared(votes)
    side = np.concatenate([shared.response_id[shared.first], shared.response_id[shared.second]])
    long = np.concatenate([shared.words[shared.first], shared.words[shared.second]]) >= _MIN_WORDS
    prompt = np.concatenate([shared.prompt_id[shared.prompt]] * 2)
    side_long, met = side[long], dense(side[long], prompt[long])
    of = np.zeros(int(met.max(initial=-1)) + 1, dtype=np.int64)
    of[met] = side_long  # the response of each (response, prompt)
    n_prompts = np.bincount(of, minlength=int(side.max(initial=-1)) + 1)
    flag = (n_prompts >= _PROMPTS)[shared.response_id] & (shared.words >= _MIN_WORDS)
    rows = shared.either(flag)
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, f"no response of {_MIN_WORDS} words answers {_PROMPTS} prompts")
    texts = int((n_prompts >= _PROMPTS).sum())
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.05),
        message=(
            f"{texts:,} responses answer {_PROMPTS} or more different prompts (one of them {int(n_prompts.max()):,}); "
            f"{count:,} of {n:,} rows ({percent(count / n)}) contain one"
        ),
        remedy="cupel review OUT, or --drop duplicate_responses if they are templates",
        details={"responses": texts, "prompts_of_commonest": int(n_prompts.max())},
    )
