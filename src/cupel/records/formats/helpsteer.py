"""HelpSteer and HelpSteer2: one response per row with five attributes from 0 to 4 (Wang et al. 2024, arXiv:2406.08673)."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.grouping import grouped
from cupel.records.formats.unfolding import number, objects

NAME = "helpsteer"
DESCRIPTION = "helpsteer (prompt, response, helpfulness, correctness, coherence, complexity, verbosity; one response per row)"
NEEDS = ("prompt", "response", "helpfulness")
ORDER_KNOWN = False
SPANS_ROWS = True
LOSSES = (
    "helpfulness decides (equal is a tie), the other attributes are kept as columns and decide nothing, and the attributes are means of "
    "several people, whose votes are not in the file"
)

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has("prompt") or "response" not in frame.columns or "helpfulness" not in frame.columns:
        return 0.0, ""
    there = [name for name in ATTRIBUTES if name in frame.columns]
    return 1.0, f"column response holds one response per row, {', '.join(there)} its attributes; responses to one prompt are compared"


def parse(frame: Frame) -> Parsed:
    """Pairs of responses to the same prompt; the more helpful one is preferred."""
    there = [name for name in ATTRIBUTES if name in frame.columns]
    values = {name: objects(frame, name) for name in there}

    def judge(row: int) -> tuple[float | None, dict[str, Any]]:
        return number(values["helpfulness"][row]), {name: number(values[name][row]) for name in there}

    return grouped(frame, "response", judge, missing="column helpfulness holds no number", loss=LOSSES, consumed=tuple(there))
