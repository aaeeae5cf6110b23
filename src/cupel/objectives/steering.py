"""SteerLM 2.0: a policy that is told attribute values learns to answer as the Bayes posterior of a rating model says.

For a prompt x and wanted attributes a the target is P(y|a,x) proportional to P(a|x,y) P(y|x): a rating model gives P(a|x,y), a plain
language model P(y|x). n responses y_i are drawn once from a proposal Q', and everything but log Q of the policy is computed beforehand:

    w'_i = softmax_i(log P(a|x,y_i) + log P(y_i|x) - log Q'(y_i|a,x))      target weights of the list
    b'_i = softmax_i(log Q(y_i|a,x) - log Q'(y_i|a,x))                     what the policy makes of the same list
    D    = sum_i w'_i log(w'_i / b'_i),   dD / d log Q(y_i) = -(w'_i - b'_i)

Wang et al. 2024, HelpSteer2, arXiv:2406.08673, section 4.5 and the authors' training code, as the method card gives them. Their 1e-8 inside
the logarithm is left out: the logarithms here are exact.
"""

# pyright: strict
from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cupel.objectives.build import one_of
from cupel.objectives.lists import ListObjective, RankedList, make_list

#: stands for minus infinity in a softmax, where an infinity would make gradients of padding NaN
_NOTHING = -1e30
#: number of beta-distributed pseudo-observations behind a predicted rating
CONCENTRATION = 24.0
#: a scaled rating is brought into [MARGIN, 1 - MARGIN]: outside the open unit interval there is no Beta distribution
MARGIN = 1e-3
#: the least probability of a rating; its logarithm is the least that one attribute can say against a response
LEAST = 1e-30


def rating_probabilities(predicted: Float[Tensor, "*shape"], *, levels: int = 5, bins: str = "equal") -> Float[Tensor, "*shape K"]:
    """P(rating = 0 ... levels-1 | predicted rating), float64, rows summing to 1: the mass of a Beta distribution in each of K bins.

    z = predicted / (levels - 1), brought into [.001, .999]; Beta(24 z, 24 - 24 z) on [0, 1]. bins "equal": K equal parts; "rounding":
    boundaries half way between the ratings, (0, .125, .375, .625, .875, 1) for five. Which of the two the authors use could not be seen
    [unverified]; they can disagree about the most probable rating (3.2: 4 under equal bins, 3 under rounding). ValueError for unknown bins,
    fewer than two levels and predictions that are not finite.

    >>> [round(p, 4) for p in rating_probabilities(torch.tensor(2.0)).tolist()]
    [0.0006, 0.163, 0.6727, 0.163, 0.0006]
    """
    return _mass(predicted, levels, bins)


def attribute_log_probability(
    predicted: Float[Tensor, "*shape A"], wanted: Float[Tensor, "*shape A"], *, levels: int = 5, bins: str = "equal"
) -> Float[Tensor, "*shape"]:
    """log P(a|x,y): sum over attributes of the log probability of the wanted rating, float64; attributes are taken as independent.

    A probability below 1e-30 counts as that. ValueError as `rating_probabilities`, and where a wanted rating is not one of 0 ... levels-1.

    >>> said, wanted = torch.tensor([[3.5, 3.6, 3.9, 1.8, 2.2]]), torch.tensor([[4.0, 4.0, 4.0, 2.0, 2.0]])
    >>> round(attribute_log_probability(said, wanted).item(), 4)
    -1.1908
    """
    index = wanted.long()
    bad = (index != wanted) | (index < 0) | (index >= levels)
    if bool(bad.any()):
        raise ValueError(f"{int(bad.sum())} of {bad.numel()} wanted ratings are none of 0, 1, ... {levels - 1}")
    mass = _mass(predicted, levels, bins).gather(-1, index.cpu()[..., None])[..., 0]
    return mass.clamp(min=LEAST).log().sum(dim=-1)


def _mass(predicted: Tensor, levels: int, bins: str) -> Tensor:
    one_of(("equal", "rounding"), bins=bins)
    if levels < 2:
        raise ValueError(f"ratings have at least two levels, not {levels}")
    if not bool(predicted.isfinite().all()):
        raise ValueError(f"{int((~predicted.isfinite()).sum())} of {predicted.numel()} predicted ratings are not finite")
    special: Any = import_module("scipy.special")
    z = (predicted.detach().double().cpu() / (levels - 1)).clamp(MARGIN, 1 - MARGIN)[..., None]
    steps = torch.arange(levels + 1, dtype=torch.float64)
    edges = steps / levels if bins == "equal" else ((steps - 0.5) / (levels - 1)).clamp(0, 1)
    alpha, beta = (CONCENTRATION * z).numpy(), (CONCENTRATION * (1 - z)).numpy()
    below = torch.from_numpy(special.betainc(alpha, beta, edges.numpy()))  # pyright: ignore[reportUnknownMemberType]
    above = torch.from_numpy(special.betaincc(alpha, beta, edges.numpy()))  # pyright: ignore[reportUnknownMemberType]
    left, right = below.diff(dim=-1), -above.diff(dim=-1)
    return torch.where(edges[:-1] > z, right, left).clamp(min=0)  # each tail from its own side, where no digits cancel


