"""The likelihood of a ranking as a function of its parameters: cells of counts, and the algebra of values, slopes and curvature on them.

Parameters z = (strengths [K], coefficients of controls [p], threshold of the tie model [0 or 1]). A cell enters only through its margin
d = s_first - s_second + x . beta and the threshold, so first and second derivatives by (d, tau) per cell, put together by one
incidence matrix, give every gradient, Hessian and robust variance here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cupel.votes.ranking.ties import TieModel


@dataclass(frozen=True)
class Design:
    """Cells of a fit.

    first, second int [m] in 0 ... n_items-1; win, loss, tie [m]: weight of votes; squares [m, 3]: their squared weights; x [m, p]:
    controls; model: how ties enter; ridge [K + p + t]: penalty ridge/2 z^2 per parameter; component int [K]: strengths of a
    component without ridge are fixed by summing to zero.
    """

    n_items: int
    first: np.ndarray
    second: np.ndarray
    win: np.ndarray
    loss: np.ndarray
    tie: np.ndarray
    squares: np.ndarray
    x: np.ndarray
    model: TieModel
    ridge: np.ndarray
    component: np.ndarray

    @property
    def n_controls(self) -> int:
        """p."""
        return self.x.shape[1]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.n_items + self.n_controls + int(self.model.learned)

    def margin(self, z: np.ndarray) -> np.ndarray:
        """d [m] at parameters z."""
        d = z[self.first] - z[self.second]
        return d + self.x @ z[self.n_items : self.n_items + self.n_controls] if self.n_controls else d

    def threshold(self, z: np.ndarray) -> Any:
        """tau at parameters z; 0 where the model has none."""
        return z[-1] if self.model.learned else 0.0

    def start(self) -> np.ndarray:
        """Equal strengths, no effect of controls, the threshold that the share of ties would give them."""
        z = np.zeros(self.size)
        if self.model.learned:
            total = float(self.win.sum() + self.loss.sum() + self.tie.sum())
            z[-1] = self.model.start(float(self.tie.sum()) / total)
        return z

    def likelihood(self, z: np.ndarray) -> float:
        """Negative log likelihood, without the penalty."""
        return float(self.model.value(self.margin(z), self.threshold(z), self.win, self.loss, self.tie).sum())

    def value(self, z: np.ndarray) -> float:
        """What is minimised: the negative log likelihood plus the penalty."""
        return self.likelihood(z) + float(self.ridge @ (z * z)) / 2

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """Derivatives of `value` [K + p + t]."""
        by_d, by_tau = self.model.gradient(self.margin(z), self.threshold(z), self.win, self.loss, self.tie)
        return self.gather(by_d, by_tau) + self.ridge * z

    def gather(self, by_d: np.ndarray, by_tau: np.ndarray) -> np.ndarray:
        """Slopes per cell put together into slopes by the parameters."""
        out = np.empty(self.size)
        out[: self.n_items] = np.bincount(self.first, weights=by_d, minlength=self.n_items)
        out[: self.n_items] -= np.bincount(self.second, weights=by_d, minlength=self.n_items)
        out[self.n_items : self.n_items + self.n_controls] = by_d @ self.x
        if self.model.learned:
            out[-1] = by_tau.sum()
        return out

    def curvature(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Second derivatives per cell by (d, d), (d, tau), (tau, tau)."""
        return self.model.curvature(self.margin(z), self.threshold(z), self.win, self.loss, self.tie)

    def slope_products(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums over single votes of products of slopes, per cell, by (d, d), (d, tau), (tau, tau): what robust variances are made of."""
        by_d, by_tau = self.model.slopes(self.margin(z), self.threshold(z))
        dd, dt, tt = (
            sum(self.squares[:, k] * np.broadcast_to(a[k] * b[k], len(self.first)) for k in range(3))
            for a, b in ((by_d, by_d), (by_d, by_tau), (by_tau, by_tau))
        )
        return np.asarray(dd), np.asarray(dt), np.asarray(tt)

    def dense(self, dd: np.ndarray, dt: np.ndarray, tt: np.ndarray) -> np.ndarray:
        """Products per cell put together into a symmetric matrix [K + p + t, K + p + t]: of curvature, the Hessian without ridge."""
        n, end = self.n_items, self.n_items + self.n_controls
        out = np.zeros((self.size, self.size))
        off = np.bincount(self.first * n + self.second, weights=dd, minlength=n * n).reshape(n, n)
        off = off + off.T
        out[:n, :n] = -off
        out[np.arange(n), np.arange(n)] += off.sum(axis=1)
        sides: list[tuple[int, np.ndarray]] = [(n + c, dd * column) for c, column in enumerate(self.x.T)]
        if self.model.learned:
            sides.append((end, np.broadcast_to(dt, len(self.first))))
            out[end, end] = tt.sum()
            out[n:end, end] = out[end, n:end] = self.x.T @ np.broadcast_to(dt, len(self.first))
        for k, weights in sides:
            out[:n, k] = np.bincount(self.first, weights=weights, minlength=n) - np.bincount(self.second, weights=weights, minlength=n)
            out[k, :n] = out[:n, k]
        out[n:end, n:end] = self.x.T @ (dd[:, None] * self.x)
        return out

    @cached_property
    def shifts(self) -> np.ndarray:
        """Projection on the directions that no comparison moves: a common shift of an unpenalised component."""
        out = np.zeros((self.size, self.size))
        free = np.flatnonzero(self.ridge[: self.n_items] == 0)
        if len(free):
            same = self.component[free][:, None] == self.component[free][None]
            out[np.ix_(free, free)] = same / same.sum(axis=1)
        return out

    def centred(self, z: np.ndarray) -> np.ndarray:
        """z with the strengths of each unpenalised component summing to zero."""
        free = np.flatnonzero(self.ridge[: self.n_items] == 0)
        if not len(free):
            return z
        z, label = z.copy(), self.component[free]
        mean = np.bincount(label, weights=z[free]) / np.maximum(np.bincount(label), 1)
        z[free] -= mean[label]
        return z

    @cached_property
    def incidence(self) -> Any:
        """Sparse [m, K + p]: derivative of the margins by strengths and coefficients."""
        from scipy.sparse import coo_array, csr_array, hstack

        row, one = np.arange(len(self.first)), np.ones(len(self.first))
        matrix = coo_array(
            (np.concatenate([one, -one]), (np.tile(row, 2), np.concatenate([self.first, self.second]))), shape=(len(row), self.n_items)
        ).tocsr()
        return hstack([matrix, csr_array(self.x)], format="csr") if self.n_controls else matrix
