"""The value of one policy from the log of another with a model of outcomes beside the weights: doubly robust."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cupel.errors import InputError
from cupel.noise.exposure import Average, average, effective_size, top_share


def doubly_robust(
    values: ArrayLike, exposure: ArrayLike, *, wanted: ArrayLike, predicted: ArrayLike, mean: ArrayLike, clip: float = 0.0
) -> Average:
    """Mean value under the wanted policy: mean of q(x) + w (v - q(x, a)), w = wanted / max(theta, clip).

    Unbiased (without a clip) where propensities or predictions are right, and steadier than weights alone where predictions are good. No
    card gives it: the formula is the textbook's (Robins et al. 1994; Dudik et al. 2011) [unverified].

    values [n] of what was done, exposure theta [n] in (0, 1], wanted: the probability of what was done under the wanted policy; predicted
    q(x, a) [n] for what was done and mean q(x) [n], its mean under the wanted policy, from a model that did not see the row
    (`cell_means`). InputError as `cupel.noise.exposure.average`, and for predictions of another length or that are not finite.

    >>> found = doubly_robust([1.0, 0.0], [0.5, 0.25], wanted=0.5, predicted=[0.5, 0.5], mean=[0.5, 0.5])
    >>> found.value
    0.25
    """
    v = np.asarray(values, dtype=np.float64)
    q, base = (np.asarray(x, dtype=np.float64) for x in (predicted, mean))
    for name, x in (("predicted", q), ("mean", base)):
        if x.shape != v.shape or not np.isfinite(x).all():
            raise InputError(f"{name} is a finite number for each of the {len(v):,} rows, not an array of shape {x.shape}")
    ips = average(v - q, exposure, form="ips", clip=clip, wanted=wanted)  # checks values, propensities and clip
    w = np.broadcast_to(np.asarray(wanted, np.float64), v.shape) / np.maximum(np.asarray(exposure, np.float64), clip)
    terms = base + w * (v - q)
    n = len(v)
    error = float(terms.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Average("ips", float(terms.mean()), error, n, effective_size(w), top_share(w), ips.clipped, ips.warnings)


def cell_means(
    values: ArrayLike, cell: ArrayLike, cells: int, *, folds: int = 5, prior: float = 20.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(mean value of each cell from the rows outside each fold, float64 [folds, cells]; the fold of each row, int [n]).

    Shrunk towards the mean m of those rows: (sum + prior m) / (count + prior). cell int [n] in [0, cells): what was done, and where.

    >>> means, fold = cell_means(np.array([1.0, 1, 0, 0]), np.array([0, 0, 1, 1]), 2, folds=2, prior=0.0, seed=1)
    >>> means.tolist(), fold.tolist()
    ([[1.0, 0.0], [1.0, 0.0]], [0, 1, 0, 1])
    """
    v, c = np.asarray(values, dtype=np.float64), np.asarray(cell)
    if v.shape != c.shape or not 2 <= folds <= len(v) or c.min() < 0 or c.max() >= cells:
        raise InputError(f"cells lie in [0, {cells}) for each of the {len(v):,} rows, in 2 folds or more; folds is {folds}")
    fold = np.empty(len(v), dtype=np.int64)
    fold[np.random.default_rng(seed).permutation(len(v))] = np.arange(len(v)) % folds
    out = np.empty((folds, cells))
    for f in range(folds):
        kept = fold != f
        count, total = np.bincount(c[kept], minlength=cells), np.bincount(c[kept], v[kept], cells)
        middle = float(v[kept].mean())
        below = count + prior
        out[f] = np.where(below > 0, (total + prior * middle) / np.where(below > 0, below, 1), middle)
    return out, fold
