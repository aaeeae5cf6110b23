"""Preferences that no score expresses: two vectors compared by a skew-symmetric form, and regression to a mean preference."""

# pyright: strict
from __future__ import annotations

from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import finite, make, not_negative, positive
from cupel.objectives.numerics import softplus
from cupel.objectives.types import Context, Objective, Side


def general_score(first: Tensor, second: Tensor, gate: Tensor | None = None) -> Tensor:
    """[B] s(first > second) = sum over planes l of g_l (x_l y'_l - y_l x'_l), (x_l, y_l) being columns 2l and 2l + 1 of a vector.

    first, second [B, D], D even; gate [B, D / 2], ones if None. s(i > j) = -s(j > i); vectors (r, 1) give r_i - r_j. Zhang et al. 2024
    (GPM), arXiv:2410.02197, definition 4.3 (section 4.2 of the paper prints the opposite sign). ValueError for odd or unequal D.

    >>> import torch
    >>> general_score(torch.tensor([[0.6, 0.8, -0.3, 0.4]]), torch.tensor([[1.0, 0.0, 0.5, -0.5]])).item()
    -0.8500000238418579
    """
    width = first.shape[-1]
    if width != second.shape[-1] or width % 2:
        raise ValueError(f"embedding: both vectors have the same even number of columns, not {width} and {second.shape[-1]}")
    x, y, u, v = first[..., 0::2], first[..., 1::2], second[..., 0::2], second[..., 1::2]
    planes = x * v - y * u
    if gate is not None and gate.shape[-1] != width // 2:
        raise ValueError(f"gate: one weight for each of the {width // 2} planes, not {gate.shape[-1]}")
    return (planes if gate is None else gate * planes).sum(dim=-1)


def _score(first: Side, second: Side) -> Tensor:
    """The gate belongs to the prompt; where the two sides carry one each, their mean keeps the score antisymmetric."""
    gates = [reading.there(side.gate, "gate") for side in (first, second) if side.gate is not None]
    gate = None if not gates else sum(gates[1:], gates[0]) / len(gates)
    return general_score(reading.there(first.embedding, "embedding"), reading.there(second.embedding, "embedding"), gate)


def general_preference(tau: float = 0.1, offset: float = 0.0) -> Objective:
    """GPM: sp(-(s - offset) / tau), s the general preference score of two vectors. Margin: s / tau.

    Can hold cycles; on vectors (r, 1) it is Bradley-Terry. Zhang et al. 2024, arXiv:2410.02197, appendix A.2. ValueError unless tau > 0
    and offset is finite.

    >>> import torch
    >>> first, second = (Side(embedding=torch.tensor([[r, 1.0]])) for r in (2.0, 0.0))
    >>> round(general_preference(tau=1.0).loss(first, second, {}).item(), 6)
    0.126928
    """
    positive(tau=tau)
    finite(offset=offset)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return _score(first, second) / tau

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(offset / tau - margin(first, second, context))

    return make("general_preference", loss, margin, ("embedding",), {"tau": tau, "offset": offset})


def general_preference_squared(tau: float = 0.1, target: float = 10.0) -> Objective:
    """GPM by regression: (s / tau - target)^2 / 2, target the log-odds that the first is better. Margin: s / tau.

    Zhang et al. 2024, arXiv:2410.02197, appendix A.2 (target 10 in the authors' code). ValueError unless tau > 0, target finite.

    >>> import torch
    >>> first, second = (Side(embedding=torch.tensor([[r, 1.0]])) for r in (2.0, 0.0))
    >>> general_preference_squared(tau=1.0, target=4.0).loss(first, second, {}).item()
    2.0
    """
    positive(tau=tau)
    finite(target=target)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return _score(first, second) / tau

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return (margin(first, second, context) - target) ** 2 / 2

    return make("general_preference_squared", loss, margin, ("embedding",), {"tau": tau, "target": target})


def gpo(beta: float = 0.001, gamma: float = 0.0) -> Objective:
    """GPO: sum over both responses of (log-ratio / n^gamma - rating / beta)^2, no label read.

    rating: the response's mean score against samples of the current policy; log-ratio: policy to that policy. With rating = win rate -
    1/2 it is SPPO with estimated probabilities. Zhang et al. 2024, arXiv:2410.02197, eq. 5.3 with log Z = 0. The claim of an order never
    enters, so swap is "same". Margin: difference of log-ratios. ValueError unless beta > 0 and gamma >= 0.

    >>> import torch
    >>> side = Side(logp=torch.tensor([0.1]), reference_logp=torch.tensor([0.0]), rating=torch.tensor([0.8 / 3]))
    >>> round(gpo(beta=0.5).loss(side, side, {}).item() / 2, 6)
    0.187778
    """
    positive(beta=beta)
    not_negative(gamma=gamma)

    def miss(side: Side) -> Tensor:
        ratio = reading.log_ratio(side) / reading.n_tokens(side) ** gamma if gamma else reading.log_ratio(side)
        return (ratio - reading.there(side.rating, "rating") / beta) ** 2

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return miss(first) + miss(second)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return reading.log_ratio(first) - reading.log_ratio(second)

    needs = ("logp", "reference", "rating", "length") if gamma else ("logp", "reference", "rating")
    return make("gpo", loss, margin, needs, {"beta": beta, "gamma": gamma}, swap="same")
