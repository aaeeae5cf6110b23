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

    All rows of a step are read before any moves, and all its squares are in the sums before the first row moves. Vectors are worked on
    in blocks that fit a core's cache; the squares of item rows come from numbers per record, |c u + decay v|^2 =
    c^2 |u|^2 + 2 c decay <u, v> + decay^2 |v|^2, so that a gradient is written once, already in the length of its step.
    """

    def __init__(self, model: Factors, o: RecommenderOptions) -> None:
        if o.clip:
            raise InputError("clip reads the whole gradient, and a rowwise optimiser has only a step's rows: leave one out")
        self.model, self.o, self.adagrad = model, o, o.optimiser == "rows_adagrad"
        self.param_groups = [{"lr": o.learning_rate}]
        self.tables = [model.user.data, model.item.data] + ([] if model.bias is None else [model.bias.data])
        self.sums = [torch.zeros(len(x), dtype=x.dtype, device=x.device) for x in self.tables]
        self.user = self.item = torch.zeros(0, dtype=torch.long)
        self.dot = self.score = self.tables[0].new_zeros(0, 0)
        self.kept: dict[str, Tensor] = {}

    def zero_grad(self) -> None:
        """Nothing is carried from step to step."""

    def sides(self, user: Tensor, items: Tensor) -> Side:
        """Sides of B * K items; their scores are the leaves."""
        b, k = items.shape
        self.user, self.item = user, items.reshape(-1)
        self.u = self._space("u", b)
        self.v = self._space("v", b, k)
        torch.index_select(self.tables[0], 0, user, out=self.u)
        torch.index_select(self.tables[1], 0, self.item, out=self.v.view(b * k, -1))
        self.dot, space = self.u.new_empty(b, k), self._space("product", min(b, BLOCK), k)
        for at in range(0, b, BLOCK):
            u, v = self.u[at : at + BLOCK, None], self.v[at : at + BLOCK]
            torch.sum(torch.mul(v, u, out=space[: len(v)]), dim=2, out=self.dot[at : at + BLOCK])
        found = self.dot if len(self.tables) < 3 else self.dot + self.tables[2].index_select(0, self.item).view(b, k)
        self.score = found.detach().requires_grad_()
        return Side(score=self.score.view(-1))

    @torch.no_grad()
    def step(self) -> None:
        """Move the rows, by the gradient of the objective and of `l2` times `Factors.penalty`."""
        c = self.score.grad
        assert c is not None
        decay = 2 * self.o.l2 / len(self.user) + self.o.weight_decay
        width = self.u.shape[1]
        gu, space = self._space("gradient", len(c)), self._space("product", min(len(c), BLOCK), c.shape[1])
        square, own, opposite = c.new_empty(len(c)), c.new_empty(len(c)), torch.empty_like(c)
        for at in range(0, len(c), BLOCK):
            part, u, v, g = (x[at : at + BLOCK] for x in (c, self.u, self.v, gu))
            torch.mul(part[:, 0, None], v[:, 0], out=g)
            for k in range(1, part.shape[1]):
                g.addcmul_(part[:, k, None], v[:, k])
            if decay:
                g.add_(u, alpha=decay)
            if self.adagrad:
                square[at : at + BLOCK] = torch.linalg.vecdot(g, g)
                own[at : at + BLOCK] = torch.linalg.vecdot(u, u)
                if decay:
                    opposite[at : at + BLOCK] = torch.linalg.vecdot(v, v)
        of_user = self._lengths(0, self.user, square / width)
        squares = own[:, None] * c.square()
        if decay:
            squares += c * self.dot * (2 * decay) + opposite * decay**2
        of_item = self._lengths(1, self.item, (squares / width).view(-1)).view(c.shape)
        pull, hold = of_item * c, of_item * decay
        for at in range(0, len(c), BLOCK):
            u, v, k = self.u[at : at + BLOCK], self.v[at : at + BLOCK], c.shape[1]
            self.tables[0].index_add_(0, self.user[at : at + BLOCK], gu[at : at + BLOCK].mul_(of_user[at : at + BLOCK, None]))
            g = torch.mul(pull[at : at + BLOCK, :, None], u[:, None], out=space[: len(u)])
            if decay:
                g.addcmul_(hold[at : at + BLOCK, :, None], v)
            self.tables[1].index_add_(0, self.item[at * k : (at + BLOCK) * k], g.view(len(u) * k, -1))
        if len(self.tables) > 2:
            g = c.reshape(-1)
            if self.o.weight_decay:
                g = g + self.o.weight_decay * self.tables[2][self.item]
            self.tables[2].index_add_(0, self.item, g * self._lengths(2, self.item, g.square()))

    def _space(self, name: str, *shape: int) -> Tensor:
        """Room for vectors in that shape, kept from step to step: asking the system for fresh memory costs as much as filling it."""
        found = self.kept.get(name)
        if found is None or found.shape[:-1] != shape:
            found = self.kept[name] = self.tables[0].new_empty(*shape, self.tables[0].shape[1])
        return found

    def _lengths(self, table: int, index: Tensor, square: Tensor) -> Tensor:
        """What the gradient of each row is multiplied by, from its mean square: -rate, or -rate / sqrt(sum)."""
        rate = float(self.param_groups[0]["lr"])
        if not self.adagrad:
            return torch.full_like(square, -rate)
        s = self.sums[table].index_add_(0, index, square.clamp(min=0))
        return (s.index_select(0, index).sqrt_().add_(1e-10)).reciprocal_().mul_(-rate)
