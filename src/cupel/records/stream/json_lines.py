"""JSON Lines in batches: by pyarrow's reader where that is sure to say what Python's would, else line by line.

pyarrow parses a block several times as fast, given the types of the columns. It is believed only where every line is exactly one object
(it begins with a brace, ends with one, and as many rows come out as lines went in) and no number is beyond what a float64 holds exactly;
an unknown key, another type, a bad line: the block is read by Python, which says what is wrong and where.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.schema import Quarantined
from cupel.records.sources import Rows
from cupel.records.stream.kinds import Kinds, Seen, convert, widened
from cupel.records.stream.lines import BLOCK, Block, blocks
from cupel.records.textual import RAW

_NEWLINE, _OPEN, _CLOSE, _RETURN = 10, 123, 125, 13
_EXACT = 2.0**53


class JsonLines:
    """A file of one JSON object per line."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self.path, self.name, self.columns = path, str(path), columns
        self.block = BLOCK
        self.size = path.stat().st_size
        self.at = 0

    def head(self, rows: int) -> Kinds:
        """What is known of the columns from the first lines: at least `rows` rows, or all."""
        seen, found = Seen(self.columns), 0
        for block in self.blocks(min(self.block, 1 << 20)):
            objects, lines, aside = _objects(block)
            self.broken(aside)
            convert(objects, lines, {}, seen, self.name)
            found += len(objects)
            if found >= rows:
                break
        return seen.settle()

    def batches(self, kinds: Kinds, seen: Seen) -> Generator[Rows | None]:
        """Rows of each block; None where the block contradicts `kinds` (`seen` then knows better)."""
        schema = _schema(kinds)
        objects_found, broken = 0, []
        for block in self.blocks(self.block):
            self.at = block.read
            rows = None if schema is None else _by_arrow(block, schema, self.name)
            if rows is not None:
                objects_found += rows.table.num_rows
                yield rows
                continue
            objects, lines, aside = _objects(block)
            self.broken(aside)
            objects_found += len(objects)
            broken += aside[:1]
            if not objects and not aside:
                continue
            made = convert(objects, lines, kinds, seen, self.name)
            if made is not None:
                made.quarantine[:] = sorted(aside + made.quarantine, key=lambda q: q.line)
            yield made
        if not objects_found:
            self.empty(broken)

    def blocks(self, size: int) -> Iterator[Block]:
        """One value per line, about `size` bytes at a time."""
        return blocks(self.path, self.name, size)

    def broken(self, aside: list[Quarantined]) -> None:
        """What lines that are no JSON mean for the file: one bad line costs one line."""

    def empty(self, broken: list[Quarantined]) -> NoReturn:
        """Refuse a file without rows; `broken` holds the first of its lines that are no JSON."""
        if not broken:
            raise RecordError(f"{self.name} is empty. Give a file with at least one comparison.")
        raise RecordError(
            f"{self.name}: none of its lines is JSON (first: line {broken[0].line}: {broken[0].detail}). "
            "Name the file by its kind (.jsonl, .json, .csv, .tsv, .parquet)."
        )

    def notes(self, kinds: Kinds) -> list[str]:
        """What to say of columns of mixed types."""
        return [f"column {name} holds values of mixed types and is kept as JSON text" for name, kind in kinds.items() if kind.noted]


def _objects(block: Block) -> tuple[list[object], np.ndarray, list[Quarantined]]:
    """(values of the lines, their numbers, lines that are no JSON)."""
    objects: list[object] = []
    numbers: list[int] = []
    aside: list[Quarantined] = []
    loads = json.loads
    for number, line in enumerate(block.data.decode("utf-8").split("\n"), start=block.line):
        if not line or line.isspace():
            continue
        try:
            found = loads(line)
        except RecursionError:
            aside.append(Quarantined(number, "invalid_json", "nested too deeply", line[:RAW]))
            continue
        except ValueError as error:
            aside.append(Quarantined(number, "invalid_json", str(error)[:300], line[:RAW]))
            continue
        objects.append(found)
        numbers.append(number)
    return objects, np.array(numbers, dtype=np.int64), aside


def _schema(kinds: Kinds) -> pa.Schema | None:
    """The types to parse by, where every column has one."""
    fields = [(name, kind.type) for name, kind in kinds.items() if kind.type is not None]
    return pa.schema(fields) if fields and len(fields) == len(kinds) else None


def _by_arrow(block: Block, schema: pa.Schema, name: str) -> Rows | None:
    """The rows of a block by pyarrow's reader; None where it refuses or may differ from Python's."""
    import pyarrow.json as reader

    data = np.frombuffer(block.data, dtype=np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    last = np.maximum(ends - 1, 0)
    last = np.where(data[last] == _RETURN, np.maximum(last - 1, 0), last)
    if (starts >= last).any() or (data[starts] != _OPEN).any() or (data[last] != _CLOSE).any():
        return None
    try:
        table = reader.read_json(
            pa.BufferReader(block.data),
            read_options=reader.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            parse_options=reader.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except (pa.ArrowException, OverflowError):
        return None
    if table.num_rows != len(ends):
        return None
    arrays = {}
    for field in schema:
        column = table[field.name].combine_chunks()
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if not _exact(array):
            return None
        arrays[field.name] = widened(array)
    return Rows(pa.table(arrays), block.line + np.arange(len(ends), dtype=np.int64), [], name)


def _exact(array: pa.Array) -> bool:
    """No number is infinite, missing its value, or too large to tell whole numbers apart (Python reads those as integers)."""
    kind = array.type
    if pa.types.is_floating(kind):
        values = array.drop_null().to_numpy(zero_copy_only=False)
        return bool((np.abs(values) < _EXACT).all())
    if pa.types.is_struct(kind):
        return all(_exact(array.field(i)) for i in range(kind.num_fields))
    if pa.types.is_list(kind):
        return _exact(array.values)
    return True
