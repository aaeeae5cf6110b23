"""KTO's unpaired rows: prompt, completion, label; each comparison becomes a desirable and an undesirable row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cupel.records import text as text_
from cupel.records.exports import common as c
from cupel.records.schema import Votes

NAME = "kto"
DESCRIPTION = "prompt, completion, label (true where preferred); two rows per comparison, tied together by pair_id"
HOW = "trl: KTOTrainer; pair_id is for cupel, which puts the pairs together again"
CHATS = ("prompt", "completion")


def write(votes: Votes) -> tuple[pa.Table, list[str]]:
    """Two rows per decided vote, the preferred one first; texts, or messages where any prompt or response is a conversation."""
    losses: list[str] = []
    kept = c.decided(votes, "unpaired rows", losses)
    c.weights(kept, losses)
    c.order_lost(kept, losses)
    n = len(kept)
    losses.append(f"{n:,} comparisons became {2 * n:,} rows: a preference for one of two says nothing about either by itself")
    chosen, rejected = c.sides(kept)
    _repeats(kept, chosen, rejected, losses)
    both = np.stack([chosen, rejected], axis=1).reshape(-1)
    rows = np.repeat(np.arange(n), 2)
    chats = any(text_.messages(text) is not None for text in [*kept.prompt_texts(), *kept.response_texts()])
    columns: dict[str, Any] = {}
    if chats:
        bad = ["" if chat else "they have no prompt, which a table of messages needs" for chat in c.prompt_chats(kept)]
        kept, keep = c.leave_out(kept, bad, losses)
        rows = np.repeat(np.arange(len(kept)), 2)
        both = both.reshape(-1, 2)[keep].reshape(-1)
        c.plain_prompts(kept, losses)
        prompts = c.prompt_chats(kept)
        columns["prompt"] = c.chat_column([prompts[i] for i in rows.tolist()], "prompt", losses)
        columns["completion"] = c.chat_column(c.response_chats(kept, both), "completion", losses)
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
    return c.with_extras(doubled, columns, by_outcome=True, only=lambda name: name != given), losses


def _repeats(votes: Votes, chosen: np.ndarray, rejected: np.ndarray, losses: list[str]) -> None:
    """Say how many (prompt, response) occur on both sides: KTO is told both."""
    size = max(len(votes.responses), 1)
    at = votes.prompt.astype(np.int64) * size
    both = np.intersect1d(at + chosen, at + rejected)
    if len(both):
        losses.append(f"{len(both):,} completions won one comparison and lost another, and are both desirable and undesirable")
