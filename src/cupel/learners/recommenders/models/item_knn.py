"""Item-kNN: items are alike by the users they share, and a user is shown what is like what was taken."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cupel.errors import InputError
from cupel.learners.recommenders.linear import ItemWeights
from cupel.learners.recommenders.types import Known


class ItemKNN(ItemWeights):
    """W_ij = n_ij / (sqrt(n_i n_j) + shrink), n_ij the users who took both, n_i those who took i; W_ii = 0; score X W.

    k        only the k items i most like j vote for j (0: all); ties to the lower index
    shrink   pulls the likeness of items that share few users toward 0
    """

    name: ClassVar[str] = "item_knn"

    def __init__(self, users: int, items: int, *, k: int = 0, shrink: float = 0.0, seed: int = 0) -> None:
        super().__init__(users, items)
        if k < 0 or not shrink >= 0:
            raise InputError(f"item_knn: k and shrink are at least 0, not {k!r} and {shrink!r}")
        self.k, self.shrink = k, shrink

    def solve(self, known: Known) -> None:
        """Cosines of the columns of X."""
        both = self.together(known)
        size = np.sqrt(np.diag(both))
        below = np.outer(size, size) + self.shrink
        alike = both / np.where(below > 0, below, 1.0)
        np.fill_diagonal(alike, 0.0)
        if 0 < self.k < self.n_items:
            order = np.argsort(-alike, axis=0, kind="stable")
            np.put_along_axis(alike, order[self.k :], 0.0, axis=0)
        self.keep(alike)


MODEL = ItemKNN
