"""Tables written a part at a time, in the bytes or at least the rows of writing them at once: the file appears when it is whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from cupel.errors import InputError
from cupel.records.exports import json_rows
from cupel.records.files import atomic_write, plain

#: endings of the files that are written
ENDINGS = (".parquet", ".jsonl", ".json", ".csv")


class Writer(Protocol):
    """Takes the parts of a table, one after another, all with the same columns."""

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """No more rows."""
        ...


def check_ending(target: Path) -> None:
    """InputError where a file is named so that it cannot be told how to write it."""
    if target.suffix not in ENDINGS:
        raise InputError(f"cannot tell how to write {target}: its name should end in one of {', '.join(ENDINGS)}")


@contextlib.contextmanager
def open_table(target: Path | None, to: str) -> Iterator[Writer]:
    """A writer of the rows of a converted table. None writes nothing."""
    if target is None:
        yield _Nothing()
        return
    check_ending(target)
    kinds = {".parquet": ParquetParts, ".jsonl": _Lines, ".json": _Array, ".csv": _Csv}
    with atomic_write(target) as temporary:
        writer = kinds[target.suffix](temporary, to)
        try:
            yield writer
        finally:
            writer.close()


class _Nothing:
    def write(self, table: pa.Table) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is open."""


class ParquetParts:
    """A Parquet file in the making, compressed as `files.write_parquet` does."""

    def __init__(self, path: Path, to: str = "") -> None:
        self.path, self.writer = path, None

    def write(self, table: pa.Table) -> None:
        """Add a row group."""
        import pyarrow.parquet as pq

        if self.writer is None:
            self.writer: Any = pq.ParquetWriter(self.path, table.schema, compression="zstd", compression_level=3)
        if table.num_rows:
            self.writer.write_table(table.combine_chunks(), row_group_size=65536)

    def close(self) -> None:
        """No more rows."""
        if self.writer is not None:
            self.writer.close()


class _Text:
    def __init__(self, path: Path, to: str) -> None:
        self.to, self.rows = to, 0
        self.file: IO[str] = open(path, "w", encoding="utf-8", newline="\n", errors="backslashreplace")  # noqa: SIM115 - by close()

    def close(self) -> None:
        self.file.close()


class _Lines(_Text):
    """One JSON object per line, keys in the order of the columns."""

    def write(self, table: pa.Table) -> None:
        self.file.writelines(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in json_rows(table, self.to))


class _Array(_Text):
    """The text of `files.to_json` of all rows."""

    def write(self, table: pa.Table) -> None:
        for row in json_rows(table, self.to):
            text = json.dumps(plain(row), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
            self.file.write((",\n  " if self.rows else "[\n  ") + text.replace("\n", "\n  "))
            self.rows += 1

    def close(self) -> None:
        self.file.write("\n]\n" if self.rows else "[]\n")
        self.file.close()


class _Csv:
    """Comma-separated values; what has parts of its own cannot be held."""

    def __init__(self, path: Path, to: str) -> None:
        self.path, self.writer = path, None

    def write(self, table: pa.Table) -> None:
        from pyarrow import csv

        if self.writer is None:
            nested = [name for name in table.column_names if table.schema.field(name).type.num_fields]
            if nested:
                raise InputError(
                    f"a .csv file cannot hold lists ({len(nested)} columns, first: {nested[0]}). Name OUT .jsonl or .parquet."
                )
            self.writer: Any = csv.CSVWriter(self.path, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
