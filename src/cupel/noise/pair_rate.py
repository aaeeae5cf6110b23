# pyright: strict
"""A rate per pair of an annotator and a group (a user and an item): a matrix factorisation of its logit, learned from the labels.

logit g_ui = prior + <P_u, Q_i>, by gradient ascent beside the model and without autograd: its inputs are losses, not the model (NBPO, Yu &
Qin 2020, arXiv:2007.07204; card 05-nbpo). Regularisation pulls toward `prior`: the published code pulls the logit to 0, that is every
rate to one half, whatever the labels say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cupel.noise.types import DataSpec, State, Terms

#: logits of rates stay within this (the published code cuts there): rates in [4.5e-5, 1 - 4.5e-5]
LIMIT = 10.0
#: standard deviation of factors that start at the prior: zero would be a saddle point
SPREAD = 0.1
USER, ITEM = "missed@annotator", "missed@group"


class PairRate(NamedTuple):
    """init(spec) -> tensors of the state; read(terms, state, like) -> rates [B]; climb(terms, state, slope): the state after a step
    along slope [B] = d objective / d logit of each comparison's rate."""  # fmt: skip

    init: Callable[[DataSpec], dict[str, Tensor]]
    read: Callable[[Terms, State, Tensor], Tensor]
    climb: Callable[[Terms, State, Tensor], State]


def pair_rate(prior: float, dim: int, learn: float, l2: float, start: float | None, decay: float, seed: int) -> PairRate:
    """The factorised rate. prior and start in (0, 1); a comparison of unknown annotator or group has the prior and teaches nothing.

    dim    columns of P and Q; 0: one offset per group (item) alone, logit g_i = prior + b_i
    learn  step size of gradient ascent on sums over the step, times decay^epoch; l2 is taken off every row the step touches, once
    start  mean rate at the first step, None: the prior. P and Q are then uniform in (0, a) and (0, +-a), a^2 / 4 the mean logit's distance
           from the prior: the published start is prior .5 and start sigmoid(-6.25)

    A step costs its own rows and one copy of the tables, because updates are pure.

    >>> rate = pair_rate(0.2, 0, 1.0, 0.0, None, 1.0, 0)
    >>> state = rate.init(DataSpec(annotators=("ann",), groups=("x", "y")))
    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(2))._replace(annotator=torch.tensor([0, 0]), group=torch.tensor([0, 1]))
    >>> rate.read(terms, rate.climb(terms, state, torch.tensor([1.0, 0.0])), terms.keep).round(decimals=4)
    tensor([0.4046, 0.2000])
    """
    centre = math.log(prior / (1 - prior))
    away = 0.0 if start is None else math.log(start / (1 - start)) - centre

    def init(spec: DataSpec) -> dict[str, Tensor]:
        if dim == 0:
            return {ITEM: torch.full((len(spec.groups),), away, dtype=torch.float64)}
        made = torch.Generator().manual_seed(seed)
        shapes = (len(spec.annotators), dim), (len(spec.groups), dim)
        if start is None:
            users, items = (SPREAD * torch.randn(shape, generator=made, dtype=torch.float64) for shape in shapes)
        else:
            width = 2 * math.sqrt(abs(away) / dim)
            users, items = (width * torch.rand(shape, generator=made, dtype=torch.float64) for shape in shapes)
            items = items * math.copysign(1.0, away)
        return {USER: users, ITEM: items}

    def places(terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        """User and item of each comparison, 0 where unknown, and which are known."""
        user, item = terms.annotator.cpu(), terms.group.cpu()
        known = item >= 0 if dim == 0 else (user >= 0) & (item >= 0)
        return user.clamp(min=0), item.clamp(min=0), known

    def read(terms: Terms, state: State, like: Tensor) -> Tensor:
        user, item, known = places(terms)
        if not bool(known.any()):
            return torch.full_like(like, prior)
        off = state[ITEM][item] if dim == 0 else (state[USER][user] * state[ITEM][item]).sum(1)
        logit = centre + torch.where(known, off, 0.0)
        return torch.sigmoid(logit.clamp(-LIMIT, LIMIT)).to(device=like.device, dtype=like.dtype)

    def climb(terms: Terms, state: State, slope: Tensor) -> State:
        user, item, known = places(terms)
        user, item, d = user[known], item[known], slope.detach().cpu().double()[known]
        if len(d) == 0:
            return state
        rate = learn * decay**terms.epoch
        if dim == 0:
            return {**state, ITEM: _moved(state[ITEM], item, rate * d, rate * l2)}
        p, q = state[USER], state[ITEM]
        step = rate * d[:, None]
        return {**state, USER: _moved(p, user, step * q[item], rate * l2), ITEM: _moved(q, item, step * p[user], rate * l2)}

    return PairRate(init, read, climb)


def _moved(old: Tensor, row: Tensor, step: Tensor, shrink: float) -> Tensor:
    """`old` with the steps added at their rows, each row that occurs shrunk once."""
    new = old.index_add(0, row, step)
    if shrink:
        new[row] -= shrink * old[row]  # a row that occurs twice is written twice with one value
    return new
