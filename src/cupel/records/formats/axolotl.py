"""Axolotl's `chat_template.default` for preferences: messages, and one further message each in chosen and rejected."""

from __future__ import annotations

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, mostly, objects
from cupel.records.schema import A

NAME = "axolotl"
DESCRIPTION = "axolotl (messages; chosen, rejected as one message {role, content} each)"
NEEDS = ("messages", "chosen", "rejected")
ORDER_KNOWN = False
OWN_PROMPT = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    if not mostly(frame, "chosen", lambda value: isinstance(value, dict) and "role" in value):
        return 0.0, ""
    return 1.0, "column messages holds the conversation, chosen and rejected one message each"


def parse(frame: Frame) -> Parsed:
    """The prompt is the list of messages."""
    out = Comparisons(frame, NEEDS)
    for row, (messages, good, bad) in enumerate(zip(*(objects(frame, name) for name in NEEDS), strict=True)):
        prompt = out.prompt(row, messages or None, "column messages")
        x, y = out.text(row, good, "column chosen"), out.text(row, bad, "column rejected")
        if prompt is not None and x is not None and y is not None:
            out.add(row, prompt, x, y, A)
    return out.parsed()
