"""LightGCN: vectors passed along the graph of users and items, with nothing learned but the vectors they start from."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.graph import Graph, Weights
from cupel.learners.recommenders.types import Factors, Known


class LightGCN(Factors):
    """Tables E = E0 + A E0 + ... + A^layers E0, A = D^-1/2 A D^-1/2 of the bipartite graph; score <E_u, E_i>.

    He et al. 2020, arXiv:2002.02126, as in the official code of RLMRec (card 34-rlmrec): layers are summed. The paper takes the mean,
    which ranks alike and changes the scale of the loss, and so every tuned rate and penalty: `combine`.

    dim, layers   width of the vectors, and passes along the edges
    keep          share of edges that a training step keeps, both directions drawn on their own, not scaled up; 1 keeps all
    combine       sum or mean of the layers
    bias, std     whether items have a number of their own; std of the vectors at the start
    """

    name: ClassVar[str] = "lightgcn"

    def __init__(
        self, users: int, items: int, *, dim: int = 32, layers: int = 3, keep: float = 0.8, combine: str = "sum", bias: bool = False,
        std: float = 0.1, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items, dim=dim, bias=bias, std=std, seed=seed)
        if layers < 1 or not 0 < keep <= 1 or combine not in ("sum", "mean"):
            raise InputError(
                f"{self.name}: layers is at least 1, keep in (0, 1] and combine sum or mean, not {layers!r}, {keep!r} and {combine!r}"
            )
        self.depth, self.keep, self.share = layers, keep, 1.0 if combine == "sum" else 1 / (layers + 1)
        self.graph: Graph | None = None
        self.edges: Weights | None = None
        self._kept: tuple[tuple[int | bool, ...], tuple[Tensor, Tensor]] | None = None

    def prepare(self, known: Known) -> None:
        """The graph of the training log."""
        self.graph = Graph(known.log).to(self.device())
        self.edges = self._kept = None

    def begin_step(self, generator: torch.Generator) -> None:
        """Draw the edges of this step."""
        self.edges = self.known_graph().dropped(self.keep, generator) if self.keep < 1 else None
        self._kept = None

    def known_graph(self) -> Graph:
        """The graph; InputError before `prepare`."""
        if self.graph is None:
            raise InputError(f"{self.name} passes vectors along the graph of a log, and has seen none: call prepare first")
        return self.graph

    def tables(self, user: Tensor | None = None, item: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors after the layers: of the step's edges in training, of all afterwards. Computed once for a state of the vectors."""
        edges = self.edges if self.training and self.edges is not None else self.known_graph().whole()
        if user is not None or item is not None:
            return self.spread(self.user if user is None else user, self.item if item is None else item, edges)
        state = (self.user._version, self.item._version, self.user.data_ptr(), self.training, torch.is_grad_enabled())
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self.spread(self.user, self.item, edges))
        return self._kept[1]

    def spread(self, user: Tensor, item: Tensor, edges: Weights) -> tuple[Tensor, Tensor]:
        """Sum (or mean) of the layers that begin with those vectors."""
        graph = self.known_graph()
        total = user, item
        for _ in range(self.depth):
            user, item = graph.step(user, item, edges)
            total = total[0] + user, total[1] + item
        return (total[0], total[1]) if self.share == 1 else (total[0] * self.share, total[1] * self.share)


MODEL = LightGCN
