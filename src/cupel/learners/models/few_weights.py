"""A handful of weights by the likelihood of comparisons: Newton's method, solved for many resamples at once, with bootstrap intervals.

    minimise over g   sum_i w_i [ p_i softplus(-m_i) + (1 - p_i) softplus(m_i) ] + l2 / 2 |g|^2,   m_i = d_i . g

There is no intercept: swapping the sides of a comparison flips its margin and nothing else. `votes.linear_head` solves the same for wide
features; with few columns Newton's method takes five steps, and hundreds of resamples are solved together.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.votes.intervals import expanded_percentile

#: steps of Newton's method; where labels are separable and nothing is penalised there is no end
STEPS = 50


@dataclass(frozen=True)
class Weights:
    """g [k], its interval low, high [k] by bootstrap over groups (NaN with one group), resamples, groups; whether the solver arrived."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draws: int
    groups: int
    converged: bool
    separable: bool


def groups_of(data: Comparisons) -> np.ndarray:
    """int64 [n] what is resampled: the group, the comparison itself where it has none."""
    return np.where(data.group >= 0, data.group, np.arange(len(data)) + int(data.group.max(initial=-1)) + 1)


def newton(d: np.ndarray, p: np.ndarray, w: np.ndarray, l2: float) -> tuple[np.ndarray, bool]:
    """Weights [R, k] under each row of w [R, n], for differences d [n, k] and targets p [n]; and whether all solutions were reached.

    >>> g, reached = newton(np.array([[1.0], [1.0], [1.0]]), np.array([1.0, 1.0, 0.0]), np.ones((1, 3)), 0.0)
    >>> bool(abs(g[0, 0] - np.log(2)) < 1e-9), reached
    (True, True)
    """
    k = d.shape[1]
    g = np.zeros((len(w), k))
    outer = (d[:, :, None] * d[:, None, :]).reshape(len(d), k * k)
    value = _objective(g, d, p, w, l2)
    for _ in range(STEPS):
        s = 1 / (1 + np.exp(-np.clip(g @ d.T, -500, 500)))
        gradient = (w * (s - p)) @ d + l2 * g
        curvature = ((w * s * (1 - s)) @ outer).reshape(-1, k, k) + (l2 + 1e-10) * np.eye(k)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        size, worse, tried = np.ones(len(w)), np.zeros(len(w), bool), value
        for _ in range(30):  # halve until the objective does not rise: far from the solution a full step may overshoot
            tried = _objective(g - size[:, None] * step, d, p, w, l2)
            worse = tried > value + 1e-12 * np.abs(value)
            if not worse.any():
                break
            size[worse] /= 2
        size[worse] = 0.0
        g = g - size[:, None] * step
        value = np.where(worse, value, tried)
        if np.abs(gradient).max() <= 1e-9 * max(float(w.sum(axis=1).max()), 1.0):
            return g, True
    return g, False


def _objective(g: np.ndarray, d: np.ndarray, p: np.ndarray, w: np.ndarray, l2: float) -> np.ndarray:
    m = g @ d.T
    return (w * (np.logaddexp(0, m) - p * m)).sum(axis=1) + l2 / 2 * (g * g).sum(axis=1)


def few_weights(
    values: np.ndarray, data: Comparisons, *, l2: float = 1.0, draws: int = 200, seed: int = 0, level: float = 0.95
) -> Weights:  # fmt: skip
    """Weights of the columns of values [sides, k] by the comparisons' (p, w), with intervals by resampling groups with replacement.

    Warns where nothing is penalised and the labels are separable: the weights then have no end. InputError for values that are not finite
    and where no comparison weighs anything.

    >>> values = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> found = few_weights(values, Comparisons.of(np.zeros(30, int), np.ones(30, int), np.full(30, 0.8)), draws=20)
    >>> found.value.round(3).tolist()
    [0.63, -0.63]
    """
    d = np.asarray(values, np.float64)[data.first] - np.asarray(values, np.float64)[data.second]
    bad = np.flatnonzero(~np.isfinite(d).all(axis=1))
    if len(bad):
        raise InputError(f"{len(bad):,} of {len(d):,} comparisons have a value that is not finite (first: row {bad[0]})")
    if not data.w.sum() > 0:
        raise InputError("no comparison has a weight above 0: there is nothing to learn from")
    found, reached = newton(d, data.p, data.w[None], l2)
    margin = d @ found[0]
    separable = bool((np.where(data.p > 0.5, margin, -margin)[(data.w > 0) & (data.p != 0.5)] > 0).all() and np.isin(data.p, (0, 1)).all())
    if separable and l2 == 0:
        warnings.warn("the labels are separable and nothing is penalised: the weights have no end, give l2", stacklevel=2)
    label, index = np.unique(groups_of(data), return_inverse=True)
    number = len(label)
    if number < 2 or draws < 1:
        nothing = np.full(d.shape[1], np.nan)
        return Weights(found[0], nothing, nothing, 0, number, reached, separable)
    counts = np.random.default_rng([seed, 46]).multinomial(number, np.full(number, 1 / number), size=draws)
    drawn, _ = newton(d, data.p, data.w * counts[:, index.reshape(-1)], max(l2, 1e-6))
    spread = [expanded_percentile(float(v), drawn[:, j], number, level) for j, v in enumerate(found[0])]
    ends = np.array([(x.low, x.high) for x in spread])
    return Weights(found[0], ends[:, 0], ends[:, 1], draws, number, reached, separable)
