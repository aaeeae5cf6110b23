"""Encoding and near-duplicates over many machines with Ray Data: the functions of the package, applied to the blocks of a dataset.

Needs `cupel[ray]`. A vector depends on its text alone, and a near-duplicate pair on its two texts, so results do not depend on how a
dataset is cut into blocks, on the number of workers, or on whether Ray is used at all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cupel.errors import InputError

if TYPE_CHECKING:
    from ray.data import Dataset  # pyright: ignore[reportMissingImports]

    from cupel.records.near_duplicates import NearDuplicates

#: texts handed to an encoder at a time; a result does not depend on it
BATCH = 4096


class _Encode:
    """An actor that loads the encoder once and adds its vectors to each block."""

    def __init__(self, encoder: str, column: str, into: str, device: str) -> None:
        from cupel.encode import load_encoder

        self.encoder = load_encoder(encoder, device=device)
        self.column, self.into = column, into

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = [str(text) for text in batch[self.column]]
        return {**batch, self.into: self.encoder.encode(texts)}


def encode(
    dataset: Dataset, column: str, *, into: str = "vector", encoder: str = "static", device: str = "cpu", workers: int = 1,
    batch: int = BATCH, **resources: Any,
) -> Dataset:  # fmt: skip
    """The dataset with a column of vectors, float32 [dim], of the texts in `column`: the same bytes as `load_encoder(...).encode`.

    workers: actors, each of which loads the encoder once; resources (num_cpus, num_gpus, ...) are those of one actor, as Ray names
    them. An encoder that is not there raises EncoderError here, before any work; nothing is downloaded on the workers.
    InputError where the dataset has no such column, or already has `into`.
    """
    from cupel.encode import load_encoder

    known = _columns(dataset, column)
    if into in known:
        raise InputError(f"the dataset has a column {into!r} already; name another: into=...")
    load_encoder(encoder, device=device)
    return dataset.map_batches(
        _Encode, fn_constructor_args=(encoder, column, into, device), batch_size=batch, batch_format="numpy", concurrency=workers,
        **resources,
    )  # fmt: skip


class _Sign:
    """Signatures of the texts of a block: bytes of uint32 [64] for each, and the number of its runs of words."""

    def __init__(self, column: str, words: int, seed: int) -> None:
        from cupel.records.minhash import Signer

        self.signer = Signer(words, seed)
        self.column = column

    def __call__(self, block: pa.Table) -> pa.Table:
        from cupel.records.minhash import PERMUTATIONS, chunks

        texts = _texts(block, self.column)
        parts = [self.signer(texts.slice(low, high - low)) for low, high in chunks(texts)]
        rows = np.concatenate([signature.T for signature, _ in parts]) if parts else np.zeros((0, PERMUTATIONS), np.uint32)
        count = np.concatenate([count for _, count in parts]) if parts else np.zeros(0, np.int64)
        packed = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(4 * PERMUTATIONS), len(texts), [None, pa.py_buffer(np.ascontiguousarray(rows).tobytes())]
        )
        return pa.table({"text": texts, "signature": packed, "runs": pa.array(count, pa.int64())})


def near_duplicates(
    dataset: Dataset, column: str, *, words: int = 5, at_least: float = 0.8, seed: int = 0, every: bool = False, workers: int = 1,
    spool: str | os.PathLike[str] | None = None, **resources: Any,
) -> NearDuplicates:  # fmt: skip
    """Near-duplicates among the texts of `column`, positions counted in the order of the dataset: what
    `cupel.records.near_duplicates` finds.

    Texts are signed on the workers, which is most of the work; bands are grouped and candidates compared exactly on the caller's
    machine, where texts and signatures lie in a folder of `spool` while the search runs (256 bytes a text beside the text) and
    24 bytes a text in memory. InputError as there, and where the dataset has no such column or a text is null.
    """
    from cupel.records.minhash import PERMUTATIONS
    from cupel.records.near_duplicates import near_duplicates as search

    _columns(dataset, column)
    if spool is not None:
        Path(spool).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cupel-ray-", dir=spool) as folder:
        path = Path(folder) / "signed.arrow"
        signed = dataset.select_columns([column]).map_batches(
            _Sign, fn_constructor_args=(column, words, seed), batch_size=BATCH, batch_format="pyarrow", concurrency=workers, **resources,
        )  # fmt: skip
        schema = pa.schema([("text", pa.large_string()), ("signature", pa.binary(4 * PERMUTATIONS)), ("runs", pa.int64())])
        with _in_order(signed), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for block in signed.iter_batches(batch_size=BATCH, batch_format="pyarrow"):
                writer.write_table(block.cast(schema))
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            texts = pa.concat_arrays(table["text"].chunks) if table["text"].num_chunks else pa.array([], pa.large_string())
            found = search(texts, words=words, at_least=at_least, seed=seed, every=every, spool=folder, signed=_signatures(table))
            del table, texts
        return found


@contextmanager
def _in_order(dataset: Dataset) -> Iterator[None]:
    """Blocks of a dataset come in its own order: the option of the context that the dataset holds, which is not the current one."""
    from ray.data import DataContext  # pyright: ignore[reportMissingImports]

    options = [context.execution_options for context in (getattr(dataset, "context", None), DataContext.get_current()) if context]
    before = [option.preserve_order for option in options]
    try:
        for option in options:
            option.preserve_order = True
        yield
    finally:
        for option, value in zip(options, before, strict=True):
            option.preserve_order = value


def _signatures(table: pa.Table) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from cupel.records.minhash import PERMUTATIONS

    for block in table.to_batches():
        column = block.column("signature")
        rows = np.frombuffer(column.buffers()[1], np.uint32, PERMUTATIONS * len(column), 4 * PERMUTATIONS * column.offset)
        yield np.ascontiguousarray(rows.reshape(-1, PERMUTATIONS).T), block.column("runs").to_numpy()


def _texts(block: pa.Table, column: str) -> pa.Array:
    texts = block[column].cast(pa.large_string()).combine_chunks()
    if texts.null_count:
        raise InputError(f"{texts.null_count:,} of {len(texts):,} texts of a block are null in column {column!r}; drop these rows first")
    return pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) else texts


def _columns(dataset: Dataset, column: str) -> list[str]:
    known = list(dataset.columns() or [])
    if column not in known:
        raise InputError(f"the dataset has no column {column!r}; its columns: {', '.join(known) or 'none'}")
    return known
