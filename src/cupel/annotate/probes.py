"""Probes of a reward: does it prefer a short answer to the question over a long answer to another; does the gold reward rise with it; which
labels does relevance contradict.

Method card 15-r3 ("Rethinking the Role of Proxy Rewards in Language Model Alignment", arXiv:2402.03469).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.annotate.whitebox import Relevance, plain, tokens_of
from cupel.errors import InputError
from cupel.votes.intervals import Interval, cluster_bootstrap, expanded_percentile

if TYPE_CHECKING:
    from cupel.records.schema import Votes

#: up to this many values all orders are counted; beyond, orders are drawn
EXACT = 12
_STEP = 16384


@dataclass(frozen=True)
class Monotonicity:
    """How gold follows a proxy over checkpoints.

    spearman   rank correlation, ties by average ranks;  low, high  95 % bootstrap interval over checkpoints (NaN where it has none)
    p_value    share of all orders of gold with |rank correlation| at least as large;  p_rising  with one at least as large (one-sided)
    exact      whether all orders were counted, or 9,999 drawn;  n  checkpoints
    hacked     the proxy was optimised and gold did not rise with it: spearman <= 0
    """

    spearman: float
    low: float
    high: float
    p_value: float
    p_rising: float
    exact: bool
    n: int

    @property
    def hacked(self) -> bool:
        """Whether gold does not rise with the proxy."""
        return self.spearman <= 0


def monotonicity(proxy: Sequence[float], gold: Sequence[float], *, draws: int = 2000, seed: int = 0) -> Monotonicity:
    """Spearman's correlation of a proxy reward with a gold reward over checkpoints, with an exact permutation p-value.

    Few checkpoints are a small sample: with n <= 12 the distribution over all n! orders is counted exactly, by adding up ranks over
    subsets of places. InputError for fewer than 3 values, unequal lengths, values that are not finite, or all equal.

    >>> found = monotonicity([1, 2, 3, 4], [1, 3, 2, 4])
    >>> round(found.spearman, 12), round(found.p_value, 4), round(found.p_rising, 4)
    (0.8, 0.3333, 0.1667)
    """
    x, y = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"monotonicity compares two lists of at least 3 finite values of one length, not {x.shape} and {y.shape}")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise InputError(f"all {'proxy' if np.ptp(x) == 0 else 'gold'} values are equal: there is no order to compare")
    a, b = ranks(x), ranks(y)
    n, observed = len(x), _correlation(a, b)
    exact = n <= EXACT
    rng = np.random.default_rng(seed)
    if exact:
        both, above = _exact(np.rint(2 * a).astype(np.int64), np.rint(2 * b).astype(np.int64))
    else:
        drawn = _correlation(a, b[np.argsort(rng.random((9999, n)), axis=1)])
        both = (1 + int((np.abs(drawn) >= abs(observed) - 1e-12).sum())) / 10000
        above = (1 + int((drawn >= observed - 1e-12).sum())) / 10000
    picks = rng.integers(0, n, size=(draws, n))
    values = np.array([_correlation(ranks(x[pick]), ranks(y[pick])) for pick in picks])
    interval = expanded_percentile(observed, values, n, clip=(-1.0, 1.0))
    return Monotonicity(observed, interval.low, interval.high, both, above, exact, n)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties at their average: float64 [n].

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    end = np.cumsum(count)
    return ((end - count + 1 + end) / 2)[index.reshape(-1)]


def _correlation(a: np.ndarray, b: np.ndarray) -> Any:
    """Pearson's correlation of a [n] with b [..., n]; NaN where one is constant."""
    a, b = a - a.mean(), b - b.mean(axis=-1, keepdims=True)
    below = np.sqrt((a @ a) * (b * b).sum(axis=-1))
    out = np.where(below > 0, (b @ a) / np.where(below > 0, below, 1), np.nan)
    return float(out) if out.ndim == 0 else out


