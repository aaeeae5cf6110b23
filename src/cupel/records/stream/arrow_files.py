"""Parquet and Arrow files in batches of rows."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.sources import BROKEN, Rows, _first_line, _table
from cupel.records.stream.kinds import Kind, Kinds, Seen

#: rows of a batch
ROWS = 1 << 14


class ArrowFiles:
    """One or more files of the same columns."""

    def __init__(self, files: list[Path], kind: str, name: str) -> None:
        self.files, self.kind, self.name = files, kind, name
        self.rows = ROWS
        self.size = sum(file.stat().st_size for file in files)
        self.at = 0
        for file in files:
            if file.stat().st_size == 0:
                raise RecordError(f"{file} is empty. Give a file with at least one comparison.")
        try:
            self.schema = pa.unify_schemas([self._schema(file) for file in files], promote_options="permissive")
        except pa.ArrowException as error:
            raise RecordError(f"the {len(files)} files of {name} do not have the same columns: {_first_line(error)}") from error
        names = self.schema.names
        if len(set(names)) != len(names):
            twice = sorted({column for column in names if names.count(column) > 1})
            raise RecordError(f"{name} has {len(twice)} column name(s) twice (first: {twice[0]!r}). Rename one of them.")

    def head(self, rows: int) -> Kinds:
        """The types that the files state."""
        return {field.name: Kind(field.type) for field in self.schema}

    def batches(self, kinds: Kinds, seen: Seen) -> Generator[Rows | None]:
        """Rows of the files, `rows` at a time, numbered from 1 on."""
        row = 0
        empty = self.schema.empty_table()
        for file in self.files:
            for batch in self._read(file):
                part = pa.concat_tables([empty, pa.Table.from_batches([batch])], promote_options="permissive").combine_chunks()
                found = _table(part, self.name)
                found.line += row
                for i, q in enumerate(found.quarantine):
                    found.quarantine[i] = type(q)(q.line + row, q.reason, q.detail, q.raw)
                row += part.num_rows
                yield found
            self.at += file.stat().st_size
        if not row:
            raise RecordError(f"{self.name} has no rows. Give a file with at least one comparison.")

    def _schema(self, file: Path) -> pa.Schema:
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(file).schema_arrow if self.kind == "parquet" else self._open(file).schema
        except BROKEN as error:
            raise self._broken(file, error) from error

    def _open(self, file: Path) -> Any:
        source = pa.memory_map(str(file))
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)

    def _read(self, file: Path) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        try:
            if self.kind == "parquet":
                yield from pq.ParquetFile(file).iter_batches(batch_size=self.rows, use_threads=False)
                return
            reader = self._open(file)
            whole = (reader.get_batch(i) for i in range(reader.num_record_batches)) if hasattr(reader, "get_batch") else iter(reader)
            for batch in whole:
                for low in range(0, batch.num_rows, self.rows):
                    yield batch.slice(low, self.rows)
        except BROKEN as error:
            raise self._broken(file, error) from error

    def _broken(self, file: Path, error: BaseException) -> RecordError:
        kind = "Parquet" if self.kind == "parquet" else "Arrow"
        return RecordError(f"{file} is not a sound {kind} file: {_first_line(error)}. Copy or write it again.")

    def notes(self, kinds: Kinds) -> list[str]:
        """Nothing is in doubt."""
        return []
