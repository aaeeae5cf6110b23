"""Objectives of single responses, each called good or bad, measured against a baseline of the step or the run.

A good response alone is `loss(response, Side(), context)`, a bad one `loss(Side(), response, context)`; a pair is the sum of both. So
flipping the label of a response is swapping it with nothing, and every treatment of pairs treats single responses.
"""

# pyright: strict
from __future__ import annotations

import torch
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import make, not_negative, of_each, positive
from cupel.objectives.numerics import softplus
from cupel.objectives.types import Context, Objective, Side


def _present(first: Side, second: Side) -> list[Side]:
    return [side for side in (first, second) if len(side)]


def kto(beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0) -> Objective:
    """KTO: desirable s(-beta (a - z)) for a good response, undesirable s(-beta (z - b)) for a bad one.

    Context: z = max(0, mean of `mismatch_log_ratio` over the step), the log-ratios of responses to other prompts, without gradient.
    Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8, as TRL. ValueError unless beta > 0 and both weights are at least 0.

    >>> good = Side(*[torch.tensor([x]) for x in (-1.0,)], reference_logp=torch.tensor([-1.0]), mismatch_log_ratio=torch.tensor([0.0]))
    >>> objective = kto()
    >>> objective.loss(good, Side(), objective.context(good, Side(), {})).item()
    0.5
    """
    positive(beta=beta)
    not_negative(desirable=desirable, undesirable=undesirable)

    def good(side: Side, context: Context) -> Tensor:
        return desirable * torch.sigmoid(beta * (reading.statistic(context, "baseline", "kto") - reading.log_ratio(side)))

    def bad(side: Side, context: Context) -> Tensor:
        return undesirable * torch.sigmoid(beta * (reading.log_ratio(side) - reading.statistic(context, "baseline", "kto")))

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        ratios = [reading.there(side.mismatch_log_ratio, "mismatch_log_ratio") for side in _present(first, second)]
        return {"baseline": torch.cat(ratios).mean().clamp(min=0)}

    settings = {"beta": beta, "desirable": desirable, "undesirable": undesirable}
    needs = ("logp", "reference", "mismatch")
    return of_each("kto", good, bad, lambda side: beta * reading.log_ratio(side), needs, settings, context=statistics)


def kto_pair(beta: float = 0.1) -> Objective:
    """KTO on pairs: s(-beta (a - max(0, mean b))) + s(-beta (max(0, mean a) - b)), means over the step without gradient.

    OpenRLHF's "vanilla" loss and older TRL's `kto_pair`. Context: `first` and `second`, the two clamped means; they stay while the
    flipped loss is computed. ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> objective = kto_pair()
    >>> objective.loss(side, side, objective.context(side, side, {})).item()
    1.0
    """
    positive(beta=beta)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        low, high = reading.statistic(context, "second", "kto_pair"), reading.statistic(context, "first", "kto_pair")
        a, b = reading.log_ratio(first), reading.log_ratio(second)
        return torch.sigmoid(beta * (low - a)) + torch.sigmoid(beta * (b - high))

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.log_ratio(first) - reading.log_ratio(second))

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        return {
            "first": reading.log_ratio(first).mean().clamp(min=0),
            "second": reading.log_ratio(second).mean().clamp(min=0),
        }

    return make("kto_pair", loss, margin, ("logp", "reference"), {"beta": beta}, context=statistics)


