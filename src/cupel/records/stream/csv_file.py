"""CSV and TSV in batches of records; every value stays text, as in reading at once."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.schema import Quarantined
from cupel.records.sources import Rows
from cupel.records.stream.kinds import Kind, Kinds, Seen
from cupel.records.stream.lines import BLOCK, blocks
from cupel.records.textual import RAW

#: a quoted field of more characters than this was never closed
LONGEST_FIELD = 256 << 20


class _Lines:
    """The lines of a file for the csv reader; the last few are remembered, and the next can be looked at."""

    def __init__(self, file: CsvFile) -> None:
        self._file = file
        self._iterator = self._all()
        self._ahead: deque[str] = deque()
        self.recent: deque[tuple[int, str]] = deque(maxlen=64)
        self.number = 0

    def _all(self) -> Iterator[str]:
        for block in blocks(self._file.path, self._file.name, self._file.block):
            self._file.at = block.read
            yield from io.StringIO(block.data.decode("utf-8"), newline="")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._iterator)
        self.number += 1
        self.recent.append((self.number, line))
        return line

    def around(self, number: int) -> str:
        """A line and the one after it."""
        if not self._ahead:
            self._ahead.extend([line for line in [next(self._iterator, None)] if line is not None])
        lines = [line for at, line in self.recent if at in (number, number + 1)]
        if len(lines) < 2 and self.number == number:
            lines += list(self._ahead)[:1]
        return "\n".join(line.rstrip("\r\n") if line.endswith("\r\n") else line.rstrip("\n") for line in lines)[:RAW]


class CsvFile:
    """A file of delimited records with a header."""

    def __init__(self, path: Path, delimiter: str | None, start: str) -> None:
        self.path, self.name = path, str(path)
        self.block = BLOCK
        self.size = path.stat().st_size
        self.at = 0
        first = start.split("\n", 1)[0]
        self.delimiter = delimiter if delimiter is not None else max(",;\t", key=first.count)
        self.header: list[str] = []

    def head(self, rows: int) -> Kinds:
        """Every column is text."""
        next(self.batches({}, Seen({})), None)
        return {name: Kind(pa.large_string()) for name in self.header}

    def batches(self, kinds: Kinds, seen: Seen) -> Generator[Rows | None]:
        """Rows of about a block of text each."""
        previous = csv.field_size_limit(LONGEST_FIELD)
        try:
            yield from self._batches()
        finally:
            csv.field_size_limit(previous)

    def _batches(self) -> Iterator[Rows]:
        lines = _Lines(self)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        header: list[str] = []
        records: list[list[str]] = []
        numbers: list[int] = []
        aside: list[Quarantined] = []
        size = 0
        while True:
            start = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if "field limit" in str(error):
                    raise RecordError(
                        f"{self.name}: a quote that opens at line {start:,} is not closed within {LONGEST_FIELD >> 20:,} MiB. Close it."
                    ) from error
                if not header:
                    raise RecordError(f"{self.name}: its first line cannot be read as CSV column names: {error}.") from error
                aside.append(Quarantined(start, "invalid_csv", str(error), lines.around(start)))
                continue
            if not record:
                continue
            if not header:
                self.header = header = [column.strip() for column in record]
                if len(set(header)) != len(header):
                    twice = sorted({column for column in header if header.count(column) > 1})
                    raise RecordError(f"{self.name} has {len(twice)} column name(s) twice (first: {twice[0]!r}). Rename one of them.")
                continue
            if len(record) != len(header):
                detail = f"{len(record)} fields, {len(header)} columns"
                aside.append(Quarantined(start, "ragged_row", detail, self.delimiter.join(record)[:RAW]))
                continue
            records.append(record)
            numbers.append(start)
            size += sum(map(len, record))
            if size >= self.block:
                yield self._rows(header, records, numbers, aside)
                records, numbers, aside, size = [], [], [], 0
        yield self._rows(header, records, numbers, aside)

    def _rows(self, header: list[str], records: list[list[str]], numbers: list[int], aside: list[Quarantined]) -> Rows:
        columns = list(zip(*records, strict=True)) if records else [()] * len(header)
        table = pa.table({column: pa.array(values, pa.large_string()) for column, values in zip(header, columns, strict=True)})
        return Rows(table, np.array(numbers, dtype=np.int64), aside, self.name)

    def notes(self, kinds: Kinds) -> list[str]:
        """Nothing is in doubt."""
        return []
