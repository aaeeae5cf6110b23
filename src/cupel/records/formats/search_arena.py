"""Search Arena battles: two conversations with search-augmented models and the vote, if any (arXiv:2506.05334)."""

from __future__ import annotations

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import NO_COMPARISON
from cupel.records.labels import outcomes
from cupel.records.turns import sides

NAME = "search_arena"
DESCRIPTION = "search_arena (messages_a, messages_b, winner; model_a, model_b, system_a_metadata, system_b_metadata)"
NEEDS = ("messages_a", "messages_b", "vote")
ORDER_KNOWN = True
OWN_PROMPT = True


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has("vote") or not {"messages_a", "messages_b"} <= set(frame.columns):
        return 0.0, ""
    found = [name for name in ("system_a_metadata", "conv_metadata") if name in frame.columns]
    extra = f"; search traces stay in {', '.join(found)}" if found else ""
    return 1.0, f"columns messages_a and messages_b hold two conversations, {frame.names['vote']} the vote{extra}"


def parse(frame: Frame) -> Parsed:
    """As other battles; a conversation without a vote (about half of them) holds no comparison."""
    frame.names |= {"conversation_a": "messages_a", "conversation_b": "messages_b"}
    votes = frame.column("vote").to_pylist()
    frame.mark([row for row, vote in enumerate(votes) if vote in (None, "")], NO_COMPARISON, "the conversation was not voted on")
    return Parsed(*sides(frame, frame.chats("conversation_a"), frame.chats("conversation_b")), outcomes(frame))
