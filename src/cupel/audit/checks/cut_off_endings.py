"""Responses that stop in the middle."""

from __future__ import annotations

import re

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks._stats import clustered_share
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "cut_off_endings"
SCOPE: Scope = "row"
COST = 1

_MIN_CHARS = 80
_WORDS = """
    a an the and or but nor because although though if when while which that of to in on at by for with from into as is are
    was were be their your his her its our my this these und oder aber der die das ein eine mit von et ou mais le la les un
    une de des du y o pero el los las una
"""
_DANGLING = frozenset(_WORDS.split())
_LAST_WORD = re.compile(r"([^\W\d_]+)$")
_TERMINAL = re.compile(r"[.!?…:;。！？」』）؟।۔»\"'”’)\]}>*`_~|=#$%\d/\\]$|[\U0001F000-\U0001FAFF\u2600-\u27BF\uFE0F]$")
_ITEM = re.compile(r"\s*(?:[-*+•|#]|\d{1,3}[.)])")


def ending(text: str) -> int:
    """2 where a response plainly stops in the middle, 1 where its last line of prose lacks a stop, 0 else.

    Plainly: at least 80 characters that end in a comma, a hyphen after a word or a word that cannot end a sentence (and, the, of,
    ...), or a code fence that is never closed. A lacking stop needs 200 characters and a last line of 8 words that is no list item:
    weak evidence, since people leave out stops.

    >>> ending("It follows from the law of large numbers that every sum of independent terms comes close to the")
    2
    """
    text = text.rstrip()
    if len(text) < _MIN_CHARS:
        return 0
    if "```" in text and text.count("```") % 2:
        return 2
    if _TERMINAL.search(text[-1]):
        return 0
    if text.endswith((",", "，", "、")) or (text[-1] == "-" and text[-2].isalpha()):
        return 2
    last = _LAST_WORD.search(text[-40:])
    if last and last.group(1).lower() in _DANGLING and last.group(1).islower():
        return 2
    line = text.rsplit("\n", 1)[-1]
    if len(text) >= 200 and line.count(" ") >= 7 and not _ITEM.match(line) and line[-1].isalpha():
        return 1
    return 0


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a response that plainly stops in the middle, and how often a side that lacks an ending lost to one that
    has it.

    Finding from one such row. Severity: warning from 5 % of rows, where a limit on the length of generation is the likely cause, or
    when the side without an ending wins or loses significantly (95 % interval over prompts outside .40 to .60, from 30 decided
    rows): the cut then decides labels. Else info, since the signs are heuristic.
    """
    shared = context.shared(votes)
    grade = np.zeros(len(shared.responses), dtype=np.int8)
    for i, text in shared.responses.at(np.flatnonzero(shared.responses.facts.looks.unstopped)):
        grade[i] = ending(text)
    cut = grade == 2
    rows = shared.either(cut)
    n, count = len(votes), int(rows.sum())
    one, wins = shared.one_sided(grade > 0)
    voted = one & (wins != 0)
    share = clustered_share(wins[voted] > 0, shared.cluster[voted])
    decides = share.n >= 30 and (share.low > 0.60 or share.high < 0.40)
    details = {
        "cut_off_one_side": int(shared.one_sided(cut)[0].sum()),
        "no_stop_either_side": int(shared.either(grade > 0).sum()),
        "side_without_ending_preferred": share.as_dict(),
    }
    if not count and not decides:
        return clean(NAME, SCOPE, n, "no response plainly stops in the middle", details)
    message = f"{count:,} of {n:,} pairs ({percent(count / n)}) have a response that stops in the middle"
    if share.n:
        message += f"; where one side lacks an ending it was preferred in {percent(share.value)} of {share.n:,} votes"
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="warning" if decides else by_share(count, n, warning=0.05),
        message=message,
        remedy="generate again with a larger limit, or --drop cut_off_endings",
        details=details,
    )
