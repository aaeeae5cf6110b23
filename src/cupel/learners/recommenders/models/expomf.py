"""ExpoMF: matrix factorisation in which a "no" weighs as much as it was likely seen at all."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.learners.recommenders.types import Factors, Known
from cupel.noise.exposed import exposed
from cupel.noise.loss import terms_of
from cupel.noise.types import DataSpec, State, Target, Terms
from cupel.objectives.pointwise import squared_score
from cupel.objectives.types import Side

#: cells of the matrix that are looked at together
CELLS = 1 << 21


class ExpoMF(Factors):
    """EM for y_ui = seen_ui * Normal(<U_u, V_i>, 1 / precision), seen_ui ~ Bernoulli(mu_i): Liang et al. 2016, on card 32-unbiased-mnar.

    A sweep: the weight a_ui of every cell is the target that the treatment `exposed` (form "gaussian") makes of it, 1 where taken and the
    posterior of having been seen elsewhere; users, then items, are ridge regressions with these weights,
    U_u = (V^T diag(a_u) V + l2 / precision)^-1 V^T (a_u y_u); then the treatment's update learns mu_i from all cells. Every cell is
    looked at in every sweep, in blocks: time is users x items x dim^2, memory 2M cells at a time.

    dim, l2, sweeps   width, penalty, sweeps of EM; std: of the vectors at the start
    seen, precision   mu_i at the start, and the precision of a score
    """

    name: ClassVar[str] = "expomf"
    kind = "solved"
    exposure: Tensor

    def __init__(
        self, users: int, items: int, *, dim: int = 16, l2: float = 1e-2, sweeps: int = 10, seen: float = 0.01, precision: float = 1.0,
        std: float = 0.01, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items, dim=dim, bias=False, std=std, seed=seed)
        if not (l2 > 0 and math.isfinite(l2) and sweeps >= 1 and 0 < seen < 1 and 0 < precision < math.inf):
            raise InputError(
                f"expomf: l2 and precision are positive, sweeps at least 1 and seen in (0, 1), not {l2!r}, {precision!r}, {sweeps!r} "
                f"and {seen!r}"
            )
        self.l2, self.sweeps, self.seen, self.precision = l2, sweeps, seen, precision
        self.register_buffer("exposure", torch.full((items,), seen, dtype=torch.float64))

    @torch.no_grad()
    def solve(self, known: Known) -> None:
        """Sweeps of EM."""
        if not len(known.log):
            raise InputError("expomf: the log has no events, so there is nothing to solve")
        cells = Cells(known.log, self.user.device)
        treatment = exposed(self.seen, by="group", form="gaussian", precision=self.precision, learn=1.0)
        state = treatment.init(DataSpec(annotators=known.log.users.tolist(), groups=known.log.items.tolist()))
        objective = squared_score()

        def terms(users: Tensor, items: Tensor, u: Tensor, v: Tensor) -> Terms:
            """What the treatment may look at of all cells of those users and items."""
            score = (u[users] @ v[items].T).reshape(-1)
            keep, flip = terms_of(objective, Side(score=score), Side(), {})
            given = Target(cells.taken(users, items).reshape(-1), torch.ones_like(score))
            user, item = users.repeat_interleave(len(items)), items.repeat(len(users))
            return Terms(keep, flip, user * self.n_items + item, user, item, given=given)

        def weights(users: Tensor, items: Tensor, u: Tensor, v: Tensor, state: State) -> Target:
            found = terms(users, items, u, v)
            assert found.given is not None
            return treatment.target(found.given, found, state)

        u, v = self.user.double(), self.item.double()
        for _ in range(self.sweeps):
            old = u, v
            everyone, everything = torch.arange(self.n_users, device=u.device), torch.arange(self.n_items, device=u.device)
            new = []
            for part in everyone.split(max(1, CELLS // self.n_items)):
                found = weights(part, everything, *old, state)
                new.append(self.ridge(found.w.view(len(part), -1), found.p.view(len(part), -1), old[1]))
            u, new = torch.cat(new), []
            for part in everything.split(max(1, CELLS // self.n_users)):
                found = weights(everyone, part, *old, state)
                new.append(self.ridge(found.w.view(-1, len(part)).T, found.p.view(-1, len(part)).T, u))
            v = torch.cat(new)
            after = state
            for part in everything.split(max(1, CELLS // self.n_users)):
                after = treatment.update(terms(everyone, part, *old), after)
            state = after
        self.user.copy_(u)
        self.item.copy_(v)
        self.exposure = state["exposed@group"].clone()

    def ridge(self, weight: Tensor, target: Tensor, other: Tensor) -> Tensor:
        """Vectors [B, d] of the rows of `weight` and `target` [B, n], from the vectors of the other side [n, d]."""
        d = other.shape[1]
        left = (weight @ (other[:, :, None] * other[:, None, :]).reshape(-1, d * d)).view(-1, d, d)
        left = left + self.l2 / self.precision * torch.eye(d, dtype=other.dtype, device=other.device)
        return torch.linalg.solve(left, (weight * target) @ other)


class Cells:
    """Which cells of users x items were taken."""

    def __init__(self, log: Log, device: torch.device) -> None:
        self.items = len(log.items)
        self.keys = torch.from_numpy(np.unique(log.pairs())).to(device)

    def taken(self, users: Tensor, items: Tensor) -> Tensor:
        """1 where the user took the item, float64 [len(users), len(items)]."""
        asked = users[:, None] * self.items + items
        at = torch.searchsorted(self.keys, asked).clamp(max=len(self.keys) - 1)
        return (self.keys[at] == asked).double()


MODEL = ExpoMF