def steer_list(
    log_policy: Float[Tensor, "B N"], log_attributes: Float[Tensor, "B N"], log_prior: Float[Tensor, "B N"],
    log_proposal: Float[Tensor, "B N"], *, mask: Bool[Tensor, "B N"] | None = None, n_tokens: Tensor | None = None,
) -> RankedList:  # fmt: skip
    """B groups of N responses as the lists that `steer` reads: score log Q - log Q', relevance log P(a|x,y) + log P(y|x) - log Q'.

    log_policy is log Q(y|a,x), with gradient; the rest is fixed. Warns where a group has a single response: it has no gradient.

    >>> row = torch.tensor([[-1.2, -3.0, -0.5]])
    >>> lists = steer_list(torch.zeros(1, 3), row, torch.zeros(1, 3), torch.zeros(1, 3))
    >>> lists.relevance.tolist() == row.tolist()
    True
    """
    target = (log_attributes + log_prior - log_proposal).detach()
    if mask is not None:
        target = torch.where(mask, target, torch.zeros_like(target))
    lists = RankedList(log_policy - log_proposal, mask=mask, relevance=target, n_tokens=n_tokens)
    alone = int((lists.counts == 1).sum())
    if alone:
        warnings.warn(f"{alone} of {len(lists)} groups have one response: their weights are 1 and they teach nothing", stacklevel=2)
    return lists


def _log_weights(values: Tensor, real: Tensor) -> Tensor:
    return torch.log_softmax(torch.where(real, values, torch.full_like(values, _NOTHING)), dim=1)


def _target(lists: RankedList) -> Tensor:
    if lists.relevance is None:
        raise ValueError("steer needs relevance of a list: log P(a|x,y) + log P(y|x) - log Q'(y|a,x), as `steer_list` makes it")
    return _log_weights(lists.relevance.detach().to(lists.values.dtype), lists.real)


def steer_weights(lists: RankedList) -> tuple[Tensor, Tensor]:
    """(w', b'), each [B, N]: target weights and the policy's, without gradient, 0 outside the mask. Their difference is minus the gradient.

    >>> lists = RankedList(torch.tensor([[0.0, 0.0]]), relevance=torch.tensor([[0.0, 0.0]]))
    >>> [w.tolist() for w in steer_weights(lists)]
    [[[0.5, 0.5]], [[0.5, 0.5]]]
    """
    with torch.no_grad():
        both = (_target(lists), _log_weights(lists.values, lists.real))
        wanted, have = (torch.where(lists.real, x.exp(), torch.zeros_like(x)) for x in both)
    return wanted, have


def effective_size(lists: RankedList) -> Tensor:
    """[B] 1 / sum_i w'_i^2: how many responses of a group carry its target. Near 1, as with long answers, a group imitates one response.

    >>> effective_size(RankedList(torch.zeros(1, 4), relevance=torch.zeros(1, 4))).tolist()
    [4.0]
    """
    square = (steer_weights(lists)[0] ** 2).sum(dim=1)
    return torch.where(square > 0, 1 / square.clamp(min=torch.finfo(square.dtype).tiny), torch.zeros_like(square))


def steer(baseline: bool = True, reduction: str = "sum") -> ListObjective:
    """SteerLM 2.0: D = sum w' log(w' / b'), w' = softmax(relevance), b' = softmax(r); relevance and r as `steer_list` makes them.

    baseline false leaves b' out, sum w' (log w' - r): imitation by weight, which does not stop at the target when n is small. reduction
    "token" divides by the list's mean number of tokens, as the authors' code does; "sum" does not. It is `info_nca` minus the entropy of
    its target, so that 0 is reached. Wang et al. 2024, arXiv:2406.08673. ValueError for unknown reductions.

    >>> lists = RankedList(torch.tensor([[0.0, 0.0]]), relevance=torch.tensor([[0.0, 0.0]]))
    >>> steer().loss(lists).item()
    0.0
    """
    one_of(("sum", "token"), reduction=reduction)

    def loss(lists: RankedList) -> Tensor:
        real = lists.real
        wanted = _target(lists)
        have = _log_weights(lists.values, real) if baseline else lists.values
        each = wanted.exp() * (wanted - have)
        value = torch.where(real, each, torch.zeros_like(each)).sum(dim=1)
        if reduction == "token":
            assert lists.n_tokens is not None
            tokens = torch.where(real, lists.n_tokens, torch.zeros_like(lists.n_tokens)).sum(dim=1) / lists.counts.clamp(min=1)
            value = value / tokens.clamp(min=1).to(value.dtype)
        return value

    needs = ("relevance", "length") if reduction == "token" else ("relevance",)
    return make_list("steer", loss, {"baseline": baseline, "reduction": reduction}, needs)
