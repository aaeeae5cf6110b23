"""Content: a ridge head on the difference of two sides, for every set of folds that must be left out, from Gram matrices per fold.

    theta = argmin sum_i w_i (t_i - x_i theta)^2 + ridge |theta|^2,   x_i = features(low) - features(high),  t_i in [-1, 1]

Least squares on +-1 labels, no intercept: on the shared data it ranks errors as the logistic head does, it is antisymmetric, and
because the Gram matrices do not depend on labels, planted copies of the data cost one matrix product each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: in units of the mean diagonal of the Gram matrix of the training rows
RIDGES: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
#: rows multiplied at a time
_CHUNK = 1 << 14


@dataclass
class Content:
    """Heads that leave out one fold, or two. x float32 [P, d]; w [P]; fold [P] in 0 ... K-1."""

    x: np.ndarray
    w: np.ndarray
    fold: np.ndarray
    gram: list[np.ndarray] = field(init=False)
    rows: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [np.flatnonzero(self.fold == k) for k in range(int(self.fold.max(initial=-1)) + 1)]
        self.gram = []
        for rows in self.rows:
            gram = np.zeros((self.x.shape[1], self.x.shape[1]))
            for start in range(0, len(rows), _CHUNK):
                x = self.x[rows[start : start + _CHUNK]]
                gram += (x * self.w[rows[start : start + _CHUNK], None].astype(np.float32)).T @ x
            self.gram.append(gram)
        self.total = np.sum(self.gram, axis=0)

    @property
    def folds(self) -> int:
        """Number of folds K."""
        return len(self.rows)

    def moments(self, t: np.ndarray) -> list[np.ndarray]:
        """X' W t of each fold, float64 [d]."""
        wt = (self.w * t).astype(np.float32)
        out = []
        for rows in self.rows:
            parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
            out.append(sum(((wt[part] @ self.x[part]).astype(np.float64) for part in parts), np.zeros(self.x.shape[1])))
        return out

    def without(self, left_out: tuple[int, ...], moments: list[np.ndarray], ridges: tuple[float, ...]) -> np.ndarray:
        """Heads fitted without some folds, one column per ridge: float64 [d, len(ridges)]."""
        from scipy.linalg import cho_factor, cho_solve

        gram = self.total - np.sum([self.gram[k] for k in left_out], axis=0)
        target = np.sum(moments, axis=0) - np.sum([moments[k] for k in left_out], axis=0)
        unit = max(float(np.trace(gram)) / max(len(gram), 1), 1e-12)
        out = np.empty((len(target), len(ridges)))
        for column, ridge in enumerate(ridges):
            out[:, column] = cho_solve(cho_factor(gram + ridge * unit * np.eye(len(gram)), lower=True, overwrite_a=True), target)
        return out

    def nested(self, t: np.ndarray, ridges: tuple[float, ...] = RIDGES) -> Nested:
        """For each fold k: the ridge chosen on the other folds alone, and the heads without k, and without k and j.

        The squared error of a head on a fold is sum w t^2 - 2 theta' X' W t + theta' X' W X theta: it needs no row again.
        """
        moments, count = self.moments(t), self.folds
        square = [float(self.w[rows] @ t[rows] ** 2) for rows in self.rows]
        heads: dict[tuple[int, int], np.ndarray] = {}
        error = np.zeros((count, count, len(ridges)))  # [left out, predicted, ridge]
        for k in range(count):
            for j in range(k):
                theta = self.without((k, j), moments, ridges)
                heads[k, j] = heads[j, k] = theta
                for out, predicted in ((k, j), (j, k)):
                    fitted = (theta * (self.gram[predicted] @ theta)).sum(axis=0)
                    error[out, predicted] = square[predicted] - 2 * (moments[predicted] @ theta) + fitted
        best = error.sum(axis=1).argmin(axis=1)
        inner = {(k, j): heads[k, j][:, best[k]] for k, j in heads}
        outer = [self.without((k,), moments, (ridges[best[k]],))[:, 0] for k in range(count)]
        return Nested(outer, inner, tuple(ridges[b] for b in best))

    def solver(self, ridges: tuple[float, ...]) -> list[np.ndarray]:
        """For each fold k, the matrix that maps X' W t of the other folds to the head without k, at the given ridge."""
        out = []
        for k, ridge in enumerate(ridges):
            gram = self.total - self.gram[k]
            unit = max(float(np.trace(gram)) / max(len(gram), 1), 1e-12)
            out.append(np.linalg.inv(gram + ridge * unit * np.eye(len(gram))))
        return out


@dataclass(frozen=True)
class Nested:
    """Heads per fold: `outer[k]` saw no row of fold k, `inner[k, j]` none of k or j with the ridge of k; and the ridges."""

    outer: list[np.ndarray]
    inner: dict[tuple[int, int], np.ndarray]
    ridges: tuple[float, ...]
