"""OpenAI's preference JSONL: input.messages (and tools), preferred_output and non_preferred_output as lists of messages."""

from __future__ import annotations

import json
from typing import Any

from cupel.records import text as text_
from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, objects
from cupel.records.schema import A

NAME = "openai_preference"
DESCRIPTION = "openai_preference (input with messages and tools, preferred_output, non_preferred_output)"
NEEDS = ("input", "preferred_output", "non_preferred_output")
ORDER_KNOWN = False
OWN_PROMPT = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    return 1.0, "column input holds messages, preferred_output and non_preferred_output the two continuations"


def parse(frame: Frame) -> Parsed:
    """The prompt is the list of messages, system prompts and tool calls as they are; `tools` and options become columns of JSON text."""
    out = Comparisons(frame, NEEDS)
    for row, (given, good, bad) in enumerate(zip(*(objects(frame, name) for name in NEEDS), strict=True)):
        messages: Any = given.get("messages") if isinstance(given, dict) else given
        messages = [_complete(m) for m in messages] if isinstance(messages, list) else messages
        if not text_.is_chat(messages):
            out.refuse(row, "not_a_chat", "column input holds no list of messages with role and content")
            continue
        sides = [[_complete(m) for m in side] if isinstance(side, list) else side for side in (good, bad)]
        x, y = (out.text(row, side or None, f"column {name}") for side, name in zip(sides, NEEDS[1:], strict=True))
        if x is None or y is None:
            continue
        rest = {name: value for name, value in given.items() if name != "messages"} if isinstance(given, dict) else {}
        columns: dict[str, Any] = {
            name: json.dumps(rest.pop(name), ensure_ascii=False) for name in ("tools", "parallel_tool_calls") if name in rest
        }
        if rest:
            columns["input_options"] = json.dumps(rest, ensure_ascii=False, sort_keys=True)
        out.add(row, text_.canonical(messages), x, y, A, **columns)
    return out.parsed()


def _complete(message: Any) -> Any:
    """A message that only calls tools may come without content."""
    return {**message, "content": message.get("content")} if isinstance(message, dict) else message
