"""Objectives that pull each log-ratio to a place of its own, or measure it on another scale than the summed difference.

a, b: log-ratios to the reference of first and second; h = a - b; sp, s as in `margin`.
"""

# pyright: strict
from __future__ import annotations

import torch
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import finite, make, not_negative, of_each, positive
from cupel.objectives.numerics import softplus
from cupel.objectives.types import Context, Objective, Side


def _summed(beta: float):
    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.log_ratio(first) - reading.log_ratio(second))

    return margin


def _per_token(scale: float):
    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return scale * (reading.log_ratio(first) / reading.n_tokens(first) - reading.log_ratio(second) / reading.n_tokens(second))

    return margin


def ipo(beta: float = 0.1) -> Objective:
    """IPO on log-ratios per token, (a / n_first - b / n_second - 1 / (2 beta))^2. beta is the paper's tau.

    Azar et al. 2023, arXiv:2310.12036, eq. 17, in TRL's scaling (`ipo`). Not comparable with `ipo_sum` at equal beta: they differ by
    about a response's length. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]), n_tokens=torch.tensor([3]))
    >>> ipo(beta=0.25).loss(side, side, {}).item()
    4.0
    """
    positive(beta=beta)
    margin = _per_token(1.0)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return (margin(first, second, context) - 1 / (2 * beta)) ** 2

    return make("ipo", loss, margin, ("logp", "reference", "length"), {"beta": beta})


