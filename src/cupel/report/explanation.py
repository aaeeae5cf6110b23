"""What a preference model has learned as one page: its sentences, each of its tables, and bars where a table is a few sizes. No script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.report import svg
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.figures import Figure
from cupel.report.html import environment, style, style_hash

#: characters of a name and of a sentence; rows of a table; bars of a picture
NAME, TEXT, ROWS, BARS = 60, 600, 200, 16


def page(found: Mapping[str, Any], *, title: str, head: str) -> str:
    """The page of an explanation (`Explanation.recorded()`); the same gives the same bytes. Names are escaped, hidden characters spelt out.

    >>> made = {"words": ["one prototype"], "tables": {"people": {"person": ["<b>"], "weight": [1.0]}}}
    >>> "&lt;b&gt;" in page(made, title="run", head="pal")
    True
    """
    css = style()
    return environment().get_template("explanation.html.j2").render(
        title=t.short(title, NAME), head=t.short(head, NAME), words=[t.said(sentence, TEXT) for sentence in found["words"]],
        parts=[
            _part(k, name, columns) for k, (name, columns) in enumerate(found["tables"].items())
            if any(len(values) for values in columns.values())
        ],
        css=css, css_hash=style_hash(css),
    )  # fmt: skip


def _part(number: int, name: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A table, and the picture of its first column of sizes where it is short."""
    columns = dict(sorted(columns.items(), key=lambda item: _kind(item[1])))  # names, then numbers of things, then sizes
    heads = [f"{t.short(key.replace('_', ' '), NAME).capitalize()}{'#' if _numeric(values) else ''}" for key, values in columns.items()]
    rows = [[t.short(value, NAME) for value in row] for row in zip(*columns.values(), strict=True)]
    caption = t.short(name.replace("_", " ").capitalize(), NAME)
    table = tb.table(caption, heads, rows, limit=ROWS)
    return {"name": caption, "id": f"part-{number}", "table": table, "figure": _figure(number, caption, columns, table)}


def _figure(number: int, name: str, columns: Mapping[str, Sequence[Any]], table: tb.Table) -> Figure | None:
    sizes = next((key for key, values in columns.items() if _sizes(values)), None)
    labels = [key for key, values in columns.items() if key != sizes and not _sizes(values)][:2]
    if sizes is None or not labels or not 2 <= len(columns[sizes]) <= BARS:
        return None
    rows = []
    for k, value in enumerate(columns[sizes]):
        label = " – ".join(t.plain(columns[key][k]) for key in labels)
        rows.append((t.label(t.short(label, NAME), 40), float(value), t.plain(value)))
    shown = t.short(sizes.replace("_", " "), NAME)
    drawn = svg.bars(f"explanation-{number}", f"{name}: {shown}", "; ".join(f"{label} {words}" for label, _, words in rows), rows)
    return Figure(drawn, f"{name}: {shown}.", table)


def _kind(values: Sequence[Any]) -> int:
    return 0 if not _numeric(values) else 2 if any(isinstance(value, float) for value in values) else 1


def _numeric(values: Sequence[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _sizes(values: Sequence[Any]) -> bool:
    """Whether a column is of sizes: numbers of at least 0, not all whole."""
    found = [value for value in values if isinstance(value, float)]
    return len(found) == len(values) > 0 and min(found) >= 0
