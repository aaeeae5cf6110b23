"""Probability that a recorded label is right, from suspicion and some rows whose error is known (re-checked, or voted on again)."""

from __future__ import annotations

import numpy as np

from cupel.errors import InputError


def p_correct(
    suspicion: np.ndarray,
    checked: np.ndarray,
    wrong: np.ndarray,
    tau: float,
    *,
    weight: np.ndarray | None = None,
    prior: float = 4.0,
) -> np.ndarray:
    """P(recorded label is right) for every row: 1 - isotonic(wrong | suspicion), shifted so that its mean is 1 - tau.

    The checked rows' errors are fitted by a step function that rises with suspicion (pool adjacent violators); each step is shrunk
    toward tau by `prior` rows, interpolated between steps, and all log-odds are shifted by one number so that the mean error over
    all rows equals tau. With few checked rows the result is flat, as it should be.

    suspicion float [N]; checked int [k]: the rows that were checked; wrong float [k] in [0, 1] (a probability where it comes from
    votes); weight [k]: rows that each stands for, one each where None; 0 < tau < 1.

    >>> suspicion = np.linspace(-2, 2, 101)
    >>> right = p_correct(suspicion, np.array([0, 25, 50, 75, 100]), np.array([0, 0, 0, 1, 1.0]), tau=0.3)
    >>> bool(np.all(np.diff(right) <= 0)), round(float(1 - right.mean()), 6)
    (True, 0.3)
    """
    from scipy.optimize import isotonic_regression

    suspicion, checked = np.asarray(suspicion, dtype=np.float64), np.asarray(checked)
    wrong = np.asarray(wrong, dtype=np.float64)
    weight = np.ones(len(checked)) if weight is None else np.asarray(weight, dtype=np.float64)
    if len(checked) == 0 or not len(checked) == len(wrong) == len(weight):
        lengths = f"{len(checked)}, {len(wrong)}, {len(weight)}"
        raise InputError(f"calibration needs checked rows with one answer and weight each, not {lengths}")
    if not (np.isfinite(wrong).all() and wrong.min() >= 0 and wrong.max() <= 1):
        raise InputError("an error is a number in 0 ... 1; leave undecided rows out")
    if not 0 <= tau <= 1:
        raise InputError(f"a rate lies in 0 ... 1, not {tau!r}")
    if tau in (0, 1):
        return np.full(len(suspicion), 1.0 - tau)
    at, index = np.unique(suspicion[checked], return_inverse=True)
    index = index.reshape(-1)
    mass = np.bincount(index, weights=weight)
    level = np.bincount(index, weights=weight * wrong) / mass
    count = np.bincount(index).astype(np.float64)
    fitted = isotonic_regression(level, weights=mass).x
    block = np.concatenate([[0], np.cumsum(np.abs(np.diff(fitted)) > 1e-12)])
    rows = np.bincount(block, weights=count)
    middle = np.bincount(block, weights=at * mass) / np.bincount(block, weights=mass)
    step = (rows * fitted[np.searchsorted(block, np.arange(len(rows)))] + prior * tau) / (rows + prior)
    step = np.maximum.accumulate(step)
    odds = np.interp(suspicion, middle, np.log(step) - np.log1p(-step))
    return 1 - _with_mean(odds, tau)


def _with_mean(odds: np.ndarray, tau: float) -> np.ndarray:
    """sigmoid(odds + c) with the c that makes its mean tau (bisection, then nothing left to choose)."""
    low, high = -40.0 - float(odds.max()), 40.0 - float(odds.min())
    for _ in range(200):
        middle = (low + high) / 2
        if np.mean(0.5 * (1 + np.tanh((odds + middle) / 2))) < tau:
            low = middle
        else:
            high = middle
        if high - low < 1e-13:
            break
    return 0.5 * (1 + np.tanh((odds + (low + high) / 2) / 2))
