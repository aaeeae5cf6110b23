"""Numeric properties of both sides of a comparison, out of the columns of the file: scores on a rubric, ratings, lengths.

What is found: columns `NAME_a` and `NAME_b` (also `_first`, `_second`; `_chosen`, `_rejected`), and the same in a column of JSON objects,
one level deep: `{"scores_chosen": {"NAME": 3.5}, "scores_rejected": {"NAME": 4}}` or `{"NAME_a": 3.5, "NAME_b": 4}`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.schema import Votes

#: what the names of the two sides end in, first side first
ENDS: tuple[tuple[str, str], ...] = (("_a", "_b"), ("_first", "_second"), ("_chosen", "_rejected"))


@dataclass(frozen=True)
class SideColumns:
    """Values float32 [2n, k] of n comparisons: rows 0 ... n-1 are the first sides, n ... 2n-1 the second; `names` of the columns.

    first, second int64 [n]: the rows of each comparison's sides; imputed: values that were filled in, by column.
    """

    values: np.ndarray
    names: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    imputed: tuple[int, ...]


def feature_columns(
    votes: Votes, names: Sequence[str] = (), *, low: float | None = None, high: float | None = None, impute: bool = False
) -> SideColumns:
    """The numeric columns of both sides by name; all that there are where no name is given, sorted.

    low, high  ends of the scale: values outside are an error
    impute     missing values become the mean of their column over both sides, and are counted; else a missing value is an error
    InputError where a name is not there, a value is missing or no number or outside the scale (with the id of the record).

    >>> from cupel.records import read
    >>> rows = [{"prompt": "q", "chosen": "x", "rejected": "y", "extra": '{"fluency_chosen": 4, "fluency_rejected": 2.5}'}]
    >>> found = feature_columns(read(rows, heldout=0))
    >>> found.names, found.values.tolist()
    (('fluency',), [[4.0], [2.5]])
    """
    available = _available(votes)
    wanted = tuple(names) or tuple(sorted(available))
    if not wanted:
        raise InputError("the file holds no numeric column of both sides: name them NAME_a and NAME_b, or put them in a JSON column")
    unknown = [name for name in wanted if name not in available]
    if unknown:
        close = difflib.get_close_matches(unknown[0], available, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(available)) or 'none'}"
        raise InputError(f"{len(unknown)} of {len(wanted)} names are no numeric column of both sides (first: {unknown[0]!r}); {hint}")
    n = len(votes)
    table = np.empty((2 * n, len(wanted)), np.float64)
    imputed = []
    for j, name in enumerate(wanted):
        column = table[:, j] = np.concatenate([_numbers(side) for side in available[name]])
        missing = ~np.isfinite(column)
        if missing.any() and not (impute and not missing.all()):
            first = int(np.argmax(missing))
            raise InputError(
                f"{int(missing.sum()):,} of {2 * n:,} values of {name} are missing or no number (first: record "
                f"{votes.ids[first % n].as_py()}): fill them in, leave these records out, or ask for impute=True"
            )
        bad = (column < (-np.inf if low is None else low)) | (column > (np.inf if high is None else high))
        if bad.any():
            first = int(np.argmax(bad))
            raise InputError(
                f"{int(bad.sum()):,} of {2 * n:,} values of {name} are outside [{low}, {high}] (first: record "
                f"{votes.ids[first % n].as_py()}, {column[first]:g}): correct them, or give the ends of your scale"
            )
        table[missing, j] = column[~missing].mean() if missing.any() else 0.0
        imputed.append(int(missing.sum()))
    return SideColumns(table.astype(np.float32), wanted, np.arange(n), np.arange(n, 2 * n), tuple(imputed))


def _available(votes: Votes) -> dict[str, tuple[Any, Any]]:
    """Values of the first and of the second side, by name."""
    source = votes.source
    if source is None:
        raise InputError("these votes come without the columns of their file (streamed, or made from arrays): read the file into memory")
    flat: dict[str, Any] = {}
    for name in source.column_names:
        values = source[name]
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            flat[name] = values
        elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            flat |= _inside(values)
    found: dict[str, tuple[Any, Any]] = {}
    for one, two in ENDS:
        if one == "_chosen" and "chosen" not in source.column_names:
            continue  # which side was chosen is then not the order of the sides
        for name, values in flat.items():
            other = name.removesuffix(one) + two
            if name.endswith(one) and other in flat:
                found.setdefault(name.removesuffix(one), (values, flat[other]))
    return found


def _inside(values: pa.ChunkedArray) -> dict[str, list[Any]]:
    """Numbers of a column of JSON objects by name; an object whose own name says the side hands it to the names in it."""
    first = next((text for text in values.slice(0, 50).to_pylist() if text), "")
    if not first.lstrip().startswith("{"):
        return {}
    n = len(values)
    flat: dict[str, list[Any]] = {}
    for row, text in enumerate(values.to_pylist()):
        try:
            held = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            continue
        for name, value in held.items() if isinstance(held, dict) else ():
            end = next((e for pair in ENDS for e in pair if name.endswith(e)), None)
            inner = {f"{key}{end}": number for key, number in value.items()} if isinstance(value, dict) and end else {name: value}
            for key, number in inner.items():
                if isinstance(number, int | float) and not isinstance(number, bool):
                    flat.setdefault(key, [None] * n)[row] = number
    return flat


def _numbers(values: Any) -> np.ndarray:
    plain = values.to_pylist() if isinstance(values, pa.ChunkedArray) else values
    return np.array([np.nan if value is None else float(value) for value in plain])
