"""What a linear head may know about each side of a comparison: the embedding, the surface, how close it is to its prompt.

Kept once per unique response and once per unique (prompt, response), and put together only for the rows that are asked for, so that
the vectors are never copied as a whole; scaled by statistics that never look at a label.
"""

from __future__ import annotations

from collections.abc import Callable
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
#: sides handled at a time
CHUNK = 1 << 15
#: rows of features put together at a time
_TAKEN = 1 << 11


@dataclass(frozen=True)
class Sides:
    """Features of unique sides, float32 [n_nodes, d], computed for the rows that are asked for: `sides[rows]`.

    vectors    float32 [responses, k], the vectors as the encoder gave them; response int64 [n_nodes], the row of each node
    centre     float32 [k] and factor: the embedding block is (vector - centre) * factor
    facts      float32 [used responses, s], standardised; fact int64 [n_nodes], the row of each node
    closeness  float32 [n_nodes, 1], standardised cosine to the prompt
    """

    vectors: np.ndarray
    response: np.ndarray
    centre: np.ndarray
    factor: float
    facts: np.ndarray
    fact: np.ndarray
    closeness: np.ndarray

    def __len__(self) -> int:
        return len(self.response)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_nodes, d)."""
        return len(self.response), self.vectors.shape[1] + self.facts.shape[1] + 1

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), d]."""
        k = self.vectors.shape[1]
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _TAKEN):  # a few megabytes at a time, which stay near the processor
            part, some = out[start : start + _TAKEN], rows[start : start + _TAKEN]
            block = self.vectors[self.response[some]]
            block -= self.centre
            np.multiply(block, np.float32(self.factor), out=part[:, :k])
            part[:, k:-1] = self.facts[self.fact[some]]
            part[:, -1:] = self.closeness[some]
        return out

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """float32 [n_nodes, k]: the features of every side times theta [d, k], without the constant of the centre.

        No feature is put together: vectors and facts are multiplied where they lie. Only differences of scores mean anything.
        """
        k, theta = self.vectors.shape[1], theta.astype(np.float32)
        of_vector, of_facts = theta[:k] * np.float32(self.factor), theta[k:-1]
        out = np.empty((len(self), theta.shape[1]), dtype=np.float32)
        for start in range(0, len(self), CHUNK):
            rows = slice(start, start + CHUNK)
            out[rows] = _at(self.vectors, self.response[rows]) @ of_vector
            out[rows] += _at(self.facts, self.fact[rows]) @ of_facts
            out[rows] += self.closeness[rows] * theta[-1]
        return out


@dataclass(frozen=True)
class Features:
    """Features of unique sides, and which side each vote points at.

    sides    the features of each unique (prompt, response); `sides[rows]` is float32 [len(rows), d]
    row      (first, second) int64 [n]: rows of `sides`
    length   float64 [n_nodes], characters of the response
    names    of the d columns
    """

    sides: Sides
    row: tuple[np.ndarray, np.ndarray]
    length: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row[0])

    @cached_property
    def table(self) -> np.ndarray:
        """float32 [n_nodes, d]: all sides at once (a copy as large as the vectors)."""
        return self.sides[np.arange(len(self.sides))]

    @property
    def first(self) -> np.ndarray:
        """float32 [n, d]: features of the first sides."""
        return self.sides[self.row[0]]

    @property
    def second(self) -> np.ndarray:
        """float32 [n, d]: features of the second sides."""
        return self.sides[self.row[1]]

    @property
    def length_first(self) -> np.ndarray:
        """float64 [n]: characters of the first response."""
        return self.length[self.row[0]]

    @property
    def length_second(self) -> np.ndarray:
        """float64 [n]: characters of the second response."""
        return self.length[self.row[1]]

    def take(self, rows: np.ndarray) -> Features:
        """The features of some votes (int indices or a mask); the sides are shared."""
        return Features(self.sides, (self.row[0][rows], self.row[1][rows]), self.length, self.names)


