"""Build small `Votes` by hand, without the reader, and simulated sets that should raise no finding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cupel.audit.checks import run_checks
from cupel.audit.checks.context import Context
from cupel.records.schema import OUTCOMES, Votes


def build(
    rows: Sequence[Sequence[Any]],
    *,
    annotators: Sequence[str | None] | None = None,
    models: Sequence[tuple[str, str]] | None = None,
    seconds: Sequence[float] | None = None,
    split: Sequence[int] | None = None,
    order_known: bool = False,
    **more: Any,
) -> Votes:
    """rows: (prompt, first, second, outcome); a prompt that is a list becomes canonical JSON."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    n = len(rows)
    prompts: dict[str, int] = {}
    responses: dict[str, int] = {}
    people: dict[str, int] = {}
    names: dict[str, int] = {}
    prompt = [prompts.setdefault(text(r[0]), len(prompts)) for r in rows]
    first = [responses.setdefault(r[1], len(responses)) for r in rows]
    second = [responses.setdefault(r[2], len(responses)) for r in rows]
    outcome = np.array([OUTCOMES.index(r[3]) for r in rows], dtype=np.int8)
    who = [-1 if a is None else people.setdefault(a, len(people)) for a in (annotators or [None] * n)]
    m = [(names.setdefault(a, len(names)), names.setdefault(b, len(names))) for a, b in models] if models else [(-1, -1)] * n
    half = np.array([1.0, 0.0, 0.5, 0.5, 0.5])
    return Votes(
        prompts=pa.array(list(prompts), type=pa.large_string()),
        responses=pa.array(list(responses), type=pa.large_string()),
        ids=pa.array([f"r{i}" for i in range(n)], type=pa.string()),
        prompt=np.array(prompt, dtype=np.int32),
        first=np.array(first, dtype=np.int32),
        second=np.array(second, dtype=np.int32),
        outcome=outcome,
        annotator=np.array(who, dtype=np.int32),
        group=np.array(prompt, dtype=np.int32),
        p=half[outcome],
        w=np.ones(n),
        strength=np.full(n, np.nan),
        seconds=np.full(n, np.nan) if seconds is None else np.array(seconds, dtype=np.float64),
        model_first=np.array([a for a, _ in m], dtype=np.int32),
        model_second=np.array([b for _, b in m], dtype=np.int32),
        split=np.full(n, -1, dtype=np.int8) if split is None else np.array(split, dtype=np.int8),
        line=np.arange(1, n + 1, dtype=np.int64),
        annotators=tuple(people),
        models=tuple(names),
        order_known=order_known,
        **more,
    )


#: pronounceable words that are in no stop-word list, so that simulated texts are neither English nor anything else
_WORDS = tuple(
    a + b + c for a in ("ka", "lo", "mi", "te", "su") for b in ("ran", "vel", "dor", "pim", "gat") for c in ("o", "ik", "usa", "em")
)


def sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(_WORDS, size=words)).capitalize() + "."


def simulate(seed: int, *, n_prompts: int = 60, n_responses: int = 4, votes_per_pair: int = 3, n_annotators: int = 25,
             correct: float = 0.95, chat: bool = False) -> Votes:  # fmt: skip
    """A clean collection: quality is independent of length, shown order and model; every annotator is right with the same rate."""
    rng = np.random.default_rng(seed)
    rows, people, models, seconds = [], [], [], []
    for _ in range(n_prompts):
        question: Any = sentence(rng, 12)
        if chat:
            question = [{"role": "user", "content": question}]
        texts = [sentence(rng, int(rng.integers(20, 60))) for _ in range(n_responses)]
        texts = [f"**{t[:12]}**{t[12:]}" if rng.random() < 0.4 else t for t in texts]
        quality = rng.permutation(n_responses)
        model = rng.permutation(n_responses)
        for i in range(n_responses):
            for j in range(i):
                for person in rng.choice(n_annotators, size=votes_per_pair, replace=False):
                    a, b = (i, j) if rng.random() < 0.5 else (j, i)
                    right = (quality[a] > quality[b]) == (rng.random() < correct)
                    rows.append((question, texts[a], texts[b], "a" if right else "b"))
                    people.append(f"person-{person}")
                    models.append((f"m{model[a]}", f"m{model[b]}"))
                    seconds.append(float(rng.uniform(40, 90)))
    heldout = rng.permutation(n_prompts) < n_prompts // 5
    votes = build(rows, annotators=people, models=models, seconds=seconds, order_known=True)
    return votes.with_(split=heldout[votes.prompt].astype(np.int8))


class Make:
    """What the tests of the checks need, as one fixture."""

    build = staticmethod(build)
    simulate = staticmethod(simulate)
    sentence = staticmethod(sentence)

    @staticmethod
    def run(name: str, votes: Votes, **options: Any):
        """The one finding of the check called `name`."""
        (finding,) = run_checks(votes, Context(**options), only=[name])
        return finding


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
