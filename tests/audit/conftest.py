"""A small world with known strengths: responses with a quality that the text vectors show in part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from cupel.audit.features import Features, side_features
from cupel.records.schema import Votes


@dataclass(frozen=True)
class World:
    votes: Votes
    vectors: np.ndarray
    prompt_vectors: np.ndarray
    wrong: np.ndarray

    @property
    def features(self) -> Features:
        return side_features(self.votes, self.prompt_vectors, self.vectors)


def build(
    *, n_prompts: int = 30, per_prompt: int = 8, pairs_per_prompt: int = 20, error: float = 0.2, seen: float = 1.0, seed: int = 0,
    voters: int = 1, coin: bool = False, recurring: bool = True,
) -> World:  # fmt: skip
    """Votes by quality (never a tie in truth), each wrong with probability `error`; `coin`: labels are coin tosses."""
    rng = np.random.default_rng(seed)
    if not recurring:
        per_prompt, pairs_per_prompt = 2, 1
    n = n_prompts * per_prompt
    quality = rng.normal(size=n)
    vectors = np.concatenate([seen * quality[:, None] + rng.normal(size=(n, 1)), rng.normal(size=(n, 7))], axis=1)
    words = np.array(["the", "a", "river", "stone", "walks", "over", "because", "light", "and", "of", "green", "maybe", "seven", "bird"])
    texts = [f"{' '.join(rng.choice(words, size=rng.integers(4, 12)))} {i}." for i in range(n)]
    first, second, prompt = [], [], []
    for k in range(n_prompts):
        a, b = np.triu_indices(per_prompt, 1)
        for i in rng.permutation(len(a))[:pairs_per_prompt]:
            for _ in range(voters):
                sides = (a[i], b[i]) if rng.random() < 0.5 else (b[i], a[i])
                first.append(k * per_prompt + sides[0])
                second.append(k * per_prompt + sides[1])
                prompt.append(k)
    first, second, prompt = (np.array(x, dtype=np.int32) for x in (first, second, prompt))
    m = len(first)
    better = quality[first] > quality[second]
    wrong = rng.random(m) < (0.5 if coin else error)
    outcome = np.where(better ^ wrong, 0, 1).astype(np.int8)
    nothing = np.full(m, np.nan)
    absent = np.full(m, -1, dtype=np.int32)
    votes = Votes(
        prompts=pa.array([f"question {k}" for k in range(n_prompts)]), responses=pa.array(texts), ids=pa.array([f"v{i}" for i in range(m)]),
        prompt=prompt, first=first, second=second, outcome=outcome, group=prompt,
        annotator=(np.arange(m) % voters).astype(np.int32) if voters > 1 else absent,
        p=(outcome == 0).astype(float), w=np.ones(m), strength=nothing, seconds=nothing, model_first=absent, model_second=absent,
        split=np.zeros(m, dtype=np.int8), line=np.arange(1, m + 1), annotators=tuple(f"p{i}" for i in range(voters)) if voters > 1 else (),
    )  # fmt: skip
    return World(votes, vectors, rng.normal(size=(n_prompts, 8)), wrong)


@pytest.fixture(scope="session")
def world():
    """Builder of worlds."""
    return build
