"""Objectives of lists: r are a list's scores, K its number of responses."""

# pyright: strict
from __future__ import annotations

import torch
from torch import Tensor

from cupel.objectives.build import not_negative, one_of, positive
from cupel.objectives.lists import ListObjective, RankedList, make_list, ranks
from cupel.objectives.numerics import softplus

#: stands for minus infinity in a log-sum-exp, where an infinity would make gradients of padding NaN
_NOTHING = -1e30


def _among(values: Tensor, allowed: Tensor) -> Tensor:
    """[B, N] log sum over k of e^values[b, j, k] where allowed [B, N, N]; very negative where nothing is allowed."""
    return torch.logsumexp(torch.where(allowed, values, torch.full_like(values, _NOTHING)), dim=-1)


def _ordered(lists: RankedList) -> Tensor:
    """[B, j, k] bool: both are responses and j stands before k in the target order."""
    place, real = lists.places, lists.real
    return (place[:, :, None] < place[:, None, :]) & real[:, :, None] & real[:, None, :]


def _differences(lists: RankedList) -> Tensor:
    """[B, j, k] r_j - r_k."""
    r = lists.values
    return r[:, :, None] - r[:, None, :]


def plackett_luce(beta: float = 1.0) -> ListObjective:
    """Negative log-likelihood of the target order under Plackett-Luce: sum_k [log sum over k and those after it of e^(beta r) - beta r_k].

    For two responses it is Bradley-Terry; PRO (Song et al. 2023) is the same sum. Plackett 1975, Applied Statistics 24. ValueError
    unless beta > 0.

    >>> round(plackett_luce().loss(RankedList(torch.tensor([[2.0, 0.0]]))).item(), 6)
    0.126928
    """
    positive(beta=beta)

    def loss(lists: RankedList) -> Tensor:
        r = beta * lists.values
        place, real = lists.places, lists.real
        left = (place[:, :, None] <= place[:, None, :]) & real[:, :, None] & real[:, None, :]
        total = _among(r[:, None, :].expand(left.shape), left)
        return torch.where(real, total - r, torch.zeros_like(r)).sum(dim=1)

    return make_list("plackett_luce", loss, {"beta": beta})


def softmax_dpo(beta: float = 1.0) -> ListObjective:
    """S-DPO: log(1 + sum over the others of e^(beta (r_other - r_best))), best the first of the target order.

    Chen et al. 2024, arXiv:2406.09215; on plain scores it is the softmax loss of the best. ValueError unless beta > 0.

    >>> round(softmax_dpo().loss(RankedList(torch.tensor([[2.0, 0.0]]))).item(), 6)
    0.126928
    """
    positive(beta=beta)

    def loss(lists: RankedList) -> Tensor:
        r = torch.where(lists.real, beta * lists.values, torch.full_like(lists.values, _NOTHING))
        best = torch.where((lists.places == 1) & lists.real, lists.values, torch.zeros_like(lists.values)).sum(dim=1)
        return torch.where(lists.counts > 0, torch.logsumexp(r, dim=1) - beta * best, torch.zeros_like(best))

    return make_list("softmax_dpo", loss, {"beta": beta})


def all_pairs(beta: float = 1.0) -> ListObjective:
    """Mean over ordered pairs of sp(-beta (r_better - r_worse)): Bradley-Terry on every pair of the list. ValueError unless beta > 0.

    >>> round(all_pairs().loss(RankedList(torch.tensor([[2.0, 0.0]]))).item(), 6)
    0.126928
    """
    positive(beta=beta)

    def loss(lists: RankedList) -> Tensor:
        pairs = _ordered(lists)
        cost = torch.where(pairs, softplus(-beta * _differences(lists)), torch.zeros_like(lists.score[:, :, None]))
        return cost.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)

    return make_list("all_pairs", loss, {"beta": beta})