def _exact(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(share of orders with |sum - mean| at least the observed, with a sum at least the observed) of sum a_i b_pi(i), whole numbers.

    counts[S] is the distribution of the sum over the first |S| entries of a when they took the places S of b.
    """
    n, top = len(a), int(np.sort(a) @ np.sort(b))
    counts: dict[int, np.ndarray] = {0: np.zeros(top + 1)}
    counts[0][0] = 1
    for i in range(n):
        step: dict[int, np.ndarray] = {}
        for used, have in counts.items():
            for place in range(n):
                if used >> place & 1:
                    continue
                shift = int(a[i] * b[place])
                target = step.setdefault(used | 1 << place, np.zeros(top + 1))
                target[shift:] += have[: top + 1 - shift]
        counts = step
    found = counts[(1 << n) - 1]
    observed, mean = int(a @ b), float(a.sum()) * float(b.sum()) / n
    sums = np.arange(top + 1)
    far = np.abs(sums - mean) >= abs(observed - mean) - 1e-6
    return float(found[far].sum() / found.sum()), float(found[observed:].sum() / found.sum())


@dataclass(frozen=True)
class LengthProbe:
    """accuracy of preferring the short answer to the question, with an interval over questions; pairs, ties (counted as wrong)."""

    accuracy: Interval
    pairs: int
    ties: int


def length_relevance_probe(
    scorer: Any, prompts: Sequence[str], references: Sequence[str], *, ratio: float = 2.0,
    columns: Mapping[str, Sequence[Any]] | None = None, tokenizer: Callable[[str], Sequence[str]] = tokens_of, seed: int = 0,
) -> LengthProbe:  # fmt: skip
    """Share of pairs in which a reward prefers a question's own answer to another question's answer that is `ratio` times as long.

    All ordered pairs (i, j): A = reference of prompt i, B = reference of prompt j with at least `ratio` times A's tokens, B's text not
    A's; right is score(prompt_i, A) > score(prompt_i, B). Length alone has 0 by construction.
    scorer: anything with score(prompts, responses, **columns); columns: one value per prompt (qtype, reference), passed along.
    InputError where no pair is long enough.

    >>> class Longer:
    ...     def score(self, prompts, responses):
    ...         return np.array([len(text) for text in responses])
    >>> found = length_relevance_probe(Longer(), ["a?", "b?"], ["one two", "one two three four"])
    >>> found.accuracy.estimate, found.pairs
    (0.0, 1)
    """
    if len(prompts) != len(references) or any(len(column) != len(prompts) for column in (columns or {}).values()):
        raise InputError(f"{len(prompts)} prompts, {len(references)} references: the probe needs one of each, and of every further column")
    size = np.array([len(tokenizer(text)) for text in references])
    text = np.unique(np.array(references, dtype=object).astype(str), return_inverse=True)[1].reshape(-1)
    on, off = np.nonzero((size[None, :] >= ratio * size[:, None]) & (size[:, None] > 0) & (text[:, None] != text[None, :]))
    if not len(on):
        raise InputError(f"no reference of {len(references)} is {ratio:g} times as long as another: lower `ratio`, or give more prompts")

    def scored(question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        out = np.empty(len(question))
        for start in range(0, len(question), _STEP):
            q, r = question[start : start + _STEP], answer[start : start + _STEP]
            more = {name: [column[i] for i in q] for name, column in (columns or {}).items()}
            out[start : start + len(q)] = scorer.score([prompts[i] for i in q], [references[i] for i in r], **more)
        return out

    every = np.arange(len(prompts))
    gap = scored(every, every)[on] - scored(on, off)
    accuracy = cluster_bootstrap((gap > 0).astype(np.float64), on, seed=seed, clip=(0, 1))
    return LengthProbe(accuracy, len(on), int((gap == 0).sum()))


@dataclass(frozen=True)
class Contradictions:
    """Votes whose preferred side is far less relevant to the prompt than the other: rows (most contradicted first), their ids, and the
    relevance margin of the recorded label of every vote (NaN without a preference); at_least, the margin it took."""  # fmt: skip

    rows: np.ndarray
    ids: tuple[str, ...]
    margin: np.ndarray
    at_least: float


def contradictions(votes: Votes, relevance: Relevance, *, at_least: float = 0.2) -> Contradictions:
    """Votes that relevance contradicts strongly: <E(x), E(preferred)> <= <E(x), E(other)> - at_least (i1 - i0).

    A reason to look, not a finding that the label is wrong: a refusal, a correction of the question or a reply in another language is less
    relevant to the encoder and may be better.

    >>> from cupel.records import read
    >>> rows = [{"prompt": "How do dogs run?", "response_a": "Dogs run on four legs.", "response_b": "Taxes are due.", "vote": "b"}]
    >>> contradictions(read(rows, heldout=0), Relevance("static")).rows.tolist()
    [0]
    """
    from cupel.annotate.labels import margins

    class _Query:
        def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
            asked = [" ".join(plain(text, "prompt", row).split()) for row, text in enumerate(prompts)]
            return relevance.between(asked, [plain(text, "response", row) for row, text in enumerate(responses)])

    if not at_least > 0:
        raise InputError(f"at_least is above 0, not {at_least!r}: otherwise every vote contradicts something")
    margin = np.where(votes.sign == 0, np.nan, margins(_Query(), votes) * votes.sign)
    limit = at_least * (relevance.high - relevance.low)
    rows = np.flatnonzero(np.nan_to_num(margin, nan=np.inf) <= -limit)
    rows = rows[np.argsort(margin[rows], kind="stable")]
    return Contradictions(rows, tuple(votes.ids[int(row)].as_py() for row in rows), margin, limit)
