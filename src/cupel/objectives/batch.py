"""Objectives that look at the whole step: optimal transport between two samples, and a temperature that follows the data."""

# pyright: strict
from __future__ import annotations

import torch
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import make, not_negative, positive
from cupel.objectives.numerics import softplus
from cupel.objectives.types import Context, Objective, Side


def _transported(upper: Tensor, lower: Tensor) -> Tensor:
    """[B] difference of equal ranks of two samples, each at the place of the rank's owner in `upper`."""
    order = upper.argsort(stable=True)
    by_rank = upper[order] - lower.sort(stable=True).values
    return torch.zeros_like(by_rank).index_copy(0, order, by_rank)


def _smooth(x: Tensor, smoothing: float) -> Tensor:
    return softplus(-x) + smoothing * x


def aot(beta: float = 0.1, smoothing: float = 0.0) -> Objective:
    """AOT on pairs: sp(-beta x) by rank, x_(i) = u_(i) - v_(i), u the policy's differences of the step, v the reference's, sorted apart.

    The loss of a rank stands at the comparison that holds the rank in u. One comparison's loss depends on all, so swap is "none". Its
    ranks are those of the sides of one call. Melnyk et al. 2024, arXiv:2406.05882, as TRL's `aot` (older TRL: `aot_pair`). Margin:
    beta h. smoothing e adds e beta x. ValueError unless beta > 0 and 0 <= smoothing < 1/2.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(aot().loss(side, side, {}).item(), 6)
    0.693147
    """
    _check_aot(beta, smoothing)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        policy = reading.logp(first) - reading.logp(second)
        reference = reading.there(first.reference_logp, "reference_logp") - reading.there(second.reference_logp, "reference_logp")
        return _smooth(beta * _transported(policy, reference), smoothing)

    return make("aot", loss, _margin(beta), ("logp", "reference"), {"beta": beta, "smoothing": smoothing}, swap="none")


def aot_unpaired(beta: float = 0.1, smoothing: float = 0.0) -> Objective:
    """AOT on two samples: sp(-beta x) by rank, x_(i) = a_(i) - b_(i), log-ratios of all first and all second sides, sorted apart.

    The loss of a rank stands at the comparison that holds it in a. Melnyk et al. 2024, arXiv:2406.05882, as TRL's `aot_unpaired` (older
    TRL: `aot`). Otherwise as `aot`.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(aot_unpaired().loss(side, side, {}).item(), 6)
    0.693147
    """
    _check_aot(beta, smoothing)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return _smooth(beta * _transported(reading.log_ratio(first), reading.log_ratio(second)), smoothing)

    return make("aot_unpaired", loss, _margin(beta), ("logp", "reference"), {"beta": beta, "smoothing": smoothing}, swap="none")


def _check_aot(beta: float, smoothing: float) -> None:
    positive(beta=beta)
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing lies in [0, 1/2), not {smoothing!r}")


def _margin(beta: float):
    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.log_ratio(first) - reading.log_ratio(second))

    return margin


def beta_dpo(beta: float = 0.1, alpha: float = 0.6, decay: float = 0.9, floor: float = 1e-3) -> Objective:
    """b-DPO: sp(-beta_t h) with a temperature of the step, beta_t = max(beta (1 + alpha (mean h - M)), floor).

    Context: `beta`; `mean` M and `sd`, moving averages (decay) of the mean and standard deviation of h over steps before this one, which
    start at the first step's own, so that the first step uses beta. No gradient flows through beta_t, and it stays while the flipped
    loss is computed. Wu et al. 2024, arXiv:2407.08639, as in the authors' code; the start of the averages is ours. Its selection of
    pairs is a matter of the weight w: see `typicality`. ValueError unless beta, floor > 0, alpha >= 0, 0 <= decay < 1.

    >>> first, second = (Side(logp=torch.tensor([x]), reference_logp=torch.tensor([-2.0])) for x in (-1.0, -2.0))
    >>> objective = beta_dpo(beta=1.0)
    >>> context = objective.context(first, second, {})
    >>> context["beta"].item(), round(objective.loss(first, second, context).item(), 6)
    (1.0, 0.313262)
    """
    positive(beta=beta, floor=floor)
    not_negative(alpha=alpha)
    if not 0 <= decay < 1:
        raise ValueError(f"decay lies in [0, 1), not {decay!r}")

    def difference(first: Side, second: Side) -> Tensor:
        return reading.log_ratio(first) - reading.log_ratio(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-reading.statistic(context, "beta", "beta_dpo") * difference(first, second))

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return reading.statistic(context, "beta", "beta_dpo") * difference(first, second)

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        h = difference(first, second)
        mean, sd = h.mean(), h.std(correction=0)
        before = previous.get("mean", mean).to(mean)
        spread = previous.get("sd", sd).to(sd)
        now = (beta * (1 + alpha * (mean - before))).clamp(min=floor)
        return {"beta": now, "mean": decay * before + (1 - decay) * mean, "sd": decay * spread + (1 - decay) * sd}

    settings = {"beta": beta, "alpha": alpha, "decay": decay, "floor": floor}
    return make("beta_dpo", loss, margin, ("logp", "reference"), settings, context=statistics)


def typicality(difference: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """[B] exp(-(h - mean)^2 / (2 sd^2)): the odds with which b-DPO keeps a pair, from h and the averages in `beta_dpo`'s context.

    >>> typicality(torch.tensor([1.0, 3.0]), torch.tensor(1.0), torch.tensor(1.0)).tolist()
    [1.0, 0.1353352814912796]
    """
    return torch.exp(-(((difference - mean) / sd.clamp(min=1e-12)) ** 2) / 2)
