"""Objectives that read the policy alone. x = logp / n is the log-probability per token, D = logp(first) - logp(second)."""

# pyright: strict
from __future__ import annotations

import torch
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import finite, make, not_negative, one_of, plus, positive
from cupel.objectives.numerics import CERTAIN, bounded_expm1, log1mexp, past_limit, softplus
from cupel.objectives.types import Context, Need, Objective, Side

REDUCTIONS = ("token", "sequence", "sum")


def nll(reduction: str):
    """(loss of a side, context, needs) of imitating a response, by the three reductions in use.

    "sum" -logp; "sequence" -logp / n; "token" -logp over the mean length of the step's first sides, so that the mean over the step is
    the mean over its tokens (TRL's `sft`). ValueError for other reductions.
    """
    one_of(REDUCTIONS, reduction=reduction)

    def loss(side: Side, context: Context) -> Tensor:
        if reduction == "sum":
            return -reading.logp(side)
        if reduction == "sequence":
            return -reading.mean_logp(side)
        return -reading.logp(side) / reading.statistic(context, "mean_tokens", "the token mean of an SFT term")

    def context(first: Side, second: Side, previous: Context) -> Context:
        return {"mean_tokens": reading.n_tokens(first).to(reading.logp(first).dtype).mean()}

    needs: tuple[Need, ...] = ("logp",) if reduction == "sum" else ("logp", "length")
    return loss, context if reduction == "token" else None, needs


