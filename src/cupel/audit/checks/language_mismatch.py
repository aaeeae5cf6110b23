"""Responses in another script or language than their prompt."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks._bytes import normalise
from cupel.audit.checks._language import ASKS, SCRIPTS, STOPWORDS
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "language_mismatch"
SCOPE: Scope = "row"
COST = 1


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a response in another script, or (Latin script, seven languages) another language, than the prompt.

    Judged on the first 600 characters, from 20 letters or 4 stop-words; prompts that speak of a language or of translation are
    left out, and so is what cannot be told. Severity: warning from 1 % of rows, else info: the signs are heuristic and single rows
    may be meant.
    """
    shared = context.shared(votes)
    asked, told = shared.prompts.facts, shared.responses.facts
    script_p, script_r, language_p, language_r = asked.script, told.script, asked.language, told.language
    listed = shared.asked.copy()
    for i, text in shared.prompts.at(np.flatnonzero(asked.asks)):
        listed[i] = ASKS.search(normalise(text)) is None
    names = ("", *STOPWORDS)

    def differs(side: np.ndarray) -> np.ndarray:
        p, r = script_p[shared.prompt], script_r[side]
        script = (p > 0) & (r > 0) & (p != r)
        a, b = language_p[shared.prompt], language_r[side]
        return listed[shared.prompt] & (script | ((p == 1) & (r == 1) & (a > 0) & (b > 0) & (a != b)))

    first, second = differs(shared.first), differs(shared.second)
    rows = first | second
    n, count = len(votes), int(rows.sum())
    known = listed & ((script_p > 1) | (language_p > 0))
    details = {"rows_with_known_prompt_language": int(known[shared.prompt].sum())}
    if not count:
        return clean(NAME, SCOPE, n, "no response is in another script or language than its prompt", details)
    one = first != second
    wins = np.where(first, votes.sign, -votes.sign)[one]
    side = np.where(first, shared.first, shared.second)[rows]
    asked = shared.prompt[rows]
    codes = np.stack([script_p[asked], script_r[side], language_p[asked], language_r[side]], axis=1)
    kinds: dict[str, int] = {}
    for (p, r, a, b), times in zip(*(x.tolist() for x in np.unique(codes, axis=0, return_counts=True)), strict=True):
        kind = f"{SCRIPTS[p]} -> {SCRIPTS[r]}" if p != r else f"{names[a]} -> {names[b]}"
        kinds[kind] = kinds.get(kind, 0) + times
    commonest = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:10]
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.01),
        message=(
            f"{count:,} of {n:,} pairs ({percent(count / n)}) have a response in another script or language than the prompt "
            f"({int(one.sum()):,} on one side only; most often {commonest[0][0]})"
        ),
        remedy="cupel review OUT, or --drop language_mismatch",
        details={
            **details,
            "kinds": dict(commonest),
            "one_side_only": int(one.sum()),
            "other_language_preferred": int((wins > 0).sum()),
        },
    )
