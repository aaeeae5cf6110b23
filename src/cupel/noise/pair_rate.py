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


#: from the rates g, float64 [B], of comparisons to the slope [B] = d objective / d logit(g) of each
Slope = Callable[[Tensor], Tensor]


class PairRate(NamedTuple):
    """init(spec) -> tensors of the state; read(terms, state, like) -> rates [B]; climb(terms, state, slope): the state after a step along
    the slopes; climb_ the same, written into the tensors of the state it is given: only rows of the step are touched."""  # fmt: skip

    init: Callable[[DataSpec], dict[str, Tensor]]
    read: Callable[[Terms, State, Tensor], Tensor]
    climb: Callable[[Terms, State, Slope], State]
    climb_: Callable[[Terms, State, Slope], State]


def pair_rate(prior: float, dim: int, learn: float, l2: float, start: float | None, decay: float, seed: int) -> PairRate:
    """The factorised rate. prior and start in (0, 1); a comparison of unknown annotator or group has the prior and teaches nothing.

    dim    columns of P and Q; 0: one offset per group (item) alone, logit g_i = prior + b_i
    learn  step size of gradient ascent on sums over the step, times decay^epoch; l2 is taken off every row the step touches, once
    start  mean rate at the first step, None: the prior. P and Q are then uniform in (0, a) and (0, +-a), a^2 / 4 the mean logit's distance
           from the prior: the published start is prior .5 and start sigmoid(-6.25)

    `climb` costs the step's rows and one copy of the tables, because it is pure; `climb_` the step's rows alone, whatever their number in
    all. The bytes are the same.

    >>> rate = pair_rate(0.2, 0, 1.0, 0.0, None, 1.0, 0)
    >>> state = rate.init(DataSpec(annotators=("ann",), groups=("x", "y")))
    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(2))._replace(annotator=torch.tensor([0, 0]), group=torch.tensor([0, 1]))
    >>> rate.read(terms, rate.climb(terms, state, lambda g: torch.tensor([1.0, 0.0])), terms.keep).round(decimals=4)
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

    def rows(terms: Terms, state: State) -> _Rows:
        user, item = terms.annotator.cpu(), terms.group.cpu()
        known = item >= 0 if dim == 0 else (user >= 0) & (item >= 0)
        user, item = user.clamp(min=0), item.clamp(min=0)
        if not bool(known.any()):
            none = torch.zeros(len(item), dim, dtype=torch.float64)
            return _Rows(user, item, known, none, none, torch.full((len(item),), prior, dtype=torch.float64))
        q = state[ITEM].index_select(0, item)
        p = q if dim == 0 else state[USER].index_select(0, user)
        off = q if dim == 0 else (p * q).sum(1)
        logit = centre + torch.where(known, off, 0.0)
        return _Rows(user, item, known, p, q, torch.sigmoid(logit.clamp(-LIMIT, LIMIT)))

    def read(terms: Terms, state: State, like: Tensor) -> Tensor:
        return rows(terms, state).rate.to(device=like.device, dtype=like.dtype)

    def climb(terms: Terms, state: State, slope: Slope) -> State:
        return climb_(terms, {**state, **{name: state[name].clone() for name in (USER, ITEM) if name in state}}, slope)

    def climb_(terms: Terms, state: State, slope: Slope) -> State:
        user, item, known, p, q, g = rows(terms, state)
        if not bool(known.any()):
            return state
        d = slope(g).detach().cpu().double()
        if not bool(known.all()):
            here = torch.nonzero(known)[:, 0]
            user, item, p, q, d = (x.index_select(0, here) for x in (user, item, p, q, d))
        rate = learn * decay**terms.epoch
        if dim == 0:
            _move(state[ITEM], item, q, rate * d, rate * l2)
            return state
        step = rate * d[:, None]
        _move(state[USER], user, p, step * q, rate * l2)
        _move(state[ITEM], item, q, step * p, rate * l2)
        return state

    return PairRate(init, read, climb, climb_)


class _Rows(NamedTuple):
    """user, item int [B], 0 where unknown; known bool [B]; p, q: their rows of the tables; rate float64 [B]."""

    user: Tensor
    item: Tensor
    known: Tensor
    p: Tensor
    q: Tensor
    rate: Tensor


def _move(table: Tensor, row: Tensor, old: Tensor, step: Tensor, shrink: float) -> None:
    """Into `table`: each row that occurs shrunk once, and the steps added; old: the rows as they are."""
    if shrink:
        table.index_copy_(0, row, old * (1 - shrink))  # a row that occurs twice is written twice with one value
    table.index_add_(0, row, step)
