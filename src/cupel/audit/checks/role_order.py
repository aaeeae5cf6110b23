"""Chat prompts whose turns are out of order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, not_applicable
from cupel.audit.checks._table import chat_turns, content
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "role_order"
SCOPE: Scope = "row"
COST = 1

_SYSTEM = {"system", "developer"}
_TOOL = {"tool", "function", "ipython", "tool_result"}
_USER = {"user", "human", "prompter"}
_ASSISTANT = {"assistant", "gpt", "model", "bot"}


def faults(turns: list[dict[str, Any]]) -> list[str]:
    """What is out of order in the turns of a chat prompt, nothing where all is well.

    >>> faults([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    ['two user turns in a row']
    """
    names = [str(t["role"]).lower() for t in turns]
    kinds = [
        "system" if r in _SYSTEM else "tool" if r in _TOOL else "user" if r in _USER else "assistant" if r in _ASSISTANT else "?"
        for r in names
    ]
    out = []
    if "?" in kinds:
        out.append("unknown role")
    if "system" in kinds[1:]:
        out.append("system turn after the first")
    talk = [k for k in kinds if k != "system"]
    for role in ("user", "assistant"):
        if any(a == b == role for a, b in pairwise(talk)):
            out.append(f"two {role} turns in a row")
    if "user" not in kinds:
        out.append("no user turn")
    elif talk[0] == "assistant":
        out.append("assistant speaks first")
    if kinds[-1] not in ("user", "tool", "?"):
        out.append(f"last turn is {kinds[-1]}")
    if any(not content(t).strip() and not t.get("tool_calls") for t in turns):
        out.append("turn without content")
    return out


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose chat prompt has two turns of a role in a row, no user turn, an odd last turn, or an unknown or late
    system role.

    Two user turns in a row usually mean that an assistant turn is missing. Severity: warning from 1 % of chat rows (chat templates
    then raise, or render something else, often enough to notice), else info.
    """
    shared = context.shared(votes)
    chats = shared.prompts.facts.chat
    n = int(chats[shared.prompt].sum())
    if not n:
        return not_applicable(NAME, SCOPE, "no prompt is a chat (a list of turns with roles)")
    wrong = {i: told for i, text in shared.prompts.came(np.flatnonzero(chats)) if (told := faults(chat_turns(text) or []))}
    bad = np.zeros(len(chats), dtype=bool)
    bad[list(wrong)] = True
    rows = bad[shared.prompt]
    if not rows.any():
        return clean(NAME, SCOPE, n, f"the turns of all {n:,} chat prompts are in order")
    kinds: Counter[str] = Counter()
    uses = np.bincount(shared.prompt, minlength=len(chats))
    for i, told in wrong.items():
        for fault in told:
            kinds[fault] += int(uses[i])
    count = int(rows.sum())
    listed = ", ".join(f"{fault} ({k:,})" for fault, k in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.01),
        message=f"{count:,} of {n:,} chat prompts have turns out of order: {listed}",
        remedy="--drop role_order, or mend the conversations where they were exported",
        n=n,
        details={"faults": dict(sorted(kinds.items()))},
    )
