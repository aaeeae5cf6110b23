"""Votes: two responses in the order shown and one annotator's vote per row; the prompt may be missing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.labels import outcomes

NAME = "votes"
DESCRIPTION = "votes (prompt, response_a, response_b, vote; annotator and model_a, model_b if known)"
NEEDS = ("response_a", "response_b", "vote")
ORDER_KNOWN = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS):
        return 0.0, ""
    sides = f"columns {frame.names['response_a']} and {frame.names['response_b']} hold two sides, {frame.names['vote']} the vote"
    return (1.0, sides) if frame.has("prompt") else (0.9, f"{sides}; there is no prompt")


def parse(frame: Frame) -> Parsed:
    """Side a is the first side, taken to be the one shown first."""
    if frame.has("prompt"):
        prompt = frame.texts("prompt", prompt=True)
    else:
        prompt = pa.array([""], pa.large_string()).take(pa.array(np.zeros(len(frame), dtype=np.int32)))
    return Parsed(prompt, frame.texts("response_a"), frame.texts("response_b"), outcomes(frame))
