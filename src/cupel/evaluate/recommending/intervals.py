"""Intervals of metrics over users (and over training seeds): the same bootstrap draws for every number, so differences are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cupel.evaluate.crossed import seed_variances, variance_of_mean, widened
from cupel.evaluate.paired import Share
from cupel.votes.intervals import expanded_percentile

#: counts of users held at once
_CHUNK = 4_000_000


def resampled(columns: np.ndarray, *, seed: int, draws: int) -> np.ndarray:
    """Sums of columns [U, C] over users drawn with replacement, float64 [draws, C]; memory is 4 million counts at a time.

    >>> resampled(np.ones((5, 1)), seed=0, draws=3).tolist()
    [[5.0], [5.0], [5.0]]
    """
    users = len(columns)
    rng = np.random.default_rng([seed, 17])
    out = np.empty((draws, columns.shape[1]))
    step = max(1, _CHUNK // max(users, 1))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picks = rng.integers(0, users, size=(size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(picks.reshape(-1), minlength=size * users).reshape(size, users)
        out[start : start + size] = counts.astype(np.float64) @ columns
    return out


@dataclass(frozen=True)
class Measured:
    """A metric of one model: numerators [S, U] (a row per training seed) and denominators [U], 0 for users that do not count."""

    above: np.ndarray
    below: np.ndarray

    @property
    def value(self) -> float:
        """Sum of the numerators, averaged over seeds, over the sum of the denominators; NaN where nobody counts."""
        total = float(self.below.sum())
        return float(self.above.mean(axis=0).sum()) / total if total > 0 else float("nan")

    def influence(self) -> np.ndarray:
        """What each cell moves the value by, times the number of users, [U, S], the ratio linearised."""
        return (self.above - self.value * self.below).T / self.below.mean()


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of many metrics on the same users; `of` and `between` make intervals from them."""

    measured: Mapping[tuple[str, ...], Measured]
    values: Mapping[tuple[str, ...], np.ndarray]

    @classmethod
    def make(cls, measured: Mapping[tuple[str, ...], Measured], *, seed: int, draws: int) -> Draws:
        """The draws of all metrics, which share their users."""
        columns = [column for one in measured.values() for column in (one.above.mean(axis=0), one.below)]
        sums = resampled(np.stack(columns, axis=1), seed=seed, draws=draws)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = sums[:, 0::2] / sums[:, 1::2]
        return cls(measured, {key: ratio[:, k] for k, key in enumerate(measured)})

    def of(self, key: tuple[str, ...], events: int) -> Share:
        """The metric with its 95 % interval."""
        one = self.measured[key]
        cells = [one.influence()] if one.below.any() else []
        return _clipped(_share(one.value, self.values[key], cells, one, events), 0.0, None if _unbounded(key) else 1.0)

    def between(self, key: tuple[str, ...], base: tuple[str, ...], events: int) -> Share:
        """The metric minus that of the base with its 95 % interval: the same users in each draw, seeds paired where there are as many."""
        one, two = self.measured[key], self.measured[base]
        if not one.below.any():
            return Share(None, None, None, events, 0)
        paired = len(one.above) == len(two.above)
        cells = [one.influence() - two.influence()] if paired else [one.influence(), two.influence()]
        over = one.influence().mean(axis=1) - two.influence().mean(axis=1)
        found = _share(one.value - two.value, self.values[key] - self.values[base], cells, one, events, over)
        return found if _unbounded(key) else _clipped(found, -1.0, 1.0)


def _unbounded(key: tuple[str, ...]) -> bool:
    """Whether a metric may exceed 1: those by inverse propensity are not divided."""
    return key[0].endswith(" ips")


def _clipped(share: Share, low: float, high: float | None) -> Share:
    if share.low is None or share.high is None:
        return share
    return replace(share, low=max(share.low, low), high=share.high if high is None else min(share.high, high))


def _share(
    value: float, drawn: np.ndarray, cells: Sequence[np.ndarray], one: Measured, events: int, over: np.ndarray | None = None
) -> Share:
    users = int((one.below > 0).sum())
    if users < 2:
        return Share(value if users else None, None, None, events, users)
    found = expanded_percentile(value, drawn, users)
    between = variance_of_mean(cells[0].mean(axis=1) if over is None else over)
    low, high = widened((found.low, found.high), value, between, users - 1, seed_variances(cells))
    return Share(value, low, high, events, users)
