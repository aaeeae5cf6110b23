"""Pairs in which one side refuses and the other answers."""

from __future__ import annotations

import re

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks._bytes import normalise
from cupel.audit.checks._stats import clustered_share
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "one_sided_refusals"
SCOPE: Scope = "row"
COST = 1

_REFUSAL = re.compile(
    r"\bi(?:'m| am)(?: very| so| really)? (?:sorry|afraid),? (?:but )?(?:i |that i )?(?:can(?:no|')t|won't"
    r"|am not able|am unable|'m not able|'m unable)"
    r"|\bi (?:can(?:no|')t|can not|won't|will not|am not able to|am unable to|must decline to|refuse to|don't feel comfortable) "
    r"(?:\w+ly )?(?:help|assist|provide|comply|fulfil|fulfill|support|answer|do that|discuss|create|generate"
    r"|write|share|give|engage|participate|condone|recommend)"
    r"|\bi(?:'m not| am not|'m un| am un)(?: )?(?:able|comfortable|willing)(?: to)? "
    r"(?:help|assist|provide|comply|answer|discuss|create|generate|write|share|give|doing|helping|providing|answering)"
    r"|\bas an ai(?: language)?(?: model| assistant)?,? i (?:can(?:no|')t|can not|do not|don't|am not|am unable|must)"
    r"|\bi must (?:respectfully )?(?:decline|refuse)\b"
    r"|\b(?:against|violates?) my (?:guidelines|programming|principles|policy|policies)"
)
_LOOK = 300


def refuses(text: str) -> bool:
    """Does a (normalised) response refuse, judged by the English set phrases in its first 300 characters?

    >>> refuses("i'm sorry, but i can't help with that."), refuses("you can help by sorting the list.")
    (True, False)
    """
    return _REFUSAL.search(text[:_LOOK].replace("’", "'")) is not None


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a refusal on exactly one side, and how often the refusal was preferred.

    Severity: warning from 5 % of rows (a convention), because "refuse or answer" is then a part of what a reward model learns,
    whichever way it points; else info.
    """
    shared = context.shared(votes)
    flag = np.zeros(len(shared.responses), dtype=bool)
    for i, text in shared.responses.at(np.flatnonzero(shared.responses.facts.refuses)):
        flag[i] = refuses(normalise(text))
    one, wins = shared.one_sided(flag)
    n, count = len(votes), int(one.sum())
    both = int((flag[shared.first] & flag[shared.second]).sum())
    if not count:
        return clean(NAME, SCOPE, n, "no pair has a refusal on one side only", {"both_sides": both})
    voted = one & (wins != 0)
    share = clustered_share(wins[voted] > 0, shared.cluster[voted])
    preferred = f"; the refusal was preferred in {percent(share.value)} of {share.n:,} decided ones" if share.n else ""
    return found(
        votes,
        one,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.05),
        message=f"{count:,} of {n:,} pairs ({percent(count / n)}) have a refusal on one side only{preferred}",
        remedy="cupel review OUT (decide whether refusing was right, then keep or --drop one_sided_refusals)",
        details={"both_sides": both, "refusal_preferred": share.as_dict()},
    )
