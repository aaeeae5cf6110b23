"""Matrix factorisation: a vector per user and per item, and a number per item."""

from __future__ import annotations

from typing import ClassVar

from cupel.learners.recommenders.types import Factors


class MatrixFactorisation(Factors):
    """Score <U_u, V_i> + b_i.

    dim   width of the vectors; bias: whether items have a number of their own; std: of the vectors at the start
    """

    name: ClassVar[str] = "mf"
    rowwise: ClassVar[bool] = True

    def __init__(self, users: int, items: int, *, dim: int = 64, bias: bool = True, std: float = 0.1, seed: int = 0) -> None:
        super().__init__(users, items, dim=dim, bias=bias, std=std, seed=seed)


MODEL = MatrixFactorisation
