"""Objectives made of objectives: sums, the likelihood of a loss, and terms that any objective can carry."""

# pyright: strict
from __future__ import annotations

import math

import torch
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import make, not_negative, one_of, plus
from cupel.objectives.numerics import softplus
from cupel.objectives.reference_free import nll
from cupel.objectives.types import Context, Need, Objective, Side, Swap


def weighted_sum(*parts: tuple[Objective, float]) -> Objective:
    """sum_k weight_k loss_k; the margin is the same sum of margins.

    Statistics of part k are kept under keys "k." + name. The sides can be swapped if those of every part can. ValueError without parts,
    or for a weight that is negative or not finite.

    >>> from cupel.objectives.margin import hinge, sigmoid
    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> both = weighted_sum((sigmoid(), 1.0), (hinge(), 0.5))
    >>> both.name, round(both.loss(side, side, {}).item(), 6)
    ('sigmoid + 0.5 hinge', 1.193147)
    """
    if not parts:
        raise ValueError("weighted_sum needs at least one (objective, weight)")
    for objective, weight in parts:
        not_negative(**{f"the weight of {objective.name}": weight})

    def own(context: Context, k: int) -> Context:
        return {key.removeprefix(f"{k}."): value for key, value in context.items() if key.startswith(f"{k}.")}

    def total(values: list[Tensor]) -> Tensor:
        return sum(values[1:], values[0])

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return total([weight * objective.loss(first, second, own(context, k)) for k, (objective, weight) in enumerate(parts)])

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return total([weight * objective.margin(first, second, own(context, k)) for k, (objective, weight) in enumerate(parts)])

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        return {
            f"{k}.{key}": value
            for k, (objective, _) in enumerate(parts)
            if objective.context is not None
            for key, value in objective.context(first, second, own(previous, k)).items()
        }

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        found = [o.saturated(first, second, own(context, k)) for k, (o, _) in enumerate(parts) if o.saturated is not None]
        return torch.stack(found).any(dim=0)

    return make(
        " + ".join(objective.name if weight == 1 else f"{weight:g} {objective.name}" for objective, weight in parts), loss, margin,
        frozenset[Need]().union(*(objective.needs for objective, _ in parts)),
        {f"{k}.{key}": value for k, (o, w) in enumerate(parts) for key, value in {"weight": w, **o.settings}.items()},
        swap=_swap({objective.swap for objective, _ in parts}),
        context=statistics if any(objective.context is not None for objective, _ in parts) else None,
        saturated=saturated if any(objective.saturated is not None for objective, _ in parts) else None, either_empty=True,
    )  # fmt: skip


def _swap(kinds: set[Swap]) -> Swap:
    """Of a sum: coupled if a part is, and without a label only if no part reads one."""
    return "none" if "none" in kinds else "comparison" if "comparison" in kinds else "same"


def likelihood(objective: Objective) -> Objective:
    """Negative log-likelihood of the label under the loss read as an energy: sp(keep - flip). Margin: the log-odds flip - keep.

    P(label right) = e^-keep / (e^-keep + e^-flip). Swapped it is sp(flip - keep), so (p, w) means what it means for any objective, and
    with it EM is exact. DPO and Bradley-Terry are their own likelihood; IPO and CPO become purely contrastive. Cao et al. 2025 (LCPO),
    arXiv:2509.24159, eq. 8-9. ValueError where the sides cannot be swapped one comparison at a time.

    >>> from cupel.objectives.separate import ipo
    >>> first, second = (Side(logp=torch.tensor([x]), reference_logp=torch.zeros(1), n_tokens=torch.ones(1)) for x in (-1.0, -2.0))
    >>> likelihood(ipo(beta=0.5)).margin(first, second, {}).item()
    4.0
    """
    if objective.swap != "comparison":
        why = "it reads no label" if objective.swap == "same" else "its sides cannot be swapped one comparison at a time"
        raise ValueError(f"{objective.name} has no likelihood: {why}, so no loss is its flip")

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return objective.loss(second, first, context) - objective.loss(first, second, context)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context))

    return make(
        f"likelihood of {objective.name}", loss, margin, objective.needs, objective.settings, context=objective.context,
        saturated=objective.saturated, either_empty=True,
    )  # fmt: skip


def with_sft(objective: Objective, weight: float = 1.0, reduction: str = "token") -> Objective:
    """`objective` plus weight times the negative log-likelihood of the first side (RPO, iterative DPO). Margin: the objective's.

    reduction: "token" -logp over the mean length of the step's first sides, whose mean over the step is TRL's `sft`; "sequence" -logp /
    n, Pang et al. 2024, arXiv:2404.19733, eq. 2; "sum" -logp. With a flipped label it is that of the other response. ValueError for
    other reductions and weights below 0.

    >>> from cupel.objectives.margin import sigmoid
    >>> side = Side(logp=torch.tensor([-6.0]), reference_logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> round(with_sft(sigmoid(), 1.0, "sequence").loss(side, side, {}).item(), 6)
    2.693147
    """
    not_negative(weight=weight)
    imitate, mean_tokens, extra = nll(reduction)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        own = {key.removeprefix("sft."): value for key, value in context.items() if key.startswith("sft.")}
        return objective.loss(first, second, context) + weight * imitate(first, own)

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        found = {} if objective.context is None else dict(objective.context(first, second, previous))
        return found if mean_tokens is None else {**found, **{f"sft.{k}": v for k, v in mean_tokens(first, second, {}).items()}}

    settings = {**objective.settings, "sft_weight": weight, "sft_reduction": reduction}
    return make(
        f"{objective.name} + {weight:g} sft", loss, objective.margin, objective.needs | frozenset(extra), settings,
        swap="comparison" if objective.swap == "same" and weight else objective.swap,
        context=None if objective.context is None and mean_tokens is None else statistics, saturated=objective.saturated,
    )  # fmt: skip


