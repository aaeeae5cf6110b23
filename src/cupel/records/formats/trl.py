"""TRL preference table: prompt, chosen and rejected as text."""

from __future__ import annotations

import numpy as np

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.schema import A

NAME = "trl"
DESCRIPTION = "trl (prompt, chosen, rejected as text)"
NEEDS = ("prompt", "chosen", "rejected")
ORDER_KNOWN = False


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS):
        return 0.0, ""
    return 0.8, "columns prompt, chosen and rejected hold text"


def parse(frame: Frame) -> Parsed:
    """Chosen is the first side, and the vote is for it: the order in which the sides were shown is not in such a table."""
    return Parsed(frame.texts("prompt", prompt=True), frame.texts("chosen"), frame.texts("rejected"), np.full(len(frame), A, dtype=np.int8))
