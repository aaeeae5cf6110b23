"""Responses that contain the marks of a chat template."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "leaked_special_tokens"
SCOPE: Scope = "row"
COST = 1

_HINTS = (
    "<|",
    "<｜",
    "s>",
    "INST]",
    "### ",
    "\nHuman:",
    "\nAssistant:",
    "<start_of_turn>",
    "<end_of_turn>",
    "<<SYS>>",
    "<unk>",
    "<pad>",
)
_MARKS = re.compile(
    r"<\|[a-zA-Z_][a-zA-Z0-9_ ]{0,40}\|>|<｜[^｜<>\n]{1,40}｜>|\[/?INST\]|<<SYS>>|<</SYS>>|<start_of_turn>"
    r"|<end_of_turn>|<unk>|<pad>"
    r"|\n\n(?:Human|Assistant):|(?:^|\n)### (?:Assistant|Human|User|Instruction|Response):|\A\s*<s>|</s>\s*\Z"
)


def marks(text: str) -> list[str]:
    """The marks of chat templates in a response; `<s>` only at its start and `</s>` only at its end, since HTML has them too.

    >>> marks("Yes.<|im_end|>"), marks("<p><s>old</s> new</p>")
    (['<|im_end|>'], [])
    """
    if not any(hint in text for hint in _HINTS):
        return []
    found_marks = [m.group().strip() for m in _MARKS.finditer(text)]
    if found_marks == ["</s>"] and "<s>" in text:
        return []
    return found_marks


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a mark of a chat template in a response (`<|im_end|>`, `[INST]`, `</s>`, a line "### Assistant:", ...).

    Severity: error from 1 % of rows: a trainer tokenises such text into control tokens, and the conversation ends (or begins) in
    the middle of an answer; below it warning, because a single row is enough to teach nothing but is never meant.
    """
    shared = context.shared(votes)
    leaked = np.flatnonzero(shared.responses.facts.looks.leaked)
    per_text = {i: told for i, text in shared.responses.at(leaked) if (told := marks(text))}
    flag = np.zeros(len(shared.responses), dtype=bool)
    flag[list(per_text)] = True
    rows = shared.either(flag)
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, "no response contains marks of a chat template")
    kinds = Counter(mark for m in per_text.values() for mark in set(m))
    commonest = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:10]
    one, wins = shared.one_sided(flag)
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="error" if by_share(count, n, warning=0.01) == "warning" else "warning",
        message=(
            f"{count:,} of {n:,} pairs ({percent(count / n)}) have marks of a chat template in a response "
            f"({int(one.sum()):,} on one side only; first: {commonest[0][0]!r})"
        ),
        remedy="--drop leaked_special_tokens, or strip the marks where the responses were exported",
        details={"marks": dict(commonest), "one_side_only": int(one.sum()), "marked_side_preferred": int((wins[one] > 0).sum())},
    )
