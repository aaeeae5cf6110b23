"""A spool: a directory that holds votes in the very layout of memory, so that opening it maps files instead of reading them.

Texts lie in two files each: the bytes of all of them, and int64 offsets into these (the buffers of an Arrow large_string array). A
numeric column is a file of its values. The rows as they came are an Arrow IPC stream. `spool.json` holds the rest and is written last:
a directory without it is not whole.
"""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.schema import Quarantined, Votes
from cupel.records.stream.scratch import release

VERSION = 1
FACTS = "spool.json"
#: numeric columns of `Votes` and how they lie on disk
KINDS: dict[str, str] = {
    "prompt": "<i4", "first": "<i4", "second": "<i4", "outcome": "<i1", "annotator": "<i4", "group": "<i4", "p": "<f8", "w": "<f8",
    "strength": "<f8", "seconds": "<f8", "model_first": "<i4", "model_second": "<i4", "split": "<i1", "line": "<i8",
}  # fmt: skip
#: values moved at a time when a column is read and written again
STEP = 1 << 20


class Column:
    """A numeric array on disk that grows at its end; `read` maps what is there.

    width: values per row; rows of more than one value are two-dimensional.
    """

    def __init__(self, path: Path, kind: str, width: int = 1) -> None:
        self.path, self.kind, self.width, self.rows = path, np.dtype(kind), width, 0
        self._file = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 - closed by close()

    def append(self, values: np.ndarray) -> None:
        """Add rows at the end."""
        values = np.ascontiguousarray(values, dtype=self.kind)
        self.rows += len(values)
        self._file.write(values.data.cast("B") if values.size else b"")

    def read(self) -> np.ndarray:
        """All rows so far, mapped from disk (read-only)."""
        self._file.flush()
        return self.again()

    def again(self) -> np.ndarray:
        """All rows, after `close`."""
        found = mapped(self.path, self.kind)[: self.rows * self.width]
        return found.reshape(self.rows, self.width) if self.width > 1 else found

    def close(self) -> None:
        """Nothing more is added."""
        self._file.close()


class Texts:
    """Texts on disk that grow at their end."""

    def __init__(self, place: Path, name: str) -> None:
        self.place, self.name, self.count, self.size = place, name, 0, 0
        self._bytes = open(place / f"{name}.bytes", "wb", buffering=1 << 20)  # noqa: SIM115 - closed by close()
        self._offsets = Column(place / f"{name}.offsets", "<i8")
        self._offsets.append(np.zeros(1, dtype=np.int64))

    def append(self, values: pa.Array) -> None:
        """Add a large_string array without nulls."""
        if not len(values):
            return
        offsets, data = buffers(values)
        self._bytes.write(memoryview(data)[offsets[0] : offsets[-1]])
        self._offsets.append(offsets[1:] - offsets[0] + self.size)
        self.count += len(values)
        self.size += int(offsets[-1] - offsets[0])

    def read(self) -> pa.Array:
        """All texts so far as one large_string array, mapped from disk."""
        self._bytes.flush()
        self._offsets.read()
        return read_texts(self.place, self.name, self.count)

    def close(self) -> None:
        """Nothing more is added."""
        self._bytes.close()
        self._offsets.close()


def buffers(values: pa.Array) -> tuple[np.ndarray, Any]:
    """(int64 [n + 1] offsets, the buffer that they point into) of a large_string array."""
    _, offsets, data = values.buffers()
    found = np.frombuffer(offsets, dtype=np.int64, count=len(values) + 1, offset=8 * values.offset)
    return found, data if data is not None else b""


