"""When values are looked at: on the CPU, once each, never where that would synchronise or break a transformation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cupel.objectives import Side, by_name, check_values, reading
from cupel.objectives.numerics import bounded_exp, bounded_expm1, decay, log1mexp, softplus


def test_large_finite_values_are_not_mistaken_for_infinite_ones() -> None:
    """Their sum overflows, so each is looked at."""
    side = Side(score=torch.tensor([3e38, 3e38, -1.0]))
    assert by_name("bpr").loss(side, side, {}).isfinite().all()


def test_values_are_looked_at_on_the_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...] | None] = []
    real = reading.check_values

    def seen(*arguments: Any, devices: tuple[str, ...] | None = None) -> None:
        asked.append(devices)
        real(*arguments, devices=devices)

    monkeypatch.setattr(reading, "check_values", seen)
    side = Side(score=torch.zeros(3))
    by_name("bpr").loss(side, side, {})
    assert asked == [("cpu",)]
    nan = Side(score=torch.tensor([float("nan")]))
    check_values("bpr", {"score"}, nan, devices=("cuda",))
    with pytest.raises(ValueError, match="score"):
        check_values("bpr", {"score"}, nan)


def test_objectives_run_under_transformations() -> None:
    scores = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    objective = by_name("bpr")

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return objective.loss(Side(score=a), Side(score=b), {})

    columns = torch.func.vmap(loss, in_dims=1, out_dims=1)(scores[0], scores[1])
    assert torch.allclose(columns, torch.nn.functional.softplus(scores[1] - scores[0]))
    slope = torch.func.grad(lambda a: loss(a, scores[1, :, 0]).sum())(scores[0, :, 0])
    assert torch.allclose(slope, -torch.sigmoid(scores[1, :, 0] - scores[0, :, 0]))


def test_either_side_may_be_empty_only_where_responses_are_judged_alone() -> None:
    side = Side(logp=torch.tensor([-1.0]), reference_logp=torch.tensor([-1.0]))
    for name in ("nca", "bco_pair", "sppo", "apo_zero"):
        objective = by_name(name)
        alone = objective.loss(side, Side(), {}) + objective.loss(Side(), side, {})
        assert torch.allclose(alone, objective.loss(side, side, {}))
        assert torch.allclose(objective.margin(side, Side(), {}), -objective.margin(Side(), side, {}))
    with pytest.raises(ValueError, match="1 responses, the second 0"):
        by_name("sigmoid").loss(side, Side(), {})
    with pytest.raises(ValueError, match="is missing"):
        by_name("nca").loss(Side(), Side(), {})


def test_elementary_functions_against_their_definitions() -> None:
    x = torch.linspace(-20, 20, 401, dtype=torch.float64)
    assert torch.allclose(softplus(x), torch.log1p(torch.exp(x)), rtol=1e-14)
    assert torch.allclose(bounded_exp(x), torch.exp(x), rtol=1e-14)
    assert torch.allclose(bounded_expm1(x), torch.expm1(x), rtol=1e-14)
    below = x[x < -1e-3]
    assert torch.allclose(log1mexp(below), torch.log1p(-torch.exp(below)), rtol=1e-11)
    above = x[x > 0.1]
    assert torch.allclose(decay(above), above / torch.expm1(above), rtol=1e-13)


def test_elementary_functions_are_smooth_where_they_change_form() -> None:
    for function, at in ((bounded_exp, 30.0), (bounded_expm1, 30.0), (log1mexp, -0.6931471805599453), (decay, 1e-4)):
        x = torch.tensor([at - 1e-9, at + 1e-9], dtype=torch.float64, requires_grad=True)
        y = function(x)
        slope = torch.autograd.grad(y.sum(), x)[0]
        assert y[0].item() == pytest.approx(y[1].item(), rel=1e-7)
        assert slope[0].item() == pytest.approx(slope[1].item(), rel=1e-7)
