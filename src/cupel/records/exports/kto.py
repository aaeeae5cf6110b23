"""KTO's unpaired rows: prompt, completion, label; each comparison becomes a desirable and an undesirable row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "kto"
DESCRIPTION = "prompt, completion, label (true where preferred); two rows per comparison, tied together by pair_id"
HOW = "trl: KTOTrainer; pair_id is for cupel, which puts the pairs together again"
CHATS = ("prompt", "completion")


def facts(votes: Votes) -> dict[str, bool]:
    """Whether any prompt or response is a conversation: then all are written as messages."""
    return {"chats": c.any_chat(votes.prompts) or c.any_chat(votes.responses)}


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """Two rows per decided vote, the preferred one first; texts, or messages where any prompt or response is a conversation."""
    kept = c.decided(votes, "unpaired rows", losses)
    c.weights(kept, losses)
    c.order_lost(kept, losses)
    n = len(kept)
    losses.some(
        "doubled", n, lambda n: f"{n:,} comparisons became {2 * n:,} rows: a preference for one of two says nothing about either by itself"
    )
    chosen, rejected = c.sides(kept)
    losses.some("repeats", 0, _say_repeats)  # `of_whole` counts them
    both = np.stack([chosen, rejected], axis=1).reshape(-1)
    rows = np.repeat(np.arange(n), 2)
    columns: dict[str, Any] = {}
    if plan.facts["chats"]:
        bad = ["" if chat else "they have no prompt, which a table of messages needs" for chat in c.prompt_chats(kept)]
        kept, keep = c.leave_out(kept, bad, losses)
        rows = np.repeat(np.arange(len(kept)), 2)
        both = both.reshape(-1, 2)[keep].reshape(-1)
        c.plain_prompts(kept, losses)
        prompts = c.prompt_chats(kept)
        columns["prompt"] = c.chat_column([prompts[i] for i in rows.tolist()], "prompt", losses, plan)
        columns["completion"] = c.chat_column(c.response_chats(kept, both), "completion", losses, plan)
    else:
        columns["prompt"] = kept.prompts.take(pa.array(kept.prompt[rows]))
        columns["completion"] = kept.responses.take(pa.array(both))
    columns["label"] = pa.array(np.tile([True, False], len(kept)))
    columns["pair_id"] = kept.ids.cast(pa.large_string()).take(pa.array(rows))
    doubled = kept.take(rows)
    if kept.models:
        by_side: dict[str, Any] = {}
        c.models_by_side(kept, by_side)
        stacked = pa.concat_arrays([by_side["chosen_model"], by_side["rejected_model"]])
        columns["model"] = stacked.take(pa.array(rows + np.tile([0, len(kept)], len(kept))))
    given = c.columns_of(kept).get("id")
    return c.with_extras(doubled, columns, by_outcome=True, only=lambda name: name != given)


def of_whole(votes: Votes, losses: Losses) -> None:
    """Count the (prompt, response) that occur on both sides: KTO is told both. No part alone can tell."""
    kept = votes.with_(source=None).take(votes.sign != 0)
    chosen, rejected = c.sides(kept)
    size = max(len(kept.responses), 1)
    at = kept.prompt.astype(np.int64) * size
    losses.some("repeats", len(np.intersect1d(at + chosen, at + rejected)), _say_repeats)


def _say_repeats(n: int) -> str:
    return f"{n:,} completions won one comparison and lost another, and are both desirable and undesirable"
