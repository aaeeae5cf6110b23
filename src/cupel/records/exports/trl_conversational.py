"""TRL's conversational preference table: prompt, chosen and rejected as lists of messages."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "trl_conversational"
DESCRIPTION = "prompt, chosen, rejected as lists of messages (TRL's conversational preference format)"
HOW = "trl: RewardTrainer, DPOTrainer; the tokenizer's chat template is applied"
CHATS = ("prompt", "chosen", "rejected")


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """Messages with system prompts and tool calls as they are; rows without a prompt are left out."""
    kept = c.decided(votes, "a preference table", losses)
    c.weights(kept, losses)
    if votes.source_format == NAME and kept.source is not None:
        return c.exchanged(kept)
    c.order_lost(kept, losses)
    bad = ["" if chat else "they have no prompt (trl_implicit holds them)" for chat in c.prompt_chats(kept)]
    kept, _ = c.leave_out(kept, bad, losses)
    c.plain_prompts(kept, losses)
    chosen, rejected = c.sides(kept)
    columns: dict[str, Any] = {
        "prompt": c.chat_column(c.prompt_chats(kept), "prompt", losses, plan),
        "chosen": c.chat_column(c.response_chats(kept, chosen), "chosen", losses, plan),
        "rejected": c.chat_column(c.response_chats(kept, rejected), "rejected", losses, plan),
    }
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True)
