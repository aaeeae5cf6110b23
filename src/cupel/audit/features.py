"""What a linear head may know about each side of a comparison: the embedding, the surface, how close it is to its prompt.

Computed once per unique (prompt, response) and gathered; scaled by statistics that never look at a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cupel.encode.surface import SURFACE, surface
from cupel.errors import InputError
from cupel.records.schema import Votes

#: standardised surface columns are cut here, so that one odd text cannot lead a fit
CLIP = 4.0
#: root mean square of an embedding component beside the unit scale of a surface fact; chosen among .05 to 1 on ukp_convarg at
#: 0, 30 and 40 % planted flips, so figures on those data flatter it a little
EMBEDDING_SCALE = 0.35


@dataclass(frozen=True)
class Features:
    """Features of unique sides, and which side each vote points at.

    table    float32 [n_nodes, d], one row per unique (prompt, response)
    row      (first, second) int64 [n]: rows of `table`
    length   float64 [n_nodes], characters of the response
    names    of the d columns
    """

    table: np.ndarray
    row: tuple[np.ndarray, np.ndarray]
    length: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row[0])

    @cached_property
    def first(self) -> np.ndarray:
        """float32 [n, d]: features of the first sides."""
        return self.table[self.row[0]]

    @cached_property
    def second(self) -> np.ndarray:
        """float32 [n, d]: features of the second sides."""
        return self.table[self.row[1]]

    @property
    def length_first(self) -> np.ndarray:
        """float64 [n]: characters of the first response."""
        return self.length[self.row[0]]

    @property
    def length_second(self) -> np.ndarray:
        """float64 [n]: characters of the second response."""
        return self.length[self.row[1]]

    def take(self, rows: np.ndarray) -> Features:
        """The features of some votes (int indices or a mask); the table is shared."""
        return Features(self.table, (self.row[0][rows], self.row[1][rows]), self.length, self.names)


def side_features(votes: Votes, prompt_vectors: np.ndarray, response_vectors: np.ndarray) -> Features:
    """Per-side features: embedding (scaled as a block), standardised surface facts, cosine between response and prompt.

    prompt_vectors, response_vectors: [len(votes.prompts), k] and [len(votes.responses), k]; k may be 0 (surface only).
    The embedding block is centred and divided by one number, so that its components keep their relative size: the head's ridge is a
    prior in the encoder's geometry. The means and scales come from the unique sides alone, in their own order, never from labels.
    Raises InputError where the vectors do not match the text tables or are not finite.

    >>> import numpy as np, pyarrow as pa
    >>> z = lambda *v: np.array(v, dtype=np.int32)
    >>> votes = Votes(pa.array(["Q"]), pa.array(["yes, because.", "no"]), pa.array(["r1"]), z(0), z(0), z(1), np.array([0], np.int8), z(-1),
    ...     z(0), np.ones(1), np.ones(1), np.full(1, np.nan), np.full(1, np.nan), z(-1), z(-1), np.array([-1], np.int8), np.array([1]))
    >>> side_features(votes, np.ones((1, 3)), np.ones((2, 3))).length_first
    array([13.])
    """
    for name, vectors, texts in (("prompt", prompt_vectors, votes.prompts), ("response", response_vectors, votes.responses)):
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise InputError(
                f"{len(texts):,} {name}s need {len(texts):,} vectors, got an array of shape {vectors.shape}. "
                f"Encode every {name} once, in order."
            )
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise InputError(f"{len(bad):,} of {len(texts):,} {name} vectors are not finite (first: {name} {bad[0]}). Check the encoder.")
    first, second = votes.node
    n_nodes = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    response = np.zeros(n_nodes, dtype=np.int64)
    prompt = np.zeros(n_nodes, dtype=np.int64)
    for node, side in ((first, votes.first), (second, votes.second)):
        response[node] = side
        prompt[node] = votes.prompt
    used, position = np.unique(response, return_inverse=True)
    texts = votes.responses.take(_indices(used)).to_pylist()
    facts = _standardised(surface(texts))[position]
    embedding = np.asarray(response_vectors, dtype=np.float32)[response]
    closeness = _standardised(_cosine(embedding, np.asarray(prompt_vectors, dtype=np.float32)[prompt])[:, None])
    embedding -= embedding.mean(axis=0, dtype=np.float64).astype(np.float32) if n_nodes else 0
    norm = float(np.sqrt(np.mean(np.square(embedding, dtype=np.float64)))) if embedding.size else 0.0
    embedding *= EMBEDDING_SCALE / norm if norm > 0 else 0.0
    table = np.concatenate([embedding, facts, closeness], axis=1, dtype=np.float32)
    length = np.array([len(text) for text in texts], dtype=np.float64)[position]
    names = (*(f"embedding_{i}" for i in range(embedding.shape[1])), *SURFACE, "prompt_cosine")
    return Features(table, (first, second), length, names)


def _indices(values: np.ndarray):
    import pyarrow as pa

    return pa.array(values)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns minus their mean over their standard deviation, cut at `CLIP`; constant columns become 0."""
    if len(values) == 0:
        return values.astype(np.float32)
    mean = values.mean(axis=0, dtype=np.float64)
    spread = values.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-9, spread, np.inf)
    return np.clip((values - mean) / scale, -CLIP, CLIP).astype(np.float32)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of rows, 0 where a vector is zero: float32 [n]."""
    if a.shape[1] == 0:
        return np.zeros(len(a), dtype=np.float32)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(norms > 1e-12, np.einsum("nk,nk->n", a, b) / np.maximum(norms, 1e-12), 0.0).astype(np.float32)
