"""Interval of a mean over votes of several training seeds: prompts (groups) crossed with seeds.

Resampling groups and seeds independently of each other counts what is peculiar to a cell (this group under this seed) three times
and covers 99 % where seeds share little. So groups alone are resampled, on means over seeds, which holds all there is between
groups and the cells' part of the variance once; what seeds add beyond that is estimated by the two-way analysis of variance.
"""

from __future__ import annotations

import numpy as np

from cupel.votes.intervals import cluster_bootstrap, group_sums


def crossed_interval(
    value: np.ndarray, base: np.ndarray | None, group: np.ndarray, *, seed: int, draws: int, level: float = 0.95
) -> tuple[float | None, float | None, float, int]:
    """(low, high, estimate, groups) of mean(value) - mean(base), from a bootstrap over groups widened by the variance of the seeds.

    v = A + B: A, the variance of the mean over groups (which contains the cells' part); B = max(0, var(seed means) / S - MS_cell / (G S)),
    what seeds add. Both distances from the estimate to the ends of the bootstrap over groups are multiplied by sqrt(v / A) and by
    the ratio of Student's quantiles at the degrees of freedom of v (Satterthwaite 1946) and of A. With one seed B is 0: nothing says
    how training seeds differ.

    value, base [seeds, n] (base may have another number of seeds, or be None); group [n]. With the same number of seeds they are
    paired, so what a seed does to both cancels. One group: no interval.

    >>> value = np.array([[1.0, 0, 1, 1, 0, 1]])
    >>> low, high, estimate, groups = crossed_interval(value, None, np.array([0, 0, 1, 1, 2, 2]), seed=0, draws=500)
    >>> round(estimate, 3), groups, low < estimate < high
    (0.667, 3, True)
    """
    from scipy.special import stdtrit

    tables = [value] if base is None else [value - base] if len(value) == len(base) else [value, base]
    over_seeds = value.mean(axis=0) - (0.0 if base is None else base.mean(axis=0))
    clip = (0.0, 1.0) if base is None else (-1.0, 1.0)
    found = cluster_bootstrap(over_seeds, group, seed=seed, draws=draws, level=level)
    if found.groups < 2:
        return None, None, found.estimate, found.groups
    between = _variance(_influence(over_seeds[None], group)[:, 0])
    parts = [_seeds(_influence(table, group)) for table in tables]
    total = between + sum(parts)
    if between > 0:
        terms = [(between, found.groups - 1), *((part, len(table) - 1) for part, table in zip(parts, tables, strict=True) if part > 0)]
        freedom = total**2 / sum(part**2 / df for part, df in terms)
        upper = 0.5 + level / 2
        widen = np.sqrt(total / between) * float(stdtrit(freedom, upper) / stdtrit(found.groups - 1, upper))
    else:
        widen = 1.0
    low, high = found.estimate + widen * (found.low - found.estimate), found.estimate + widen * (found.high - found.estimate)
    return float(np.clip(low, *clip)), float(np.clip(high, *clip)), found.estimate, found.groups


def _influence(value: np.ndarray, group: np.ndarray) -> np.ndarray:
    """What each cell moves the mean over rows by, times the number of groups: [groups, seeds], summing to 0 (ratio linearised)."""
    sums = group_sums(value.T, group)
    size = group_sums(np.ones(value.shape[1]), group)
    return (sums - value.mean() * size) / size.mean()


def _variance(means: np.ndarray) -> float:
    """Variance of the mean of independent values."""
    return float(means.var(ddof=1)) / len(means)


def _seeds(cells: np.ndarray) -> float:
    """What the choice of seeds adds to the variance of the mean of cells [groups, seeds] beyond that of groups; at least 0."""
    groups, seeds = cells.shape
    if seeds < 2:
        return 0.0
    rest = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0) + cells.mean()
    cell = float((rest**2).sum()) / ((groups - 1) * (seeds - 1))
    return max(0.0, _variance(cells.mean(axis=0)) - cell / (groups * seeds))
