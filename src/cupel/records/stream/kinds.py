"""What a column of a whole file is, found out a batch at a time, so that every batch is read as the whole file would be.

pyarrow infers the type of a column from all of its values; a batch alone may say something else (whole numbers where later batches have
fractions, nothing but nulls). A pass over the file assumes what is known so far and notes what it sees; where the two differ, the file is
read again with what was seen. What is known only grows, so a sound file takes one pass and an odd one two or three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.inference import fitted, inferred, merge
from cupel.records.schema import Quarantined
from cupel.records.sources import Rows
from cupel.records.textual import MAX_COLUMNS, has_empty_struct, has_surrogates, json_text, row_text, value_kind


@dataclass(frozen=True)
class Kind:
    """One column of the file.

    type   the Arrow type that holds all of its values, None where there is none
    held   where there is none: the type of what is left once rows were set aside, None where that is kept as text
    plain  where it is kept as text: whether all that is left is text already (else JSON)
    usual  where there is none: what most values are ("string", "list", ...)
    noted  whether mixed types are said in the notes
    """

    type: pa.DataType | None
    held: pa.DataType | None = None
    plain: bool = True
    usual: str | None = None
    noted: bool = False


Kinds = dict[str, Kind]


def widened(array: pa.Array) -> pa.Array:
    """Texts at the top level as large_string."""
    return array.cast(pa.large_string()) if pa.types.is_string(array.type) else array


@dataclass
class _Seen:
    type: pa.DataType | None = field(default_factory=pa.null)
    held: pa.DataType | None = field(default_factory=pa.null)
    plain: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    marked: int = 0


class Seen:
    """What a pass has seen of each column. `wrong` says that it contradicts what the pass assumed: another pass is needed."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = columns
        self.found: dict[str, _Seen] = {}
        self.wrong = False

    def note(self, name: str, kind: pa.DataType | None) -> None:
        """A batch of this column has this type (None: no type)."""
        seen = self.found.setdefault(name, _Seen())
        seen.type = merge(seen.type, kind)

    def known(self, kinds: Kinds) -> None:
        """Begin with what is assumed, so that types only grow."""
        for name, kind in kinds.items():
            self.note(name, kind.type)

    def settle(self) -> Kinds:
        """What is known of every column, in order of appearance."""
        out: Kinds = {}
        for name, seen in self.found.items():
            if seen.type is not None and not has_empty_struct(seen.type):
                out[name] = Kind(seen.type)
                continue
            usual = max(sorted(seen.counts), key=lambda kind: seen.counts[kind], default=None)
            noted = not self.columns.get(name) and not seen.marked and len(seen.counts) > 1
            held = None if seen.held is None or has_empty_struct(seen.held) else seen.held
            out[name] = Kind(None, held, seen.plain, usual, noted)
        return out


def convert(objects: list[Any], lines: np.ndarray, kinds: Kinds, seen: Seen, name: str) -> Rows | None:
    """Rows of Python objects, as `textual.from_objects` gives them for the whole file; None where the batch contradicts `kinds`."""
    bad: dict[int, tuple[str, str]] = {}
    names: dict[str, None] = dict.fromkeys(kinds)
    plain: list[dict[Any, Any]] = []
    for row, found in enumerate(objects):
        if not isinstance(found, dict):
            bad[row] = ("not_an_object", f"a {type(found).__name__} where a row with column names belongs")
            found = {}
        plain.append(found)
        for key in found:
            if key not in names:
                names[key] = None
            if not key.isascii() and has_surrogates(key):
                bad[row] = ("lone_surrogate", "the name of a column holds half of a surrogate pair, which is no character")
    keys = [key for key in names if key in kinds or not has_surrogates(key)]
    if len({*keys, *seen.found}) > MAX_COLUMNS:
        raise RecordError(
            f"{name} has more than {MAX_COLUMNS:,} different column names (first: {keys[0]!r}): these are no rows of one table. Put what "
            "differs from row to row into one column."
        )
    columns: dict[str, tuple[list[Any], pa.Array | None]] = {}
    for key in keys:
        values = [found.get(key) for found in plain]
        array = inferred(values)
        kind = kinds.get(key)
        if array is not None and kind is not None and kind.type is not None:
            array = fitted(array, values, kind.type) if merge(kind.type, array.type) == kind.type else array
        seen.note(key, None if array is None else array.type)
        if kind is None or (kind.type is not None and (array is None or array.type != kind.type)):
            seen.wrong = True
        if array is None or (kind is not None and kind.type is None):
            _mark(key, values, seen, kind, bad)
            array = None
        columns[key] = (values, array)
    keep = np.array([row not in bad for row in range(len(objects))], dtype=bool)
    arrays: dict[str, pa.Array] = {}
    for key, (values, array) in columns.items():
        if array is None:
            held = [value for value, ok in zip(values, keep, strict=True) if ok]
            made = _held(held, kinds.get(key), seen.found[key], seen.columns.get(key) == "name")
            if made is None:
                seen.wrong = True
                continue
            arrays[key] = made
        else:
            arrays[key] = widened(array if bool(keep.all()) else array.filter(pa.array(keep)))
    if seen.wrong:
        return None
    quarantine = [Quarantined(int(lines[row]), *why, row_text(objects[row])) for row, why in sorted(bad.items())]
    return Rows(pa.table(arrays), lines[keep], quarantine, name)


def _mark(key: str, values: list[Any], seen: Seen, kind: Kind | None, bad: dict[int, tuple[str, str]]) -> None:
    """A column without one type: set aside what cannot be written, and in columns of texts what is not as most values are."""
    found = [value_kind(value) for value in values]
    before = len(bad)
    for row, value in enumerate(values):
        if found[row] != "null" and has_surrogates(value):
            bad.setdefault(row, ("lone_surrogate", f"column {key} holds half of a surrogate pair, which is no character"))
    note = seen.found[key]
    note.marked += len(bad) - before
    note.counts.update(name for row, name in enumerate(found) if name != "null" and row not in bad)
    if seen.columns.get(key) == "text" and kind is not None and kind.usual is not None:
        for row, name in enumerate(found):
            if name not in ("null", kind.usual) and row not in bad:
                bad[row] = ("mixed_types", f"column {key} holds a {name} here and a {kind.usual} in most rows")


def _held(values: list[Any], kind: Kind | None, note: _Seen, names: bool) -> pa.Array | None:
    """What is left of a column without one type; None where that is not what was assumed."""
    array = inferred(values)
    if array is not None and kind is not None and kind.held is not None and merge(kind.held, array.type) == kind.held:
        array = fitted(array, values, kind.held)
    note.held = merge(note.held, None if array is None else array.type)
    values = [None if value_kind(value) == "null" else value for value in values]
    note.plain = note.plain and all(value is None or isinstance(value, str) for value in values)
    if kind is None or kind.type is not None:
        return None
    if kind.held is not None:
        return widened(array) if array is not None and array.type == kind.held else None
    if names or kind.plain:
        texts = [value if value is None or isinstance(value, str) else json_text(value) for value in values]
    else:
        texts = [None if value is None else json_text(value) for value in values]
    return pa.array(texts, pa.large_string())
