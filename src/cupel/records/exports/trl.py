"""TRL's preference table: prompt, chosen, rejected. A table that came from TRL goes out as it came."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from cupel.records import text as text_
from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "trl"
DESCRIPTION = "prompt, chosen, rejected as text (TRL's standard preference format)"
HOW = "trl: RewardTrainer, DPOTrainer(train_dataset=load_dataset(...))"


def facts(votes: Votes) -> dict[str, bool]:
    """Whether there is any prompt: otherwise there is no such column."""
    return {"prompts": any(text.as_py() for text in votes.prompts[:2])}  # unique texts: at most one of two is empty


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """prompt, chosen, rejected and every other column of the source; turned votes have their sides exchanged."""
    kept = c.decided(votes, "a TRL table", losses)
    c.weights(kept, losses)
    if votes.source_format in c.TRL_FAMILY and kept.source is not None:
        return c.exchanged(kept)
    c.order_lost(kept, losses)
    chosen, rejected = c.sides(kept)
    columns: dict[str, Any] = {}
    if plan.facts["prompts"]:
        columns["prompt"] = kept.prompts.take(pa.array(kept.prompt))
    columns["chosen"], columns["rejected"] = kept.responses.take(pa.array(chosen)), kept.responses.take(pa.array(rejected))
    _say_json(columns, losses)
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True)


def _say_json(columns: dict[str, Any], losses: Losses) -> None:
    chats = {name: sum(text_.messages(text) is not None for text in values.to_pylist()) for name, values in columns.items()}

    def say(counts: Counter[str]) -> list[str]:
        found = ", ".join(f"{count:,} in {name}" for name, count in counts.items() if count)
        return [f"conversations are written as JSON text ({found}); trl_conversational keeps them as messages"] if found else []

    losses.count("conversations", chats, say)
