"""TRL conversational preference table: prompt, chosen and rejected as lists of messages."""

from __future__ import annotations

import numpy as np

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.schema import A
from cupel.records.turns import sides

NAME = "trl_conversational"
DESCRIPTION = "trl_conversational (prompt; chosen, rejected as lists of messages)"
NEEDS = ("prompt", "chosen", "rejected")
ORDER_KNOWN = False


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS) or frame.shape("chosen") != "chat" or frame.shape("rejected") != "chat":
        return 0.0, ""
    return 1.0, "columns chosen and rejected hold lists of messages beside a prompt"


def parse(frame: Frame) -> Parsed:
    """Chosen is the first side; where the lists repeat the prompt, it is cut off."""
    prompt = frame.texts("prompt", prompt=True).to_pylist()
    arrays = sides(frame, frame.chats("chosen"), frame.chats("rejected"), prompt)
    return Parsed(*arrays, np.full(len(frame), A, dtype=np.int8))
