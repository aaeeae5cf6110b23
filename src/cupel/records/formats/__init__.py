"""Importers, one file each: `NAME`, `DESCRIPTION`, `NEEDS`, `ORDER_KNOWN`, `detect(frame)`, `parse(frame)`. A new file is a new format.

`detect` and `parse` are functions of a frame (a table, or a batch of one, seen through canonical names) and of nothing else. Where rows
are not comparisons, `parse` says so by an `Origin`, and `unfolding.unfold` makes rows of one comparison each. Optional names:
`SPANS_ROWS` (one comparison may need several rows, so a batch must hold all rows of a prompt), `OWN_PROMPT` (the prompt is in no column
of that name), `UNUSED` (canonical names that this format does not read, whatever columns are called so), `LOSSES` (what pairs of it
cannot hold).
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.columns import SIDES, Frame, did_you_mean


@dataclass
class Origin:
    """Where comparisons come from when rows are not comparisons (see `unfolding`).

    first, second: int64 source rows of both sides; columns: new columns, one value per comparison; consumed: columns of the source that
    are not repeated; losses: one sentence for each thing that the comparisons do not hold.
    """

    first: np.ndarray
    second: np.ndarray
    columns: dict[str, pa.Array] = field(default_factory=dict)
    consumed: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


@dataclass
class Parsed:
    """What an importer returns: texts of equal length and outcome codes (-1 where the row is marked as bad).

    origin is None where comparison i is row i.
    """

    prompt: pa.Array
    first: pa.Array
    second: pa.Array
    outcome: np.ndarray
    origin: Origin | None = None


#: a second format whose score is nearer than this to the best one is a doubt that is stated
CLOSE = 0.1


@cache
def importers() -> dict[str, ModuleType]:
    """Every importer of this package by name.

    >>> sorted(importers())[:4]
    ['alpaca', 'arena', 'arena_columns', 'argilla']
    """
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "NAME"):
            found[module.NAME] = module
    return found


def choose(frame: Frame, name: str | None = None) -> ModuleType:
    """The importer that was asked for, or the one that fits best; its reason is added to `frame.detection`.

    Raises RecordError where none fits, with the columns there are and the names they may be a misspelling of.
    """
    known = importers()
    if name is not None:
        if name not in known:
            raise RecordError(f"there is no format {name!r}.{did_you_mean(name, known)} Formats: {', '.join(sorted(known))}.")
        frame.detection.insert(0, f"format {name}: as asked")
        return known[name]
    scored = sorted(((*module.detect(frame), module.NAME) for module in known.values()), key=lambda item: (-item[0], item[2]))
    scored = [item for item in scored if item[0] > 0]
    if not scored:
        raise RecordError(_no_format(frame))
    score, reason, best = scored[0]
    module = known[best]
    if not getattr(module, "OWN_PROMPT", False):
        _refuse_misspelt_prompt(frame)
    unused = getattr(module, "UNUSED", ())
    frame.detection[:] = [said for said in frame.detection if said.split(" = ")[0] not in unused]
    others = [f"{name} ({why})" for _, why, name in scored[1:]]
    frame.detection.insert(0, f"format {best}: {reason}" + (f"; would also fit: {', '.join(others)}" if others else ""))
    if len(scored) > 1 and scored[1][0] > score - CLOSE:
        frame.doubts.append(f"read as {best}; {scored[1][2]} fits nearly as well ({scored[1][1]}): say which with --format NAME")
    return module


def _no_format(frame: Frame) -> str:
    wanted = ["prompt", "chosen", "rejected", "response_a", "response_b", "vote", "conversation_a", "conversation_b", "winner"]
    missing = [name for name in wanted if name not in frame.names]
    hints = []
    used = set(frame.names.values())
    for column in frame.columns:
        if column not in used:
            meant = did_you_mean(column.lower(), missing)
            if meant:
                hints.append(f"--map {meant.split(repr(''))[0].split(chr(39))[1]}={column}")
    said = ""
    if "messages" in frame.columns:
        said = " A column of messages alone holds conversations, not comparisons: a second answer or a vote is missing."
    kinds = "; ".join(module.DESCRIPTION for module in importers().values())
    did = f" Did you mean {' '.join(hints)}?" if hints else ""
    there = ", ".join(frame.columns[:40]) or "(none)"
    return f"no known format has these columns: {there}.{said}{did} Known: {kinds}. Name yours with --map NEW=COLUMN."


def _refuse_misspelt_prompt(frame: Frame) -> None:
    """A misspelt prompt column must not turn a file into one without prompts ("promt" is one, "project" is not)."""
    from difflib import get_close_matches

    if "prompt" in frame.names or "conversation_a" in frame.names:
        return
    sides = {side for pair in SIDES for side in pair[:2]}
    for column in frame.columns:
        if column not in sides and column not in frame.names.values() and get_close_matches(column.lower(), ["prompt"], cutoff=0.75):
            raise RecordError(f"there is no column prompt. Did you mean --map prompt={column}? Its columns: {', '.join(frame.columns)}.")
