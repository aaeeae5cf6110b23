"""Texts that a report should fold: violence, self-harm, sex, drugs, abuse."""

from __future__ import annotations

import re

import numpy as np

from cupel.audit.checks._build import clean, found, percent
from cupel.audit.checks._bytes import normalise
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "harmful_text"
SCOPE: Scope = "row"
COST = 1

#: stems that find a text, and the whole pattern that flags it
_STEMS = (
    "suicid", "kill", "murder", "rape", "raping", "rapist", "molest", "pedophil", "paedophil", "porn", "bomb", "explosive", "meth",
    "heroin", "cocaine", "terroris", "nazi", "genocid", "fuck", "bitch", "cunt", "whore", "slut", "self-harm", "tortur", "behead",
    "incest",
)  # fmt: skip
_PATTERN = re.compile(
    r"\b(?:suicid\w*|kill (?:yourself|myself|him|her|them|someone|people|my|all)|murder(?:ing|ed|s)?|rap(?:e|ed"
    r"|es|ing|ist|ists)|molest\w*"
    r"|pa?edophil\w*|porn\w*|(?:pipe |car |build a |make a |making a )bombs?|bombing|explosives"
    r"|(?:crystal )?meth(?:amphetamine)?|heroin"
    r"|cocaine|terroris[tm]\w*|(?:neo-?)?nazis?|genocid\w*|(?:mother)?fuck\w*|bitch(?:es)?|cunts?|whores?|sluts?|self-harm\w*"
    r"|tortur(?:e|ed|ing)|behead\w*|incest\w*)\b"
)


def flagged(text: str) -> bool:
    """Does a (normalised) text contain one of the listed words?

    >>> flagged("he was murdered"), flagged("a skilled method")
    (True, False)
    """
    return any(stem in text for stem in _STEMS) and _PATTERN.search(text) is not None


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a listed English word in the prompt or a response.

    Severity always info: the words are a courtesy to the reader of the report, which folds these texts; they say nothing about
    labels (news and history contain them too), and no row should be dropped for them.
    """
    shared = context.shared(votes)
    prompt, response = (np.zeros(len(texts), dtype=bool) for texts in (shared.prompts, shared.responses))
    for flag, texts in ((prompt, shared.prompts), (response, shared.responses)):
        for i, text in texts.at(np.flatnonzero(texts.facts.harmful)):
            flag[i] = flagged(normalise(text))
    rows = prompt[shared.prompt] | shared.either(response)
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, "no text contains a listed harmful word")
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="info",
        message=(
            f"{count:,} of {n:,} pairs ({percent(count / n)}) contain a word on the list of harmful ones; the report folds their texts"
        ),
        remedy="read them with care; nothing to repair",
        details={"prompts": int(prompt.sum()), "responses": int(response.sum())},
    )
