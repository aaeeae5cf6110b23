"""Objectives and combinators that look at single tokens: their weights, and the divergence at each position."""

# pyright: strict
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import make, not_negative, plus, positive
from cupel.objectives.margin import sigmoid
from cupel.objectives.numerics import bounded_exp, past_limit, softplus
from cupel.objectives.types import Context, Objective, Side


def shorten(first: Side, second: Side, alpha: float) -> tuple[Side, Side]:
    """The sides with tokens beyond the shorter response's length counted alpha times, in both log-probabilities."""
    shared = torch.minimum(reading.mask(first).sum(dim=1), reading.mask(second).sum(dim=1))[:, None]

    def weighted(side: Side) -> Side:
        position = reading.mask(side).cumsum(dim=1)
        policy = reading.per_token(side, side.token_logp, "token_logp")
        reference = reading.per_token(side, side.reference_token_logp, "reference_token_logp")
        weight = torch.where(position <= shared, torch.ones_like(policy), torch.full_like(policy, alpha))
        return replace(side, logp=(weight * policy).sum(dim=1), reference_logp=(weight * reference).sum(dim=1))

    return weighted(first), weighted(second)


def length_desensitised(objective: Objective, alpha: float = 0.5) -> Objective:
    """`objective` on log-probabilities whose tokens beyond the shorter response's length count alpha times.

    alpha 1 changes nothing; 0 compares prefixes of equal length. Liu et al. 2024 (LD-DPO), arXiv:2409.06411, as TRL's `ld_alpha`, which
    applies it to any loss. ValueError unless 0 <= alpha <= 1 and the objective reads summed log-probabilities of policy and reference.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha!r}")
    if not {"logp", "reference"} <= objective.needs:
        raise ValueError(f"length_desensitised changes logp and reference_logp, which {objective.name} does not read")

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return objective.loss(*shorten(first, second, alpha), context)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return objective.margin(*shorten(first, second, alpha), context)

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        assert objective.context is not None
        return objective.context(*shorten(first, second, alpha), previous)

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        assert objective.saturated is not None
        return objective.saturated(*shorten(first, second, alpha), context)

    return make(
        f"length_desensitised {objective.name}", loss, margin,
        plus(objective.needs - {"logp", "reference"}, "tokens", "reference_tokens"), {**objective.settings, "ld_alpha": alpha},
        swap=objective.swap, context=None if objective.context is None else statistics,
        saturated=None if objective.saturated is None else saturated,
    )  # fmt: skip


def ld_dpo(beta: float = 0.1, alpha: float = 0.5) -> Objective:
    """LD-DPO: DPO in which tokens beyond the shorter response's length count alpha times. See `length_desensitised`.

    >>> side = Side(
    ...     token_logp=torch.tensor([[-1.0, -2.0]]), reference_token_logp=torch.tensor([[-1.0, -1.0]]), mask=torch.tensor([[True, True]])
    ... )
    >>> round(ld_dpo().loss(side, side, {}).item(), 6)
    0.693147
    """
    return length_desensitised(sigmoid(beta), alpha)._replace(name="ld_dpo", settings={"beta": beta, "alpha": alpha})


def policy_weighted(objective: Objective) -> Objective:
    """`objective` times the likelihood of both responses under the current policy, so that off-policy pairs count little.

    weight = w(first) w(second), w = exp(mean over tokens of [log pi(y_t) - log sum_v pi(v)^2]), without gradient; a policy uniform over
    its vocabulary has w = 1. Not clamped at 1. Zhou et al. 2024 (WPO), arXiv:2406.11827, eq. 2, as TRL's `use_weighting`, which applies
    it to any loss. The exponent is continued by its tangent above 30.
    """

    def exponent(side: Side) -> Tensor:
        aligned = reading.per_token(side, side.token_logp, "token_logp") - reading.per_token(side, side.collision, "collision")
        return aligned.sum(dim=1) / reading.mask(side).sum(dim=1).clamp(min=1)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        weight = bounded_exp(exponent(first)) * bounded_exp(exponent(second))
        return weight.detach() * objective.loss(first, second, context)

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        found = past_limit(exponent(first)) | past_limit(exponent(second))
        return found if objective.saturated is None else found | objective.saturated(first, second, context)

    return make(
        f"policy_weighted {objective.name}", loss, objective.margin, plus(objective.needs, "tokens", "collision"), objective.settings,
        swap=objective.swap, context=objective.context, saturated=saturated,
    )  # fmt: skip


def wpo(beta: float = 0.1) -> Objective:
    """WPO: DPO weighted by how likely the current policy finds both responses. See `policy_weighted`. ValueError unless beta > 0.

    >>> side = Side(
    ...     logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]), token_logp=torch.tensor([[-1.0]]),
    ...     collision=torch.tensor([[-1.0]]), mask=torch.tensor([[True]]),
    ... )
    >>> round(wpo().loss(side, side, {}).item(), 6)
    0.693147
    """
    return policy_weighted(sigmoid(beta))._replace(name="wpo")


def tdpo(beta: float = 0.1, alpha: float | None = None) -> Objective:
    """Token-level DPO: sp(-beta (h - (K_second - K_first))), K the sum over positions of KL(reference || policy).

    With alpha (TDPO2): sp(-beta (h - alpha (K_second - stopgrad K_first))); alpha None is TDPO1. Zeng et al. 2024, arXiv:2404.11999, as
    in the authors' code. ValueError unless beta > 0 and alpha >= 0.

    >>> side = Side(
    ...     logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]), divergence=torch.tensor([[0.1]]), mask=torch.tensor([[True]])
    ... )
    >>> round(tdpo().loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    if alpha is not None:
        not_negative(alpha=alpha)

    def divergence(side: Side) -> Tensor:
        return reading.per_token(side, side.divergence, "divergence").sum(dim=1)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        h = reading.log_ratio(first) - reading.log_ratio(second)
        if alpha is None:
            return beta * (h - (divergence(second) - divergence(first)))
        return beta * (h - alpha * (divergence(second) - divergence(first).detach()))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context))

    return make("tdpo", loss, margin, ("logp", "reference", "divergence"), {"beta": beta, "alpha": alpha})


