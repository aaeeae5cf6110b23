"""Weighted matrix factorisation by alternating ridge regressions (implicit ALS)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.types import Factors, Known

#: numbers that the d x d matrices of a block of rows may take
BLOCK = 1 << 24


class ALS(Factors):
    """Vectors that minimise sum over all cells c_ui (y_ui - <U_u, V_i>)^2 + l2 (sum |U_u|^2 + sum |V_i|^2), y 1 where taken, 0 elsewhere.

    Hu, Koren & Volinsky 2008: c = 1 + alpha where taken, 1 elsewhere. Each sweep solves all users, then all items, each a ridge of width
    dim: U_u = (V^T V + alpha V_u^T V_u + l2_u)^-1 (1 + alpha) V_u^T 1, V_u the vectors of what u took. Cells that are not taken enter by
    V^T V alone, so a sweep costs events x dim^2 + (users + items) x dim^3 and not users x items. A pair that occurs more than once counts
    once. float32, solved in float64.

    dim, l2, alpha, sweeps   as above
    scale   l2_u = l2 (number of cells of the row that weigh, n_u + (items)/(1 + alpha))^scale; 0: the same for all
    std     of the vectors at the start
    """

    name: ClassVar[str] = "als"
    kind = "solved"

    def __init__(
        self, users: int, items: int, *, dim: int = 16, l2: float = 5.0, alpha: float = 5.0, sweeps: int = 20, scale: float = 0.0,
        std: float = 0.1, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items, dim=dim, bias=False, std=std, seed=seed)
        if not (l2 > 0 and alpha > -1 and math.isfinite(alpha) and sweeps >= 1 and math.isfinite(scale)):
            raise InputError(f"als: l2 is positive, alpha above -1, sweeps at least 1, not {l2!r}, {alpha!r}, {sweeps!r}")
        self.l2, self.alpha, self.sweeps, self.scale = l2, alpha, sweeps, scale

    @torch.no_grad()
    def solve(self, known: Known) -> None:
        """Sweeps over users and items."""
        pairs = np.unique(known.log.pairs())
        if not len(pairs):
            raise InputError("als: the log has no events, so there is nothing to solve")
        device = self.user.device
        user, item = (torch.from_numpy(x).to(device) for x in (pairs // self.n_items, pairs % self.n_items))
        turn = torch.argsort(item, stable=True)
        for _ in range(self.sweeps):
            self.user.copy_(self.side(user, item, self.n_users, self.item))
            self.item.copy_(self.side(item[turn], user[turn], self.n_items, self.user))

    def side(self, row: Tensor, column: Tensor, rows: int, other: Tensor) -> Tensor:
        """The vectors [rows, d] of one side, from the taken cells (sorted by row) and the vectors of the other side."""
        v, d = other.double(), other.shape[1]
        counts = torch.bincount(row, minlength=rows)
        shared = v.T @ v
        penalty = self.l2 * (counts + len(v) / (1 + self.alpha)) ** self.scale
        eye, out = torch.eye(d, dtype=v.dtype, device=v.device), torch.zeros(rows, d, dtype=v.dtype, device=v.device)
        for first, last, begin, end in blocks(counts.cpu().numpy(), max(1, BLOCK // (d * d))):
            here, at = v[column[begin:end]], row[begin:end] - first
            gram = torch.zeros(last - first, d * d, dtype=v.dtype, device=v.device)
            gram.index_add_(0, at, (here[:, :, None] * here[:, None, :]).reshape(-1, d * d))
            right = torch.zeros(last - first, d, dtype=v.dtype, device=v.device).index_add_(0, at, here)
            left = shared + self.alpha * gram.view(-1, d, d) + penalty[first:last, None, None] * eye
            out[first:last] = torch.linalg.solve(left, (1 + self.alpha) * right)
        return out.to(other.dtype)


def blocks(counts: np.ndarray, most: int) -> list[tuple[int, int, int, int]]:
    """(first row, last row, first event, last event) of blocks with at most `most` rows and, where a row alone allows it, events.

    >>> blocks(np.array([2, 1, 5, 0]), 3)
    [(0, 2, 0, 3), (2, 3, 3, 8), (3, 4, 8, 8)]
    """
    ends = np.concatenate([[0], np.cumsum(counts)])
    out, first = [], 0
    while first < len(counts):
        last = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
        last = min(max(last, first + 1), first + most, len(counts))
        out.append((first, last, int(ends[first]), int(ends[last])))
        first = last
    return out


MODEL = ALS
