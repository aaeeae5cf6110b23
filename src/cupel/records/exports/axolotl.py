"""Axolotl's preference data for `type: chat_template.default`: messages, and one message each in chosen and rejected."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "axolotl"
DESCRIPTION = "messages, chosen, rejected (axolotl, type chat_template.default)"
HOW = "axolotl: rl: dpo, datasets: [{path: FILE, ds_type: json, split: train, type: chat_template.default}]"

CHATS = ("messages", "chosen", "rejected")

ROLES = ("user", "assistant", "system", "tool")


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """One message per side; what axolotl cannot read is left out, and what it does not look at is said."""
    kept = c.decided(votes, "axolotl", losses)
    c.weights(kept, losses)
    c.order_lost(kept, losses)
    chosen, rejected = c.sides(kept)
    parts = zip(c.prompt_chats(kept), c.response_chats(kept, chosen), c.response_chats(kept, rejected), strict=True)
    kept, _ = c.leave_out(kept, [_fault(*part) for part in parts], losses)
    c.plain_prompts(kept, losses)
    chosen, rejected = c.sides(kept)
    prompts = c.prompt_chats(kept)
    first, second = ([chat[0] for chat in c.response_chats(kept, index)] for index in (chosen, rejected))
    calls = sum(any(set(m) - {"role", "content"} for m in [*p, x, y]) for p, x, y in zip(prompts, first, second, strict=True))
    losses.some(
        "calls", calls,
        lambda n: f"{n:,} rows have messages with more than role and content (tool calls, names), which axolotl does not read",
    )  # fmt: skip
    columns: dict[str, Any] = {
        "messages": c.chat_column(prompts, "messages", losses, plan),
        "chosen": c.chat_column(first, "chosen", losses, plan),
        "rejected": c.chat_column(second, "rejected", losses, plan),
    }
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True)


def _fault(prompt: c.Chat, chosen: c.Chat, rejected: c.Chat) -> str:
    """Why axolotl cannot read a row, or ""."""
    if not prompt:
        return "they have no prompt"
    if len(chosen) > 1 or len(rejected) > 1:
        return "an answer is several messages, and axolotl holds one"
    if any(m["role"] not in ROLES for m in [*prompt, *chosen, *rejected]):
        return "a role is none of " + ", ".join(ROLES)
    if not chosen[0]["content"] or not rejected[0]["content"]:
        return "an answer has no content (a tool call alone)"
    return ""