def tdpo2(beta: float = 0.1, alpha: float = 0.5) -> Objective:
    """TDPO2: `tdpo` with a weight alpha on the divergences and no gradient through the first side's.

    >>> tdpo2().settings["alpha"]
    0.5
    """
    return tdpo(beta, alpha)._replace(name="tdpo2")


def sparse_po(beta: float = 0.1, l1_reward: float = 0.0, l1_divergence: float = 0.0, common: bool = False) -> Objective:
    """SparsePO: token-level DPO with masks, sp(-beta (u - d)) + l1_reward |m_u| + l1_divergence |m_d|.

    u = sum_t m_u r_t of first minus second, r_t the token's log-ratio; d = sum_t m_d K_t of second minus first, K_t = KL(reference ||
    policy) at t; |m| sums a mask over the tokens of both responses. common: mask_reward serves both purposes, and each weight counts
    half. Masks of 1 give TDPO1; of 1 and 0 DPO. MAPO is the same objective with masks from the reference's activations. Christopoulou
    et al. 2024, arXiv:2410.05102, as in the authors' code. ValueError unless beta > 0 and the weights are at least 0.

    >>> one = torch.ones(1, 1)
    >>> side = Side(
    ...     token_logp=-one, reference_token_logp=-one, divergence=one, mask_reward=one, mask_divergence=one, mask=torch.tensor([[True]])
    ... )
    >>> round(sparse_po().loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    not_negative(l1_reward=l1_reward, l1_divergence=l1_divergence)

    def masks(side: Side) -> tuple[Tensor, Tensor]:
        reward = reading.per_token(side, side.mask_reward, "mask_reward")
        return reward, reward if common else reading.per_token(side, side.mask_divergence, "mask_divergence")

    def value(side: Side) -> Tensor:
        reward, divergence = masks(side)
        ratio = reading.per_token(side, side.token_logp, "token_logp") - reading.per_token(
            side, side.reference_token_logp, "reference_token_logp"
        )
        return (reward * ratio + divergence * reading.per_token(side, side.divergence, "divergence")).sum(dim=1)

    def size(side: Side) -> Tensor:
        reward, divergence = masks(side)
        return (l1_reward * reward.sum(dim=1) + l1_divergence * divergence.sum(dim=1)) * (0.5 if common else 1.0)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (value(first) - value(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context)) + size(first) + size(second)

    settings = {"beta": beta, "l1_reward": l1_reward, "l1_divergence": l1_divergence, "common": common}
    return make("sparse_po", loss, margin, ("tokens", "reference_tokens", "divergence", "masks"), settings)


def epsilon_dpo(beta: float = 0.01, epsilon: float = 0.01) -> Objective:
    """e-DPO: DPO with a temperature per comparison, sp(-beta_i h), beta_i = beta / (1 + epsilon s_i), without gradient through beta_i.

    D is the difference of the two log-probabilities under the policy, D+ and D- under logits moved by epsilon away from and towards
    the reference (`tilt_up`, `tilt_down`). s = 1 where D+ > D > D-, -1 where D- > D > D+, else 0. Lee et al. 2025, arXiv:2502.12574, as
    in the authors' code. Margin: beta h. ValueError unless beta > 0 and 0 <= epsilon < 1.

    >>> side = Side(**{name: torch.tensor([-1.0]) for name in ("logp", "reference_logp", "tilt_up", "tilt_down")})
    >>> round(epsilon_dpo().loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon lies in [0, 1), not {epsilon!r}")

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.log_ratio(first) - reading.log_ratio(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        here = (reading.logp(first) - reading.logp(second)).detach()
        up = (reading.there(first.tilt_up, "tilt_up") - reading.there(second.tilt_up, "tilt_up")).detach()
        down = (reading.there(first.tilt_down, "tilt_down") - reading.there(second.tilt_down, "tilt_down")).detach()
        rising = ((up > here) & (here > down)).to(here.dtype) - ((down > here) & (here > up)).to(here.dtype)
        return softplus(-margin(first, second, context) / (1 + epsilon * rising))

    return make("epsilon_dpo", loss, margin, ("logp", "reference", "tilt"), {"beta": beta, "epsilon": epsilon})
