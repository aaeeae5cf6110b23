"""Recorded choices with sampled rationales: what a rationale resolves, which choices no rationale explains, and pairs to train on.

For one recorded choice (a scene) among n options, K rationales were sampled from a source, and one fixed predictor gave for each rationale
k a distribution p_k over the options. Method card 20-usersim ("Mirroring Users", arXiv:2508.18142, as in the authors' code). In bits:

    total      U = H(mean_k p_k)
    epistemic  E = mean_k H(p_k)          what the predictor does not know once it has read a rationale ("model" part, "entropy" there)
    aleatoric  A = U - E >= 0             mutual information of rationale and behaviour ("data" part)
    difficulty = E_weak - E_strong        what the strong source's rationales resolve and the weak source's do not

Both sources must be read by the same predictor; otherwise the difference measures the predictors. Nothing here knows recommenders: options
may be answers, tools or moves. A source is an array [scenes, K, n] or, where scenes differ in n, a list of arrays [K, n_s].

Difficulty without rejection prefers confident rationales, right or wrong, and can lose to random selection (docs/user-simulator.md says how
much); `cupel.curate.rationale_pairs.select` does both and states the noise it expects to keep.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.errors import InputError

#: a list of [K, n_s] or one array [scenes, K, n]
Source = np.ndarray | Sequence[np.ndarray]
#: probabilities are raised to this and renormalised, so that no entropy holds 0 log 0
FLOOR = 1e-10


class RationaleWarning(UserWarning):
    """Something about the rationales that were given, with how many and which first."""


@dataclass(frozen=True)
class Uncertainty:
    """Bits per scene, float64 [scenes]: total = epistemic + aleatoric. With one rationale the aleatoric part is undefined: NaN."""

    total: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray


@dataclass(frozen=True)
class Padded:
    """One source as a rectangle: p float64 [scenes, K, widest n], floored, rows sum to 1; there bool [scenes, widest n], 0 elsewhere."""

    p: np.ndarray
    there: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Options of each scene, int64 [scenes]."""
        return self.there.sum(axis=1)


def padded(probs: Source | Padded, mask: np.ndarray | None = None, *, floor: float = FLOOR, name: str = "probs") -> Padded:
    """A source, floored at `floor` and renormalised over each scene's options.

    mask: bool [scenes, n], which options a scene has, for one array with columns that some scenes do not use.
    InputError for values that are no probabilities (negative, not finite, rows that do not sum to 1 within 1e-3, mass outside the mask),
    scenes with fewer than 2 options, no rationale, and lists whose scenes have different numbers of rationales.

    >>> padded([np.array([[1.0, 0.0]]), np.array([[0.2, 0.3, 0.5]])]).p.round(3).tolist()
    [[[1.0, 0.0, 0.0]], [[0.2, 0.3, 0.5]]]
    """
    if isinstance(probs, Padded):
        return probs
    if not 0 < floor < 1e-2:
        raise InputError(f"floor is a small positive number, such as {FLOOR:g}, not {floor!r}")
    if isinstance(probs, np.ndarray) and probs.dtype != object:
        p = np.asarray(probs, np.float64)
        if p.ndim != 3:
            raise InputError(f"{name} has shape {p.shape}: one array is [scenes, rationales, options]; give a list where options differ")
        there = np.ones((p.shape[0], p.shape[2]), bool) if mask is None else np.asarray(mask, bool)
        if there.shape != (p.shape[0], p.shape[2]):
            raise InputError(f"the mask of {name} has shape {there.shape}, not {(p.shape[0], p.shape[2])}: one value per scene and option")
    else:
        if mask is not None:
            raise InputError(f"{name} is a list, whose lengths say which options there are: leave the mask out")
        p, there = _stacked([np.asarray(one, np.float64) for one in probs], name)
    if p.shape[1] == 0:
        raise InputError(f"{name} has no rationale: at least one per scene is needed, two for the aleatoric part")
    _refuse(~np.isfinite(p).all(axis=(1, 2)) | (p < 0).any(axis=(1, 2)), f"{name}: probabilities are negative or not finite")
    _refuse(there.sum(axis=1) < 2, f"{name}: scenes have fewer than 2 options, so nothing was chosen")
    _refuse((np.where(there[:, None], 0, p) > 0).any(axis=(1, 2)), f"{name}: options outside the mask have probability")
    _refuse(
        np.abs(p.sum(axis=2) - 1).max(axis=1, initial=0) > 1e-3,
        f"{name}: rows do not sum to 1 (restrict the predictor to the labels and renormalise)",
    )
    p = np.where(there[:, None], np.maximum(p, floor), 0.0)
    return Padded(p / p.sum(axis=2, keepdims=True), there)


