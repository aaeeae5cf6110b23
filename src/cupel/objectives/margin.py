"""Losses of one number, the margin m = beta ((log policy - log reference)(first) - the same of second).

Notation of all formulas: sp(x) = log(1 + e^x), s(x) = 1 / (1 + e^-x); a, b are the log-ratios of first and second, h = a - b.
"""

# pyright: strict
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cupel.objectives import reading
from cupel.objectives.build import finite, make, not_negative, of_log_ratios, one_of, positive
from cupel.objectives.numerics import bounded_exp, softplus
from cupel.objectives.types import Context, Objective, Side


def sigmoid(beta: float = 0.1) -> Objective:
    """DPO: negative log-likelihood of the label under Bradley-Terry, sp(-m).

    Rafailov et al. 2023, arXiv:2305.18290, eq. 7. ValueError unless beta > 0.

    >>> first = Side(logp=torch.tensor([-12.0]), reference_logp=torch.tensor([-13.0]))
    >>> second = Side(logp=torch.tensor([-15.0]), reference_logp=torch.tensor([-14.0]))
    >>> round(sigmoid(beta=0.1).loss(first, second, {}).item(), 6)
    0.598139
    """
    positive(beta=beta)
    return of_log_ratios("sigmoid", lambda m: softplus(-m), beta, {"beta": beta})


def hinge(beta: float = 0.1) -> Objective:
    """Hinge with a reference, max(0, 1 - m): no gradient once the margin exceeds 1.

    Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425, as TRL's `hinge`. ValueError unless beta > 0.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> hinge().loss(sides, sides, {}).item()
    1.0
    """
    positive(beta=beta)
    return of_log_ratios("hinge", lambda m: torch.relu(1 - m), beta, {"beta": beta})


def squared_hinge(beta: float = 0.1) -> Objective:
    """Squared hinge, max(0, 1 - m)^2. ValueError unless beta > 0.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> squared_hinge().loss(sides, sides, {}).item()
    1.0
    """
    positive(beta=beta)
    return of_log_ratios("squared_hinge", lambda m: torch.relu(1 - m) ** 2, beta, {"beta": beta})


def exponential(beta: float = 0.1) -> Objective:
    """Exponential loss, e^-m; continued by its tangent below m = -30, where the comparison counts as saturated.

    ValueError unless beta > 0.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> exponential().loss(sides, sides, {}).item()
    1.0
    """
    positive(beta=beta)
    return of_log_ratios("exponential", lambda m: bounded_exp(-m), beta, {"beta": beta}, exponent=lambda m: -m)


def exo(beta: float = 0.1, smoothing: float = 1e-3) -> Objective:
    """EXO: reverse KL from the policy's to the smoothed label's distribution over the two responses.

    s(m) [log s(m) - log(1 - e)] + s(-m) [log s(-m) - log e], e = smoothing. Least at m = log((1 - e) / e). Ji et al. 2024,
    arXiv:2402.00856, eq. 16, as TRL's `exo_pair`. ValueError unless beta > 0 and 0 < smoothing < 1/2.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(exo(smoothing=0.1).loss(sides, sides, {}).item(), 6)
    0.510826
    """
    positive(beta=beta)
    if not 0 < smoothing < 0.5:
        raise ValueError(f"smoothing lies strictly between 0 and 1/2, not {smoothing!r}: at 0 the loss is infinite (1e-3 is usual)")
    right, wrong = math.log1p(-smoothing), math.log(smoothing)

    def shape(m: Tensor) -> Tensor:
        return torch.sigmoid(m) * (functional.logsigmoid(m) - right) + torch.sigmoid(-m) * (functional.logsigmoid(-m) - wrong)

    return of_log_ratios("exo", shape, beta, {"beta": beta, "smoothing": smoothing})


def discopop(beta: float = 0.1, tau: float = 0.05) -> Objective:
    """DiscoPOP (log-ratio modulated loss), (1 - q) sp(-m) + q e^-m with q = s(m / tau).

    Not monotone: at tau = 0.05 it rises between m = -0.119 and 0.072. q e^-m is computed as e^(log q - m), so nothing overflows for
    tau < 1; for larger tau the exponent is continued by its tangent above 30. Lu et al. 2024, arXiv:2406.08414, eq. 5.
    ValueError unless beta, tau > 0.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(discopop().loss(sides, sides, {}).item(), 6)
    0.846574
    """
    positive(beta=beta, tau=tau)

    def exponent(m: Tensor) -> Tensor:
        return functional.logsigmoid(m / tau) - m

    def shape(m: Tensor) -> Tensor:
        return torch.sigmoid(-m / tau) * softplus(-m) + bounded_exp(exponent(m))

    return of_log_ratios("discopop", shape, beta, {"beta": beta, "tau": tau}, exponent=exponent)


def noise_tolerant(beta: float = 0.1) -> Objective:
    """Sigmoid surrogate of the 0-1 loss, s(-m): loss and swapped loss sum to 1, so symmetric flips move no minimiser.

    ValueError unless beta > 0.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> noise_tolerant().loss(sides, sides, {}).item()
    0.5
    """
    positive(beta=beta)
    return of_log_ratios("noise_tolerant", lambda m: torch.sigmoid(-m), beta, {"beta": beta})


