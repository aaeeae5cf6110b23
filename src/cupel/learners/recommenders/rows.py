"""Steps that touch only the rows they read: for tables of vectors, a step's cost is that of its records and not of the tables."""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.types import Factors
from cupel.objectives.types import Side

#: records whose rows are worked on at once: their vectors fit a core's cache
BLOCK = 2048


class Rowwise:
    """An optimiser of the learned vectors of a `Factors` model whose score reads them directly.

    The scores are the leaves of the gradient: whatever objective and treatment made c = dL/dx of a step's scores, the rows get
    dL/du = sum_k c_k v_k and dL/dv_k = c_k u, and go back by index, so that a row which a step names twice gets both.

    sgd: row <- row - rate g. adagrad: s <- s + mean of g^2 over the row's columns, row <- row - rate g / sqrt(s), one number per row
    (as in large embedding tables): 4 bytes of memory for a row instead of 4 per column. weight_decay is of the rows touched, in
    proportion to how often.

    All rows of a step are read before any moves; moving goes in blocks, and the sums of adagrad grow from block to block.
    """

    def __init__(self, model: Factors, o: RecommenderOptions) -> None:
        if o.clip:
            raise InputError("clip reads the whole gradient, and a rowwise optimiser has only a step's rows: leave one out")
        self.model, self.o, self.adagrad = model, o, o.optimiser == "rows_adagrad"
        self.param_groups = [{"lr": o.learning_rate}]
        self.tables = [model.user.data, model.item.data] + ([] if model.bias is None else [model.bias.data])
        self.sums = [torch.zeros(len(x), dtype=x.dtype, device=x.device) for x in self.tables]
        self.user = self.item = torch.zeros(0, dtype=torch.long)
        self.u = self.v = self.score = torch.zeros(0)

    def zero_grad(self) -> None:
        """Nothing is carried from step to step."""

    def sides(self, user: Tensor, items: Tensor) -> Side:
        """Sides of B * K items; their scores are the leaves."""
        b, k = items.shape
        self.user, self.item = user, items.reshape(-1)
        self.u = self.tables[0].index_select(0, user)
        self.v = self.tables[1].index_select(0, self.item).view(b, k, -1)
        found = torch.empty(b, k, dtype=self.u.dtype, device=self.u.device)
        for at in range(0, b, BLOCK):
            torch.sum(self.v[at : at + BLOCK] * self.u[at : at + BLOCK, None], dim=2, out=found[at : at + BLOCK])
        if len(self.tables) > 2:
            found += self.tables[2].index_select(0, self.item).view(b, k)
        self.score = found.requires_grad_()
        return Side(score=self.score.view(-1))

    @torch.no_grad()
    def step(self) -> None:
        """Move the rows, by the gradient of the objective and of `l2` times `Factors.penalty`."""
        c = self.score.grad
        assert c is not None
        k = c.shape[1]
        decay = 2 * self.o.l2 / len(self.user) + self.o.weight_decay
        for at in range(0, len(c), BLOCK):
            part, u, v = c[at : at + BLOCK], self.u[at : at + BLOCK], self.v[at : at + BLOCK]
            gu = torch.einsum("bk,bkd->bd", part, v) if k > 3 else _few(part, v)
            gv = part[:, :, None] * u[:, None]
            if decay:
                gu.add_(u, alpha=decay)
                gv.add_(v, alpha=decay)
            self._move(0, self.user[at : at + BLOCK], gu)
            self._move(1, self.item[at * k : (at + BLOCK) * k], gv.view(len(gu) * k, -1))
        if len(self.tables) > 2:
            g = c.reshape(-1).clone()
            self._move(2, self.item, g + self.o.weight_decay * self.tables[2][self.item] if self.o.weight_decay else g)

    def _move(self, table: int, index: Tensor, g: Tensor) -> None:
        rate = float(self.param_groups[0]["lr"])
        if self.adagrad:
            s = self.sums[table]
            s.index_add_(0, index, torch.linalg.vecdot(g, g) / g.shape[1] if g.ndim > 1 else g.square())
            scale = rate / (s.index_select(0, index).sqrt() + 1e-10)
            g, rate = g.mul_(scale[:, None] if g.ndim > 1 else scale), 1.0
        self.tables[table].index_add_(0, index, g, alpha=-rate)


def _few(c: Tensor, v: Tensor) -> Tensor:
    """sum_k c_k v_k for a few k, without a product of matrices per row."""
    total = c[:, 0, None] * v[:, 0]
    for k in range(1, c.shape[1]):
        total.addcmul_(c[:, k, None], v[:, k])
    return total
