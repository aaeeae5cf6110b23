"""Intervals of many paired differences at once, from rows that several seeds tested, groups (prompts) and seeds both being chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cupel.votes.intervals import group_sums


class Differences(NamedTuple):
    """Of C differences: estimate, its 95 % interval by itself (low, high), and one that holds for all C at once (all_low, all_high)."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    all_low: np.ndarray
    all_high: np.ndarray
    groups: int


def differences(value: np.ndarray, group: np.ndarray, seed_of: np.ndarray, *, seed: int = 0, draws: int = 2000) -> Differences:
    """Means of value [C, n] over rows, with intervals. group int [n] of each row, seed_of int [n]: which training seed tested it.

    Variance v = A + B. A: of the mean when whole groups are resampled (they contain what is peculiar to a group under a seed). B: what
    training seeds add beyond that, max(0, var(seed means) - mean squared error of a seed mean by its groups) / seeds; 0 with one seed.
    By itself: estimate -+ t sqrt(v), t at groups - 1 degrees of freedom (at the effective ones, Satterthwaite, where B > 0). For all
    at once: t is replaced by the 95 % quantile of the largest |difference| / sqrt(A) over the C, from a bootstrap over groups, times the
    same ratio of t to the normal. With five seeds that carry a quarter of the variance the joint interval held in 92 % of 120 simulated
    tables, by itself in 95 %; with seeds that add nothing in 98 % and 97 %.

    >>> rng = np.random.default_rng(0)
    >>> found = differences(rng.normal(0.1, 1, (2, 900)), np.arange(900), np.arange(900) % 3)
    >>> bool((found.all_low < found.low).all() and (found.low < found.estimate).all() and found.groups == 900)
    True
    """
    from scipy.special import stdtrit

    value = np.asarray(value, dtype=np.float64)
    count, n = value.shape
    codes = np.unique(group, return_inverse=True)[1].reshape(-1)
    size = group_sums(np.ones(n), codes)[:, 0]
    groups = len(size)
    estimate = value.mean(axis=1)
    influence = group_sums(value.T, codes) - size[:, None] * estimate  # [G, C], summing to 0
    correction = groups / max(groups - 1, 1)
    between = (influence**2).sum(axis=0) * correction / n**2
    seeds, tested = np.unique(seed_of, return_inverse=True)
    added = _added(value, codes, tested.reshape(-1), len(seeds))
    total = between + added
    freedom = np.full(count, float(groups - 1))
    both = added > 0
    freedom[both] = total[both] ** 2 / (between[both] ** 2 / max(groups - 1, 1) + added[both] ** 2 / max(len(seeds) - 1, 1))
    t = stdtrit(np.maximum(freedom, 1.0), 0.975)
    rng = np.random.default_rng(seed)
    scale = np.sqrt(np.where(between > 0, between, 1.0))
    largest = np.empty(draws)
    for low in range(0, draws, 200):
        high = min(draws, low + 200)
        times = rng.multinomial(groups, np.full(groups, 1 / groups), size=high - low).astype(np.float64)
        moved = times @ influence / (times @ size)[:, None]
        largest[low:high] = np.abs(moved / scale).max(axis=1) * np.sqrt(correction)
    q = max(float(np.quantile(largest, 0.95)), 1.959964) * t / 1.959964
    spread = np.sqrt(total)
    return Differences(estimate, estimate - t * spread, estimate + t * spread, estimate - q * spread, estimate + q * spread, groups)


def _added(value: np.ndarray, group: np.ndarray, seed_of: np.ndarray, seeds: int) -> np.ndarray:
    """What training seeds add to the variance of the mean, float [C]."""
    count = len(value)
    if seeds < 2:
        return np.zeros(count)
    means, errors = np.empty((seeds, count)), np.empty((seeds, count))
    for s in range(seeds):
        rows = seed_of == s
        size = group_sums(np.ones(int(rows.sum())), group[rows])[:, 0]
        means[s] = value[:, rows].mean(axis=1)
        influence = group_sums(value[:, rows].T, group[rows]) - size[:, None] * means[s]
        errors[s] = (influence**2).sum(axis=0) * len(size) / max(len(size) - 1, 1) / rows.sum() ** 2
    return np.maximum(0.0, means.var(axis=0, ddof=1) - errors.mean(axis=0)) / seeds
