"""A table of votes: prompt, response_a, response_b, vote; one row per vote. It holds ties and everything else that cupel reads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import OUTCOMES, A, Votes

NAME = "votes"
DESCRIPTION = "prompt, response_a, response_b, vote, annotator; one row per vote, ties included"
HOW = "cupel reads it back"


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """One row per vote, with every other column of the source."""
    c.weights(votes, losses)
    if not votes.order_known:
        losses.count("order", {"turned": int((votes.outcome != A).sum())}, _say_order)
    words = pa.array(list(OUTCOMES), pa.large_string())
    columns: dict[str, Any] = {
        "id": votes.ids.cast(pa.large_string()),
        "prompt": votes.prompts.take(pa.array(votes.prompt)),
        "response_a": votes.responses.take(pa.array(votes.first)),
        "response_b": votes.responses.take(pa.array(votes.second)),
        "vote": words.take(pa.array(votes.outcome)),
    }
    if votes.annotators:
        columns["annotator"] = c.names(votes.annotators, votes.annotator)
    if votes.models:
        columns["model_a"], columns["model_b"] = c.names(votes.models, votes.model_first), c.names(votes.models, votes.model_second)
    if (rated := c.columns_of(votes)) and "chosen" in rated.get("rating_first", "") and votes.source is not None:
        # beside response_a and response_b nobody could tell whether such a name means the sides or the outcome
        columns |= {"rating_a": votes.source[rated["rating_first"]], "rating_b": votes.source[rated["rating_second"]]}
    return c.with_extras(votes, columns)


def _say_order(counts: Counter[str]) -> list[str]:
    what = "the side that the source names first" if counts["turned"] else "the chosen text"
    return [f"the order in which the sides were shown is not in the source: response_a is {what}; position says nothing"]