def rrhf(sft: float = 0.0) -> ListObjective:
    """RRHF: sum over ordered pairs of max(0, r_worse - r_better), plus sft times -logp / n of the best response.

    Yuan et al. 2023, arXiv:2304.05302, where r is the mean log-probability and sft 1; not checked against the paper. ValueError unless
    sft >= 0.

    >>> rrhf().loss(RankedList(torch.tensor([[0.0, 2.0]]))).item()
    2.0
    """
    not_negative(sft=sft)

    def loss(lists: RankedList) -> Tensor:
        wrong = torch.where(_ordered(lists), torch.relu(-_differences(lists)), torch.zeros_like(lists.score[:, :, None]))
        value = wrong.sum(dim=(1, 2))
        if sft and lists.logp is not None and lists.n_tokens is not None:
            best = (lists.places == 1) & lists.real
            value = value - sft * torch.where(best, lists.logp / lists.n_tokens, torch.zeros_like(lists.logp)).sum(dim=1)
        return value

    return make_list("rrhf", loss, {"sft": sft}, ("logp", "length") if sft else ())


def _targets(lists: RankedList, alpha: float) -> Tensor:
    """[B, N] softmax of the stated scores over alpha, 0 outside the mask."""
    assert lists.relevance is not None
    return torch.softmax(torch.where(lists.real, lists.relevance / alpha, torch.full_like(lists.relevance, _NOTHING)), dim=1)


def info_nca(alpha: float = 1.0, beta: float = 1.0) -> ListObjective:
    """InfoNCA: cross entropy from q = softmax(relevance / alpha) to softmax(beta r).

    Chen et al. 2024, arXiv:2402.05369; not checked against the paper. ValueError unless alpha, beta > 0.

    >>> lists = RankedList(torch.tensor([[0.0, 0.0]]), relevance=torch.tensor([[1.0, 0.0]]))
    >>> round(info_nca().loss(lists).item(), 6)
    0.693147
    """
    positive(alpha=alpha, beta=beta)

    def loss(lists: RankedList) -> Tensor:
        r = torch.where(lists.real, beta * lists.values, torch.full_like(lists.values, _NOTHING))
        cost = torch.logsumexp(r, dim=1, keepdim=True) - beta * lists.values
        return (_targets(lists, alpha) * torch.where(lists.real, cost, torch.zeros_like(cost))).sum(dim=1)

    return make_list("info_nca", loss, {"alpha": alpha, "beta": beta}, ("relevance",))


def nca_list(alpha: float = 1.0, beta: float = 1.0) -> ListObjective:
    """NCA: -sum_k q_k log s(beta r_k) - (1 / K) sum_k log s(-beta r_k), q = softmax(relevance / alpha).

    Chen et al. 2024, arXiv:2402.05369; not checked against the paper. ValueError unless alpha, beta > 0.

    >>> lists = RankedList(torch.tensor([[0.0, 0.0]]), relevance=torch.tensor([[1.0, 0.0]]))
    >>> round(nca_list().loss(lists).item(), 6)
    1.386294
    """
    positive(alpha=alpha, beta=beta)

    def loss(lists: RankedList) -> Tensor:
        r = beta * lists.values
        each = _targets(lists, alpha) * softplus(-r) + softplus(r) / lists.counts.clamp(min=1)[:, None]
        return torch.where(lists.real, each, torch.zeros_like(each)).sum(dim=1)

    return make_list("nca_list", loss, {"alpha": alpha, "beta": beta}, ("relevance",))


