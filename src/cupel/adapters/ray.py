"""Encoding and near-duplicates over many machines with Ray Data: the functions of the package, applied to the blocks of a dataset.

Needs `cupel[ray]`. A vector depends on its text alone, and a near-duplicate pair on its two texts, so results do not depend on how a
dataset is cut into blocks, on the number of workers, or on whether Ray is used at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError

if TYPE_CHECKING:
    from ray.data import Dataset

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

    known = list(dataset.columns() or [])
    if column not in known:
        raise InputError(f"the dataset has no column {column!r}; its columns: {', '.join(known) or 'none'}")
    if into in known:
        raise InputError(f"the dataset has a column {into!r} already; name another: into=...")
    load_encoder(encoder, device=device)
    return dataset.map_batches(
        _Encode, fn_constructor_args=(encoder, column, into, device), batch_size=batch, batch_format="numpy", concurrency=workers,
        **resources,
    )  # fmt: skip
