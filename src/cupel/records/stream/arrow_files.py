"""Parquet and Arrow files in batches of rows."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.sources import BROKEN, Rows, first_line, from_table
from cupel.records.stream.kinds import Kind, Kinds, Seen

#: rows of a batch
ROWS = 1 << 14


class ArrowFiles:
    """One or more files, each (path, "parquet" or "arrow", its split or ""); where splits differ, a column says which."""

    def __init__(self, files: list[tuple[Path, str, str]], name: str) -> None:
        self.files, self.name = files, name
        self.rows = ROWS
        self.size = sum(file.stat().st_size for file, _, _ in files)
        self.at = 0
        for file, _, _ in files:
            if file.stat().st_size == 0:
                raise RecordError(f"{file} is empty. Give a file with at least one comparison.")
        schemas = [self._schema(file, kind) for file, kind, _ in files]
        self.splits = list(dict.fromkeys(split for _, _, split in files if split))
        self.column = "split" if all("split" not in schema.names for schema in schemas) else "dataset_split"
        if len(self.splits) > 1:
            schemas = [schema.append(pa.field(self.column, pa.large_string())) for schema in schemas]
        try:
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise RecordError(f"the {len(files)} files of {name} do not have the same columns: {first_line(error)}") from error
        self._notes: list[str] = []
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
        self._notes = []
        for file, kind, split in self.files:
            if row:
                self._notes.append(f"rows of {file.name} are counted from {row + 1:,}")
            for batch in self._read(file, kind):
                part = pa.Table.from_batches([batch])
                if len(self.splits) > 1:
                    part = part.append_column(self.column, pa.array([split or None] * part.num_rows, pa.large_string()))
                found = from_table(pa.concat_tables([empty, part], promote_options="permissive").combine_chunks(), self.name)
                found.line += row
                found.quarantine[:] = [replace(q, line=q.line + row) for q in found.quarantine]
                row += part.num_rows
                yield found
            self.at += file.stat().st_size
        if not row:
            raise RecordError(f"{self.name} has no rows. Give a file with at least one comparison.")

    def _schema(self, file: Path, kind: str) -> pa.Schema:
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(file).schema_arrow if kind == "parquet" else self._open(file).schema
        except BROKEN as error:
            raise _broken(file, kind, error) from error

    def _open(self, file: Path) -> Any:
        source = pa.memory_map(str(file))
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)

    def _read(self, file: Path, kind: str) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        try:
            if kind == "parquet":  # buffered ahead, every row group of the file would be in memory at once
                yield from pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 16).iter_batches(batch_size=self.rows, use_threads=False)
                return
            reader = self._open(file)
            whole = (reader.get_batch(i) for i in range(reader.num_record_batches)) if hasattr(reader, "get_batch") else iter(reader)
            for batch in whole:
                for low in range(0, batch.num_rows, self.rows):
                    yield batch.slice(low, self.rows)
        except BROKEN as error:
            raise _broken(file, kind, error) from error

    def notes(self, kinds: Kinds) -> list[str]:
        """Where the rows of each file begin, and that splits are read together."""
        if len(self.splits) < 2:
            return self._notes
        said = f"splits {', '.join(self.splits)} are read together; column {self.column} says which (keep them: --map split={self.column})"
        return [*self._notes, said]


def _broken(file: Path, kind: str, error: BaseException) -> RecordError:
    named = "Parquet" if kind == "parquet" else "Arrow"
    return RecordError(f"{file} is not a sound {named} file: {first_line(error)}. Copy or write it again.")