def mapped(path: Path, kind: Any) -> np.ndarray:
    """A file of numbers as a read-only array over the file itself; an empty file is an empty array."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))


def read_texts(place: Path, name: str, count: int) -> pa.Array:
    """`count` texts of a spool as one large_string array whose bytes stay on disk."""
    if count == 0:
        return pa.array([], pa.large_string())
    found = [_buffer(place / f"{name}.offsets"), _buffer(place / f"{name}.bytes")]
    return pa.LargeStringArray.from_buffers(count, found[0], found[1])


def _buffer(path: Path) -> pa.Buffer:
    if path.stat().st_size == 0:
        return pa.py_buffer(b"")
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


@dataclass
class Spool:
    """Where spooled votes lie, and which of their parts are the files there (by identity: a part that was replaced is not).

    temporary: the directory belongs to the votes and vanishes with the last of them.
    """

    path: Path
    parts: dict[str, Any] = field(default_factory=dict)
    temporary: bool = False

    def __post_init__(self) -> None:
        if self.temporary:
            weakref.finalize(self, release, self.path)


def write_facts(place: Path, facts: Mapping[str, Any]) -> None:
    """Say that the spool is whole."""
    from cupel.records.files import write_json

    write_json(place / FACTS, {"version": VERSION, **facts})


def open_spool(path: str | os.PathLike[str], *, temporary: bool = False) -> Votes:
    """The votes of a spool, mapped. Raises RecordError where the directory is none or its files are not whole.

    >>> open_spool("no/such/place")
    Traceback (most recent call last):
    cupel.errors.RecordError: no/such/place holds no spooled votes: spool.json is missing. Read the original file again.
    """
    place = Path(path)
    if not (place / FACTS).is_file():
        raise RecordError(f"{place} holds no spooled votes: {FACTS} is missing. Read the original file again.")
    try:
        facts = json.loads((place / FACTS).read_text("utf-8"))
        if facts.get("version") != VERSION:
            raise RecordError(f"{place} was spooled in version {facts.get('version')}; this cupel reads {VERSION}. Read the file again.")
        return votes_at(place, facts, temporary)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise RecordError(f"the spool {place} cannot be read: {str(error).splitlines()[0]}. Read the original file again.") from error


def votes_at(place: Path, facts: Mapping[str, Any], temporary: bool = False) -> Votes:
    """The votes whose files lie in a directory and whose other facts are given."""
    from cupel.records.store import unpack

    _check(place, facts)
    parts: dict[str, Any] = {name: mapped(place / name, kind) for name, kind in KINDS.items()}
    parts |= {name: read_texts(place, name, facts["texts"][name]) for name in ("prompts", "responses")}
    parts["ids"] = _ids(place, facts["n"])
    parts["source"] = _source(place) if facts["source"] else None
    set_aside = [json.loads(line) for line in (place / "quarantine.jsonl").read_text("utf-8").splitlines()]
    return Votes(
        **parts,
        annotators=tuple(facts["annotators"]),
        models=tuple(facts["models"]),
        order_known=facts["order_known"],
        source_format=facts["source_format"],
        quarantine=tuple(Quarantined(*row) for row in set_aside),
        meta=unpack(facts["meta"]),
        spool=Spool(place, dict(parts), temporary),
    )


def save_spool(votes: Votes, path: str | os.PathLike[str]) -> None:
    """Write streamed votes into a directory as a spool: parts that lie on disk are linked (or copied), the others written."""
    from cupel.records.store import pack

    place, spool = Path(path), votes.spool
    place.mkdir(parents=True, exist_ok=True)
    (place / FACTS).unlink(missing_ok=True)

    def same(name: str, *files: str) -> bool:
        found = name in spool.parts and getattr(votes, name) is spool.parts[name]
        for file in files if found else ():
            (place / file).unlink(missing_ok=True)
            try:
                os.link(spool.path / file, place / file)
            except OSError:  # another disk
                shutil.copyfile(spool.path / file, place / file)
        return found

    for name, kind in KINDS.items():
        if not same(name, name):
            np.ascontiguousarray(getattr(votes, name), dtype=kind).tofile(place / name)
    for name in ("prompts", "responses"):
        if not same(name, f"{name}.bytes", f"{name}.offsets"):
            texts = Texts(place, name)
            texts.append(getattr(votes, name).cast(pa.large_string()))
            texts.close()
    if not same("ids", "ids.bytes", "ids.offsets"):
        _, offsets, data = votes.ids.buffers()
        found = np.frombuffer(offsets, dtype=np.int32, count=len(votes) + 1, offset=4 * votes.ids.offset)
        (found - found[:1]).tofile(place / "ids.offsets")
        (place / "ids.bytes").write_bytes(memoryview(data)[found[0] : found[-1]] if data is not None else b"")
    if votes.source is not None and not same("source", "source.arrows"):
        with open(place / "source.arrows", "wb") as file, pa.ipc.new_stream(file, votes.source.schema) as out:
            out.write_table(votes.source)
    with open(place / "quarantine.jsonl", "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps([q.line, q.reason, q.detail, q.raw]) + "\n" for q in votes.quarantine)
    facts = {
        "n": len(votes), "texts": {"prompts": len(votes.prompts), "responses": len(votes.responses)}, "source": votes.source is not None,
        "annotators": list(votes.annotators), "models": list(votes.models), "order_known": votes.order_known,
        "source_format": votes.source_format, "meta": pack(dict(votes.meta)),
    }  # fmt: skip
    write_facts(place, facts)


def _check(place: Path, facts: Mapping[str, Any]) -> None:
    """Files have the sizes that the facts say."""
    want = {name: facts["n"] * np.dtype(kind).itemsize for name, kind in KINDS.items()}
    want |= {f"{name}.offsets": 8 * (count + 1) for name, count in facts["texts"].items()}
    for name, size in want.items():
        found = (place / name).stat().st_size if (place / name).is_file() else -1
        if found != size:
            raise RecordError(f"the spool {place} is not whole: {name} has {found:,} of {size:,} bytes. Read the original file again.")


def _ids(place: Path, n: int) -> pa.Array:
    if n == 0:
        return pa.array([], pa.string())
    return pa.StringArray.from_buffers(n, _buffer(place / "ids.offsets"), _buffer(place / "ids.bytes"))


def _source(place: Path) -> pa.Table:
    with pa.memory_map(str(place / "source.arrows")) as file:
        return pa.ipc.open_stream(file).read_all()