def sigmoid_norm(beta: float = 0.1) -> Objective:
    """DPO on log-ratios per token, sp(-beta (a / n_first - b / n_second)); TRL's `sigmoid_norm`. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]), n_tokens=torch.tensor([3]))
    >>> round(sigmoid_norm().loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    margin = _per_token(beta)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context))

    return make("sigmoid_norm", loss, margin, ("logp", "reference", "length"), {"beta": beta})


def length_penalised(beta: float = 0.1, alpha: float = 0.02) -> Objective:
    """R-DPO: DPO that charges alpha for each token of length difference, sp(-(m - alpha (n_first - n_second))).

    Park et al. 2024, arXiv:2403.19159; default not checked against the paper. ValueError unless beta > 0 and alpha >= 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]), n_tokens=torch.tensor([3]))
    >>> round(length_penalised().loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    margin = _summed(beta)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        longer = reading.n_tokens(first) - reading.n_tokens(second)
        return softplus(alpha * longer - margin(first, second, context))

    return make("length_penalised", loss, margin, ("logp", "reference", "length"), {"beta": beta, "alpha": alpha})


def nca(beta: float = 0.1) -> Objective:
    """NCA for pairs: sp(-beta a) + sp(beta a) / 2 + sp(beta b) / 2. Keeps the first's reward near (ln 2) / beta.

    Chen et al. 2024, arXiv:2402.05369, as TRL's `nca_pair`; either side may be empty. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> round(nca().loss(side, side, {}).item(), 6)
    1.386294
    """
    positive(beta=beta)

    def good(side: Side, context: Context) -> Tensor:
        x = beta * reading.log_ratio(side)
        return softplus(-x) + softplus(x) / 2

    def bad(side: Side, context: Context) -> Tensor:
        return softplus(beta * reading.log_ratio(side)) / 2

    return of_each("nca", good, bad, lambda side: beta * reading.log_ratio(side), ("logp", "reference"), {"beta": beta})


def bco_pair(beta: float = 0.1, shift: float = 0.0) -> Objective:
    """BCO with a fixed shift: sp(-(beta a - shift)) + sp(beta b - shift), two binary classifications.

    Jung et al. 2024, arXiv:2404.04656; at shift 0 TRL's `bco_pair`. `bco` learns the shift. Either side may be empty.
    ValueError unless beta > 0 and shift is finite.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> round(bco_pair().loss(side, side, {}).item(), 6)
    1.386294
    """
    positive(beta=beta)
    finite(shift=shift)

    def good(side: Side, context: Context) -> Tensor:
        return softplus(shift - beta * reading.log_ratio(side))

    def bad(side: Side, context: Context) -> Tensor:
        return softplus(beta * reading.log_ratio(side) - shift)

    return of_each(
        "bco_pair", good, bad, lambda side: beta * reading.log_ratio(side), ("logp", "reference"), {"beta": beta, "shift": shift}
    )


def sppo(beta: float = 0.1) -> Objective:
    """SPPO with hard labels: (a - 1 / (2 beta))^2 + (b + 1 / (2 beta))^2. beta is 1 / eta of the paper.

    Wu et al. 2024, arXiv:2405.00675, eq. 4.7 with win probabilities 1 and 0, as TRL's `sppo_hard`; with estimated probabilities use
    `gpo`. Either side may be empty. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> sppo(beta=0.25).loss(side, side, {}).item()
    8.0
    """
    positive(beta=beta)
    target = 1 / (2 * beta)

    def good(side: Side, context: Context) -> Tensor:
        return (reading.log_ratio(side) - target) ** 2

    def bad(side: Side, context: Context) -> Tensor:
        return (reading.log_ratio(side) + target) ** 2

    return of_each("sppo", good, bad, reading.log_ratio, ("logp", "reference"), {"beta": beta})


def apo_zero(beta: float = 0.1) -> Objective:
    """APO-zero: s(-beta a) + s(beta b), for data better than the policy: raise the first, lower the second.

    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7. Either side may be empty (TRL's `apo_zero_unpaired`). ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> apo_zero().loss(side, side, {}).item()
    1.0
    """
    positive(beta=beta)

    def good(side: Side, context: Context) -> Tensor:
        return torch.sigmoid(-beta * reading.log_ratio(side))

    def bad(side: Side, context: Context) -> Tensor:
        return torch.sigmoid(beta * reading.log_ratio(side))

    return of_each("apo_zero", good, bad, lambda side: beta * reading.log_ratio(side), ("logp", "reference"), {"beta": beta})


def apo_down(beta: float = 0.1) -> Objective:
    """APO-down: s(beta a) + s(-m), for data worse than the policy: lower the first, and the second more.

    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> apo_down().loss(side, side, {}).item()
    1.0
    """
    positive(beta=beta)
    margin = _summed(beta)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return torch.sigmoid(beta * reading.log_ratio(first)) + torch.sigmoid(-margin(first, second, context))

    return make("apo_down", loss, margin, ("logp", "reference"), {"beta": beta})


def cal_dpo(beta: float = 0.1) -> Objective:
    """Cal-DPO: sp(-h) + [(a - 1 / (2 beta))^2 + (b + 1 / (2 beta))^2] / 2, a DPO whose rewards have a stated size.

    Xiao et al. 2024, arXiv:2412.14516, as in the authors' code: no beta inside the logistic. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> round(cal_dpo(beta=0.5).loss(side, side, {}).item(), 6)
    1.693147
    """
    positive(beta=beta)
    margin = _summed(1.0)
    target = 1 / (2 * beta)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        a, b = reading.log_ratio(first), reading.log_ratio(second)
        return softplus(b - a) + ((a - target) ** 2 + (b + target) ** 2) / 2

    return make("cal_dpo", loss, margin, ("logp", "reference"), {"beta": beta})


def dpop(beta: float = 0.1, weight: float = 50.0) -> Objective:
    """DPO-Positive: sp(-beta (h - weight max(0, -a))), a penalty where the first becomes less likely than under the reference.

    Pal et al. 2024, arXiv:2402.13228; form and default not checked against the paper. ValueError unless beta > 0 and weight >= 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> round(dpop().loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    not_negative(weight=weight)
    margin = _summed(beta)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        fallen = torch.relu(-reading.log_ratio(first))
        return softplus(beta * weight * fallen - margin(first, second, context))

    return make("dpop", loss, margin, ("logp", "reference"), {"beta": beta, "weight": weight})
