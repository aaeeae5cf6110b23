"""SGL: LightGCN, and two views with edges left out that have to agree."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.views import TwoViews


class SGL(TwoViews):
    """LightGCN + weight x (InfoNCE over users + InfoNCE over items, taken and not) of two views that each keep a share of the edges.

    Wu et al. 2021, arXiv:2010.10783, edge dropout, as on card 34-rlmrec: the objective reads the full graph (keep = 1).

    view_keep             share of edges in a view; weight, temperature: of the term; pool: "batch" or "all", see `TwoViews`
    dim, layers, keep, combine, bias, std   of LightGCN
    """

    name: ClassVar[str] = "sgl"
    everything = True

    def __init__(
        self, users: int, items: int, *, weight: float = 0.1, temperature: float = 0.2, view_keep: float = 0.8, pool: str = "batch",
        dim: int = 32, layers: int = 3, keep: float = 1.0, combine: str = "sum", bias: bool = False, std: float = 0.1, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items, dim=dim, layers=layers, keep=keep, combine=combine, bias=bias, std=std, seed=seed)
        self.agree(weight, temperature, pool)
        if not 0 < view_keep <= 1:
            raise InputError(f"sgl: view_keep lies in (0, 1], not {view_keep!r}")
        self.view_keep = view_keep

    def view(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The tables along edges drawn for this view."""
        return self.spread(self.user, self.item, self.known_graph().dropped(self.view_keep, generator))


MODEL = SGL
