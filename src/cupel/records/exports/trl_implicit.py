"""TRL's preference table with an implicit prompt: chosen and rejected as whole conversations."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "trl_implicit"
DESCRIPTION = "chosen, rejected as whole conversations that begin alike (TRL's implicit prompt)"
HOW = "trl: RewardTrainer, DPOTrainer; TRL takes the common beginning as the prompt"
CHATS = ("chosen", "rejected")


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """Both conversations in full; a reader finds the prompt again as their common beginning."""
    kept = c.decided(votes, "a preference table", losses)
    c.weights(kept, losses)
    if votes.source_format == NAME and kept.source is not None:
        return c.exchanged(kept)
    c.order_lost(kept, losses)
    c.plain_prompts(kept, losses)
    columns = conversations(kept, losses, plan)
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True)


def conversations(votes: Votes, losses: Losses, plan: Plan) -> dict[str, Any]:
    """chosen and rejected as whole conversations; where two answers of several messages begin alike, that is said."""
    prompts = c.prompt_chats(votes)
    chosen, rejected = (c.response_chats(votes, index) for index in c.sides(votes))
    alike = sum(len(x) > 1 and len(y) > 1 and x[0] == y[0] for x, y in zip(chosen, rejected, strict=True))
    losses.some(
        "alike", alike,
        lambda n: f"in {n:,} rows both answers begin with the same message, which a reader will take for a part of the prompt",
    )  # fmt: skip
    made = {
        "chosen": [[*prompt, *side] for prompt, side in zip(prompts, chosen, strict=True)],
        "rejected": [[*prompt, *side] for prompt, side in zip(prompts, rejected, strict=True)],
    }
    return {name: c.chat_column(values, name, losses, plan) for name, values in made.items()}
