"""Intervals for proportions and for means over clusters (prompts), in closed form or by one vectorised bootstrap.

Rows of a prompt are not independent, so whatever is averaged over rows gets its interval by resampling whole groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError

#: at most this many resampled values are held in memory at once
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, the number of groups it rests on, and the bootstrap draws (0: closed form)."""

    estimate: float
    low: float
    high: float
    groups: int
    draws: int = 0

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low


def normal_quantile(level: float) -> float:
    """Two-sided normal quantile z of a level: P(|Z| <= z) = level.

    >>> round(normal_quantile(0.95), 4)
    1.96
    """
    if not 0 < level < 1:
        raise InputError(f"a level lies between 0 and 1, not {level!r} (0.95 is usual)")
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def wilson(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion k / n; neither needs to be whole, so an effective sample size may be given.

    Centre (k + z^2/2) / (n + z^2), half width z sqrt(k (n - k) / n + z^2/4) / (n + z^2). Wilson 1927, JASA 22.
    k: number of hits, 0 <= k <= n; n > 0. InputError otherwise.

    >>> [round(x, 6) for x in wilson(10, 12)]
    [0.551969, 0.953035]
    >>> wilson(0, 50)[0]
    0.0
    """
    return wilson_at(k, n, normal_quantile(level))


def wilson_at(k: float, n: float, z: float) -> tuple[float, float]:
    """`wilson` at a given quantile z, e.g. one of the t distribution where n is an effective size from few clusters.

    >>> wilson_at(10, 12, normal_quantile(0.95)) == wilson(10, 12)
    True
    """
    if not (n > 0 and -1e-9 <= k <= n * (1 + 1e-9)):
        raise InputError(f"Wilson's interval needs 0 <= k <= n and n > 0, not k = {k!r}, n = {n!r}")
    k = min(max(float(k), 0.0), float(n))
    centre = (k + z * z / 2) / (n + z * z)
    half = z * np.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return float(low), float(high)


def agresti_coull(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Agresti and Coull's interval of a proportion k / n: p +- z sqrt(p (1 - p) / N) with N = n + z^2, p = (k + z^2/2) / N.

    For k independent draws of one rate. Counts jump, and with them the coverage of any interval: over n of 50 to 400 and rates of
    .05 to .40 this one covers .939 to .985 and Wilson's .927 to .978 (exact sums of binomial probabilities). Agresti & Coull 1998,
    The American Statistician 52.

    >>> [round(x, 4) for x in agresti_coull(15, 100)]
    [0.0919, 0.234]
    """
    if not (n > 0 and 0 <= k <= n):
        raise InputError(f"the interval needs 0 <= k <= n and n > 0, not k = {k!r}, n = {n!r}")
    z = normal_quantile(level)
    total = n + z * z
    p = (k + z * z / 2) / total
    half = z * np.sqrt(p * (1 - p) / total)
    return float(max(0.0, p - half)), float(min(1.0, p + half))


def clopper(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a proportion k / n (never below its level, wide for small n).

    Ends are quantiles of Beta(k, n-k+1) and Beta(k+1, n-k). Clopper & Pearson 1934, Biometrika 26.

    >>> [round(x, 4) for x in clopper(0, 50)]
    [0.0, 0.0711]
    """
    if not (n > 0 and 0 <= k <= n):
        raise InputError(f"the exact interval needs 0 <= k <= n and n > 0, not k = {k!r}, n = {n!r}")
    if not 0 < level < 1:
        raise InputError(f"a level lies between 0 and 1, not {level!r} (0.95 is usual)")
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def group_sums(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of columns [n] or [n, k] over groups: float64 [number of groups, k], groups in sorted order.

    >>> group_sums(np.array([1.0, 2.0, 4.0]), np.array([7, 3, 7])).tolist()
    [[2.0], [5.0]]
    """
    columns = np.asarray(columns, dtype=np.float64)
    columns = columns.reshape(len(columns), -1)
    groups = np.asarray(groups)
    if len(columns) != len(groups):
        raise InputError(f"{len(columns):,} values but {len(groups):,} groups: give one group to each row")
    if len(columns) == 0:
        raise InputError("no rows: nothing to resample")
    bad = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if len(bad):
        raise InputError(f"{len(bad):,} of {len(columns):,} rows are not finite (first: row {bad[0]}); leave them out")
    label, index = np.unique(groups, return_inverse=True)
    index = index.reshape(-1)
    return np.stack([np.bincount(index, weights=columns[:, j], minlength=len(label)) for j in range(columns.shape[1])], axis=1)


def resampled_sums(sums: np.ndarray, *, seed: int, draws: int = 1000) -> np.ndarray:
    """Bootstrap sums over groups drawn with replacement: float64 [draws, k] from group sums [groups, k].

    Any smooth function of sums (a ratio, an agreement coefficient) is bootstrapped by applying it to each row. Each draw takes as
    many groups as there are. Same seed, same values.
    """
    rng = np.random.default_rng(seed)
    size, width = sums.shape
    out = np.empty((draws, width))
    step = max(1, _CHUNK // max(size, 1))
    for start in range(0, draws, step):
        stop = min(draws, start + step)
        if size <= 2000:  # counts of each group in a draw, then one product
            counts = rng.multinomial(size, np.full(size, 1 / size), size=stop - start)
            out[start:stop] = counts @ sums
        else:
            picks = rng.integers(0, size, size=(stop - start, size))
            for j in range(width):
                out[start:stop, j] = sums[:, j][picks].sum(axis=1)
    return out


def expanded_percentile(
    estimate: float, values: np.ndarray, groups: int, level: float = 0.95, clip: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """Percentile interval of bootstrap values, expanded for a small number of groups.

    Bootstrap spread is too small by sqrt((G-1)/G) and ignores Student's tails; both distances from the estimate are multiplied by
    sqrt(G/(G-1)) t_{G-1} / z. Hesterberg 2015, The American Statistician 69 (the "expanded percentile" interval).
    """
    from scipy.special import stdtrit

    z = normal_quantile(level)
    values = values[np.isfinite(values)]
    if groups < 2 or len(values) == 0:
        return Interval(float(estimate), float("nan"), float("nan"), groups, len(values))
    factor = np.sqrt(groups / (groups - 1)) * float(stdtrit(groups - 1, 0.5 + level / 2)) / z
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    low, high = estimate + (low - estimate) * factor, estimate + (high - estimate) * factor
    return Interval(float(estimate), float(np.clip(low, *clip)), float(np.clip(high, *clip)), groups, len(values))


def cluster_bootstrap(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
    denominator: np.ndarray | None = None,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    clip: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Interval of a ratio of sums over rows, by resampling whole groups (prompts) with replacement.

    The statistic is sum(values) / sum(denominator), the mean where no denominator is given. `statistic` replaces the ratio: it maps
    resampled sums [draws, k] of the columns of `values` [n, k] to [draws]. The interval is the expanded percentile one; with a
    single group its ends are NaN, because nothing says how groups differ.

    values [n] or [n, k]; groups [n]; seed: of the draws; clip: ends are kept inside (0, 1 for a share).

    >>> rows = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    >>> found = cluster_bootstrap(rows, np.array([0, 0, 1, 1, 2, 2]), seed=0, clip=(0, 1))
    >>> round(found.estimate, 4), found.groups, found.low < found.estimate < found.high
    (0.6667, 3, True)
    """
    values = np.asarray(values, dtype=np.float64)
    if statistic is None:
        below = np.ones(len(values)) if denominator is None else np.asarray(denominator, dtype=np.float64)
        columns = np.stack([values.reshape(len(values)), below], axis=1)
        statistic = _ratio
    elif denominator is not None:
        raise InputError("give a denominator or a statistic, not both")
    else:
        columns = values
    sums = group_sums(columns, groups)
    estimate = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if len(sums) < 2:
        return Interval(estimate, float("nan"), float("nan"), len(sums), 0)
    drawn = statistic(resampled_sums(sums, seed=seed, draws=draws))
    return expanded_percentile(estimate, drawn, len(sums), level, clip)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """sums[:, 0] / sums[:, 1], NaN where nothing was drawn below the line."""
    below = np.where(sums[:, 1] == 0, np.nan, sums[:, 1])
    return sums[:, 0] / below
