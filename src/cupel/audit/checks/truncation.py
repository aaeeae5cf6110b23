"""Rows that do not fit the context of the model to be trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, not_applicable, percent
from cupel.audit.checks._table import Table
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "truncation"
SCOPE: Scope = "row"
COST = 2


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose prompt plus longer response has more tokens than the context (chat marks not counted).

    Severity: error when the prompt alone fills the context of any row, because nothing of the response is then left to learn from,
    or from 5 % of rows; else warning, because a trainer cuts such rows in silence.
    """
    if context.context_tokens is None:
        return not_applicable(NAME, SCOPE, "no context length was given")
    if context.token_counts is None:
        return not_applicable(NAME, SCOPE, "no tokeniser was given to count tokens with")
    shared = context.shared(votes)
    limit = context.context_tokens
    prompt = _tokens(shared.prompts, context.token_counts)[shared.prompt]
    response = _tokens(shared.responses, context.token_counts)
    longer = np.maximum(response[shared.first], response[shared.second])
    rows = prompt + longer > limit
    n, count = len(votes), int(rows.sum())
    length = prompt + longer
    quantiles = {q: int(np.quantile(length, float(q))) if n else 0 for q in ("0.5", "0.9", "0.99", "1.0")}
    no_room = int((prompt >= limit).sum())
    details = {"context_tokens": limit, "tokens_at_quantile": quantiles, "prompt_fills_context": no_room}
    if not count:
        return clean(NAME, SCOPE, n, f"every row fits {limit:,} tokens", details)
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="error" if no_room or by_share(count, n, warning=0.05) == "warning" else "warning",
        message=(
            f"{count:,} of {n:,} rows ({percent(count / n)}) are longer than {limit:,} tokens; in {no_room:,} the prompt alone fills them"
        ),
        remedy="--drop truncation, or train with a longer context",
        details=details,
    )


def _tokens(texts: Table, counted: Callable[[list[str]], Any]) -> np.ndarray:
    """int64 of texts: tokens, some thousand texts at a time."""
    out = np.zeros(len(texts), dtype=np.int64)
    for start, part in texts.plain_parts():
        out[start : start + len(part)] = counted(part)
    return out
