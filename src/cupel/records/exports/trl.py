"""TRL's preference table: prompt, chosen, rejected. A table that came from TRL goes out as it came."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cupel.records import text as text_
from cupel.records.exports import common as c
from cupel.records.schema import Votes

NAME = "trl"
DESCRIPTION = "prompt, chosen, rejected as text (TRL's standard preference format)"
HOW = "trl: RewardTrainer, DPOTrainer(train_dataset=load_dataset(...))"


def write(votes: Votes) -> tuple[pa.Table, list[str]]:
    """prompt, chosen, rejected and every other column of the source; turned votes have their sides exchanged."""
    losses: list[str] = []
    kept = c.decided(votes, "a TRL table", losses)
    c.weights(kept, losses)
    if votes.source_format in c.TRL_FAMILY and kept.source is not None:
        return c.exchanged(kept), losses
    c.order_lost(kept, losses)
    chosen, rejected = c.sides(kept)
    columns: dict[str, Any] = {}
    if any(votes.prompt_texts()):
        columns["prompt"] = kept.prompts.take(pa.array(kept.prompt))
    columns["chosen"], columns["rejected"] = kept.responses.take(pa.array(chosen)), kept.responses.take(pa.array(rejected))
    _say_json(kept, columns, losses)
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True), losses


def _say_json(votes: Votes, columns: dict[str, Any], losses: list[str]) -> None:
    chats = {name: sum(text_.messages(text) is not None for text in values.to_pylist()) for name, values in columns.items()}
    found = ", ".join(f"{count:,} in {name}" for name, count in chats.items() if count)
    if found:
        losses.append(f"conversations are written as JSON text ({found}); trl_conversational keeps them as messages")
