"""The Parquet file that `write_log` writes: events with their ids, and in the schema's metadata all ids, texts, dates and notes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cupel.errors import RecordError
from cupel.interactions.log import Log
from cupel.interactions.places import Place, suffix
from cupel.interactions.tables import parquet

NAME = "cupel"
DESCRIPTION = "a log that cupel wrote"
KEY = b"cupel.log"
VERSION = 1
compute: Any = pc


def detect(place: Place) -> tuple[float, str]:
    """By the metadata of a Parquet file."""
    import pyarrow.parquet as pq

    if place.path.is_dir() or suffix(place.path) != ".parquet":
        return 0.0, ""
    try:
        found = pq.read_schema(place.path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{place.path} is not a Parquet file: {str(error).splitlines()[0]}") from error
    return (1.0, "cupel wrote it") if KEY in found else (0.0, "")


def read(place: Place) -> Log:
    """The log as it was."""
    rows = parquet(place.path)
    metadata = rows.schema.metadata or {}
    if KEY not in metadata:
        raise RecordError(f"{place.path} is not a log that cupel wrote: read it with format='table'")
    facts = json.loads(metadata[KEY])
    if facts.get("version") != VERSION:
        raise RecordError(
            f"{place.path} was written in version {facts.get('version')}; this cupel reads version {VERSION}. Write it again."
        )
    users, items = (np.array(facts[name], dtype=str) if facts[name] else np.zeros(0, dtype="U1") for name in ("users", "items"))
    columns: dict[str, Any] = {}
    for name in ("value", "time", "propensity"):
        if name in rows.column_names:
            columns[name] = np.array(rows[name].to_numpy())
    if "event" in rows.column_names:
        columns["event"] = np.array(rows["event"].cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)
    return Log(
        users, items, _index(rows["user"], users, place), _index(rows["item"], items, place), **columns,
        texts=None if facts["texts"] is None else tuple(facts["texts"]),
        released=None if facts["released"] is None else np.array(facts["released"], dtype=np.int64), notes=tuple(facts["notes"]),
    )  # fmt: skip


def table_of(log: Log) -> Any:
    """The table that is written: ids by dictionary, the other columns as they are."""
    columns: dict[str, Any] = {}
    for name, index, ids in (("user", log.user, log.users), ("item", log.item, log.items)):
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(ids.tolist(), pa.string()))
    for name in ("value", "time", "propensity"):
        if (x := getattr(log, name)) is not None:
            columns[name] = pa.array(x, from_pandas=False)
    if log.event is not None:
        columns["event"] = pa.array(log.event.tolist(), pa.string()).dictionary_encode()
    facts = {
        "version": VERSION, "users": log.users.tolist(), "items": log.items.tolist(),
        "texts": None if log.texts is None else list(log.texts),
        "released": None if log.released is None else log.released.tolist(), "notes": list(log.notes),
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({KEY: json.dumps(facts).encode()})


def _index(column: Any, ids: np.ndarray, place: Place) -> np.ndarray:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    array = coded.unify_dictionaries()
    if not array.num_chunks:
        return np.zeros(0, np.int32)
    where = compute.index_in(array.chunks[0].dictionary.cast(pa.string()), value_set=pa.array(ids.tolist(), pa.string()))
    if where.null_count:
        raise RecordError(f"{place.path}: {where.null_count:,} ids of events are not among those of the log: the file is not whole")
    at = where.to_numpy(zero_copy_only=False).astype(np.int32)
    return at[np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in array.chunks])]
