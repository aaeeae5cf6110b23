"""Tables as values: a caption, columns (some of numbers), rows of text. The template draws them all in one way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cupel.report import text as t


@dataclass(frozen=True)
class Column:
    """A heading; `numeric` cells are set to the right; `graphic` cells hold a picture of the row's numbers."""

    label: str
    numeric: bool = False
    graphic: bool = False


@dataclass(frozen=True)
class Table:
    """A caption, columns and rows; the first cell of a row is its heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Markup, ...], ...]
    note: str = ""


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, limit: int = 200, note: str = "") -> Table:
    """A table of at most `limit` rows; a column name that ends in `#` is numeric; what is left out is stated in the note.

    >>> made = table("Votes", ["who", "n#"], [["a", 3], ["b", 12000]], limit=1)
    >>> made.rows, made.columns[1].numeric, made.note
    ((('a', '3'),), True, '1 further row is left out.')
    """
    heads = tuple(Column(name.removesuffix("#"), name.endswith("#")) for name in columns)
    rows = [tuple(cell if isinstance(cell, str) else t.plain(cell) for cell in row) for row in rows]
    left_out = len(rows) - limit
    if left_out > 0:
        note = f"{note} {t.count(left_out)} further {'row is' if left_out == 1 else 'rows are'} left out.".strip()
    return Table(caption, heads, tuple(rows[:limit]), note)


def mapping(caption: str, heads: tuple[str, str], values: Mapping[str, Any], *, limit: int = 40, width: int = 200) -> Table:
    """A mapping of scalars as a table of two columns."""
    return table(caption, heads, [(t.short(str(key), width), t.short(value, width)) for key, value in values.items()], limit=limit)


_MODEL_COLUMNS = {"model", "accuracy", "low", "high", "n", "seeds", "shorter_wins"}


def models(rows: Sequence[Mapping[str, Any]], *, limit: int = 20, width: int = 60) -> Table:
    """Trained models: accuracy with its interval, where the shorter side wins, rows, seeds, then any further scalar key."""
    rows = list(rows)[:limit]
    extra = list(dict.fromkeys(key for row in rows for key, value in row.items() if key not in _MODEL_COLUMNS and _scalar(value)))[:6]
    heads = ["Model", "Accuracy#", "95 % interval#", "Where the shorter side wins#", "Comparisons#", "Seeds#"]
    heads += [f"{t.words(t.short(key, width))}#" for key in extra]
    cells = [
        [
            t.short(row.get("model", ""), width),
            t.percent(row.get("accuracy")),
            t.interval(row.get("low"), row.get("high")) or t.NOTHING,
            t.percent(row.get("shorter_wins")),
            t.count(row.get("n")),
            _seeds(row.get("seeds")),
            *(_share(row.get(key), width) for key in extra),
        ]
        for row in rows
    ]
    return table("Held-out accuracy of each model", heads, cells)


def differences(rows: Sequence[Mapping[str, Any]], *, limit: int = 20, width: int = 80) -> Table:
    """Paired differences in percentage points with their intervals."""
    cells = [
        (
            t.short(row.get("name", ""), width),
            t.points(row.get("difference")),
            t.interval(row.get("low"), row.get("high"), unit="points") or t.NOTHING,
        )
        for row in list(rows)[:limit]
    ]
    return table("Paired differences on the same comparisons", ["Difference", "Points#", "95 % interval#"], cells)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _seeds(value: Any) -> str:
    return t.count(len(value)) if isinstance(value, (list, tuple)) else t.plain(value)


def _share(value: Any, width: int) -> str:
    found = t.number(value)
    if found is not None and isinstance(value, float) and 0 <= found <= 1:
        return t.percent(found)
    return t.short(value, width)
