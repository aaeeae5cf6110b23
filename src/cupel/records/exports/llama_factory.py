"""LLaMA-Factory's preference data in ShareGPT form: conversations, chosen, rejected as {from, value}; system and tools beside them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from cupel.records.exports import common as c
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

NAME = "llama_factory"
DESCRIPTION = "conversations, chosen, rejected as {from, value}; system, tools (LLaMA-Factory, sharegpt with ranking)"
HOW = (
    'llama_factory: in dataset_info.json {"NAME": {"file_name": "FILE", "ranking": true, "formatting": "sharegpt", "columns": '
    '{"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system", "tools": "tools"}}} '
    "(leave out system and tools where the file has no such column)"
)

CHATS = ("conversations", "chosen", "rejected")

_ASKS, _ANSWERS = ("human", "observation"), ("gpt", "function_call")


def write(votes: Votes, losses: Losses, plan: Plan) -> pa.Table:
    """Turns alternate between asking and answering; rows that do not are left out and counted."""
    kept = c.decided(votes, "LLaMA-Factory", losses)
    c.weights(kept, losses)
    c.order_lost(kept, losses)
    made = [_row(*part) for part in _parts(kept)]
    kept, keep = c.leave_out(kept, [row if isinstance(row, str) else "" for row in made], losses)
    c.plain_prompts(kept, losses)
    rows = [row for row, ok in zip(made, keep.tolist(), strict=True) if ok and not isinstance(row, str)]
    columns: dict[str, Any] = {name: c.chat_column([row[name] for row in rows], name, losses, plan) for name in CHATS}
    if plan.flag("system", any(row["system"] for row in rows)):
        columns["system"] = pa.array([row["system"] for row in rows], pa.large_string())
    ids = sum(row["ids"] for row in rows)
    losses.some(
        "ids", ids,
        lambda n: f"in {n:,} rows the ids that tie a tool's answer to its call are lost; LLaMA-Factory goes by the order of turns",
    )  # fmt: skip
    c.models_by_side(kept, columns)
    return c.with_extras(kept, columns, by_outcome=True)


def _parts(votes: Votes) -> list[tuple[c.Chat, c.Chat, c.Chat]]:
    chosen, rejected = c.sides(votes)
    return list(zip(c.prompt_chats(votes), c.response_chats(votes, chosen), c.response_chats(votes, rejected), strict=True))


def _row(prompt: c.Chat, chosen: c.Chat, rejected: c.Chat) -> dict[str, Any] | str:
    """The turns of a row, or why it has none."""
    if len(chosen) > 1 or len(rejected) > 1:
        return "an answer is several messages, and LLaMA-Factory holds one"
    if not prompt:
        return "they have no prompt"
    system = prompt[0]["content"] if prompt and prompt[0]["role"] == "system" else None
    rest = prompt[1:] if system is not None else prompt
    turns, first, second = [_turn(m) for m in rest], _turn(chosen[0]), _turn(rejected[0])
    if first is None or second is None or any(turn is None for turn in turns) or not isinstance(system, str | None):
        return "a message is neither text nor a tool call, or its role is unknown"
    said = [turn for turn in turns if turn is not None]
    if not said or len(said) % 2 == 0 or any(turn["from"] not in (_ANSWERS if i % 2 else _ASKS) for i, turn in enumerate(said)):
        return "the turns of the prompt do not alternate between asking and answering"
    if first["from"] not in _ANSWERS or second["from"] not in _ANSWERS:
        return "an answer is not the assistant's"
    ids = any(m.get("tool_call_id") or any(call.get("id") for call in m.get("tool_calls") or []) for m in [*prompt, *chosen, *rejected])
    return {"conversations": said, "chosen": first, "rejected": second, "system": system, "ids": ids}


def _turn(message: dict[str, Any]) -> dict[str, str] | None:
    """A message as {from, value}; a tool call without words as a function_call."""
    calls = message.get("tool_calls")
    if calls and message["role"] == "assistant":
        functions = [call.get("function") for call in calls if isinstance(call, dict)]
        if message["content"] or len(functions) != len(calls) or not all(isinstance(f, dict) and "name" in f for f in functions):
            return None
        return {"from": "function_call", "value": json.dumps(functions[0] if len(functions) == 1 else functions, ensure_ascii=False)}
    names = {"user": "human", "assistant": "gpt", "tool": "observation", "function_call": "function_call"}
    if message["role"] not in names or not isinstance(message["content"], str):
        return None
    return {"from": names[message["role"]], "value": message["content"]}
