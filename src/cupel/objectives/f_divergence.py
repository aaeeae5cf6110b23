"""Objectives under another divergence to the reference than reverse KL: the log-ratio is replaced by f'(policy / reference)."""

# pyright: strict
from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from cupel.objectives import reading
from cupel.objectives.build import finite, make, one_of
from cupel.objectives.margin import sigmoid
from cupel.objectives.numerics import bounded_exp, bounded_expm1, past_limit
from cupel.objectives.types import Context, Objective, Side

DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")


def divergence_score(log_ratio: Tensor, divergence: str, alpha: float = 0.5) -> Tensor:
    """f'(t) at t = e^log_ratio, with its constants: log t; 1 - 1/t; log(2t / (1 + t)); (t^(alpha-1) - 1) / (alpha - 1).

    Powers of t are continued by their tangents where the exponent exceeds 30. alpha 1 is reverse KL.

    >>> divergence_score(torch.zeros(1), "js").item()
    0.0
    """
    if divergence == "forward_kl":
        return 1 - bounded_exp(-log_ratio)
    if divergence == "js":
        return math.log(2) + functional.logsigmoid(log_ratio)
    if divergence == "alpha" and alpha != 1:
        return bounded_expm1((alpha - 1) * log_ratio) / (alpha - 1)
    return log_ratio


def under_divergence(objective: Objective, divergence: str = "js", alpha: float = 0.5) -> Objective:
    """`objective` with every log-ratio to the reference replaced by f'(policy / reference).

    divergence: "reverse_kl" (changes nothing), "forward_kl", "js" or "alpha". Wang et al. 2023 (f-DPO), arXiv:2309.16240. Additive
    constants of f' cancel where an objective reads the difference alone, and only there (not in nca, bco, sppo, apo_down).
    ValueError for other divergences, alpha that is not finite, objectives that read more than log-probabilities and lengths.

    >>> under_divergence(sigmoid(0.1), "forward_kl").name
    'forward_kl sigmoid'
    """
    one_of(DIVERGENCES, divergence=divergence)
    finite(alpha=alpha)
    if not {"logp", "reference"} <= objective.needs <= {"logp", "reference", "length", "rating"}:
        needs = ", ".join(sorted(objective.needs))
        raise ValueError(f"a divergence replaces log-ratios of whole responses, but {objective.name} needs {needs}")

    def scored(side: Side) -> Side:
        if len(side) == 0:
            return side
        value = divergence_score(reading.log_ratio(side), divergence, alpha)
        return replace(side, logp=value, reference_logp=torch.zeros_like(value))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return objective.loss(scored(first), scored(second), context)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return objective.margin(scored(first), scored(second), context)

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        assert objective.context is not None
        return objective.context(scored(first), scored(second), previous)

    def exponent(side: Side) -> Tensor:
        ratio = reading.log_ratio(side)
        return -ratio if divergence == "forward_kl" else (alpha - 1) * ratio

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        found = torch.stack([past_limit(exponent(side)) for side in (first, second) if len(side)]).any(dim=0)
        return found if objective.saturated is None else found | objective.saturated(scored(first), scored(second), context)

    settings = {**objective.settings, "divergence": divergence, **({"divergence_alpha": alpha} if divergence == "alpha" else {})}
    return make(
        f"{divergence} {objective.name}", loss, margin, objective.needs, settings, swap=objective.swap,
        context=None if objective.context is None else statistics,
        saturated=saturated if divergence in ("forward_kl", "alpha") else objective.saturated, either_empty=True,
    )  # fmt: skip


def forward_kl(beta: float = 0.1) -> Objective:
    """f-DPO under forward KL: sp(-beta (e^-b - e^-a)), a and b the log-ratios. See `under_divergence`.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(forward_kl().loss(side, side, {}).item(), 6)
    0.693147
    """
    return under_divergence(sigmoid(beta), "forward_kl")._replace(name="forward_kl", settings={"beta": beta})


def js(beta: float = 0.1) -> Objective:
    """f-DPO under Jensen-Shannon divergence: sp(-beta (log s(a) - log s(b))). See `under_divergence`.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(js().loss(side, side, {}).item(), 6)
    0.693147
    """
    return under_divergence(sigmoid(beta), "js")._replace(name="js", settings={"beta": beta})


def alpha_divergence(beta: float = 0.1, alpha: float = 0.5) -> Objective:
    """f-DPO under an alpha divergence: sp(-beta (e^((alpha-1) a) - e^((alpha-1) b)) / (alpha - 1)); alpha 1 is DPO.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(alpha_divergence().loss(side, side, {}).item(), 6)
    0.693147
    """
    return under_divergence(sigmoid(beta), "alpha", alpha)._replace(name="alpha_divergence", settings={"beta": beta, "alpha": alpha})
