"""Confident learning for two labels: which recorded labels a classifier's out-of-fold probabilities speak against.

Northcutt et al. 2021, JAIR 70. With one label per pair its noise rate inherits every error of the model: here it is a list of
suspects, not an estimate of the label error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError


@dataclass(frozen=True)
class ConfidentJoint:
    """thresholds [2]; joint int [2, 2]: counts [given, confidently predicted]; calibrated [2, 2]: joint distribution of given and
    true label; noise: 1 - its trace; and masks [n] of rows flagged by class, by noise rate, by both, by the joint's off-diagonal,
    and by argmax."""

    thresholds: np.ndarray
    joint: np.ndarray
    calibrated: np.ndarray
    noise: float
    by_class: np.ndarray
    by_noise_rate: np.ndarray
    by_both: np.ndarray
    by_joint: np.ndarray
    by_argmax: np.ndarray


def confident_joint(given: np.ndarray, p_one: np.ndarray) -> ConfidentJoint:
    """Confident joint of given labels (0, 1) and out-of-fold probabilities of label 1, and the rows each rule flags.

    threshold_c = mean of p[:, c] over rows given c; a row counts for the likeliest class that reaches its threshold. Calibrated:
    rows of the joint scaled to the counts of given labels, divided by n. by_class: the lowest self-confidence in each given class,
    n_c (1 - Q_cc / row) of them; by_noise_rate: the largest p_other - p_given, round(n Q_off) of them per direction.

    >>> found = confident_joint(np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1]), np.array([.05, .2, .1, .9, .95, .85, .3, .7, .55, .6]))
    >>> found.thresholds.round(2).tolist(), found.joint.tolist(), round(found.noise, 2), np.flatnonzero(found.by_both).tolist()
    ([0.64, 0.68], [[3, 1], [1, 3]], 0.25, [3, 6])
    """
    given, p_one = np.asarray(given).astype(np.int64), np.asarray(p_one, dtype=np.float64)
    if given.shape != p_one.shape or not np.isin(given, (0, 1)).all() or not ((p_one >= 0) & (p_one <= 1)).all():
        raise InputError("confident learning needs labels 0 or 1 and one probability in 0 ... 1 per row")
    size = np.bincount(given, minlength=2)
    if size.min() == 0:
        raise InputError(f"every label is {int(size.argmax())}: swap the sides of random rows first, so that both labels occur")
    p = np.stack([1 - p_one, p_one], axis=1)
    thresholds = np.array([p[given == c, c].mean() for c in (0, 1)])
    reached = p >= thresholds - 1e-12
    best = np.where(reached, p, -1.0).argmax(axis=1)
    counted = reached.any(axis=1)
    joint = np.bincount(given[counted] * 2 + best[counted], minlength=4).reshape(2, 2)
    rows = joint.sum(axis=1, keepdims=True)
    shares = np.where(rows > 0, joint / np.maximum(rows, 1), np.eye(2))
    calibrated = shares * size[:, None] / len(given)
    own, other = p[np.arange(len(given)), given], p[np.arange(len(given)), 1 - given]
    by_class, by_rate = np.zeros(len(given), dtype=bool), np.zeros(len(given), dtype=bool)
    for c in (0, 1):
        members = np.flatnonzero(given == c)
        lowest = members[np.argsort(own[members], kind="stable")]
        by_class[lowest[: round(float(size[c] * shares[c, 1 - c]))]] = True
        widest = members[np.argsort((own - other)[members], kind="stable")]
        by_rate[widest[: round(float(len(given) * calibrated[c, 1 - c]))]] = True
    off = counted & (best != given)
    noise = float(1 - np.trace(calibrated))
    return ConfidentJoint(thresholds, joint, calibrated, noise, by_class, by_rate, by_class & by_rate, off, p.argmax(axis=1) != given)
