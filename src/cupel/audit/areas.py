"""Area under the curve of many resamples at once."""

from __future__ import annotations

import numpy as np


def areas(score: np.ndarray, positive: np.ndarray, code: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """P(score of a positive > score of a negative), ties counting half, under row weights counts[b, code]: float64 [B].

    score [n]; positive bool [n]; code int [n], the group of each row; counts [B, groups], how often each group was drawn. NaN where a
    resample lacks positives or negatives.

    >>> areas(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), np.array([0, 0, 1]), np.array([[1.0, 1.0], [1.0, 0.0]])).tolist()
    [0.5, 1.0]
    """
    value, rank = np.unique(score, return_inverse=True)
    rank = rank.reshape(-1)
    order = np.argsort(rank, kind="stable")
    hit, group = positive[order], code[order]
    start = np.flatnonzero(np.diff(rank[order], prepend=-1))
    out = np.empty(len(counts))
    for b, count in enumerate(counts):
        weight = count[group]
        above, below = np.where(hit, weight, 0.0), np.where(hit, 0.0, weight)
        if len(value) < len(score):
            above, below = np.add.reduceat(above, start), np.add.reduceat(below, start)
        total = above.sum() * below.sum()
        out[b] = above @ (np.cumsum(below) - below / 2) / total if total > 0 else np.nan
    return out


def area(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve of one sample; NaN where positives or negatives are missing.

    >>> area(np.array([3.0, 2.0, 1.0]), np.array([True, False, False]))
    1.0
    """
    if len(score) == 0:
        return float("nan")
    return float(areas(score, positive, np.zeros(len(score), dtype=np.int64), np.ones((1, 1)))[0])
