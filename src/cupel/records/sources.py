"""Any source of rows -> one Arrow table with line numbers; a broken row is set aside, a broken file is one clear error."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records import textual
from cupel.records.schema import Quarantined

READABLE = ".jsonl .ndjson .json .csv .tsv (each also with .gz), .parquet, .arrow, .feather, or a folder of these (save_to_disk, hub)"

#: what pyarrow raises for a file that is not what it claims to be
BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError, IndexError, OverflowError, MemoryError)


@dataclass
class Unfolded:
    """Where comparisons came from when rows are not comparisons: the lines of both sides, the number of source rows, what was lost."""

    first: np.ndarray
    second: np.ndarray
    n_rows: int
    losses: tuple[str, ...] = ()


@dataclass
class Rows:
    """Rows as they came: columns, the line (or row) number of each, and what could not be read at all."""

    table: pa.Table
    line: np.ndarray
    quarantine: list[Quarantined] = field(default_factory=list)
    name: str = "rows"
    notes: list[str] = field(default_factory=list)
    unfolded: Unfolded | None = None


def load(source: Any, kinds: Mapping[str, str] | None = None) -> Rows:
    """Rows of a path, "-" (standard input), DataFrame, Arrow table, `datasets.Dataset` or list of dicts.

    kinds: column -> "text" where a value of another type than most is a fault of the row, or "name" where numbers and texts are
        both names; other columns of mixed types become JSON text.
    Raises RecordError for faults of the whole file (missing, empty, truncated, wrong encoding, unknown kind).

    >>> rows = load([{"a": "x"}, {"a": "y"}])
    >>> rows.table.column_names, rows.line.tolist()
    (['a'], [1, 2])
    """
    kinds = kinds or {}
    if isinstance(source, str | os.PathLike):
        rows = _standard_input(kinds) if os.fspath(source) == "-" else from_path(Path(os.fspath(source)), kinds)
    elif isinstance(source, list | tuple):
        rows = textual.from_objects(list(source), range(1, len(source) + 1), kinds, "list of rows")
    else:
        rows = _object(source, kinds)
    if rows.table.num_rows == 0 and not rows.quarantine:
        raise RecordError(f"{rows.name} has no rows. Give a file with at least one comparison.")
    names = rows.table.column_names
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RecordError(f"{rows.name} has {len(twice)} column name(s) twice (first: {twice[0]!r}). Rename one of them.")
    return rows


def from_path(path: Path, kinds: Mapping[str, str]) -> Rows:
    """Rows of a file or folder. RecordError where there is none (and what is near), or it cannot be read."""
    text = str(path)
    if text.startswith("hf://"):
        raise RecordError(
            f"{text}: reading from the Hugging Face hub is not built into this reader. Load it with `datasets` and pass the object."
        )
    if not path.exists():
        near = _near(path)
        raise RecordError(f"no such file: {path}.{near} Give a path, or - for standard input.")
    if path.is_dir():
        return _directory(path, kinds)
    try:
        data_kind = file_kind(path)
        if data_kind in ("parquet", "arrow"):
            return _arrow_file(path, data_kind)
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}.") from error
    return _bytes(data, data_kind, str(path), kinds)


def _near(path: Path) -> str:
    import difflib

    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return f" There is no directory {path.parent}."
    close = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / close[0]}?" if close else ""


def file_kind(path: Path) -> str:
    """The kind of a file: its content where that is unmistakable, else its name."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    kinds = {".ndjson": "jsonl", ".pq": "parquet", ".feather": "arrow", ".ipc": "arrow"}
    known = {f".{kind}": kind for kind in ("jsonl", "json", "csv", "tsv", "parquet", "arrow")}
    return (known | kinds).get(last, "sniff")


def _bytes(data: bytes, kind: str, name: str, kinds: Mapping[str, str]) -> Rows:
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, name)
    if kind == "sniff" and data[:4] == b"PAR1":
        return from_table(_read_parquet(pa.BufferReader(data), name), name)
    if kind == "sniff" and data[:6] == b"ARROW1":
        return from_table(_read_arrow(pa.BufferReader(data), name), name)
    if not data.strip():
        raise RecordError(f"{name} is empty. Give a file with at least one comparison.")
    return textual.parse(textual.decode(data, name), kind, name, kinds)


