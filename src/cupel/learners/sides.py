"""What a linear reward head reads from one (prompt, response): embedding, surface facts, closeness to the prompt.

The scaling is fitted once, on the unique sides of the training data and never on labels, and saved with the model: the features of a
side depend on that side alone, so a score does not depend on what else is scored with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cupel.encode.surface import SURFACE, surface
from cupel.errors import InputError
from cupel.records.schema import Votes

if TYPE_CHECKING:
    from cupel.encode import Encoder

#: standardised columns are cut here, so that one odd text cannot lead
CLIP = 4.0


@dataclass(frozen=True)
class RawSides:
    """Unique sides before scaling: embedding float32 [m, k], facts float32 [m, len(SURFACE) + 1] (surface, prompt cosine),
    length float64 [m] in characters, and (first, second) int64 [n]: which of them each comparison points at."""  # fmt: skip

    embedding: np.ndarray
    facts: np.ndarray
    length: np.ndarray
    first: np.ndarray
    second: np.ndarray


@dataclass(frozen=True)
class Scaling:
    """Centre and scale of the columns: the embedding is divided by one number (`norm`), the facts each by their own spread."""

    centre: np.ndarray
    norm: float
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, sides: RawSides) -> Scaling:
        """The scaling under which the embedding block has mean square 1 and every fact unit variance over the unique sides."""
        centre = sides.embedding.mean(axis=0, dtype=np.float64)
        size = float(np.sqrt(np.mean((sides.embedding - centre) ** 2))) if sides.embedding.size else 0.0
        mean = sides.facts.mean(axis=0, dtype=np.float64)
        spread = sides.facts.std(axis=0, dtype=np.float64)
        return cls(centre, size if size > 0 else 1.0, mean, np.where(spread > 1e-9, spread, np.inf))

    def apply(self, embedding: np.ndarray, facts: np.ndarray) -> np.ndarray:
        """Features float64 [m, k + len(facts)] of sides; each row from its own values only. Constant facts become 0."""
        block = (embedding.astype(np.float64) - self.centre) / self.norm
        rest = np.clip((facts.astype(np.float64) - self.mean) / self.spread, -CLIP, CLIP)
        return np.concatenate([block, rest], axis=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that `apply` gives."""
        return (*(f"embedding_{i}" for i in range(len(self.centre))), *SURFACE, "prompt_cosine")


def raw_sides(
    votes: Votes,
    encoder: Encoder,
    *,
    cache: str | Path | None = None,
    vectors: tuple[np.ndarray, np.ndarray] | None = None,
) -> RawSides:
    """The unique sides of the comparisons, encoded through the cache; texts that no comparison uses are not encoded.

    vectors  (prompt vectors, response vectors) aligned with `votes.prompts` and `votes.responses`, to encode nothing.
    Raises InputError where they are not.
    """
    node_first, node_second = votes.node
    count = int(max(node_first.max(initial=-1), node_second.max(initial=-1))) + 1
    prompt, response = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for node, side in ((node_first, votes.first), (node_second, votes.second)):
        prompt[node], response[node] = votes.prompt, side
    used_prompts, at_prompt = np.unique(prompt, return_inverse=True)
    used, at = np.unique(response, return_inverse=True)
    texts = [votes.responses[int(i)].as_py() for i in used]
    if vectors is None:
        from cupel.encode.cache import encode_cached
        from cupel.records.text import render

        asked = encode_cached(encoder, [render(votes.prompts[int(i)].as_py()) for i in used_prompts], cache)
        answered = encode_cached(encoder, texts, cache)
    else:
        for name, given, table in (("prompt", vectors[0], votes.prompts), ("response", vectors[1], votes.responses)):
            if given.ndim != 2 or len(given) != len(table):
                raise InputError(f"{len(table):,} {name}s need as many vectors, not an array of shape {given.shape}")
        asked, answered = vectors[0][used_prompts], vectors[1][used]
    embedding = np.asarray(answered, dtype=np.float32)[at]
    closeness = cosine(embedding, np.asarray(asked, dtype=np.float32)[at_prompt])
    facts = np.concatenate([surface(texts)[at], closeness[:, None]], axis=1)
    length = np.array([len(text) for text in texts], dtype=np.float64)[at]
    return RawSides(embedding, facts, length, node_first, node_second)


def raw_texts(
    prompts: Sequence[str], responses: Sequence[str], encoder: Encoder, *, cache: str | Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(embedding [n, k], facts [n, f]) of given (prompt, response) texts, one row each. InputError where the lists differ in length."""
    from cupel.encode.cache import encode_cached
    from cupel.records.text import render

    if len(prompts) != len(responses):
        raise InputError(f"{len(prompts):,} prompts but {len(responses):,} responses: give one prompt to each response")
    embedding = encode_cached(encoder, list(responses), cache)
    asked = encode_cached(encoder, [render(text) for text in prompts], cache)
    return embedding, np.concatenate([surface(list(responses)), cosine(embedding, asked)[:, None]], axis=1)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the rows of a and b [n, k], 0 where one of them is zero: float32 [n].

    >>> cosine(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.sqrt((a * a).sum(axis=1)) * np.sqrt((b * b).sum(axis=1))
    return np.where(norms > 1e-12, (a * b).sum(axis=1) / np.maximum(norms, 1e-12), 0.0).astype(np.float32)
