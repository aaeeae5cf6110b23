"""Tables written a part at a time: the file appears when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from cupel.errors import InputError
from cupel.records.exports import json_rows, writers
from cupel.records.files import atomic_write
from cupel.records.schema import Votes


def write_parts(parts: Iterable[Votes], target: Path, to: str) -> int:
    """Write each part of some votes, converted, one after another into one file; the number of rows written."""
    if target.suffix not in (".parquet", ".jsonl"):
        raise InputError(f"{target} must end in .parquet or .jsonl: these are the files that are written part by part.")
    rows, writer = 0, None
    with atomic_write(target) as temporary:
        try:
            for part in parts:
                table, _ = writers()[to].write(part)
                if writer is None:
                    writer = _Parquet(temporary, table.schema) if target.suffix == ".parquet" else _Lines(temporary, to)
                writer.write(table)
                rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return rows


class _Parquet:
    """Row groups of one table each, as `files.write_parquet` compresses them."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.schema = schema
        self.writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)

    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table if table.schema == self.schema else table.cast(self.schema))

    def close(self) -> None:
        self.writer.close()


class _Lines:
    """One JSON object per line, keys in the order of the columns."""

    def __init__(self, path: Path, to: str) -> None:
        self.to = to
        self.file = open(path, "w", encoding="utf-8", newline="\n", errors="backslashreplace")  # noqa: SIM115 - closed by close()

    def write(self, table: pa.Table) -> None:
        from cupel.records.files import _plain

        self.file.writelines(json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in json_rows(table, self.to))

    def close(self) -> None:
        self.file.close()