def rpo(beta: float = 0.1, alpha: float = 1.0, reduction: str = "token") -> Objective:
    """RPO: DPO plus alpha times the negative log-likelihood of the first side; TRL's ["sigmoid", "sft"]. See `with_sft`.

    >>> rpo().settings["alpha"]
    1.0
    """
    from cupel.objectives.margin import sigmoid

    settings = {"beta": beta, "alpha": alpha, "reduction": reduction}
    return with_sft(sigmoid(beta), alpha, reduction)._replace(name="rpo", settings=settings)


def with_target(objective: Objective, weight: float = 1.0, reduction: str = "sequence") -> Objective:
    """`objective` plus weight times the negative log-likelihood of a third response, the same whichever label is right.

    With `cpo(sft=0)` it is TPO, with `simpo` TPO-L (as TRL's experimental trainer), with `slic` SLiC-HF. The target stands on both sides;
    their mean is taken. reduction: "sequence" or "sum". ValueError for other reductions and weights below 0.

    >>> from cupel.objectives.reference_free import slic
    >>> side = Side(logp=torch.tensor([-6.0]), target_logp=torch.tensor([-4.0]), target_n_tokens=torch.tensor([2]))
    >>> with_target(slic(), 0.5).loss(side, side, {}).item()
    2.0
    """
    not_negative(weight=weight)
    one_of(("sequence", "sum"), reduction=reduction)

    def imitate(side: Side) -> Tensor:
        cost = -reading.there(side.target_logp, "target_logp")
        return cost / reading.there(side.target_n_tokens, "target_n_tokens") if reduction == "sequence" else cost

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return objective.loss(first, second, context) + weight * (imitate(first) + imitate(second)) / 2

    settings = {**objective.settings, "target_weight": weight, "target_reduction": reduction}
    return make(
        f"{objective.name} + {weight:g} target", loss, objective.margin, plus(objective.needs, "target"), settings, swap=objective.swap,
        context=objective.context, saturated=objective.saturated,
    )  # fmt: skip


def online_kl(logp: Tensor, reference_logp: Tensor) -> Tensor:
    """[B] surrogate whose gradient is an unbiased estimate of that of KL(policy || reference); its value means nothing.

    logp, reference_logp [B, S]: S responses drawn from the *current* policy at temperature 1, scored by both. mean_i A_i log pi(y_i),
    A_i = h_i - mean over the others of h without gradient, h the log-ratio; for S = 1 A = h. Differentiating the sample mean of h itself
    would give zero in expectation.

    >>> logp = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    >>> online_kl(logp, torch.tensor([[-1.5, -1.5]])).sum().backward()
    >>> logp.grad.tolist()
    [[0.5, -0.5]]
    """
    h = (logp - reference_logp).detach()
    samples = h.shape[1]
    advantage = h if samples == 1 else (h - h.mean(dim=1, keepdim=True)) * samples / (samples - 1)
    return (advantage * logp).mean(dim=1)


def with_online_kl(objective: Objective, weight: float) -> Objective:
    """`objective` plus weight times `online_kl` on the policy's own samples for the prompt: HyPO when the objective is DPO.

    Keeps the policy near the reference on responses that the data does not contain. The samples stand on both sides, and the term is
    the same whichever label is right. The scale of weight depends on response length: begin at 0.1 beta. Song et al. 2024,
    arXiv:2406.01462; structure not checked against the paper, the estimator is. ValueError for a weight below 0.

    >>> from cupel.objectives.margin import sigmoid
    >>> with_online_kl(sigmoid(), 0.01).name
    'sigmoid + 0.01 online KL'
    """
    not_negative(weight=weight)

    def term(side: Side) -> Tensor:
        policy = reading.there(side.online_logp, "online_logp")
        return online_kl(policy, reading.there(side.online_reference_logp, "online_reference_logp"))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        value = objective.loss(first, second, context)
        return value + weight * (term(first) + term(second)) / 2 if weight else value

    return make(
        f"{objective.name} + {weight:g} online KL", loss, objective.margin, plus(objective.needs, "online"),
        {**objective.settings, "online_kl_weight": weight}, swap=objective.swap, context=objective.context, saturated=objective.saturated,
    )  # fmt: skip


def hypo(beta: float = 0.1, weight: float | None = None) -> Objective:
    """HyPO: DPO on the labelled pairs plus weight (default 0.1 beta) times the KL to the reference on the policy's own samples.

    >>> hypo(beta=0.5).settings["weight"]
    0.05
    """
    from cupel.objectives.margin import sigmoid

    weight = 0.1 * beta if weight is None else weight
    if not math.isfinite(weight):
        raise ValueError(f"weight is a finite number, not {weight!r}")
    return with_online_kl(sigmoid(beta), weight)._replace(name="hypo", settings={"beta": beta, "weight": weight})
