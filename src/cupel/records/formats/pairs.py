"""Pairs without a prompt: chosen and rejected as plain texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.schema import A

NAME = "pairs"
DESCRIPTION = "pairs (chosen, rejected as text, no prompt)"
NEEDS = ("chosen", "rejected")
ORDER_KNOWN = False


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if frame.has("prompt") or not frame.has(*NEEDS):
        return 0.0, ""
    return (
        0.3,
        "columns chosen and rejected hold plain text and there is no prompt (--format trl_implicit would cut a common beginning off)",
    )


def parse(frame: Frame) -> Parsed:
    """Every prompt is empty."""
    prompt = pa.array([""], pa.large_string()).take(pa.array(np.zeros(len(frame), dtype=np.int32)))
    return Parsed(prompt, frame.texts("chosen"), frame.texts("rejected"), np.full(len(frame), A, dtype=np.int8))
