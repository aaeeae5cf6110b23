"""Many small convex fits at once, one per person: logistic regression with a ridge, mixtures on a simplex; and the majority's item shares.

The baselines and the second stage of models with people. Comparisons are padded to [people, most comparisons of one] and every step of
Newton is taken by all people together; there is no loop over people. float64, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cupel.errors import InputError
from cupel.learners.threads import one_blas_thread

#: the least prior of a mixture, in comparisons: it keeps weights above 0, where the logarithm is
LEAST_PRIOR = 1e-8
STEPS, HALVINGS, TOLERANCE = 200, 40, 1e-12


class Fits(NamedTuple):
    """values [people, k]; loss [people], the sum over a person's comparisons without the prior; steps taken; settled [people]."""

    values: np.ndarray
    loss: np.ndarray
    steps: int
    settled: np.ndarray


def ridge_logistic(
    x: np.ndarray, p: np.ndarray, w: np.ndarray, who: np.ndarray, people: int, *, ridge: float, offset: np.ndarray | None = None
) -> Fits:  # fmt: skip
    """Coefficients b_u [people, d] of a logistic regression per person: argmin sum_i w_i CE(p_i, s(o_i + x_i . b_u)) + ridge/2 |b_u|^2.

    x [n, d], one row per comparison (difference of its sides' features); p, w [n]; who int [n], 0 to people - 1; offset o [n], default 0.
    A person without comparisons gets 0. More features than comparisons are turned to the space the comparisons span. InputError unless
    ridge > 0, which is what makes the answer one.

    >>> one = np.ones(4)
    >>> found = ridge_logistic(one[:, None], np.array([1.0, 1.0, 1.0, 0.0]), one, np.array([0, 0, 0, 0]), 2, ridge=1e-9)
    >>> found.values.round(4).tolist()  # log(3 / 1), and nothing of the person without comparisons
    [[1.0986], [0.0]]
    """
    if not ridge > 0:
        raise InputError(f"ridge={ridge!r}: a regression per person needs a ridge above 0, or the few comparisons of a person fix nothing")
    at, there = padded(who, people)
    block = np.where(there[..., None], np.asarray(x, np.float64)[at], 0.0)
    basis = None
    with one_blas_thread():
        if block.shape[1] < block.shape[2]:
            left, size, basis = np.linalg.svd(block, full_matrices=False)
            block = left * size[:, None, :]
        target, weight = p[at], np.where(there, w[at], 0.0)
        shift = np.zeros(at.shape) if offset is None else np.where(there, offset[at], 0.0)
        b = np.zeros((people, block.shape[2]))

        def value(b: np.ndarray) -> np.ndarray:
            return cross_entropy(shift + apply(block, b), target, weight).sum(axis=1) + ridge / 2 * (b**2).sum(axis=1)

        now, step, settled = value(b), 0, np.zeros(people, bool)
        while step < STEPS:
            step += 1
            s = sigmoid(shift + apply(block, b))
            gradient = apply(block.swapaxes(1, 2), weight * (s - target)) + ridge * b
            curvature = block.swapaxes(1, 2) @ ((weight * s * (1 - s))[..., None] * block) + ridge * np.eye(b.shape[1])
            move = -np.linalg.solve(curvature, gradient[..., None])[..., 0]
            slope = (gradient * move).sum(axis=1)
            settled = -slope <= TOLERANCE * (1 + now)
            if settled.all():
                break
            before, (b, now) = now, _line_search(value, b, move, slope, now, np.where(settled, 0.0, 1.0))
            if (before == now).all():  # nothing is left but rounding
                break
        loss = cross_entropy(shift + apply(block, b), target, weight).sum(axis=1)
        if basis is not None:
            b = apply(basis.swapaxes(1, 2), b)
    return Fits(b, loss, step, settled)


