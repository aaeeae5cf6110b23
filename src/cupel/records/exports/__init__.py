"""Formats that cupel writes, one file each: `NAME`, `DESCRIPTION`, `HOW` (what reads it), `write(votes, losses, plan) -> table`.

A new file here is a new target. A row of the table comes of one vote, so that votes can be written a part at a time: `write` counts in
`losses` what the format cannot hold, and asks the `plan` for what depends on rows of other parts (`exports.losses`). Optional names:
`facts(votes)`, what the plan is to know of all texts; `of_whole(votes, losses)`, losses that no part can count. `CHATS` names the
columns that hold messages: where these differ too much for one Arrow type they are JSON text in the table, and `json_rows` makes them
objects again, so that JSON Lines hold what was meant.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

import pyarrow as pa

from cupel.records.columns import present

#: the order in which targets are named
ORDER = ("trl", "votes", "trl_conversational", "trl_implicit", "kto", "openrlhf", "axolotl", "llama_factory", "openai")


@cache
def writers() -> dict[str, ModuleType]:
    """Every target by name.

    >>> list(writers())[:3]
    ['trl', 'votes', 'trl_conversational']
    """
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "NAME"):
            found[module.NAME] = module
    known = [name for name in ORDER if name in found]
    return {name: found[name] for name in (*known, *sorted(set(found) - set(known)))}


def json_rows(table: pa.Table, to: str) -> list[dict[str, Any]]:
    """The rows of a converted table as they belong into JSON: messages as objects, without the empty keys that Arrow adds to them.

    >>> rows = pa.table({"chosen": ['[{"role": "user", "content": "Q"}]'], "note": ['["kept as text"]']})
    >>> json_rows(rows, "trl_implicit")
    [{'chosen': [{'role': 'user', 'content': 'Q'}], 'note': '["kept as text"]'}]
    """
    chats = getattr(writers()[to], "CHATS", ())
    columns = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if name in chats:
            values = [_object(value) for value in values]
        elif _holds_messages(table.schema.field(name).type):
            values = [present(value) for value in values]
        columns[name] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _object(value: Any) -> Any:
    if not isinstance(value, str):
        return present(value)
    try:
        return json.loads(value) if value[:1] in ("[", "{") else value
    except ValueError:
        return value


def _holds_messages(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}
    return {"role", "content"} <= names or {"from", "value"} <= names
