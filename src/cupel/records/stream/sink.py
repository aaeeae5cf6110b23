"""Where the rows of a pass go: texts once each, columns of numbers, keys of ids, the rows as they came."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cupel.records.digests import digests
from cupel.records.stream.spool import KINDS, Column, Texts
from cupel.records.stream.unique import Unique, encode

#: columns whose final values are known only when all rows are
LATER = ("second", "annotator", "model_first", "model_second", "group", "split")
#: bytes of three digests, an outcome, and a zero after each
_HEAD = 3 * 33 + 2


class Batch(NamedTuple):
    """The usable rows of a batch: columns as `Votes` has them, texts not yet numbered, names as (codes, names)."""

    prompt: pa.Array
    first: pa.Array
    second: pa.Array
    outcome: np.ndarray
    numbers: dict[str, np.ndarray]  # p, w, strength, seconds, split, line
    annotator: tuple[np.ndarray, tuple[str, ...]]
    model_first: tuple[np.ndarray, tuple[str, ...]]
    model_second: tuple[np.ndarray, tuple[str, ...]]
    group: pa.Array | None
    ids: pa.Array
    source: pa.Table


class Names:
    """A few names (annotators, models) numbered in order of first appearance."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}

    def codes(self, codes: np.ndarray, names: Iterable[str]) -> np.ndarray:
        """int32: the numbers of a batch's codes; -1 stays."""
        names = tuple(names)
        table = np.full(len(names) + 1, -1, dtype=np.int32)
        for code in np.unique(codes[codes >= 0]).tolist():
            table[code] = self.number.setdefault(names[code], len(self.number))
        return table[codes]

    def ranks(self) -> tuple[tuple[str, ...], np.ndarray]:
        """(names sorted, int32 rank of each number and -1 for -1)."""
        names = sorted(self.number)
        rank = np.full(len(names) + 1, -1, dtype=np.int32)
        for place, name in enumerate(names):
            rank[self.number[name]] = place
        return tuple(names), rank


class Sink:
    """The spool of a pass in the making."""

    def __init__(self, place: Path) -> None:
        self.place, self.rows = place, 0
        self.prompts, self.responses = Unique(place, "prompts"), Unique(place, "responses")
        self.late, self.late_digests = Texts(place, "late"), Column(place / "late.sha256", "<u8", 4)
        self.columns = {name: Column(place / (f"{name}.raw" if name in LATER else name), kind) for name, kind in KINDS.items()}
        self.annotators, self.models, self.groups = Names(), Names(), Unique(place, "groups")
        self.keys, self.given = Column(place / "ids.key", "<u8"), Texts(place, "ids.given")
        self.is_given = Column(place / "ids.mask", "<i1")
        self.source: Any = None
        self._source_file: Any = None

    def add(self, batch: Batch) -> None:
        """Take in the rows of a batch."""
        n = len(batch.outcome)
        prompts, prompt = encode(batch.prompt)
        prompt_digest = digests(prompts)
        self.columns["prompt"].append(self.prompts.add(prompts, prompt_digest)[prompt])
        firsts, first = encode(batch.first)
        first_digest = digests(firsts)
        self.columns["first"].append(self.responses.add(firsts, first_digest)[first])
        seconds, second = encode(batch.second)
        second_digest = digests(seconds)
        self.columns["second"].append(self._second(seconds, second_digest)[second])
        self.columns["outcome"].append(batch.outcome)
        for name, values in batch.numbers.items():
            self.columns[name].append(values)
        self.columns["annotator"].append(self.annotators.codes(*batch.annotator))
        self.columns["model_first"].append(self.models.codes(*batch.model_first))
        self.columns["model_second"].append(self.models.codes(*batch.model_second))
        self.columns["group"].append(np.full(n, -1, dtype=np.int32) if batch.group is None else self._group(batch.group))
        sides = (prompt_digest[prompt], first_digest[first], second_digest[second])
        self._ids(batch, np.concatenate(sides, axis=1))
        self._rows(batch.source)
        self.rows += n

    def _second(self, texts: pa.Array, digest: np.ndarray) -> np.ndarray:
        """Numbers of the texts of second sides: known ones now, others (-2, -3, ...) when all first sides have been seen.

        Responses are numbered as reading at once does: those that appear as a first side before all others.
        """
        number = self.responses.find(digest)
        new = np.flatnonzero(number < 0)
        number[new] = -2 - (self.late.count + np.arange(len(new)))
        if len(new):
            self.late.append(texts.take(pa.array(new)))
            self.late_digests.append(digest[new])
        return number

    def _group(self, names: pa.Array) -> np.ndarray:
        texts, code = encode(names.drop_null())
        out = np.full(len(names), -1, dtype=np.int64)
        number = self.groups.add(texts, digests(texts))
        out[names.is_valid().to_numpy(zero_copy_only=False)] = number[code]
        return out

    def _ids(self, batch: Batch, sides: np.ndarray) -> None:
        """The first 8 bytes of each row's hash where the file gives no id, else the id."""
        n = len(batch.outcome)
        given = batch.ids.is_valid().to_numpy(zero_copy_only=False)
        self.is_given.append(given)
        self.given.append(batch.ids.drop_null())
        keys = np.zeros(n, dtype=np.uint64)
        rows = np.flatnonzero(~given)
        if len(rows):
            codes, names = batch.annotator
            tails = [name.encode() + b"\x000" for name in (*names, "")]  # the annotator, and that no earlier row is the same
            heads = row_heads(sides[rows], batch.outcome[rows])
            keys[rows] = first_words([head + tails[code] for head, code in zip(heads, codes[rows].tolist(), strict=True)])
        self.keys.append(keys)

    def _rows(self, table: pa.Table) -> None:
        if self.source is None:
            self._source_file = open(self.place / "source.arrows", "wb", buffering=1 << 20)  # noqa: SIM115 - closed by close()
            self.source = pa.ipc.new_stream(self._source_file, table.schema)
        self.source.write_table(table)

    def close(self) -> None:
        """Nothing more is added."""
        for part in (self.prompts, self.responses, self.groups, self.late, self.late_digests, self.keys, self.given, self.is_given):
            part.close()
        for column in self.columns.values():
            column.close()
        if self.source is not None and not self._source_file.closed:
            self.source.close()
            self._source_file.close()


def row_heads(sides: np.ndarray, outcome: np.ndarray) -> list[bytes]:
    """What the id of a row is the hash of, up to its annotator: digests of prompt, first and second side, outcome (see `build.row_ids`).

    sides: uint64 [n, 12], three SHA-256 side by side.
    """
    out = np.zeros((len(sides), _HEAD), dtype=np.uint8)
    raw = np.ascontiguousarray(sides).view(np.uint8).reshape(len(sides), 96)
    for i in range(3):
        out[:, 33 * i : 33 * i + 32] = raw[:, 32 * i : 32 * i + 32]
    out[:, _HEAD - 2] = outcome
    joined = out.tobytes()
    return [joined[at : at + _HEAD] for at in range(0, len(joined), _HEAD)]


def first_words(tails: list[bytes]) -> np.ndarray:
    """uint64: the first 8 bytes of the SHA-256 of each."""
    sha = hashlib.sha256
    return np.frombuffer(b"".join([sha(tail).digest() for tail in tails]), dtype=np.uint64)[::4]
