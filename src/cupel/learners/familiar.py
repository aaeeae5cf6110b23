"""Where the training sides of a reward model lay, in a few numbers that are stored with it: how far is too far to be believed.

The distance of features x is Mahalanobis's, (x - m)' C^-1 (x - m), under the covariance of probabilistic principal components (Tipping and
Bishop 1999): the r largest eigenvalues of the covariance as they are, all others replaced by their mean s,

    d(x) = sum over k <= r of (v_k . (x - m))^2 / l_k + (|x - m|^2 - sum over k of (v_k . (x - m))^2) / s

m and C come from one half of the training groups, the quantiles of d from the other half, so that new sides and training sides stand alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cupel.errors import InputError
from cupel.learners.threads import one_blas_thread
from cupel.votes.folds import group_folds

if TYPE_CHECKING:
    from cupel.records.schema import Votes

VERSION = 1
#: quantiles of the distance that are kept; the last is the limit
QUANTILES = (0.5, 0.9, 0.95, 0.99)
#: sides looked at, and fewest that have a 99th percentile worth the name; groups below which they are not what halves are cut by
MOST, FEWEST, GROUPS = 8000, 200, 10
#: directions kept, at most, and a tenth of the sides of a half
DIRECTIONS = 32
BLOCK = 1 << 13
_TENSORS = ("middle", "directions", "spread")
PREFIX = "familiar."


@dataclass(frozen=True)
class Familiar:
    """The training sides of a model as far as distances need them.

    middle [d]; directions [r, d]; spread [r + 1]: variance along each, then the mean variance of the rest; float64
    quantiles  of the distance of training sides that middle and spread have not seen, by `QUANTILES`
    held       how many training sides the quantiles rest on, others than middle and spread rest on
    """

    middle: np.ndarray
    directions: np.ndarray
    spread: np.ndarray
    quantiles: tuple[float, ...]
    held: int

    @classmethod
    def of(cls, x: np.ndarray, first: np.ndarray, second: np.ndarray, votes: Votes, *, seed: int = 0) -> Familiar | None:
        """`fit` on the rows of features `x` that the comparisons of `votes` point at; halves by their groups, or prompts."""
        there = np.zeros(len(x), dtype=bool)
        there[first] = there[second] = True
        rows = np.flatnonzero(there)
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng([seed, 98]).choice(rows, MOST, replace=False))
        vote = vote_of(first, second, len(x))[rows]
        return cls.fit(x[rows], votes.group[vote], votes.prompt[vote], seed=seed)

    @classmethod
    def fit(cls, x: np.ndarray, *labels: np.ndarray, seed: int = 0) -> Familiar | None:
        """From features [n, d] of unique training sides; None below 200 of them, or where all are equal.

        labels [n]: what halves keep together, the first with 10 different values or more (groups, prompts), else every side by itself.
        A random 8,000 of more sides are looked at.

        >>> rng = np.random.default_rng(0)
        >>> found = Familiar.fit(rng.normal(size=(4000, 6)))
        >>> bool(found.beyond(np.full((1, 6), 4.0))[0]), bool(0.005 < found.beyond(rng.normal(size=(4000, 6))).mean() < 0.02)
        (True, True)
        """
        n = len(x)
        rng = np.random.default_rng([seed, 99])
        kept = np.sort(rng.choice(n, MOST, replace=False)) if n > MOST else np.arange(n)
        if n < FEWEST:
            return None
        label = next((one for one in labels if len(np.unique(one[kept])) >= GROUPS), np.arange(n))
        half = group_folds(label[kept], 2, seed) == 0
        first, second = kept[half], kept[~half]
        rank = min(DIRECTIONS, len(first) // 10, x.shape[1])
        if len(first) < 2 or len(second) < 2 or rank < 1:
            return None
        with one_blas_thread():
            rows = np.asarray(x[first], np.float64)
            middle = rows.mean(axis=0)
            values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows, rowvar=False)))
            values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
            if values[0] <= 0:
                return None
            floor = 1e-6 * values[0]
            rest = values[rank:].mean() if rank < len(values) else 0.0
            spread = np.maximum(np.append(values[:rank], rest), floor)
            made = cls(middle, np.ascontiguousarray(vectors[:, :rank].T), spread, (), len(second))
            far = made.distance(x[second])
        return cls(made.middle, made.directions, made.spread, tuple(np.quantile(far, QUANTILES).tolist()), len(second))

    def distance(self, x: np.ndarray) -> np.ndarray:
        """d of features [n, d], float64 [n]."""
        out = np.empty(len(x))
        with one_blas_thread():
            for at in range(0, len(x), BLOCK):
                off = np.asarray(x[at : at + BLOCK], np.float64) - self.middle
                along = (off @ self.directions.T) ** 2
                rest = np.maximum((off * off).sum(axis=1) - along.sum(axis=1), 0)
                out[at : at + BLOCK] = along @ (1 / self.spread[:-1]) + rest / self.spread[-1]
        return out

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """Whether each row of features [n, d] lies further than 99 % of the training sides do, bool [n]."""
        return self.distance(x) > self.quantiles[-1]

    def tensors(self) -> dict[str, np.ndarray]:
        """What a folder's model.safetensors holds of it."""
        return {PREFIX + name: getattr(self, name) for name in _TENSORS}

    def recorded(self) -> dict[str, Any]:
        """What a folder's config.json holds of it."""
        return {"version": VERSION, "held": self.held, "quantiles": dict(zip(map(str, QUANTILES), self.quantiles, strict=True))}

    @classmethod
    def read(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Familiar | None:
        """What `recorded` and `tensors` hold; None where a folder has none, as those of earlier versions have not.

        InputError for another version; ValueError or KeyError where it is damaged.
        """
        told = config.get("familiar")
        if told is None:
            return None
        if told["version"] != VERSION:
            raise InputError(
                f"the summary of its training texts is of version {told['version']!r}; this cupel reads version {VERSION}: use a later "
                f"cupel, or train the model again"
            )
        middle, directions, spread = (tensors[PREFIX + name] for name in _TENSORS)
        if middle.ndim != 1 or directions.shape != (len(spread) - 1, len(middle)) or not (spread > 0).all():
            raise ValueError(f"the summary of its training texts has {directions.shape} directions of {middle.shape} features")
        quantiles = tuple(float(told["quantiles"][str(q)]) for q in QUANTILES)
        return cls(middle, directions, spread, quantiles, int(told["held"]))


class Unlike(NamedTuple):
    """Sides to be scored: `far`, bool [m], whether each lies beyond the limit of the training sides, and `vote`, int64 [m], a comparison
    that each is in; `held`: how many training sides the limit rests on."""

    far: np.ndarray
    vote: np.ndarray
    held: int


def unlike(familiar: Familiar | None, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> Unlike | None:
    """Which rows of features `x` that comparisons (first, second) [n] point at lie too far; None where nothing is known of training.

    >>> familiar = Familiar.fit(np.random.default_rng(0).normal(size=(400, 3)))
    >>> found = unlike(familiar, np.array([[0.0, 0, 0], [9, 9, 9], [0, 1, 0]]), np.array([0, 0]), np.array([1, 2]))
    >>> found.far.tolist(), found.vote.tolist()
    ([False, True, False], [1, 0, 1])
    """
    if familiar is None:
        return None
    return Unlike(familiar.beyond(x), vote_of(first, second, len(x)), familiar.held)


def vote_of(first: np.ndarray, second: np.ndarray, rows: int) -> np.ndarray:
    """A comparison that points at each row, int64 [rows]; 0 for a row at which none does."""
    out = np.zeros(rows, dtype=np.int64)
    out[second] = out[first] = np.arange(len(first))
    return out