def ropo(beta: float = 0.1, alpha: float = 14.0) -> Objective:
    """ROPO: logistic loss plus alpha times its noise-tolerant part, scaled so that no gradient in m exceeds 1.

    4 alpha / (1 + alpha)^2 [sp(-m) + alpha s(-m)]; the gradient is largest at s(m) = (alpha - 1) / (2 alpha). Liang et al. 2024,
    arXiv:2404.04102; form and default re-derived, not checked against the paper. ValueError unless beta > 0 and alpha > 1.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(ropo(alpha=2).loss(sides, sides, {}).item(), 6)
    1.50502
    """
    positive(beta=beta, alpha=alpha)
    if alpha <= 1:
        raise ValueError(f"alpha is above 1, not {alpha!r}: the bound on the gradient holds only there")
    scale = 4 * alpha / (1 + alpha) ** 2
    return of_log_ratios("ropo", lambda m: scale * (softplus(-m) + alpha * torch.sigmoid(-m)), beta, {"beta": beta, "alpha": alpha})


def ipo_sum(beta: float = 0.1) -> Objective:
    """IPO on summed log-ratios, (h - 1 / (2 beta))^2: pulls h to a finite target. beta is the paper's tau.

    Azar et al. 2023, arXiv:2310.12036, eq. 17. Its scale grows with length; `ipo` divides by tokens. ValueError unless beta > 0.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> ipo_sum(beta=0.25).loss(sides, sides, {}).item()
    4.0
    """
    positive(beta=beta)
    return of_log_ratios("ipo_sum", lambda h: (h - 1 / (2 * beta)) ** 2, 1.0, {"beta": beta})


def dpo_gamma(beta: float = 0.1, gamma: float = 1.0) -> Objective:
    """DPO whose reference counts gamma times: sp(-beta [(log policy difference) - gamma (log reference difference)]).

    gamma 1 is DPO, 0 is free of the reference. Chen et al. 2024, arXiv:2405.19534, eq. 4. ValueError unless beta > 0, gamma finite.

    >>> first, second = (Side(logp=torch.tensor([x]), reference_logp=torch.tensor([-9.0])) for x in (-1.0, -2.0))
    >>> round(dpo_gamma(beta=1.0, gamma=0.0).loss(first, second, {}).item(), 6)
    0.313262
    """
    positive(beta=beta)
    finite(gamma=gamma)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        reference = reading.there(first.reference_logp, "reference_logp") - reading.there(second.reference_logp, "reference_logp")
        return beta * (reading.logp(first) - reading.logp(second) - gamma * reference)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context))

    return make("dpo_gamma", loss, margin, ("logp", "reference"), {"beta": beta, "gamma": gamma})


def odpo(beta: float = 0.1, alpha: float = 1.0, gap: str = "linear") -> Objective:
    """ODPO: DPO with an offset, sp(-(m - D)), that grows with the gap g = |rating(first) - rating(second)|.

    gap: "linear" D = alpha g; "log" D = alpha max(0, log g); "constant" D = alpha, ratings unread. The offset belongs to the pair and
    keeps its sign when the label is flipped, as SimPO's gamma. Amini et al. 2024, arXiv:2402.10571; default not checked against the
    paper. ValueError unless beta > 0, alpha >= 0 and gap is one of the three.

    >>> sides = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-2.0]))
    >>> round(odpo(alpha=0.2, gap="constant").loss(sides, sides, {}).item(), 6)
    0.798139
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    one_of(("linear", "log", "constant"), gap=gap)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.log_ratio(first) - reading.log_ratio(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        m = margin(first, second, context)
        if gap == "constant":
            return softplus(alpha - m)
        apart = reading.rating_gap(first, second)
        return softplus(alpha * (apart if gap == "linear" else torch.log(apart.clamp(min=1))) - m)

    needs = ("logp", "reference") if gap == "constant" else ("logp", "reference", "rating")
    return make("odpo", loss, margin, needs, {"beta": beta, "alpha": alpha, "gap": gap})


def modpo(beta: float = 0.1, weight: float = 0.5) -> Objective:
    """MODPO: DPO for one of several goals, sp(-[beta h - (rating(first) - rating(second))] / weight).

    rating: the weighted sum of the *other* goals' rewards of a response; weight: this goal's weight. At weight 1 and equal ratings it
    is DPO. Zhou et al. 2023, arXiv:2310.03708, as in the authors' code. ValueError unless beta > 0 and 0 < weight <= 1.

    >>> first = Side(logp=torch.tensor([1.5]), reference_logp=torch.tensor([0.0]), rating=torch.tensor([0.12]))
    >>> second = Side(logp=torch.tensor([-0.5]), reference_logp=torch.tensor([0.0]), rating=torch.tensor([0.36]))
    >>> round(modpo(beta=0.1, weight=0.6).loss(first, second, {}).item(), 6)
    0.392248
    """
    positive(beta=beta, weight=weight)
    if weight > 1:
        raise ValueError(f"weight is a share of 1, not {weight!r}")

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        rest = reading.there(first.rating, "rating") - reading.there(second.rating, "rating")
        return (beta * (reading.log_ratio(first) - reading.log_ratio(second)) - rest) / weight

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context))

    return make("modpo", loss, margin, ("logp", "reference", "rating"), {"beta": beta, "weight": weight})
