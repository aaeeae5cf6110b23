"""Tables written a part at a time: the file appears when it is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from cupel.errors import InputError
from cupel.records.convert import to_rows
from cupel.records.files import atomic_write
from cupel.records.schema import Votes

_NUMBER = re.compile(r"\d[\d,]*")


def write_parts(parts: Iterable[Votes], target: Path, to: Any) -> tuple[int, list[str]]:
    """Write each part of some votes, converted, one after another into one file; (rows, losses)."""
    if target.suffix not in (".parquet", ".jsonl"):
        raise InputError(f"{target} must end in .parquet or .jsonl: these are the files that are written part by part.")
    losses: dict[str, list[int]] = {}
    rows, writer = 0, None
    with atomic_write(target) as temporary:
        for part in parts:
            try:
                table, said = to_rows(part, to)
            except InputError as error:
                if "no row is left" not in str(error):
                    raise
                table, said = None, [str(error).split(": ", 1)[-1].removesuffix(".")]
            for sentence in said:
                _add(losses, sentence)
            if table is None:
                continue
            if writer is None:
                writer = _Parquet(temporary, table.schema) if target.suffix == ".parquet" else _Lines(temporary)
            writer.write(table)
            rows += table.num_rows
        if writer is None:
            raise InputError(f"no row is left for {to}: {'; '.join(_sentences(losses)) or 'there are no votes'}.")
        writer.close()
    return rows, _sentences(losses)


def _add(losses: dict[str, list[int]], sentence: str) -> None:
    numbers = [int(found.replace(",", "")) for found in _NUMBER.findall(sentence)]
    shape = _NUMBER.sub("{}", sentence.replace("{", "(").replace("}", ")"))
    known = losses.setdefault(shape, [0] * len(numbers))
    losses[shape] = [a + b for a, b in zip(known, numbers, strict=True)]


def _sentences(losses: dict[str, list[int]]) -> list[str]:
    return [shape.format(*(f"{number:,}" for number in numbers)) for shape, numbers in losses.items()]


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

    def __init__(self, path: Path) -> None:
        self.file = open(path, "w", encoding="utf-8", newline="\n", errors="backslashreplace")  # noqa: SIM115 - closed by close()

    def write(self, table: pa.Table) -> None:
        from cupel.records.files import _plain

        self.file.writelines(json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in table.to_pylist())

    def close(self) -> None:
        self.file.close()