def simplex_logistic(
    margins: np.ndarray, p: np.ndarray, w: np.ndarray, who: np.ndarray, people: int, *, prior: float, mean: np.ndarray
) -> Fits:  # fmt: skip
    """Mixtures v_u [people, K], at least 0 with sum 1: argmin sum_i w_i CE(p_i, s(M_i . v_u)) - prior sum_k mean_k log v_uk.

    margins M [n, K]: the margin of each comparison under each prototype alone. The second term is a Dirichlet prior, worth `prior`
    comparisons, that is least at `mean` [K]: who has no comparisons gets `mean`. Convex in v: Newton steps within the simplex (scaled by v,
    so that it stays well conditioned near corners) find the one minimum. InputError for a prior below 0 or a mean that is no mixture.

    >>> margins = np.array([[1.0, -1.0]] * 4)
    >>> found = simplex_logistic(margins, np.array([1, 1, 0, 1.0]), np.ones(4), np.zeros(4, int), 2, prior=0.0, mean=np.full(2, 0.5))
    >>> found.values.round(3).tolist()  # v_1 - v_2 = log 3 lies beyond the corner
    [[1.0, 0.0], [0.5, 0.5]]
    """
    if not (prior >= 0 and np.isfinite(prior)):
        raise InputError(f"prior={prior!r}: the prior of a mixture is worth a number of comparisons of at least 0")
    mean = np.asarray(mean, np.float64)
    if mean.shape != margins.shape[1:] or not (mean > 0).all() or abs(mean.sum() - 1) > 1e-6:
        raise InputError(f"the prior's mean is a mixture of {margins.shape[1]} weights above 0 with sum 1, not {mean.tolist()}")
    at, there = padded(who, people)
    block = np.where(there[..., None], np.asarray(margins, np.float64)[at], 0.0)
    target, weight = p[at], np.where(there, w[at], 0.0)
    pull = max(prior, LEAST_PRIOR) * mean
    with one_blas_thread():
        v = np.broadcast_to(mean, (people, len(mean))).copy()

        def value(v: np.ndarray) -> np.ndarray:
            return cross_entropy(apply(block, v), target, weight).sum(axis=1) - (pull * np.log(v)).sum(axis=1)

        now, step, settled = value(v), 0, np.zeros(people, bool)
        while step < STEPS:
            step += 1
            s = sigmoid(apply(block, v))
            scaled = block * v[:, None, :]
            gradient = apply(scaled.swapaxes(1, 2), weight * (s - target)) - pull
            curvature = scaled.swapaxes(1, 2) @ ((weight * s * (1 - s))[..., None] * scaled) + np.diag(pull)
            both = np.linalg.solve(curvature, np.stack([gradient, v], axis=-1))
            force = (v * both[..., 0]).sum(axis=1) / (v * both[..., 1]).sum(axis=1)
            move = force[:, None] * both[..., 1] - both[..., 0]  # of log v to first order; v . move = 0
            slope = (gradient * move).sum(axis=1)
            settled = -slope <= TOLERANCE * (1 + np.abs(now))
            if settled.all():
                break
            longest = np.minimum(1.0, 0.99 / np.maximum(-move.min(axis=1), 1e-300))
            before, (v, now) = now, _line_search(value, v, move * v, slope, now, np.where(settled, 0.0, longest))
            if (before == now).all():
                break
        v /= v.sum(axis=1, keepdims=True)
        loss = cross_entropy(apply(block, v), target, weight).sum(axis=1)
    return Fits(v, loss, step, settled)


def item_shares(
    first: np.ndarray, second: np.ndarray, p: np.ndarray, w: np.ndarray, items: int, *, smooth: float = 1.0
) -> np.ndarray:  # fmt: skip
    """The majority: share of its comparisons that each item wins, [items], with `smooth` wins and as many losses added.

    >>> item_shares(np.array([0, 0]), np.array([1, 1]), np.array([1.0, 1.0]), np.ones(2), 3).tolist()
    [0.75, 0.25, 0.5]
    """
    won = np.bincount(first, w * p, items) + np.bincount(second, w * (1 - p), items)
    met = np.bincount(first, w, items) + np.bincount(second, w, items)
    return (won + smooth) / (met + 2 * smooth)


def padded(who: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each person's comparisons as a table int64 [people, most of one], and bool where there is one; elsewhere row 0 stands.

    InputError where a comparison's person is not among 0 to people - 1.

    >>> [part.tolist() for part in padded(np.array([1, 0, 1]), 2)]
    [[[1, 0], [0, 2]], [[True, False], [True, True]]]
    """
    bad = np.flatnonzero((who < 0) | (who >= people))
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {len(who):,} comparisons name none of the {people:,} people (first: row {bad[0]}): fill the column of "
            f"annotators, or leave these comparisons out"
        )
    count = np.bincount(who, minlength=people)
    order = np.argsort(who, kind="stable")
    rank = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
    shape = (people, max(int(count.max(initial=0)), 1))
    at, there = np.zeros(shape, np.int64), np.zeros(shape, bool)
    at[who[order], rank], there[who[order], rank] = order, True
    return at, there


def cross_entropy(margin: np.ndarray, p: np.ndarray, w: np.ndarray | float = 1.0) -> np.ndarray:
    """w [p log(1 + e^-m) + (1 - p) log(1 + e^m)], elementwise, without overflow.

    >>> cross_entropy(np.array([0.0, 800.0]), np.array([1.0, 0.0])).round(4).tolist()
    [0.6931, 800.0]
    """
    return w * (np.logaddexp(0, margin) - p * margin)


def sigmoid(m: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-m), elementwise, without overflow.

    >>> sigmoid(np.array([0.0, -800.0])).tolist()
    [0.5, 0.0]
    """
    e = np.exp(-np.abs(m))
    return np.where(m >= 0, 1, e) / (1 + e)


def apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Each matrix [u, n, k] times its vector [u, k]: [u, n].

    >>> apply(np.ones((1, 2, 3)), np.ones((1, 3))).tolist()
    [[3.0, 3.0]]
    """
    return (matrices @ vectors[..., None])[..., 0]


def _line_search(
    value: Callable[[np.ndarray], np.ndarray], start: np.ndarray, move: np.ndarray, slope: np.ndarray, now: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The first of length, length/2, ... at which each person's value falls enough (Armijo); who finds none stays."""
    best, out = now.copy(), start.copy()
    open_ = length > 0
    for _ in range(HALVINGS):
        trial = start + np.where(open_, length, 0.0)[:, None] * move
        reached = value(trial)
        good = open_ & (reached <= now + 1e-4 * length * slope)
        out[good], best[good] = trial[good], reached[good]
        open_ &= ~good
        if not open_.any():
            break
        length = length / 2
    return out, best
