"""What a ranking says: scores with intervals and covariance, the groups within which they can be compared, and how the fit went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import normal_quantile
from cupel.votes.ranking.graph import Connectivity
from cupel.votes.ranking.ties import TIE_MODELS

RankRule = Literal["contrast", "interval", "simultaneous"]


@dataclass(frozen=True)
class Estimates:
    """Values with standard errors and interval ends, all [k]; names [k] where they have any."""

    value: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    names: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.value, self.se, self.low, self.high))


@dataclass(frozen=True)
class Contrast:
    """The difference of two scores (log-odds), its standard error, z = difference / se, two-sided p, and interval."""

    difference: float
    se: float
    z: float
    p: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """A fitted ranking.

    scores: Estimates of the items [K] in log-odds, summing to zero within each group, NaN where no finite score exists; covariance
    [K, K] of the scores (NaN where there is none), or None with intervals="none"; controls: Estimates of the coefficients, in
    log-odds per unit of the control; threshold: Estimates of the tie model's parameter (nu of Davidson, eta of Rao-Kupper), or
    None; group [K]: items with the same number can be compared; connectivity: components, groups, unbeaten items;
    results [K, 5]: weight of votes on each item by its own result (won, lost, tied, both bad, skipped); shares: of wins of the first side,
    wins of the second, ties, both bad, skips among all votes; n_votes: rows; used: rows' weight in the likelihood;
    log_likelihood; gradient: largest absolute entry at the optimum; converged; iterations; level; quantile: half width of an interval
    in standard errors; intervals, ties: as asked for; missing [K]: share of bootstrap draws without a score; warnings: in words.
    """

    scores: Estimates
    covariance: np.ndarray | None
    controls: Estimates
    threshold: Estimates | None
    group: np.ndarray
    connectivity: Connectivity
    results: np.ndarray
    shares: np.ndarray
    n_votes: int
    used: float
    log_likelihood: float
    gradient: float
    converged: bool
    iterations: int
    level: float
    quantile: float
    intervals: str
    ties: str
    ridge: float
    missing: np.ndarray
    warnings: tuple[str, ...]

    def elo(self, *, centre: float = 1000.0, scale: float = 400.0, base: float = 10.0, anchor: int | None = None) -> Estimates:
        """Scores on the scale of arenas: centre + scale / ln(base) * score, so that 400 points are odds of 10 to 1.

        anchor: the item whose rating is `centre`; all are shifted, standard errors and interval widths stay those of scores centred on the
        mean. InputError if the anchor has no score or not all scored items are in its group.
        """
        unit, shift = scale / np.log(base), 0.0
        if anchor is not None:
            scored = np.flatnonzero(np.isfinite(self.scores.value))
            if anchor not in scored or (self.group[scored] != self.group[anchor]).any():
                raise InputError(f"item {anchor} cannot be the anchor: it has no score, or not all items can be compared with it")
            shift = float(self.scores.value[anchor])
        value, se, low, high = self.scores
        value, low, high = (centre + unit * (x - shift) for x in (value, low, high))
        return Estimates(value, unit * se, low, high)

    def contrast(self, i: int, j: int) -> Contrast:
        """Score of item i minus that of item j, with Var = V_ii + V_jj - 2 V_ij: the way to test a difference.

        InputError where the two are not in one group: no finite difference exists, or nothing connects them.
        """
        if i == j or not (np.isfinite(self.scores.value[[i, j]]).all() and self.group[i] == self.group[j]):
            raise InputError(f"items {i} and {j} cannot be compared: not two items of one group (see `warnings` of the ranking)")
        covariance = self._covariance()
        difference = float(self.scores.value[i] - self.scores.value[j])
        se = float(np.sqrt(max(covariance[i, i] + covariance[j, j] - 2 * covariance[i, j], 0.0)))
        from scipy.special import ndtr

        z = difference / se if se > 0 else float("nan")
        return Contrast(difference, se, z, float(2 * ndtr(-abs(z))), difference - self.quantile * se, difference + self.quantile * se)

    def ranks(self, rule: RankRule = "contrast") -> np.ndarray:
        """Rank of each item within its group: 1 + the number of items that are better beyond doubt; 0 where there is no score.

        "contrast": the difference exceeds `quantile` of its own standard errors (recommended); "interval": the other's low end exceeds
        the item's high end (the rule of arenas); "simultaneous": as contrast, with Bonferroni's quantile for all ordered pairs.
        """
        covariance, (value, _, low, high) = self._covariance(), self.scores
        scored = np.isfinite(value)
        same = (self.group[:, None] == self.group[None]) & scored[:, None] & scored[None]
        with np.errstate(invalid="ignore"):
            if rule == "interval":
                better = low[None] > high[:, None]
            elif rule in ("contrast", "simultaneous"):
                k = int(scored.sum())
                quantile = self.quantile if rule == "contrast" else normal_quantile(1 - 2 * (1 - self.level) / max(k * (k - 1), 2))
                variance = np.diag(covariance)
                se = np.sqrt(np.maximum(variance[:, None] + variance[None] - 2 * covariance, 0))
                better = value[None] - value[:, None] > quantile * se
            else:
                raise InputError(f"ranks follow the rule contrast, interval or simultaneous, not {rule!r}")
        np.fill_diagonal(better, False)
        return np.where(scored, 1 + (better & same).sum(axis=1), 0)

    def probabilities(self, i: int, j: int) -> tuple[float, float, float]:
        """Probability that i wins, that they tie, that j wins, at equal controls; with ties as half wins a tie has none of its own."""
        if not (np.isfinite(self.scores.value[[i, j]]).all() and self.group[i] == self.group[j]):
            raise InputError(f"items {i} and {j} cannot be compared: they are not in one group (see `warnings` of the ranking)")
        win, tie, loss = TIE_MODELS[self.ties].probabilities(self.scores.value[i] - self.scores.value[j], self._tau())
        return float(win), float(tie), float(loss)

    def expected_share(self) -> np.ndarray:
        """Expected share of points (1 a win, 1/2 a tie) against a random other item of the group: float64 [K], NaN without a score."""
        value = self.scores.value
        win, tie, _ = TIE_MODELS[self.ties].probabilities(value[:, None] - value[None], self._tau())
        same = (self.group[:, None] == self.group[None]) & np.isfinite(win)
        np.fill_diagonal(same, False)
        n = same.sum(axis=1)
        return np.where(n > 0, np.where(same, win + tie / 2, 0).sum(axis=1) / np.maximum(n, 1), np.nan)

    def top_probability(self, k: int, *, draws: int = 10_000, seed: int) -> np.ndarray:
        """Probability that an item is among the best k of its group, by draws from N(scores, covariance): float64 [K]."""
        covariance, out = self._covariance(), np.full(len(self.group), np.nan)
        rng = np.random.default_rng(seed)
        for g in np.unique(self.group[np.isfinite(self.scores.value)]):
            members = np.flatnonzero((self.group == g) & np.isfinite(self.scores.value))
            values, vectors = np.linalg.eigh(covariance[np.ix_(members, members)])
            drawn = self.scores.value[members] + rng.normal(size=(draws, len(members))) @ (vectors * np.sqrt(np.maximum(values, 0))).T
            place = np.argsort(np.argsort(-drawn, axis=1, kind="stable"), axis=1)
            out[members] = (place < k).mean(axis=0)
        return out

    def _tau(self) -> float:
        if self.threshold is None:
            return 0.0
        value = float(self.threshold.value[0])
        return float(np.log(value)) if self.ties == "davidson" else value

    def _covariance(self) -> np.ndarray:
        if self.covariance is None:
            raise InputError('this needs a covariance: fit with intervals="sandwich", "cluster", "fisher" or "bootstrap"')
        return self.covariance
