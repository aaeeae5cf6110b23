"""Lists: worked examples, what does not change them, gradients, extremes and refusals."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cupel.objectives import RankedList, available_lists, by_name, list_by_name
from cupel.objectives.types import Side

checks = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("checks.py"))))
every = pytest.mark.parametrize("name", available_lists())
SCORES = torch.tensor([[0.5, -0.2, 0.1, -0.4]], dtype=torch.float64)
GRADES = torch.tensor([[2.0, 1.0, 0.0, 0.0]], dtype=torch.float64)


def random_lists(seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> RankedList:
    """Lists of different lengths with everything that an objective of lists may read."""
    generator = torch.Generator().manual_seed(seed)
    n, k = 5, 6
    mask = torch.arange(k)[None, :] < torch.tensor([6, 4, 2, 3, 5])[:, None]
    return RankedList(
        (scale * torch.randn(n, k, generator=generator, dtype=torch.float64)).to(dtype), mask=mask,
        relevance=torch.randint(0, 4, (n, k), generator=generator).to(dtype),
        logp=(-5 - torch.rand(n, k, generator=generator, dtype=torch.float64)).to(dtype), n_tokens=torch.full((n, k), 3),
    )  # fmt: skip


def value(name: str, scores: Tensor, **settings: Any) -> float:
    return list_by_name(name, **settings).loss(RankedList(scores, relevance=GRADES)).item()


def test_irpo_worked_example() -> None:
    x = SCORES.clone().requires_grad_()
    for aggregate, expected, slope in (
        ("mean", 0.4539482781, (-0.2138084241, -0.0104144409, 0.1395696146, 0.0846532504)),
        ("sum", 0.9684532658, (-0.3972736534, 0.0174262816, 0.2364395409, 0.1434078308)),
    ):
        loss = list_by_name("irpo", aggregate=aggregate).loss(RankedList(x, relevance=GRADES))
        grad = torch.autograd.grad(loss.sum(), x)[0]
        assert loss.item() == pytest.approx(expected, abs=1e-10)
        assert grad.flatten().tolist() == pytest.approx(slope, abs=1e-10)
        assert abs(grad.sum().item()) < 1e-15
    two = RankedList(torch.tensor([[0.3, -0.1]], dtype=torch.float64), relevance=torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert list_by_name("irpo", beta=0.5).loss(two).item() == pytest.approx(0.2990694347, abs=1e-10)
    dpo = by_name("bpr").loss(Side(score=torch.tensor([0.15]).double()), Side(score=torch.tensor([-0.05]).double()), {})
    assert list_by_name("irpo", beta=0.5).loss(two).item() == pytest.approx(dpo.item() / 2)


def test_irpo_gradient_formula() -> None:
    x = random_lists(3).score[:1].clone().requires_grad_()
    grades = torch.tensor([[3.0, 0.0, 1.0, 0.0, 2.0, 0.0]], dtype=torch.float64)
    grad = torch.autograd.grad(list_by_name("irpo", beta=0.7).loss(RankedList(x, relevance=grades)).sum(), x)[0][0]
    r, y, n = x.detach()[0], grades[0], 6
    place = torch.argsort(torch.argsort(-y, stable=True)) + 1
    w = (2**y - 1) / torch.log2(1 + place)
    expected = torch.zeros(n, dtype=torch.float64)
    for j in range(n):
        others = [k for k in range(n) if k != j]
        a = torch.log(torch.stack([torch.exp(0.7 * (r[k] - r[j])) for k in others]).mean())
        share = torch.softmax(0.7 * r[others], 0)
        for k, p in zip(others, share, strict=True):
            expected[k] += 0.7 / n * w[j] * torch.sigmoid(a) * p
        expected[j] -= 0.7 / n * w[j] * torch.sigmoid(a)
    assert torch.allclose(grad, expected, atol=1e-14)


def test_irpo_does_not_compare_an_item_with_itself() -> None:
    assert value("irpo", SCORES, beta=0.1) == pytest.approx(0.6068566201, abs=1e-10)
    assert value("irpo", SCORES, beta=0.01) == pytest.approx(0.6269081215, abs=1e-10)


def test_irpo_options() -> None:
    base = RankedList(SCORES, relevance=GRADES)
    position, inverse = (list_by_name("irpo", weight=w).loss(base).item() for w in ("position", "inverse"))
    assert position != pytest.approx(inverse)
    doubled = RankedList(SCORES, relevance=GRADES, weight=torch.full_like(SCORES, 2.0))
    assert list_by_name("irpo").loss(doubled).item() == pytest.approx(2 * value("irpo", SCORES))
    nothing = RankedList(SCORES, relevance=torch.zeros_like(GRADES))
    assert list_by_name("irpo").loss(nothing).item() == 0
    alone = RankedList(SCORES[:, :1], relevance=GRADES[:, :1])
    assert list_by_name("irpo").loss(alone).item() == 0
    fewer = value("irpo", SCORES, competitors="lower_or_equal", aggregate="sum")
    assert fewer < value("irpo", SCORES, aggregate="sum")


def test_softmax_dpo_is_the_anchor_of_irpo() -> None:
    assert value("softmax_dpo", SCORES) == pytest.approx(0.9452571294, abs=1e-10)


def test_lipo_is_bounded_below() -> None:
    """A pair that is far wrong costs in proportion; the order may not be bought with an unbounded gain."""
    values = [value("lipo", scale * SCORES, rank="target", gain="linear") for scale in (1, 10, 100)]
    assert values == pytest.approx([1.8494, 0.6394, 5.6668], abs=1e-4)


@every
def test_order_of_entries_and_padding_change_nothing(name: str) -> None:
    objective, lists = list_by_name(name), random_lists()
    turned = RankedList(
        lists.score.flip(1), mask=lists.mask.flip(1), relevance=lists.relevance.flip(1), position=lists.places.flip(1),
        logp=lists.logp.flip(1), n_tokens=lists.n_tokens.flip(1),
    )  # fmt: skip
    given = RankedList(lists.score, mask=lists.mask, relevance=lists.relevance, position=lists.places)
    assert torch.allclose(objective.loss(given), objective.loss(turned), atol=1e-12)
    assert torch.allclose(objective.loss(given), objective.loss(lists), atol=1e-12)
    broken = RankedList(
        torch.where(lists.real, lists.score, torch.full_like(lists.score, math.nan)), mask=lists.mask,
        relevance=torch.where(lists.real, lists.relevance, torch.full_like(lists.score, math.inf)),
    )  # fmt: skip
    assert torch.equal(objective.loss(broken), objective.loss(RankedList(lists.score, mask=lists.mask, relevance=lists.relevance)))


@every
def test_shift_of_all_scores_changes_nothing_but_nca(name: str) -> None:
    objective, lists = list_by_name(name), random_lists()
    moved = RankedList(lists.score + 3, mask=lists.mask, relevance=lists.relevance)
    same = torch.allclose(objective.loss(lists), objective.loss(moved), atol=1e-9)
    assert same == (name != "nca_list")


@every
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    objective = list_by_name(name)
    for seed in range(3):
        lists = random_lists(seed)

        def total(x: Tensor, lists: RankedList = lists) -> Tensor:
            return objective.loss(RankedList(x, mask=lists.mask, relevance=lists.relevance, logp=lists.logp, n_tokens=lists.n_tokens)).sum()

        x = lists.score.clone().requires_grad_()
        grad = torch.autograd.grad(total(x), x)[0]
        for i in range(x.shape[1]):
            step = torch.zeros_like(x)
            step[0, i] = 1e-6
            found = (total(x.detach() + step) - total(x.detach() - step)).item() / 2e-6
            assert grad[0, i].item() == pytest.approx(found, rel=1e-6, abs=1e-8)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_extreme_scores_are_finite(name: str, dtype: torch.dtype) -> None:
    lists = random_lists(1, dtype, scale=1e4)
    x = lists.score.clamp(-1e4, 1e4).requires_grad_()
    loss = list_by_name(name).loss(RankedList(x, mask=lists.mask, relevance=lists.relevance))
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()


def test_two_responses_are_a_pair() -> None:
    first, second = (Side(score=torch.tensor([x], dtype=torch.float64)) for x in (0.4, 1.1))
    pair = RankedList(torch.stack([first.score, second.score], 1))
    for name in ("plackett_luce", "softmax_dpo", "all_pairs"):
        assert list_by_name(name).loss(pair).item() == pytest.approx(by_name("bpr").loss(first, second, {}).item())


def test_rrhf_imitates_the_best() -> None:
    lists = random_lists()
    best = torch.where(lists.places == 1, lists.logp / 3, torch.zeros_like(lists.logp)).sum(1)
    assert torch.allclose(list_by_name("rrhf", sft=0.5).loss(lists), list_by_name("rrhf").loss(lists) - 0.5 * best)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="irpo needs relevance"):
        list_by_name("irpo").loss(RankedList(SCORES))
    with pytest.raises(ValueError, match=r"score is not finite in 1 of 1 lists \(first: row 0\)"):
        list_by_name("plackett_luce").loss(RankedList(SCORES / 0))
    with pytest.raises(ValueError, match="relevance is outside"):
        list_by_name("irpo").loss(RankedList(SCORES, relevance=GRADES + 40))
    with pytest.raises((ValueError, TypeError), match="relevance"):  # the second where shapes are checked
        RankedList(SCORES, relevance=GRADES[:, :2])
    with pytest.raises(ValueError, match="rank is one of model, target"):
        list_by_name("lipo", rank="mine")
    assert all(list_by_name(name).swap == "none" for name in available_lists())