def side_features(
    votes: Votes, prompt_vectors: np.ndarray, response_vectors: np.ndarray, *, progress: Callable[[int, int], None] | None = None
) -> Features:
    """Per-side features: embedding (scaled as a block), standardised surface facts, cosine between response and prompt.

    prompt_vectors, response_vectors: [len(votes.prompts), k] and [len(votes.responses), k]; k may be 0 (surface only).
    The embedding block is centred and divided by one number, so that its components keep their relative size: the head's ridge is a
    prior in the encoder's geometry. The means and scales come from the unique sides alone, in their own order, never from labels.
    `response_vectors` is kept, not copied (where it is float32), and must not change afterwards.
    progress: called with (responses read, responses in all).
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
        bad = [at + start for start, part in _parts(vectors) if not _finite(part) for at in np.flatnonzero(~np.isfinite(part).all(axis=1))]
        if bad:
            raise InputError(f"{len(bad):,} of {len(texts):,} {name} vectors are not finite (first: {name} {bad[0]}). Check the encoder.")
    first, second = votes.node
    n_nodes = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    response = np.zeros(n_nodes, dtype=np.int64)
    prompt = np.zeros(n_nodes, dtype=np.int64)
    for node, side in ((first, votes.first), (second, votes.second)):
        response[node] = side
        prompt[node] = votes.prompt
    used, position = np.unique(response, return_inverse=True)
    facts, length = _facts(votes, used, progress)
    vectors = np.asarray(response_vectors, dtype=np.float32)
    asked = np.asarray(prompt_vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("nk,nk->n", asked, asked))
    closeness = np.empty((n_nodes, 1), dtype=np.float32)
    total, square = np.zeros(vectors.shape[1]), 0.0
    for start in range(0, n_nodes, _TAKEN):
        rows = slice(start, start + _TAKEN)
        part = _at(vectors, response[rows])
        own = np.einsum("nk,nk->n", part, part)
        closeness[rows, 0] = _cosine(part, own, asked, lengths, prompt[rows])
        total += part.sum(axis=0, dtype=np.float64)
        square += float(own.sum(dtype=np.float64))
    mean = total / max(n_nodes, 1)
    centre = mean.astype(np.float32)
    square = max(square - n_nodes * float(mean @ mean), 0.0)
    norm = float(np.sqrt(square / max(n_nodes * vectors.shape[1], 1)))
    sides = Sides(
        vectors=vectors, response=response, centre=centre, factor=EMBEDDING_SCALE / norm if norm > 0 else 0.0,
        facts=_standardised(facts), fact=position.reshape(-1), closeness=_standardised(closeness),
    )  # fmt: skip
    names = (*(f"embedding_{i}" for i in range(vectors.shape[1])), *SURFACE, "prompt_cosine")
    return Features(sides, (first, second), length[sides.fact], names)


def _parts(values: np.ndarray):
    return ((start, values[start : start + CHUNK]) for start in range(0, len(values), CHUNK))


def _facts(votes: Votes, used: np.ndarray, progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """(surface facts float32 [used, s], characters float64 [used]) of the responses `used`, some thousand texts at a time."""
    import pyarrow as pa

    from cupel.records.arrow import pc

    facts = np.empty((len(used), len(SURFACE)), dtype=np.float32)
    length = np.empty(len(used))
    for start in range(0, len(used), CHUNK):
        rows = used[start : start + CHUNK]
        whole = rows[-1] - rows[0] == len(rows) - 1  # they ascend
        texts = votes.responses.slice(rows[0], len(rows)) if whole else votes.responses.take(pa.array(rows))
        facts[start : start + CHUNK] = surface(texts)
        length[start : start + CHUNK] = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
        if progress is not None:
            progress(start + len(texts), len(used))
    return facts, length


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns minus their mean over their standard deviation, cut at `CLIP`; constant columns become 0. In place, float32."""
    if len(values) == 0:
        return values
    mean = sum(part.sum(axis=0, dtype=np.float64) for _, part in _parts(values)) / len(values)
    spread = np.sqrt(sum(np.square(part - mean).sum(axis=0) for _, part in _parts(values)) / len(values))
    scale = np.where(spread > 1e-9, spread, np.inf)
    for _, part in _parts(values):
        part[:] = np.clip((part - mean) / scale, -CLIP, CLIP)
    return values


def _cosine(a: np.ndarray, square: np.ndarray, b: np.ndarray, lengths: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cosine of the rows of a (of squared length `square`) and the rows `at` of b (of `lengths`), 0 where a vector is zero: float32 [n]."""
    if a.shape[1] == 0:
        return np.zeros(len(a), dtype=np.float32)
    norms = np.sqrt(square) * lengths[at]
    return np.where(norms > 1e-12, np.einsum("nk,nk->n", a, b[at]) / np.maximum(norms, 1e-12), 0.0).astype(np.float32)


def _at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """values[rows], a view where the rows follow one another."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return values[rows[0] : rows[-1] + 1]
    return values[rows]


def _finite(part: np.ndarray) -> bool:
    """All values are finite; False may also mean that their squares overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.einsum("nk,nk->", part, part)))
