"""Steps that touch only the rows they read: for tables of vectors, a step's cost is that of its records and not of the tables."""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.types import Factors
from cupel.objectives.types import Side


class Rowwise:
    """An optimiser of the learned vectors of a `Factors` model whose score reads them directly.

    The rows of a step are gathered once, are the leaves of its gradient, and what moves goes back by index: a row that a step names twice
    gets both gradients. sgd: row <- row - rate g. adagrad: s <- s + mean of g^2 over the row's columns, row <- row - rate g / sqrt(s), one
    number per row (as in large embedding tables): 4 bytes of memory for a row instead of 4 per column. weight_decay here is of the rows
    touched, in proportion to how often.
    """

    def __init__(self, model: Factors, o: RecommenderOptions) -> None:
        if o.clip:
            raise InputError("clip reads the whole gradient, and a rowwise optimiser has only a step's rows: leave one out")
        self.model, self.o, self.adagrad = model, o, o.optimiser == "rows_adagrad"
        self.param_groups = [{"lr": o.learning_rate}]
        self.tables = [model.user.data, model.item.data] + ([] if model.bias is None else [model.bias.data])
        self.sums = [torch.zeros(len(x), dtype=x.dtype, device=x.device) for x in self.tables]
        self.leaves: list[tuple[int, Tensor, Tensor]] = []

    def zero_grad(self) -> None:
        """Forget the rows of the step before."""
        self.leaves = []

    def sides(self, user: Tensor, items: Tensor) -> Side:
        """Sides of B * K items, from rows gathered as leaves."""
        at = items.reshape(-1)
        u = self._leaf(0, user)
        v = self._leaf(1, at).view(*items.shape, -1)
        b = None if self.model.bias is None else self._leaf(2, at).view(items.shape)
        return Side(score=self.model.products(u, v, b).reshape(-1))

    def penalty(self) -> Tensor:
        """As `Factors.penalty`, of the gathered rows."""
        return (self.leaves[0][2].square().sum() + self.leaves[1][2].square().sum()) / len(self.leaves[0][1])

    @torch.no_grad()
    def step(self) -> None:
        """Move the rows."""
        rate = float(self.param_groups[0]["lr"])
        for table, index, leaf in self.leaves:
            g = leaf.grad
            assert g is not None
            if self.o.weight_decay:
                g = g + self.o.weight_decay * leaf
            if self.adagrad:
                s = self.sums[table]
                s.index_add_(0, index, g.square().mean(dim=1) if g.ndim > 1 else g.square())
                scale = rate / (s[index].sqrt() + 1e-10)
                g = g * (scale[:, None] if g.ndim > 1 else scale)
                self.tables[table].index_add_(0, index, g, alpha=-1)
            else:
                self.tables[table].index_add_(0, index, g, alpha=-rate)

    def _leaf(self, table: int, index: Tensor) -> Tensor:
        found = self.tables[table].index_select(0, index).requires_grad_()
        self.leaves.append((table, index, found))
        return found
