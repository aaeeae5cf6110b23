"""Headless text, one event per line: user, item and rating, or time behind them (Yahoo! R3: tabs; also commas, blanks, semicolons, bars).

A folder is read as its file ydata-ymusic-rating-study-v1_0-train.txt; the random test is read by its own path (`uniform_test`).
"""

from __future__ import annotations

import re

from cupel.errors import RecordError
from cupel.interactions.places import Place, head, separator
from cupel.interactions.raw import Raw
from cupel.interactions.tables import separated

NAME = "triples"
DESCRIPTION = "text without a header: user, item, rating and perhaps time (Yahoo! R3)"
YAHOO = "ydata-ymusic-rating-study-v1_0-train.txt"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def detect(place: Place) -> tuple[float, str]:
    """Three or four numbers in each of the first lines."""
    if place.path.is_dir():
        return (0.9, f"there is {YAHOO}") if place.has(YAHOO) else (0.0, "")
    if place.path.name.removesuffix(".gz").endswith((".parquet", ".json", ".jsonl", ".ascii", ".inter")):
        return 0.0, ""
    lines = head(place.path)[:20]
    if lines and _fields(place, lines) in (3, 4):
        return 0.6, f"each line has {_fields(place, lines)} numbers and there is no header"
    return 0.0, ""


def read(place: Place) -> Raw:
    """The lines as user, item, value and time."""
    path = place.path / YAHOO if place.path.is_dir() else place.path
    lines = head(path)[:20]
    count = _fields(place, lines) if lines else 0
    if count not in (3, 4):
        raise RecordError(f"{path} is not text of three or four numbers per line: user, item, rating, time")
    names = ["user", "item", "value", "time"][:count]
    rows, skipped, first = separated(path, mark=separator(path, lines[0]), names=names, ids=names[:2])
    return Raw(rows["user"], rows["item"], rows["value"], rows["time"] if count == 4 else None, skipped=skipped, first_line=first)


def _fields(place: Place, lines: list[str]) -> int:
    """Numbers per line where all of these lines have as many and nothing else; else 0."""
    mark = separator(place.path, lines[0])
    parts = [line.split(mark) for line in lines if line.strip()]
    same = {len(fields) for fields in parts}
    if len(same) != 1 or not all(NUMBER.fullmatch(field.strip()) for fields in parts for field in fields):
        return 0
    return same.pop()
