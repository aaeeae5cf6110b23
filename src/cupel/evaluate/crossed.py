"""Interval of a mean over votes of several training seeds: groups and seeds are resampled independently of each other."""

from __future__ import annotations

import numpy as np

from cupel.votes.intervals import expanded_percentile, group_sums


def crossed_interval(
    value: np.ndarray, base: np.ndarray | None, group: np.ndarray, *, seed: int, draws: int, level: float = 0.95
) -> tuple[float | None, float | None, float, int]:
    """(low, high, estimate, groups) of mean(value) - mean(base), by bootstrap over groups crossed with seeds.

    value, base [seeds, n] (base may have another number of seeds, or be None); group [n]. With the same number of seeds the same
    seeds are drawn on both sides, so what they share cancels. One group: no interval. Ends are percentiles, expanded for few groups.

    >>> value = np.array([[1.0, 0, 1, 1, 0, 1]])
    >>> low, high, estimate, groups = crossed_interval(value, None, np.array([0, 0, 1, 1, 2, 2]), seed=0, draws=500)
    >>> round(estimate, 3), groups, low < estimate < high
    (0.667, 3, True)
    """
    n = value.shape[1]
    estimate = float(value.mean() - (0.0 if base is None else base.mean()))
    rng = np.random.default_rng(seed)
    size = group_sums(np.ones(n), group)[:, 0]
    groups = len(size)
    if groups < 2:
        return None, None, estimate, groups
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)  # [draws, groups]
    drawn, picks = _means(value, group, counts, rng, None)
    if base is not None:
        same = picks if base.shape[0] == value.shape[0] else None
        drawn = drawn - _means(base, group, counts, rng, same)[0]
    drawn = drawn / (counts @ size)
    found = expanded_percentile(estimate, drawn, groups, level, clip=(0.0, 1.0) if base is None else (-1.0, 1.0))
    return found.low, found.high, estimate, groups


def _means(
    value: np.ndarray, group: np.ndarray, counts: np.ndarray, rng: np.random.Generator, given: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over drawn groups, averaged over drawn seeds [draws]; and the share of each seed in each draw [draws, seeds]."""
    seeds = value.shape[0]
    picks = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(counts)) / seeds if given is None else given
    sums = group_sums(value.T, group)  # [groups, seeds]
    return ((counts @ sums) * picks).sum(axis=1), picks
