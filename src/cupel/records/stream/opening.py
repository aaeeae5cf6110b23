"""Which sources stream, when streaming is worth it, and the reader of each kind of file.

JSON Lines, JSON arrays, CSV and TSV (also .gz), Parquet, Arrow, and folders of the last two stream. A JSON object that holds rows under
a key does not; nor does what is in memory already.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.records import sources, textual
from cupel.records.folders import layout
from cupel.records.stream.arrow_files import ArrowFiles
from cupel.records.stream.csv_file import CsvFile
from cupel.records.stream.json_array import JsonArray
from cupel.records.stream.json_lines import JsonLines
from cupel.records.stream.lines import head

#: files of more bytes than this are streamed where their kind and format can be
ABOVE = 256 << 20


class CannotStream(RecordError):
    """This source or format has to be read at once."""


def worth_streaming(source: Any) -> bool:
    """Whether `read` streams this source by itself: a file of a kind that streams, larger than 256 MiB.

    >>> worth_streaming([{"prompt": "p"}])
    False
    """
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(os.fspath(source))
    try:
        if not path.exists() or size_of(path) <= ABOVE:
            return False
        open_reader(path, {})
    except (OSError, RecordError):
        return False  # reading at once says what is wrong
    return True


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def open_reader(path: Path, kinds: Mapping[str, str]) -> JsonLines | CsvFile | ArrowFiles:
    """The reader of a file. Raises CannotStream where its kind has to be read at once, RecordError where it cannot be read at all."""
    if not path.exists():
        sources.from_path(path, kinds)  # says what is near
    if path.is_dir():
        parts = layout(path)
        files = [(part.path, sources.file_kind(part.path) if part.path.is_file() else "", part.split) for part in parts]
        if not all(kind in ("parquet", "arrow") for _, kind, _ in files):
            raise CannotStream(f"the folder {path} holds files that are neither Parquet nor Arrow; it is read at once (stream=False).")
        return ArrowFiles(files, str(path))
    if path.stat().st_size == 0:
        raise RecordError(f"{path} is empty. Give a file with at least one comparison.")
    kind = sources.file_kind(path)
    if kind in ("parquet", "arrow"):
        return ArrowFiles([(path, kind, "")], str(path))
    start = head(path, str(path))
    if not start.strip():
        raise RecordError(f"{path} begins with more than a million blanks. Take them out.")
    kind = textual.sniff(start) if kind == "sniff" else kind
    if kind == "json" and _lines_of_json(start):
        kind = "jsonl"
    if kind == "json" and start.lstrip().startswith("["):
        return JsonArray(path, kinds)
    if kind == "json":
        raise CannotStream(
            f"{path} is one JSON object, which has to be read at once. Write one row per line to stream it, e.g. jq -c '.data[]' {path} > "
            "rows.jsonl"
        )
    if kind == "jsonl":
        return JsonLines(path, kinds)
    return CsvFile(path, "\t" if kind == "tsv" else None, start)


def _lines_of_json(start: str) -> bool:
    """Whether what is named .json holds one object per line."""
    import json

    text = start.lstrip()
    first, newline, rest = text.partition("\n")
    if not text.startswith("{") or not newline or not rest.strip():
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
