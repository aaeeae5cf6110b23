"""Votes on disk: Parquet tables and one JSON file in a directory, read back exactly as they were."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.files import write_json, write_parquet
from cupel.records.schema import Quarantined, Votes

VERSION = 1
_ARRAYS = (
    "prompt", "first", "second", "outcome", "annotator", "group", "p", "w", "strength", "seconds",
    "model_first", "model_second", "split", "line",
)  # fmt: skip


def save(votes: Votes, path: str | os.PathLike[str]) -> None:
    """Write votes into the directory `path`: comparisons, prompts, responses, source rows, quarantine, facts. Atomic per file.

    Streamed votes are written as a spool (`stream.spool`): what lies on disk already is linked, not copied, and `load` maps it.

    >>> import tempfile
    >>> from cupel.records import read
    >>> place = tempfile.mkdtemp()
    >>> votes = read([{"prompt": "p", "chosen": "x", "rejected": "y"}])
    >>> save(votes, place)
    >>> load(place).ids.equals(votes.ids)
    True
    """
    place = Path(path)
    if votes.spool is not None:
        from cupel.records.stream.spool import save_spool

        return save_spool(votes, place)
    columns: dict[str, Any] = {"id": votes.ids, **{name: pa.array(getattr(votes, name), from_pandas=False) for name in _ARRAYS}}
    write_parquet(place / "prompts.parquet", pa.table({"text": votes.prompts}))
    write_parquet(place / "responses.parquet", pa.table({"text": votes.responses}))
    if votes.source is not None:
        write_parquet(place / "source.parquet", votes.source, exact=True)
    else:
        (place / "source.parquet").unlink(missing_ok=True)
    fields = ("line", "reason", "detail", "raw")
    kinds = (pa.int64(), pa.large_string(), pa.large_string(), pa.large_string())
    set_aside = {name: pa.array([getattr(q, name) for q in votes.quarantine], kind) for name, kind in zip(fields, kinds, strict=True)}
    write_parquet(place / "quarantine.parquet", pa.table(set_aside))
    facts = {
        "version": VERSION, "annotators": list(votes.annotators), "models": list(votes.models), "order_known": votes.order_known,
        "source_format": votes.source_format, "meta": pack(dict(votes.meta)),
    }  # fmt: skip
    write_json(place / "votes.json", facts)
    write_parquet(place / "comparisons.parquet", pa.table(columns))  # last: its presence says that the rest is there


def load(path: str | os.PathLike[str]) -> Votes:
    """Votes that `save` wrote. Raises RecordError where the directory is none or not whole."""
    import pyarrow.parquet as pq

    place = Path(path)
    if (place / "spool.json").is_file():
        from cupel.records.stream.spool import open_spool

        return open_spool(place)
    needed = ["comparisons.parquet", "prompts.parquet", "responses.parquet", "quarantine.parquet", "votes.json"]
    missing = [name for name in needed if not (place / name).is_file()]
    if missing:
        raise RecordError(f"{place} holds no stored votes: {len(missing)} of {len(needed)} files are missing (first: {missing[0]}).")
    try:
        facts = json.loads((place / "votes.json").read_text("utf-8"))
        tables = {name: pq.ParquetFile(place / name).read() for name in needed[:4]}
        source = pq.ParquetFile(place / "source.parquet").read() if (place / "source.parquet").is_file() else None
    except (ValueError, OSError, pa.ArrowException) as error:
        raise RecordError(
            f"the votes stored in {place} cannot be read: {str(error).splitlines()[0]}. Read the original file again."
        ) from error
    if facts.get("version") != VERSION:
        raise RecordError(
            f"{place} was stored in version {facts.get('version')}; this cupel reads version {VERSION}. Read the original file again."
        )
    rows = tables["comparisons.parquet"]
    arrays = {name: np.array(rows[name].to_numpy()) for name in _ARRAYS}
    return Votes(
        prompts=_one(tables["prompts.parquet"]["text"]),
        responses=_one(tables["responses.parquet"]["text"]),
        ids=_one(rows["id"]),
        **arrays,
        annotators=tuple(facts["annotators"]),
        models=tuple(facts["models"]),
        order_known=facts["order_known"],
        source=source,
        source_format=facts["source_format"],
        meta=unpack(facts["meta"]),
        quarantine=tuple(Quarantined(**row) for row in tables["quarantine.parquet"].to_pylist()),
    )


def quarantine_rows(votes: Votes) -> list[dict[str, Any]]:
    """The rows that were set aside, as the lines of `quarantine.jsonl`: line, reason, detail, raw.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "chosen": "x", "rejected": "y"}, {"prompt": "p", "chosen": "", "rejected": "y"}], max_bad=0.5)
    >>> [(row["line"], row["reason"]) for row in quarantine_rows(votes)]
    [(2, 'empty_side')]
    """
    return [{"line": q.line, "reason": q.reason, "detail": q.detail, "raw": q.raw} for q in votes.quarantine]


def _one(values: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def pack(value: Any) -> Any:
    """JSON that remembers tuples."""
    if isinstance(value, tuple):
        return {"__tuple__": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    return value


def unpack(value: Any) -> Any:
    """What `pack` made JSON of."""
    if isinstance(value, dict):
        if set(value) == {"__tuple__"}:
            return tuple(unpack(item) for item in value["__tuple__"])
        return {key: unpack(item) for key, item in value.items()}
    return [unpack(item) for item in value] if isinstance(value, list) else value
