"""Files of a benchmark read into items: every row is one, or the file is refused with what is wrong, in how many rows, where first."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.evaluate.suites.items import Item, Suite
from cupel.records import sources
from cupel.records.text import canonical, is_chat, render

#: files that hold the rows of a folder named after a subset, where that folder holds other things as well
HOLDERS = ("dataset.json", "task.json")
#: characters of a prompt that an error quotes
QUOTED = 60


class Bad(Exception):
    """Why a row is no item of the suite."""


def read_items(suite: Suite, source: Any, *, known: Callable[[Mapping[str, Any]], list[str]] | None = None) -> list[Item]:
    """The items of a file, a folder of its parts, or a list of dicts.

    A benchmark with rows missing is another benchmark, so one bad row refuses the file. RecordError: what, how many, which first.
    known: names of the suites that a first row would fit, for the message.
    """
    items: list[Item] = []
    places: list[str] = []
    faults: list[str] = []
    for subset, name, rows, lines in _parts(source, suite.folders):
        missing = [column for column in suite.columns if rows and column not in rows[0]]
        if missing or not (rows and suite.fits(rows[0])):
            others = known(rows[0]) if known and rows else []
            hint = f" It looks like {' or '.join(others)}: give --format {others[0]}." if others else ""
            what = f"column(s) {', '.join(missing)} are missing" if missing else "the first row has another form"
            raise RecordError(f"{name} is not in the form of {suite.name} ({suite.description}): {what}.{hint}")
        for line, row in zip(lines, rows, strict=True):
            try:
                items.append(suite.item(row, subset))
                places.append(f"{name}, row {line}")
            except Bad as bad:
                faults.append(f"{name}, row {line}: {bad}")
    total = len(items) + len(faults)
    faults += [f"{places[i]}: {why}" for i, why in suite.check(items)]
    if faults:
        raise RecordError(
            f"{len(faults):,} of {total:,} rows are not items of {suite.name} (first: {faults[0]}). A benchmark without some of its "
            "items is another benchmark: mend or remove these rows, and say so where you report the numbers."
        )
    return items


def _parts(source: Any, folders: Sequence[str]) -> list[tuple[str, str, list[dict[str, Any]], list[int]]]:
    """(subset that the folder names or "", name, rows, line numbers) of each file."""
    names = {name.lower(): name for name in folders}
    if not isinstance(source, str | os.PathLike):
        return [_rows("", source)]
    path = Path(os.fspath(source))
    if path.is_dir() and names:
        inside = sorted(p for p in path.rglob("*") if p.is_dir() and p.name.lower() in names)
        if inside:
            return [_rows(names[p.name.lower()], next((p / h for h in HOLDERS if (p / h).is_file()), p)) for p in inside]
    around = [names[part.lower()] for part in reversed((path.stem, *path.parts[:-1])) if part.lower() in names]
    return [_rows(around[-1] if around else "", source)]


def _rows(subset: str, source: Any) -> tuple[str, str, list[dict[str, Any]], list[int]]:
    found = sources.load(os.fspath(source) if isinstance(source, os.PathLike) else source)
    if found.quarantine:
        first = found.quarantine[0]
        raise RecordError(f"{found.name}: {len(found.quarantine):,} rows cannot be read (first: row {first.line}, {first.reason}).")
    mixed = {match.group(1) for note in found.notes if (match := re.match(r"column (.+) holds values of mixed types", note))}
    rows = found.table.to_pylist()
    for name in mixed:  # texts among lists are kept as JSON by the reader
        for row in rows:
            row[name] = None if row[name] is None else json.loads(row[name])
    return subset, found.name, rows, found.line.tolist()


# ---- values of rows -------------------------------------------------------------------------------------------------------------


def text(row: Mapping[str, Any], name: str) -> str:
    """A text, or a chat list as plain text; `Bad` for anything else."""
    value = row.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and is_chat(value):
        return render(canonical(value))
    raise Bad(f"{name} is {_kind(value)}, not a text")


def prompt_of(row: Mapping[str, Any], name: str) -> str:
    """What is asked: a text, or a chat list as canonical JSON, so that a model's chat template sees the messages; `Bad` for anything else.

    A single message of a user is its text, which every chat template turns into that message again.

    >>> prompt_of({"p": [{"role": "user", "content": "Why?"}]}, "p")
    'Why?'
    >>> prompt_of({"p": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]}, "p")
    '[{"role":"system","content":"Be brief."},{"role":"user","content":"Why?"}]'
    """
    value = row.get(name)
    if isinstance(value, list) and is_chat(value) and not (len(value) == 1 and value[0]["role"] == "user"):
        return canonical(value)
    return text(row, name)


def texts(row: Mapping[str, Any], name: str, count: int | None = None) -> tuple[str, ...]:
    """A list of at least one text (of `count` where given); `Bad` for anything else."""
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise Bad(f"{name} is {_kind(value)}, not a list of texts")
    if count is not None and len(value) != count:
        raise Bad(f"{name} holds {len(value)} texts, not {count}")
    return tuple(value)


def own_id(row: Mapping[str, Any]) -> str:
    """The row's id as text, "" where it has none."""
    return "" if row.get("id") is None else str(row["id"])


def name_of(row: Mapping[str, Any], name: str) -> str:
    """A name that is not empty; `Bad` for anything else."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Bad(f"{name} is {_kind(value)}, not a name")
    return value.strip()


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    return f"empty {type(value).__name__}" if value in ("", []) else f"{type(value).__name__} {str(value)[:QUOTED]!r}"