def sft(reduction: str = "token") -> Objective:
    """Negative log-likelihood of the first side; its gradient does not see the second, which may be absent. Margin: D.

    reduction: "token", "sequence" or "sum", see `nll`; published recipes differ (TRL: token). ValueError for others. A response alone
    that was called bad (the first side empty) has nothing to imitate: its loss is 0.

    >>> side = Side(logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> sft("sequence").loss(side, side, {}).item(), sft("sequence").loss(side, Side(), {}).item()
    (2.0, 2.0)
    """
    imitate, context, needs = nll(reduction)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        if len(first) == 0:
            return -reading.logp(second)
        return reading.logp(first) if len(second) == 0 else reading.logp(first) - reading.logp(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return 0.0 * reading.logp(second) if len(first) == 0 else imitate(first, context)

    return make("sft", loss, margin, needs, {"reduction": reduction}, context=context, either_empty=True)


def simpo(beta: float = 2.0, gamma: float = 0.8) -> Objective:
    """SimPO: sp(-(beta (x_first - x_second) - gamma)). Margin: beta (x_first - x_second).

    gamma is in units of the margin (TRL's `simpo_gamma`; the paper tunes gamma / beta between 0.3 and 0.5). It stays when the label is
    flipped. Meng et al. 2024, arXiv:2405.14734, eq. 6. ValueError unless beta > 0, gamma finite.

    >>> side = Side(logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> round(simpo(gamma=0.0).loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    finite(gamma=gamma)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.mean_logp(first) - reading.mean_logp(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(gamma - margin(first, second, context))

    return make("simpo", loss, margin, ("logp", "length"), {"beta": beta, "gamma": gamma})


def alpha_po(beta: float = 2.0, gamma: float = 0.5, alpha: float = 0.25) -> Objective:
    """AlphaPO: SimPO on transformed averages (1 - e^(-alpha x)) / alpha; alpha 0 is SimPO.

    e^(-alpha x) is continued by its tangent where -alpha x > 30. Gupta et al. 2025, arXiv:2501.03884, as TRL's CPO trainer.
    ValueError unless beta > 0, gamma and alpha finite.

    >>> side = Side(logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> round(alpha_po(gamma=0.0).loss(side, side, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)
    finite(gamma=gamma, alpha=alpha)

    def reward(side: Side) -> Tensor:
        x = reading.mean_logp(side)
        return x if alpha == 0 else -bounded_expm1(-alpha * x) / alpha

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reward(first) - reward(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(gamma - margin(first, second, context))

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        return past_limit(-alpha * reading.mean_logp(first)) | past_limit(-alpha * reading.mean_logp(second))

    settings = {"beta": beta, "gamma": gamma, "alpha": alpha}
    return make("alpha_po", loss, margin, ("logp", "length"), settings, saturated=saturated)


def cpo(beta: float = 0.1, sft: float = 1.0, reduction: str = "token") -> Objective:
    """CPO: sp(-beta D) + sft * NLL(first). Margin: beta D.

    Xu et al. 2024, arXiv:2401.08417. TRL's default is the token mean with weight 1; the paper sums. With a flipped label the NLL is
    that of the other response. ValueError unless beta > 0, sft >= 0 and the reduction is one of token, sequence, sum.

    >>> side = Side(logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> round(cpo(reduction="sequence").loss(side, side, {}).item(), 6)
    2.693147
    """
    return _contrast("cpo", "sigmoid", beta, sft, reduction)


def cpo_hinge(beta: float = 0.1, sft: float = 1.0, reduction: str = "token") -> Objective:
    """CPO with a hinge: max(0, 1 - beta D) + sft * NLL(first). Arguments and errors as `cpo`.

    >>> side = Side(logp=torch.tensor([-6.0]))
    >>> cpo_hinge(sft=0.0).loss(side, side, {}).item()
    1.0
    """
    return _contrast("cpo_hinge", "hinge", beta, sft, reduction)


def cpo_ipo(beta: float = 0.1, sft: float = 1.0, reduction: str = "token") -> Objective:
    """CPO with IPO's square: (x_first - x_second - 1 / (2 beta))^2 + sft * NLL(first). Arguments and errors as `cpo`.

    >>> side = Side(logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> cpo_ipo(beta=0.25, sft=0.0).loss(side, side, {}).item()
    4.0
    """
    return _contrast("cpo_ipo", "ipo", beta, sft, reduction)


def _contrast(name: str, shape: str, beta: float, sft: float, reduction: str) -> Objective:
    positive(beta=beta)
    not_negative(sft=sft)
    imitate, context, extra = nll(reduction)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        if shape == "ipo":
            return reading.mean_logp(first) - reading.mean_logp(second)
        return beta * (reading.logp(first) - reading.logp(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        m = margin(first, second, context)
        if shape == "sigmoid":
            contrast = softplus(-m)
        elif shape == "hinge":
            contrast = torch.relu(1 - m)
        else:
            contrast = (m - 1 / (2 * beta)) ** 2
        return contrast + sft * imitate(first, context) if sft else contrast

    needs = plus(plus(extra if sft else (), "logp"), *(("length",) if shape == "ipo" else ()))
    settings = {"beta": beta, "sft": sft, "reduction": reduction}
    return make(name, loss, margin, needs, settings, context=context if sft else None)


def slic(delta: float = 1.0, sft: float = 0.0, reduction: str = "sum") -> Objective:
    """SLiC-HF without a reference: max(0, delta - D) + sft * NLL(first). Margin: D.

    Zhao et al. 2023, arXiv:2305.10425; defaults not checked against the paper, whose SFT term may use another response: that is
    `with_target`. ValueError unless delta, sft >= 0.

    >>> side = Side(logp=torch.tensor([-6.0]))
    >>> slic().loss(side, side, {}).item()
    1.0
    """
    not_negative(delta=delta, sft=sft)
    imitate, context, extra = nll(reduction)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return reading.logp(first) - reading.logp(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        contrast = torch.relu(delta - margin(first, second, context))
        return contrast + sft * imitate(first, context) if sft else contrast

    needs = plus(extra if sft else (), "logp")
    settings = {"delta": delta, "sft": sft, "reduction": reduction}
    return make("slic", loss, margin, needs, settings, context=context if sft else None)


def orpo(beta: float = 0.1) -> Objective:
    """ORPO: -x_first + beta sp(-O), O the difference of log-odds x - log(1 - e^x). Margin: O. beta is the paper's lambda.

    Averages are taken to be at most -1e-6 inside the odds, where a certain response has none; such comparisons count as saturated.
    Hong et al. 2024, arXiv:2403.07691, eq. 6. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-6.0]), n_tokens=torch.tensor([3]))
    >>> round(orpo(beta=1.0).loss(side, side, {}).item(), 6)
    2.693147
    """
    positive(beta=beta)

    def log_odds(side: Side) -> Tensor:
        x = reading.mean_logp(side).clamp(max=CERTAIN)
        return x - log1mexp(x)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return log_odds(first) - log_odds(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return beta * softplus(-margin(first, second, context)) - reading.mean_logp(first)

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        return (reading.mean_logp(first).detach() > CERTAIN) | (reading.mean_logp(second).detach() > CERTAIN)

    return make("orpo", loss, margin, ("logp", "length"), {"beta": beta}, saturated=saturated)
