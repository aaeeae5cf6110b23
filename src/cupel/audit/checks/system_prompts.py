"""System prompts on a part of the chats only."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._table import chat_turns, content
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "system_prompts"
SCOPE: Scope = "dataset"
COST = 1


def check(votes: Votes, context: Context) -> Finding:
    """Share of chat rows that begin with a system (or developer) turn, and the number of different ones.

    Finding when the share lies strictly between 1 % and 99 %: with fewer exceptions they are single rows (listed in no report),
    with more the set is a mixture that a model can tell apart by its first turn. Severity always info: a mixture can be meant.
    Rows: the smaller part.
    """
    shared = context.shared(votes)
    chat = shared.prompts.facts.chat
    has = np.zeros(len(chat), dtype=bool)
    said: set[bytes] = set()  # digests: a set of long texts would grow with the file
    for i, text in shared.prompts.came(np.flatnonzero(chat)):
        turn = (chat_turns(text) or [{"role": ""}])[0]
        has[i] = str(turn["role"]).lower() in ("system", "developer")
        if has[i]:
            said.add(blake2b(content(turn).strip().encode("utf-8", "surrogatepass"), digest_size=16).digest())
    rows_chat, rows_has = chat[shared.prompt], has[shared.prompt]
    n, k = int(rows_chat.sum()), int(rows_has.sum())
    if not n:
        return not_applicable(NAME, SCOPE, "no prompt is a chat (a list of turns with roles)")
    different = len(said)
    details = {"with_system": k, "share": round(k / n, 6), "different": different}
    told = f"{k:,} of {n:,} chat prompts ({percent(k / n)}) begin with a system turn, {different:,} different"
    if k / n <= 0.01 or k / n >= 0.99:
        return clean(NAME, SCOPE, n, told, details)
    fewer = rows_has if 2 * k <= n else rows_chat & ~rows_has
    return found(
        votes,
        fewer,
        name=NAME,
        scope=SCOPE,
        severity="info",
        message=told,
        remedy="give all chats a system turn or none, unless the mixture is meant",
        n=n,
        details=details,
    )
