"""Tables out of files (CSV, TSV, other separated text, Parquet, JSON lines, also .gz), as pyarrow reads them, with the rows it refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cupel.errors import RecordError
from cupel.interactions.places import head, separator, suffix

Table = tuple[Any, tuple[int | None, ...], int]


def table(path: Path, wanted: Sequence[str] | None = None, ids: Sequence[str] = ()) -> Table:
    """A table, the lines of the rows that were skipped, and the line of the first row (0 where rows have no lines).

    wanted: the columns to read; ids: those to be read as words whatever they look like ("007" is not 7).
    """
    kind = suffix(path)
    if kind == ".parquet":
        return parquet(path, wanted), (), 0
    if kind in (".jsonl", ".ndjson", ".json"):
        return json_lines(path), (), 1
    return separated(path, wanted=wanted, ids=ids)


def parquet(path: Path, wanted: Sequence[str] | None = None) -> Any:
    """A Parquet file's columns."""
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read(columns=None if wanted is None else list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def json_lines(path: Path) -> Any:
    """One JSON object per line."""
    import pyarrow.json as pj

    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            return pj.read_json(stream)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{path} cannot be read as JSON, one object per line: {str(error).splitlines()[0]}") from error


def separated(
    path: Path, *, mark: str | None = None, names: Sequence[str] | None = None, wanted: Sequence[str] | None = None,
    ids: Sequence[str] = (), encoding: str = "utf8", quotes: bool = True,
) -> Table:  # fmt: skip
    """A text table. names: of the columns, where the file has no header; quotes: whether '"' encloses fields that hold the mark.

    A column that turns out not to be numbers half-way is read again as words, so that the rows that are none can be told.
    """
    import pyarrow.csv as pc

    lines = head(path)
    if not lines:
        raise RecordError(f"{path} is empty or no text: a log has one row per event")
    mark = mark or separator(path, lines[0])
    words: dict[str, Any] = {name: pa.dictionary(pa.int32(), pa.string()) for name in ids}
    skipped: list[int | None] = []

    def skip(row: Any) -> str:
        skipped.append(row.number)
        return "skip"

    header = [] if names else next(csv.reader(lines[:1], delimiter=mark), [])
    for attempt in range(2):
        skipped.clear()
        if attempt:
            for name in names or header:
                words.setdefault(name, pa.string())
        options = {
            "read_options": pc.ReadOptions(column_names=list(names) if names else None, use_threads=False, encoding=encoding),
            "parse_options": pc.ParseOptions(delimiter=mark, quote_char='"' if quotes else False, invalid_row_handler=skip),
            "convert_options": pc.ConvertOptions(
                column_types=words, include_columns=None if wanted is None else list(wanted), strings_can_be_null=True
            ),
        }
        try:
            with pa.input_stream(str(path), compression="detect") as stream:
                return pc.read_csv(stream, **options), tuple(skipped), 1 if names else 2
        except (pa.ArrowException, OSError) as error:
            if attempt or not isinstance(error, pa.ArrowInvalid):
                hint = ". It is in another encoding: save it as UTF-8" if "UTF8" in str(error) else ""
                raise RecordError(f"{path} cannot be read as a text table: {str(error).splitlines()[0]}{hint}") from error
    raise AssertionError("a table is read or refused")
