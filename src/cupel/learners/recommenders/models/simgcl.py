"""SimGCL: LightGCN, and two views with noise in every layer that have to agree."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.views import TwoViews


class SimGCL(TwoViews):
    """LightGCN + weight x (InfoNCE over users + InfoNCE over taken items) of two views, noise of length eps added after every layer.

    Noise of a row: eps * n / |n| * sign(e), n uniform in [0, 1)^dim. Yu et al. 2022, arXiv:2112.08679, as on card 34-rlmrec, where the
    starting vectors count as a layer; the objective reads the graph without noise and with all edges (keep = 1).

    eps                   length of the noise; weight, temperature: of the term; pool: "batch" or "all", see `TwoViews`
    dim, layers, keep, combine, bias, std   of LightGCN
    """

    name: ClassVar[str] = "simgcl"

    def __init__(
        self, users: int, items: int, *, weight: float = 0.1, temperature: float = 0.2, eps: float = 0.1, pool: str = "batch",
        dim: int = 32, layers: int = 3, keep: float = 1.0, combine: str = "sum", bias: bool = False, std: float = 0.1, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items, dim=dim, layers=layers, keep=keep, combine=combine, bias=bias, std=std, seed=seed)
        self.agree(weight, temperature, pool)
        if not eps >= 0:
            raise InputError(f"simgcl: eps is the length of the noise, at least 0, not {eps!r}")
        self.eps = eps

    def view(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The tables with noise in every layer."""
        graph, edges = self.known_graph(), self.known_graph().whole()
        user, item = self.user, self.item
        total = user, item
        for _ in range(self.depth):
            user, item = graph.step(user, item, edges)
            user, item = self._noisy(user, generator), self._noisy(item, generator)
            total = total[0] + user, total[1] + item
        return total[0] * self.share, total[1] * self.share

    def _noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(x.shape, generator=generator).to(x.device)
        return x + self.eps * torch.nn.functional.normalize(noise, dim=1) * x.detach().sign()


MODEL = SimGCL