def bco(beta: float = 0.1) -> Objective:
    """BCO: sp(-(beta a - shift)) + sp(beta b - shift), the shift being the mean of all beta-scaled log-ratios of the run so far.

    Context: `shift` and `count`, updated with the step's responses before use, without gradient. Jung et al. 2024, arXiv:2404.04656.
    ValueError unless beta > 0.

    >>> side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    >>> objective = bco()
    >>> round(objective.loss(side, side, objective.context(side, side, {})).item(), 6)
    1.386294
    """
    positive(beta=beta)

    def good(side: Side, context: Context) -> Tensor:
        return softplus(reading.statistic(context, "shift", "bco") - beta * reading.log_ratio(side))

    def bad(side: Side, context: Context) -> Tensor:
        return softplus(beta * reading.log_ratio(side) - reading.statistic(context, "shift", "bco"))

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        rewards = beta * torch.cat([reading.log_ratio(side) for side in _present(first, second)])
        seen = previous["count"].to(rewards) if "count" in previous else rewards.new_zeros(())
        total = seen + len(rewards)
        before = previous["shift"].to(rewards) if "shift" in previous else rewards.new_zeros(())
        return {"shift": before + (rewards.mean() - before) * len(rewards) / total, "count": total}

    return of_each("bco", good, bad, lambda side: beta * reading.log_ratio(side), ("logp", "reference"), {"beta": beta}, context=statistics)


def bpo() -> Objective:
    """BPO for recommenders: -log s(x) for an item that was taken, -log(1 - s(x)) for one that was not, x the item's score.

    Yu & Qin 2020, arXiv:2007.07204, as in the authors' code; their noisy-label model of unobserved items is a treatment of the label.

    >>> item = Side(score=torch.tensor([0.0]))
    >>> round(bpo().loss(item, item, {}).item(), 6)
    1.386294
    """

    def good(side: Side, context: Context) -> Tensor:
        return softplus(-reading.score(side))

    def bad(side: Side, context: Context) -> Tensor:
        return softplus(reading.score(side))

    return of_each("bpo", good, bad, reading.score, ("score",), {})


def bpo_probability() -> Objective:
    """BPO on probabilities: -s(x) for an item that was taken, -(1 - s(x)) for one that was not, x the item's score.

    With `missed(g, form="surrogate")` it is NBPOs, the likelihood whose logarithms are left out: the loss is minus the sum of
    (1 - g) s for what was taken and 1 - s + g s for what was not. Its gradient vanishes where s is near 0 or 1, and it ranks worst of
    the family (card 05-nbpo: NDCG@20 .050 against .083 of the surrogate with `bpo`).
    Yu & Qin 2020, arXiv:2007.07204, as in the authors' code.

    >>> item = Side(score=torch.tensor([0.0]))
    >>> bpo_probability().loss(item, item, {}).item()
    -1.0
    """

    def good(side: Side, context: Context) -> Tensor:
        return -torch.sigmoid(reading.score(side))

    def bad(side: Side, context: Context) -> Tensor:
        return -torch.sigmoid(-reading.score(side))

    return of_each("bpo_probability", good, bad, reading.score, ("score",), {})


def squared_probability() -> Objective:
    """Squared error of the probability: (1 - s(x))^2 for an item that was taken, s(x)^2 for one that was not, x the item's score.

    The loss of Rel-MF on real data: Saito et al. 2020, WSDM (card 32-unbiased-mnar); with the treatment `unobserved` its WMF.

    >>> item = Side(score=torch.tensor([0.0]))
    >>> squared_probability().loss(item, item, {}).item()
    0.5
    """

    def good(side: Side, context: Context) -> Tensor:
        return torch.sigmoid(-reading.score(side)) ** 2

    def bad(side: Side, context: Context) -> Tensor:
        return torch.sigmoid(reading.score(side)) ** 2

    return of_each("squared_probability", good, bad, reading.score, ("score",), {})


def squared_score() -> Objective:
    """Squared error of the score itself: (1 - x)^2 for an item that was taken, x^2 for one that was not.

    The regression of weighted matrix factorisation (with the treatment `unobserved`) and of ExpoMF (with `exposed`, form "gaussian",
    precision lambda: lambda / 2 of this loss is its energy). Margin: x.

    >>> item = Side(score=torch.tensor([0.25]))
    >>> squared_score().loss(item, Side(), {}).item(), squared_score().loss(Side(), item, {}).item()
    (0.5625, 0.0625)
    """

    def good(side: Side, context: Context) -> Tensor:
        return (1 - reading.score(side)) ** 2

    def bad(side: Side, context: Context) -> Tensor:
        return reading.score(side) ** 2

    return of_each("squared_score", good, bad, reading.score, ("score",), {})
