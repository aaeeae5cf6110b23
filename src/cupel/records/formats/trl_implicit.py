"""TRL preference table with an implicit prompt: chosen and rejected are whole conversations (or texts) that begin alike."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.schema import A
from cupel.records.turns import sides

NAME = "trl_implicit"
DESCRIPTION = "trl_implicit (chosen, rejected as whole conversations)"
NEEDS = ("chosen", "rejected")
ORDER_KNOWN = False
OWN_PROMPT = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS) or frame.has("prompt") or frame.shape("chosen") != "chat" or frame.shape("rejected") != "chat":
        return 0.0, ""
    return 1.0, "columns chosen and rejected hold whole conversations; the prompt is their common beginning"


def parse(frame: Frame) -> Parsed:
    """The prompt is the common beginning: whole messages of conversations, whole words of plain texts."""
    outcome = np.full(len(frame), A, dtype=np.int8)
    if frame.shape("chosen") == "chat":
        return Parsed(*sides(frame, frame.chats("chosen"), frame.chats("rejected")), outcome)
    prompts, firsts, seconds = [], [], []
    for row, (a, b) in enumerate(zip(frame.texts("chosen").to_pylist(), frame.texts("rejected").to_pylist(), strict=True)):
        cut = 0
        if a != b:
            cut = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            while cut and not a[cut - 1].isspace():
                cut -= 1
            if not a[cut:].strip() or not b[cut:].strip():
                frame.bad.setdefault(row, ("empty_side", "one side is the beginning of the other: nothing is left after the common prompt"))
        prompts.append(a[:cut])
        firsts.append(a[cut:])
        seconds.append(b[cut:])
    prompt, first, second = (pa.array(values, pa.large_string()) for values in (prompts, firsts, seconds))
    return Parsed(prompt, first, second, outcome)
