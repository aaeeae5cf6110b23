"""Matrix factorisation: a vector per user and per item, and a number per item."""

from __future__ import annotations

from typing import ClassVar

import torch

from cupel.errors import InputError
from cupel.learners.recommenders.types import Factors


class MatrixFactorisation(Factors):
    """Score <U_u, V_i> + b_i.

    dim   width of the vectors; bias: whether items have a number of their own
    std   of the vectors at the start; draw: normal with that deviation, or uniform in [0, std) (NBPO's start has std = 1 / sqrt(dim))
    """

    name: ClassVar[str] = "mf"
    rowwise: ClassVar[bool] = True

    def __init__(
        self, users: int, items: int, *, dim: int = 64, bias: bool = True, std: float = 0.1, draw: str = "normal", seed: int = 0
    ) -> None:  # fmt: skip
        super().__init__(users, items, dim=dim, bias=bias, std=std, seed=seed)
        if draw not in ("normal", "uniform"):
            raise InputError(f"mf: draw is normal or uniform, not {draw!r}")
        if draw == "uniform":
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for table in (self.user, self.item):
                    table.copy_(torch.rand(table.shape, generator=generator) * std)


MODEL = MatrixFactorisation
