"""Preferences in ShareGPT form: conversations, chosen and rejected as {from, value}. WildFeedback and LLaMA-Factory write it.

WildFeedback: Shi et al. 2024, arXiv:2408.15549. LLaMA-Factory: its data README ("ranking": true, "formatting": "sharegpt").
"""

from __future__ import annotations

import json
from typing import Any

from cupel.records import text as text_
from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, dicts, mostly, objects
from cupel.records.schema import A

NAME = "sharegpt"
DESCRIPTION = "sharegpt (conversations, chosen, rejected as {from, value}; system and tools if any): WildFeedback, LLaMA-Factory"
NEEDS = ("conversations", "chosen", "rejected")
ORDER_KNOWN = False
OWN_PROMPT = True

#: names of speakers -> roles; any other name is its own role
ROLES = {"human": "user", "gpt": "assistant", "observation": "tool"}


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    if not mostly(frame, "conversations", lambda value: any("from" in turn for turn in dicts(value))):
        return 0.0, ""
    return 1.0, "column conversations holds turns of {from, value}, chosen and rejected one further turn each"


def parse(frame: Frame) -> Parsed:
    """The prompt is the system prompt and the conversation, as a chat list; a function call becomes a message with tool_calls."""
    consumed = [*NEEDS, *(["system"] if "system" in frame.columns else [])]
    out = Comparisons(frame, consumed)
    system = objects(frame, "system") if "system" in frame.columns else [None] * len(frame)
    for row, (turns, good, bad) in enumerate(zip(*(objects(frame, name) for name in NEEDS), strict=True)):
        start = [{"role": "system", "content": system[row]}] if isinstance(system[row], str) and system[row] else []
        chat = _chat(turns)
        sides = [_chat(side if isinstance(side, list) else [side]) if side is not None else [] for side in (good, bad)]
        if chat is None or any(side is None for side in sides):
            out.refuse(row, "not_a_chat", "conversations, chosen and rejected must hold turns with from and value")
            continue
        x, y = (out.text(row, side or None, f"column {name}") for side, name in zip(sides, ("chosen", "rejected"), strict=True))
        if x is not None and y is not None:
            out.add(row, text_.canonical([*start, *chat]) if start or chat else "", x, y, A)
    return out.parsed()


def _chat(turns: Any) -> list[dict[str, Any]] | None:
    if not isinstance(turns, list):
        return None
    found = []
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("from"), str) or not isinstance(turn.get("value"), str):
            return None
        found.append(_message(turn["from"], turn["value"]))
    return found


def _message(name: str, value: str) -> dict[str, Any]:
    """One turn as a message; a function call is kept as a tool call where its text is one."""
    if name != "function_call":
        return {"role": ROLES.get(name, name), "content": value}
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError):
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        made = [{"type": "function", "function": call} for call in calls]
        return {"role": "assistant", "content": None, "tool_calls": made}
    return {"role": "function_call", "content": value}
