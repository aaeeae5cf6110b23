"""Arena battles: two whole conversations with two models and the winner (Chiang et al. 2024, arXiv:2403.04132)."""

from __future__ import annotations

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.labels import outcomes
from cupel.records.turns import sides

NAME = "arena"
DESCRIPTION = "arena (conversation_a, conversation_b, winner; model_a, model_b, judge if known)"
NEEDS = ("conversation_a", "conversation_b", "vote")
ORDER_KNOWN = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS):
        return 0.0, ""
    return 1.0, f"columns conversation_a and conversation_b hold two conversations, {frame.names['vote']} the winner"


def parse(frame: Frame) -> Parsed:
    """The prompt is the turns both conversations share (the first question); a longer rest is kept as a chat list."""
    return Parsed(*sides(frame, frame.chats("conversation_a"), frame.chats("conversation_b")), outcomes(frame))
