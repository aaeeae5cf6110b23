"""Objectives of scores: reward models, recommenders, and ties. d = score(first) - score(second)."""

# pyright: strict
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cupel.objectives import reading
from cupel.objectives.build import finite, make, not_negative, of_scores
from cupel.objectives.numerics import softplus
from cupel.objectives.types import Context, Need, Objective, Side


def bradley_terry(margin: float = 0.0, rated: float = 0.0, centre: float = 0.0) -> Objective:
    """Negative log-likelihood of the label under Bradley-Terry: sp(-(d - mu)) + centre (score(first) + score(second))^2.

    mu = margin + rated |rating(first) - rating(second)|: what d must exceed, a property of the pair that a flipped label keeps.
    Bradley & Terry 1952; margins Touvron et al. 2023 (Llama 2), arXiv:2307.09288; centring Eisenstein et al. 2023, arXiv:2312.09244,
    both as TRL's reward trainer. ValueError unless margin is finite and rated, centre >= 0.

    >>> first, second = Side(score=torch.tensor([2.0])), Side(score=torch.tensor([0.0]))
    >>> round(bradley_terry().loss(first, second, {}).item(), 6)
    0.126928
    """
    finite(margin=margin)
    not_negative(rated=rated, centre=centre)

    def difference(first: Side, second: Side, context: Context) -> Tensor:
        return reading.score(first) - reading.score(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        offset = margin + rated * reading.rating_gap(first, second) if rated else margin
        value = softplus(offset - difference(first, second, context))
        return value + centre * (reading.score(first) + reading.score(second)) ** 2 if centre else value

    needs: tuple[Need, ...] = ("score", "rating") if rated else ("score",)
    return make("bradley_terry", loss, difference, needs, {"margin": margin, "rated": rated, "centre": centre})


def bpr() -> Objective:
    """BPR for recommenders: -log s(x_taken - x_other), Bradley-Terry on item scores. Rendle et al. 2009, UAI.

    >>> first, second = Side(score=torch.tensor([0.7])), Side(score=torch.tensor([-0.3]))
    >>> round(bpr().loss(first, second, {}).item(), 6)
    0.313262
    """
    return of_scores("bpr", lambda d: softplus(-d), {})


def thurstone() -> Objective:
    """Negative log-likelihood under Thurstone's model (probit), -log Phi(d).

    >>> first, second = Side(score=torch.tensor([1.0])), Side(score=torch.tensor([1.0]))
    >>> round(thurstone().loss(first, second, {}).item(), 6)
    0.693147
    """
    return of_scores("thurstone", _probit, {})


def _probit(d: Tensor) -> Tensor:
    return -torch.special.log_ndtr(d)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def reward_hinge(margin: float = 1.0, smooth: float = 0.0) -> Objective:
    """Hinge on scores, max(0, margin - d); with smooth = g > 0 its corner is a parabola of width g.

    With t = margin - d the smooth hinge is 0 for t <= 0, t^2 / (2 g) up to t = g, t - g / 2 beyond: slope -1 in d from there on. The
    form with g = 5 is in the code of PAL (arXiv:2406.08469, by the card). ValueError unless margin, smooth >= 0.

    >>> first, second = Side(score=torch.tensor([0.5])), Side(score=torch.tensor([0.0]))
    >>> reward_hinge().loss(first, second, {}).item(), round(reward_hinge(smooth=5).loss(first, second, {}).item(), 4)
    (0.5, 0.025)
    """
    not_negative(margin=margin, smooth=smooth)

    def shape(d: Tensor) -> Tensor:
        t = torch.relu(margin - d)
        return torch.where(t < smooth, t**2 / (2 * smooth), t - smooth / 2) if smooth else t

    return of_scores("reward_hinge", shape, {"margin": margin, "smooth": smooth})


def focal(gamma: float = 2.0) -> Objective:
    """Focal loss, sp(-d) s(-d)^gamma: comparisons that are already right count little. ValueError unless gamma >= 0.

    Lin et al. 2017, arXiv:1708.02002, on Bradley-Terry's probability.

    >>> first, second = Side(score=torch.tensor([0.0])), Side(score=torch.tensor([0.0]))
    >>> round(focal().loss(first, second, {}).item(), 6)
    0.173287
    """
    not_negative(gamma=gamma)
    return of_scores("focal", lambda d: softplus(-d) * torch.exp(gamma * functional.logsigmoid(-d)), {"gamma": gamma})


#: weight of a tie, at the target p = 1/2, that makes it the tie of an objective; 1 for all others
TIE_WEIGHT = {"rao_kupper": 2.0}


def rao_kupper(theta: float = 2.0) -> Objective:
    """Bradley-Terry with ties after Rao & Kupper: -log P(first wins) = sp(-(d - ln theta)).

    P(tie) = (theta^2 - 1) s(d - ln theta) s(-d - ln theta), so a tie is the target p = 1/2, w = 2, up to the constant -log(theta^2 - 1);
    `rao_kupper_tie` gives it with the constant. Rao & Kupper 1967, JASA 62. ValueError unless theta >= 1.

    >>> first, second = Side(score=torch.tensor([0.0])), Side(score=torch.tensor([0.0]))
    >>> round(rao_kupper(theta=2.0).loss(first, second, {}).item(), 6)
    1.098612
    """
    _check_theta(theta, ties=False)
    return of_scores("rao_kupper", lambda d: softplus(math.log(theta) - d), {"theta": theta})


def rao_kupper_tie(difference: Tensor, theta: float = 2.0) -> Tensor:
    """[B] -log P(tie) of Rao & Kupper for score differences d; ValueError unless theta > 1.

    >>> round(rao_kupper_tie(torch.tensor([0.0]), 2.0).item(), 6)
    1.098612
    """
    _check_theta(theta, ties=True)
    c = math.log(theta)
    return softplus(c - difference) + softplus(c + difference) - math.log(theta * theta - 1)


def davidson(nu: float = 1.0) -> Objective:
    """Bradley-Terry with ties after Davidson: -log P(first wins) = log(1 + e^-d + nu e^(-d/2)).

    P(tie) = nu e^(-d/2) / (1 + e^-d + nu e^(-d/2)), so a tie is the target p = 1/2, w = 1, up to the constant -log nu; `davidson_tie`
    gives it with the constant. nu 0 is Bradley-Terry. Davidson 1970, JASA 65. ValueError unless nu >= 0.

    >>> first, second = Side(score=torch.tensor([0.0])), Side(score=torch.tensor([0.0]))
    >>> round(davidson(nu=1.0).loss(first, second, {}).item(), 6)
    1.098612
    """
    not_negative(nu=nu)
    return of_scores("davidson", lambda d: _davidson_total(d, nu) - d / 2, {"nu": nu})


def davidson_tie(difference: Tensor, nu: float = 1.0) -> Tensor:
    """[B] -log P(tie) of Davidson's model for score differences d; ValueError unless nu > 0.

    >>> round(davidson_tie(torch.tensor([0.0]), 1.0).item(), 6)
    1.098612
    """
    if not nu > 0:
        raise ValueError(f"nu is a positive number, not {nu!r}: at 0 there are no ties")
    return _davidson_total(difference, nu) - math.log(nu)


def _davidson_total(d: Tensor, nu: float) -> Tensor:
    """log(e^(d/2) + e^(-d/2) + nu)."""
    sides = torch.logaddexp(d / 2, -d / 2)
    return torch.logaddexp(sides, torch.full_like(sides, math.log(nu))) if nu > 0 else sides


def _check_theta(theta: float, *, ties: bool) -> None:
    if not (math.isfinite(theta) and theta >= 1) or (ties and theta == 1):
        raise ValueError(f"theta is {'above' if ties else 'at least'} 1, not {theta!r}: at 1 there are no ties")