def entropy(p: np.ndarray) -> np.ndarray:
    """H(p) = -sum_j p_j log2 p_j over the last axis, in bits; 0 log 0 = 0.

    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    p = np.asarray(p, np.float64)
    return 0.0 - (p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=-1)


def uncertainty(probs: Source | Padded, mask: np.ndarray | None = None, *, floor: float = FLOOR) -> Uncertainty:
    """Total, epistemic and aleatoric uncertainty of each scene in bits (see the module's formulas); `padded` says what is refused.

    A RationaleWarning, and NaN for the aleatoric part, where there is one rationale per scene.

    >>> found = uncertainty(np.array([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]]))
    >>> [round(float(part[0]), 9) for part in (found.total, found.epistemic, found.aleatoric)]
    [1.368104837, 1.124723196, 0.243381641]
    """
    p = padded(probs, mask, floor=floor).p
    total, epistemic = entropy(p.mean(axis=1)), entropy(p).mean(axis=1)
    if p.shape[1] < 2:
        warnings.warn("one rationale per scene: the aleatoric part is undefined (NaN)", RationaleWarning, stacklevel=2)
        return Uncertainty(total, epistemic, np.full(len(p), np.nan))
    return Uncertainty(total, epistemic, np.maximum(total - epistemic, 0.0))  # Jensen; rounding may fall below by an ulp


def chosen_of(chosen: np.ndarray | Sequence[int], probs: Padded) -> np.ndarray:
    """The recorded choices as int64 [scenes]. InputError where one is no option of its scene, or their number differs."""
    a = np.asarray(chosen)
    if a.shape != (len(probs.p),) or not np.issubdtype(a.dtype, np.integer):
        raise InputError(f"chosen holds one option (a whole number from 0) per scene: {len(probs.p):,} are needed, not {a.shape} {a.dtype}")
    inside = (a >= 0) & (a < probs.there.shape[1])
    inside[inside] = probs.there[np.flatnonzero(inside), a[inside]]
    _refuse(~inside, "chosen: the recorded choice is not among the scene's options")
    return a.astype(np.int64)


def expected_match(probs: Source | Padded, chosen: np.ndarray | Sequence[int], mask: np.ndarray | None = None) -> np.ndarray:
    """p_k[a], the probability that rationale k's behaviour is the recorded choice a: float64 [scenes, K].

    >>> expected_match(np.array([[[0.7, 0.3], [0.4, 0.6]]]), [1]).round(6).tolist()
    [[0.3, 0.6]]
    """
    found = padded(probs, mask)
    a = chosen_of(chosen, found)
    return np.take_along_axis(found.p, a[:, None, None], axis=2)[:, :, 0]


def sample_behaviours(probs: Source | Padded, *, seed: int, mask: np.ndarray | None = None) -> np.ndarray:
    """One option per rationale, drawn once from p_k (not the most likely one): int64 [scenes, K]. Same seed, same draws.

    >>> sample_behaviours(np.array([[[1.0, 0.0], [0.0, 1.0]]]), seed=0).tolist()
    [[0, 1]]
    """
    found = padded(probs, mask)
    edges = found.p.cumsum(axis=2)
    drawn = np.random.default_rng([seed, 20]).random(found.p.shape[:2])
    last = found.there.shape[1] - 1 - found.there[:, ::-1].argmax(axis=1)  # sums of rows may end an ulp below 1
    return np.minimum((edges <= drawn[:, :, None]).sum(axis=2), last[:, None])


def sampled_match(
    probs: Source | Padded, chosen: np.ndarray | Sequence[int], *, seed: int, mask: np.ndarray | None = None
) -> np.ndarray:  # fmt: skip
    """Whether each rationale's drawn behaviour is the recorded choice: bool [scenes, K].

    >>> sampled_match(np.array([[[1.0, 0.0], [0.0, 1.0]]]), [1], seed=0).tolist()
    [[False, True]]
    """
    found = padded(probs, mask)
    return sample_behaviours(found, seed=seed) == chosen_of(chosen, found)[:, None]


def explainable(*matches: np.ndarray) -> np.ndarray:
    """The rejection filter: scenes that at least one rationale of any source matches, bool [scenes] from bool [scenes, K] per source.

    It removes little noise by itself: a scene whose K rationales match with probability q survives with 1 - (1 - q)^K (`survival`), pure
    noise among 5 options and K = 10 with .89.

    >>> explainable(np.array([[False, True], [False, False]]), np.array([[False], [False]])).tolist()
    [True, False]
    """
    if not matches or len({len(match) for match in matches}) != 1:
        raise InputError("explainable needs the matches of at least one source, all of the same scenes")
    return np.logical_or.reduce([np.asarray(match, bool).any(axis=1) for match in matches])


def survival(*expected: np.ndarray) -> np.ndarray:
    """Probability over the drawn behaviours that a scene survives the rejection filter: 1 - prod over sources and k of (1 - p_k[a]).

    expected: float [scenes, K] per source, of `expected_match`. float64 [scenes].

    >>> survival(np.full((1, 10), 0.2)).round(6).tolist()
    [0.892626]
    """
    return 1.0 - np.prod([np.prod(1 - np.asarray(one, np.float64), axis=1) for one in expected], axis=0)


def _stacked(parts: list[np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    wrong = [s for s, one in enumerate(parts) if one.ndim != 2]
    if wrong:
        raise InputError(f"{name}: {len(wrong):,} scenes are not arrays [rationales, options] (first: scene {wrong[0]})")
    counts = {one.shape[0] for one in parts}
    if len(counts) > 1:
        raise InputError(f"{name}: scenes have {min(counts)} to {max(counts)} rationales; give each the same number of one source")
    p = np.zeros((len(parts), counts.pop() if counts else 1, max((one.shape[1] for one in parts), default=2)))
    there = np.zeros((len(parts), p.shape[2]), bool)
    for s, one in enumerate(parts):
        p[s, :, : one.shape[1]] = one
        there[s, : one.shape[1]] = True
    return p, there


def _refuse(bad: Any, what: str) -> None:
    if bad.any():
        raise InputError(f"{what}: {int(bad.sum()):,} of {len(bad):,} scenes (first: scene {int(np.flatnonzero(bad)[0])})")