def _gunzip(data: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError as error:
        raise RecordError(
            f"{name} is cut off: the gzip stream of {len(data):,} bytes ends too early{_readable(data)}. Copy or download it again."
        ) from error
    except (OSError, zlib.error) as error:
        raise RecordError(f"{name} is not a sound gzip file: {error}. Copy or download it again.") from error


def _readable(data: bytes) -> str:
    """How much of a gzip stream that is cut off can be read; nothing where it is damaged as well."""
    try:
        return f", after {len(zlib.decompressobj(wbits=31).decompress(data)):,} readable bytes"
    except zlib.error:
        return ""


def _standard_input(kinds: Mapping[str, str]) -> Rows:
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    data = stream.read()
    return _bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"), "sniff", "standard input", kinds)


def _arrow_file(path: Path, kind: str) -> Rows:
    if path.stat().st_size == 0:
        raise RecordError(f"{path} is empty. Give a file with at least one comparison.")
    table = _read_parquet(path, str(path)) if kind == "parquet" else _read_arrow(pa.OSFile(str(path)), str(path))
    return from_table(table, str(path))


def _read_parquet(source: Any, name: str) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(source).read()
    except BROKEN as error:
        raise RecordError(f"{name} is not a sound Parquet file: {first_line(error)}. Copy or write it again.") from error


def _read_arrow(source: Any, name: str) -> pa.Table:
    try:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()
    except BROKEN as error:
        raise RecordError(f"{name} is not a sound Arrow file: {first_line(error)}. Copy or write it again.") from error


def _directory(path: Path, kinds: Mapping[str, str]) -> Rows:
    """All files of a folder as one table; where they are of several splits, a column says which."""
    from cupel.records.folders import layout

    try:
        found = layout(path)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}.") from error
    parts = [from_path(part.path, kinds) for part in found]
    splits = list(dict.fromkeys(part.split for part in found if part.split))
    tables = [part.table for part in parts]
    column = "split" if all("split" not in table.column_names for table in tables) else "dataset_split"
    if len(splits) > 1:
        names = [pa.array([part.split or None], pa.large_string()) for part in found]
        at = [pa.array(np.zeros(table.num_rows, np.int32)) for table in tables]
        tables = [table.append_column(column, name.take(index)) for table, name, index in zip(tables, names, at, strict=True)]
    try:
        table = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    except pa.ArrowException as error:
        raise RecordError(f"the {len(parts)} files of {path} do not have the same columns: {first_line(error)}") from error
    before, lines, quarantine, notes = 0, [], [], []
    for part, held in zip(found, parts, strict=True):
        lines.append(held.line + before)
        quarantine += [replace(q, line=q.line + before) for q in held.quarantine]
        notes += held.notes
        if before:
            notes.append(f"rows of {part.path.name} are counted from {before + 1:,}")
        before = max([before, *lines[-1].tolist(), *(q.line for q in quarantine)])
    if len(splits) > 1:
        notes.append(f"splits {', '.join(splits)} are read together; column {column} says which (keep them: --map split={column})")
    return Rows(table, np.concatenate(lines), quarantine, str(path), notes)


def _object(source: Any, kinds: Mapping[str, str]) -> Rows:
    """A table-like object of a library that need not be imported here."""
    kind = f"{type(source).__module__}.{type(source).__name__}"
    if isinstance(source, pa.Table):
        return from_table(source, "Arrow table")
    if isinstance(source, pa.RecordBatch):
        return from_table(pa.Table.from_batches([source]), "Arrow record batch")
    if kind.startswith("pandas.") and hasattr(source, "to_dict"):
        try:
            table = pa.Table.from_pandas(source, preserve_index=False)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
            records = source.to_dict("records")
            return textual.from_objects(records, range(1, len(records) + 1), kinds, "DataFrame")
        return from_table(table.replace_schema_metadata(None), "DataFrame")
    if kind.startswith("datasets."):
        if isinstance(source, dict):
            names = ", ".join(map(str, source))
            raise RecordError(
                f"this is a collection of {len(source)} splits ({names}). Pass one of them, e.g. data[{next(iter(source), 'train')!r}]."
            )
        if hasattr(source, "with_format"):
            table = source.with_format("arrow")[:]
            return from_table(table.replace_schema_metadata(None), "datasets.Dataset")
    if hasattr(source, "__arrow_c_stream__"):
        return from_table(pa.table(source), kind)
    if isinstance(source, dict):
        return textual.from_columns(source, kinds, "dict of columns")
    raise RecordError(
        f"cannot read rows from {kind}. Give a path ({READABLE}), a DataFrame, an Arrow table, a datasets.Dataset or a list of dicts."
    )


def from_table(table: pa.Table, name: str) -> Rows:
    """Rows of an Arrow table; rows whose text is not UTF-8 (Arrow readers do not look) are set aside."""
    try:
        table.validate()
        str(table.schema)  # names of columns and fields must be text too
        return _checked(table, name)
    except BROKEN as error:
        raise RecordError(f"{name} holds values that break the Arrow format: {first_line(error)}. Write it again.") from error


def _checked(table: pa.Table, name: str) -> Rows:
    line = np.arange(1, table.num_rows + 1, dtype=np.int64)
    try:
        table.validate(full=True)
        return Rows(table, line, [], name)
    except pa.ArrowInvalid:
        pass  # which rows?
    bad: dict[int, str] = {}
    for column in table.column_names:
        row = 0
        for chunk in table[column].chunks:
            small, large = pa.types.is_string(chunk.type), pa.types.is_large_string(chunk.type)
            if not small and not large:
                chunk.validate(full=True)
                row += len(chunk)
                continue
            raw = chunk.view(pa.binary() if small else pa.large_binary())
            raw.validate(full=True)  # the offsets are sound: what is left can only be the text itself
            for value in raw.to_pylist():
                try:
                    if value is not None:
                        value.decode("utf-8")
                except UnicodeDecodeError as error:
                    bad.setdefault(row, f"column {column}: {error.reason} at byte {error.start}")
                row += 1
    keep = np.array([row not in bad for row in range(table.num_rows)], dtype=bool)
    kept = table.filter(pa.array(keep))
    kept.validate(full=True)
    quarantine = [Quarantined(row + 1, "not_utf8", detail, "") for row, detail in sorted(bad.items())]
    return Rows(kept, line[keep], quarantine, name)


def first_line(error: BaseException) -> str:
    """What an error says, up to its first line break and at most 300 characters.

    >>> first_line(ValueError("one\\ntwo"))
    'one'
    """
    return str(error).strip().split("\n")[0][:300]
