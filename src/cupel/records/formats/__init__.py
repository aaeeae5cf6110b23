"""Importers, one file each: `NAME`, `DESCRIPTION`, `NEEDS`, `ORDER_KNOWN`, `detect(frame)`, `parse(frame)`. A new file here "
"is a new format."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.columns import SIDES, Frame, did_you_mean


@dataclass
class Parsed:
    """What an importer returns: texts of equal length and outcome codes (-1 where the row is marked as bad)."""

    prompt: pa.Array
    first: pa.Array
    second: pa.Array
    outcome: np.ndarray


@cache
def importers() -> dict[str, ModuleType]:
    """Every importer of this package by name.

    >>> sorted(importers())
    ['arena', 'hh', 'pairs', 'trl', 'trl_conversational', 'trl_implicit', 'votes']
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
    scored = [(*module.detect(frame), module.NAME) for module in known.values()]
    score, reason, best = max(scored, key=lambda item: (item[0], item[2]))
    if score <= 0:
        raise RecordError(_no_format(frame))
    _refuse_misspelt_prompt(frame)
    frame.detection.insert(0, f"format {best}: {reason}")
    return known[best]


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
    kinds = "; ".join(module.DESCRIPTION for module in importers().values())
    did = f" Did you mean {' '.join(hints)}?" if hints else ""
    there = ", ".join(frame.columns[:40]) or "(none)"
    return f"no known format has these columns: {there}.{did} Known: {kinds}. Name yours with --map NEW=COLUMN."


def _refuse_misspelt_prompt(frame: Frame) -> None:
    """A misspelt prompt column must not turn a file into one without prompts."""
    if "prompt" in frame.names or "conversation_a" in frame.names:
        return
    sides = {side for pair in SIDES for side in pair[:2]}
    for column in frame.columns:
        if column not in sides and column not in frame.names.values() and did_you_mean(column.lower(), ["prompt"]):
            raise RecordError(f"there is no column prompt. Did you mean --map prompt={column}? Its columns: {', '.join(frame.columns)}.")
