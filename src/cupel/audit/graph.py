"""Graph: what the other comparisons of the same two responses say about a pair, with the pair itself left out, exactly.

Strengths u of the nodes (prompt, response) by ridge least squares on the pairs (HodgeRank: Jiang, Lim, Yao and Ye 2011, with a ridge):

    minimise  sum_q w_q (t_q - (u_low - u_high))^2 + ridge |u|^2,      H = (B' W B + ridge I)^-1

For such a linear fit leaving one pair out is a formula, not a refit:  (d_q - h_q t_q) / (1 - h_q),  d = B H B' W t,  h_q = w_q (B H B')_qq.
All votes on a pair are one observation, so the pair is left out with all of its repeats. On the shared data this ranks errors at least as
well as cross-fitted Bradley-Terry and costs one product per label vector. The Bradley-Terry core of `cupel.votes` does not serve here: a
maximum-likelihood fit has no such formula, so each pair left out would be a fit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RIDGES: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
#: components with more nodes are solved iteratively, with folds of pairs left out instead of single pairs
DENSE_NODES = 3_000
FOLDS = 10


@dataclass(frozen=True)
class _Batch:
    """C components of m nodes each, solved together, with their q pairs."""

    pair: np.ndarray  # [q] positions of pairs
    edges: Any  # sparse [q, C * m], +1 at the low node and -1 at the high one
    inverse: np.ndarray  # [C, m, m]
    leverage: np.ndarray  # [q]


class Graph:
    """Leave-one-pair-out strength differences on the graph of nodes (prompt, response).

    >>> low, high = np.array([0, 1, 0]), np.array([1, 2, 2])
    >>> graph = Graph(low, high, np.ones(3))
    >>> graph.used.tolist()
    [True, True, True]
    >>> without = graph.left_out(np.array([1.0, 1.0, -1.0]), ridge=1.0)
    >>> bool(without[2] > 0)  # the first two say that 0 beats 2, whatever the third says
    True
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, w: np.ndarray, key: np.ndarray | None = None) -> None:
        self.low, self.high, self.w = low, high, w
        self.key = np.arange(len(low), dtype=np.uint64) if key is None else key
        n = int(max(low.max(initial=-1), high.max(initial=-1))) + 1
        real = (w > 0) & (low != high)
        degree = np.bincount(low[real], minlength=n) + np.bincount(high[real], minlength=n)
        own = real.astype(np.int64)
        #: [P] bool: at least one of the sides occurs in another pair, so the graph says something about this one
        self.used: np.ndarray = ((degree[low] - own > 0) | (degree[high] - own > 0)) & (low != high)
        self._blocks, self._large = self._components(n, real)
        self._cache: dict[float, list[_Batch]] = {}

    def _components(self, n: int, real: np.ndarray) -> tuple[list[tuple[np.ndarray, ...]], list[np.ndarray]]:
        """Pairs of the components in which the graph is used, batched by number of nodes; the large components apart."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self.used.any():
            return [], []
        label = connected_components(
            coo_array((np.ones(int(real.sum())), (self.low[real], self.high[real])), shape=(n, n)), directed=False
        )[1]
        pairs = np.flatnonzero(self.used | (real & np.isin(label[self.low], label[self.low[self.used]])))
        same = label[self.low[pairs]] == label[self.high[pairs]]
        # a pair without votes may join two components: there the graph says nothing
        self.used[pairs[~same]] = False
        pairs = pairs[same]
        nodes = np.unique(np.concatenate([self.low[pairs], self.high[pairs]]))
        order = nodes[np.argsort(label[nodes], kind="stable")]
        component, start, size = np.unique(label[order], return_index=True, return_counts=True)
        local = np.empty(n, dtype=np.int64)
        local[order] = np.arange(len(order)) - np.repeat(start, size)
        position = np.searchsorted(component, label[self.low[pairs]])
        blocks, large = [], []
        for m in np.unique(size):
            chosen = np.flatnonzero(size == m)
            rows = np.flatnonzero(size[position] == m)
            if m > DENSE_NODES:
                large.extend(pairs[rows[position[rows] == c]] for c in chosen)
                continue
            block = np.searchsorted(chosen, position[rows])
            blocks.append((pairs[rows], block, local[self.low[pairs[rows]]], local[self.high[pairs[rows]]], np.array([len(chosen), m])))
        return blocks, large

    def _solved(self, ridge: float) -> list[_Batch]:
        from scipy.sparse import csr_array

        if ridge not in self._cache:
            batches = []
            for pair, block, low, high, shape in self._blocks:
                count, m = int(shape[0]), int(shape[1])
                w = self.w[pair]
                matrix = np.zeros((count, m, m))
                for a, b, value in ((low, low, w), (high, high, w), (low, high, -w), (high, low, -w)):
                    np.add.at(matrix, (block, a, b), value)
                matrix[:, np.arange(m), np.arange(m)] += ridge
                inverse = np.linalg.inv(matrix)
                resistance = inverse[block, low, low] + inverse[block, high, high] - inverse[block, low, high] - inverse[block, high, low]
                at = np.stack([block * m + low, block * m + high], axis=1).reshape(-1)
                ends = (np.tile([1.0, -1.0], len(pair)), at, np.arange(0, 2 * len(pair) + 1, 2))
                batches.append(_Batch(pair, csr_array(ends, shape=(len(pair), count * m)), inverse, w * resistance))
            self._cache[ridge] = batches
        return self._cache[ridge]

    def left_out(self, t: np.ndarray, ridge: float) -> np.ndarray:
        """Strength difference low - high of each pair from the other pairs: float64 [P], 0 where the graph says nothing.

        t float64 [P] or [P, k]: the labels, or any differences (a content margin) to be smoothed along the graph.
        """
        columns = t.reshape(len(t), -1)
        out = np.zeros(columns.shape)
        for batch in self._solved(ridge):
            count, m = batch.inverse.shape[:2]
            flow = batch.edges.T @ (self.w[batch.pair, None] * columns[batch.pair])
            u = (batch.inverse @ flow.reshape(count, m, -1)).reshape(count * m, -1)
            fitted = batch.edges @ u
            h = batch.leverage[:, None]
            out[batch.pair] = (fitted - h * columns[batch.pair]) / (1.0 - h)
        for pairs in self._large:
            out[pairs] = self._iterative(pairs, columns[pairs], ridge)
        out[~self.used] = 0.0
        return out.reshape(t.shape)

    def _iterative(self, pairs: np.ndarray, t: np.ndarray, ridge: float) -> np.ndarray:
        """The same for a large component, leaving out a tenth of its pairs at a time, by conjugate gradients."""
        from scipy.sparse import coo_array, csr_array, eye_array
        from scipy.sparse.linalg import cg

        nodes, inverse = np.unique(np.concatenate([self.low[pairs], self.high[pairs]]), return_inverse=True)
        low, high = inverse[: len(pairs)], inverse[len(pairs) :]
        fold = (self.key[pairs] % np.uint64(FOLDS)).astype(np.int64)
        out = np.zeros_like(t)
        for k in range(FOLDS):
            rest, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            at = np.tile(np.arange(len(rest)), 2)
            signs = np.repeat([1.0, -1.0], len(rest))
            edges = csr_array(coo_array((signs, (at, np.concatenate([low[rest], high[rest]]))), shape=(len(rest), len(nodes))))
            w = self.w[pairs[rest]]
            matrix = csr_array(edges.T @ (edges * w[:, None]) + ridge * eye_array(len(nodes)))
            for column in range(t.shape[1]):
                u, failed = cg(matrix, edges.T @ (w * t[rest, column]), rtol=1e-8, maxiter=2_000)
                if failed:
                    raise RuntimeError(f"conjugate gradients did not converge on a component of {len(nodes):,} responses")
                out[held, column] = u[low[held]] - u[high[held]]
        return out
