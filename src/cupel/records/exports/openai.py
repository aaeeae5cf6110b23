"""OpenAI's preference JSONL: input.messages, preferred_output, non_preferred_output."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "openai"
DESCRIPTION = "input with messages (and tools), preferred_output, non_preferred_output (OpenAI's preference fine-tuning)"
HOW = "OpenAI: fine-tuning with method dpo; write .jsonl"
CHATS = ("input", "preferred_output", "non_preferred_output")


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """The messages and tools as they are; other columns stay beside them (remove them where the service refuses them)."""
    kept = c.decided(votes, "OpenAI's format", losses)
    c.weights(kept, losses)
    c.order_lost(kept, losses)
    kept, _ = c.leave_out(kept, ["" if chat else "they have no prompt" for chat in c.prompt_chats(kept)], losses)
    c.plain_prompts(kept, losses)
    tools = kept.source["tools"].to_pylist() if kept.source is not None and "tools" in kept.source.column_names else [None] * len(kept)
    chosen, rejected = c.sides(kept)
    given = [{"messages": chat, **_tools(found)} for chat, found in zip(c.prompt_chats(kept), tools, strict=True)]
    columns: dict[str, Any] = {
        "input": c.chat_column(given, "input", losses, plan),
        "preferred_output": c.chat_column(c.response_chats(kept, chosen), "preferred_output", losses, plan),
        "non_preferred_output": c.chat_column(c.response_chats(kept, rejected), "non_preferred_output", losses, plan),
    }
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True, only=lambda name: name != "tools")


def _tools(found: Any) -> dict[str, Any]:
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return {}
    return {"tools": found} if found else {}
