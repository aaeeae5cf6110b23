"""OpenRLHF's preference data: chosen and rejected as whole conversations, and a margin where a strength is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.exports.trl_implicit import conversations
from cupel.records.schema import Votes

NAME = "openrlhf"
DESCRIPTION = "chosen, rejected as whole conversations, margin where a strength is known (OpenRLHF)"
HOW = "openrlhf: train_rm, train_dpo --chosen_key chosen --rejected_key rejected --apply_chat_template"
CHATS = ("chosen", "rejected")


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """Without a prompt key: OpenRLHF's DPO takes all but the last message of `chosen` as the prompt, which must hold for every row."""
    kept = c.decided(votes, "OpenRLHF", losses)
    c.weights(kept, losses)
    c.order_lost(kept, losses)
    several = [max(len(x), len(y)) for x, y in zip(*(c.response_chats(kept, index) for index in c.sides(kept)), strict=True)]
    bad = ["an answer is several messages, and OpenRLHF takes all but the last for the prompt" if n > 1 else "" for n in several]
    kept, _ = c.leave_out(kept, bad, losses)
    c.plain_prompts(kept, losses)
    columns = conversations(kept, losses, plan)
    known = np.isfinite(kept.strength)
    if plan.flag("margin", bool(known.any())):
        columns["margin"] = pa.array(kept.strength, mask=~known)
    losses.some(
        "margin", int(known.sum()),
        lambda n: f"margin is the stated strength of {n:,} rows, in the source's own unit; OpenRLHF takes null as 0",
    )  # fmt: skip
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True)