def lipo(beta: float = 1.0, rank: str = "model", gain: str = "exponential") -> ListObjective:
    """LiPO-lambda: sum over pairs with relevance i > j of |G_i - G_j| |1 / D_i - 1 / D_j| sp(-beta (r_i - r_j)).

    G = 2^relevance - 1 (gain "linear": 2 relevance / the list's highest - 1), D = log(1 + rank); rank "model": by the current scores,
    "target": in the target order. Liu et al. 2024, arXiv:2402.01878; not checked against the paper. Bounded below by 0. ValueError unless
    beta > 0 and the options are known.

    >>> lists = RankedList(torch.tensor([[0.0, 0.0]]), relevance=torch.tensor([[1.0, 0.0]]))
    >>> round(lipo().loss(lists).item(), 6)
    0.36907
    """
    positive(beta=beta)
    one_of(("model", "target"), rank=rank)
    one_of(("exponential", "linear"), gain=gain)

    def loss(lists: RankedList) -> Tensor:
        assert lists.relevance is not None
        relevance = torch.where(lists.real, lists.relevance, torch.zeros_like(lists.relevance)).to(lists.values.dtype)
        place = ranks(lists.values.detach(), lists.real) if rank == "model" else lists.places
        top = relevance.amax(dim=1, keepdim=True).clamp(min=1e-30)
        worth = torch.exp2(relevance) if gain == "exponential" else 2 * relevance / top  # constants cancel
        discount = 1 / torch.log1p(place.to(relevance.dtype))
        weight = (worth[:, :, None] - worth[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
        pairs = (relevance[:, :, None] > relevance[:, None, :]) & lists.real[:, :, None] & lists.real[:, None, :]
        cost = weight * softplus(-beta * _differences(lists))
        return torch.where(pairs, cost, torch.zeros_like(cost)).sum(dim=(1, 2))

    return make_list("lipo", loss, {"beta": beta, "rank": rank, "gain": gain}, ("relevance",), graded=True)


def irpo(beta: float = 1.0, aggregate: str = "mean", weight: str = "ndcg", competitors: str = "all") -> ListObjective:
    """IRPO: (1 / K) sum_j w_j sp(A_j), A_j the log of the mean (or sum) over competitors k of e^(beta (r_k - r_j)).

    w_j = (2^relevance - 1) / log2(1 + place), times the list's own weight where given: irrelevant items compete but are no anchors.
    weight "position": 1 / log2(1 + place); "inverse": (2^relevance - 1) / place. aggregate "mean" is the authors' code, "sum" the
    paper's formula. competitors "all", or "lower_or_equal" relevance (ours). A list without competitors costs 0. Wu et al. 2025,
    arXiv:2504.15477. ValueError unless beta > 0 and the options are known.

    >>> lists = RankedList(torch.tensor([[0.3, -0.1]]), relevance=torch.tensor([[1.0, 0.0]]))
    >>> round(irpo(beta=0.5).loss(lists).item(), 6)
    0.299069
    """
    positive(beta=beta)
    one_of(("mean", "sum"), aggregate=aggregate)
    one_of(("ndcg", "position", "inverse"), weight=weight)
    one_of(("all", "lower_or_equal"), competitors=competitors)

    def loss(lists: RankedList) -> Tensor:
        assert lists.relevance is not None
        real, dtype = lists.real, lists.values.dtype
        relevance = torch.where(real, lists.relevance, torch.zeros_like(lists.relevance)).to(dtype)
        place = lists.places.to(dtype)
        gain = torch.ones_like(relevance) if weight == "position" else torch.exp2(relevance) - 1
        anchor = gain / (place if weight == "inverse" else torch.log2(1 + place))
        if lists.weight is not None:
            anchor = anchor * torch.where(real, lists.weight, torch.zeros_like(lists.weight))
        own = torch.eye(place.shape[1], dtype=torch.bool, device=place.device)
        rivals = real[:, :, None] & real[:, None, :] & ~own
        if competitors == "lower_or_equal":
            rivals = rivals & (relevance[:, None, :] <= relevance[:, :, None])
        number = rivals.sum(dim=-1)
        against = _among(-beta * _differences(lists), rivals)
        if aggregate == "mean":
            against = against - torch.log(number.clamp(min=1).to(dtype))
        cost = torch.where(number > 0, anchor * softplus(against), torch.zeros_like(against))
        return cost.sum(dim=1) / lists.counts.clamp(min=1)

    settings = {"beta": beta, "aggregate": aggregate, "weight": weight, "competitors": competitors}
    return make_list("irpo", loss, settings, ("relevance",), graded=True)
