"""EASE: every item as a ridge regression on all others, in closed form."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from cupel.errors import InputError
from cupel.learners.recommenders.linear import ItemWeights, without_self
from cupel.learners.recommenders.types import Known


class Ease(ItemWeights):
    """W = argmin |X - X W|^2 + l2 |W|^2 with a diagonal of 0: W_ij = -P_ij / P_jj, P = (X^T X + l2)^-1; score X W.

    Steck 2019, arXiv:1905.03375. X [U, I] is 1 where a user took an item. Time I^3, memory as `ItemWeights` says.

    l2   the penalty, a positive number; 200 to 500 are usual starting points, and validation should decide
    """

    name: ClassVar[str] = "ease"

    def __init__(self, users: int, items: int, *, l2: float = 200.0, seed: int = 0) -> None:
        super().__init__(users, items)
        if not (l2 > 0 and math.isfinite(l2)):
            raise InputError(f"ease: l2 is a positive number, not {l2!r}")
        self.l2 = l2

    def solve(self, known: Known) -> None:
        """One inverse."""
        gram = self.together(known)
        gram[np.diag_indices_from(gram)] += self.l2
        self.keep(without_self(gram))


MODEL = Ease
