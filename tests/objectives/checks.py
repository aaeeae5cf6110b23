"""What is checked, apart from how the result is used: tests assert these errors, the benchmark prints them."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cupel.objectives import available, by_name, davidson_tie, likelihood, list_by_name, rao_kupper_tie
from cupel.objectives.lists import RankedList
from cupel.objectives.types import Context, Objective, Side

helpers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("helpers.py"))))
golden = helpers.golden

#: fields that an objective reads without gradient on purpose: weights, signs and baselines
DETACHED: dict[str, dict[str, set[str]]] = {
    "wpo": {"first": {"token_logp", "collision"}, "second": {"token_logp", "collision"}},
    "tdpo2": {"first": {"divergence"}, "second": set()},
    "hypo": {"first": {"online_logp", "online_reference_logp"}, "second": {"online_logp", "online_reference_logp"}},
}
#: a margin reaches this far in the test of extremes
EXTREME = 1e4


class Error(NamedTuple):
    """A value against its golden value: |value - golden| / max(1, |golden|)."""

    label: str
    error: float


def _errors(label: str, value: Tensor, expected: Any) -> Iterator[Error]:
    value, wanted = value.detach().double().flatten(), torch.tensor(expected, dtype=torch.float64).flatten()
    assert value.shape == wanted.shape, f"{label}: {tuple(value.shape)} values, {tuple(wanted.shape)} expected"
    for i, (have, want) in enumerate(zip(value.tolist(), wanted.tolist(), strict=True)):
        yield Error(f"{label} [{i}]", abs(have - want) / max(1.0, abs(want)) if have == have else float("inf"))


def context_of(objective: Objective, first: Side, second: Side, previous: Context | None = None) -> Context:
    """Statistics of the step, {} where the objective needs none."""
    return {} if objective.context is None else objective.context(first, second, previous or {})


def under(p: float, objective: Objective, first: Side, second: Side, context: Context) -> Tensor:
    """p keep + (1 - p) flip, [B]."""
    keep = objective.loss(first, second, context)
    return keep if p == 1 else p * keep + (1 - p) * objective.loss(second, first, context)


def golden_pairs(dtype: torch.dtype) -> Iterator[Error]:
    """Losses, mean and gradients of the fixture of four pairs."""
    for row in golden.PAIRS:
        label = f"{row.name} {row.settings} p {row.p:g}"
        first, second = helpers.fixture(dtype, grad=True)
        objective = by_name(row.name, **row.settings)
        previous = {key: torch.tensor(value, dtype=dtype) for key, value in row.previous.items()}
        loss = under(row.p, objective, first, second, context_of(objective, first, second, previous))
        grads = torch.autograd.grad(loss.sum(), [first.logp, second.logp])
        if row.by_rank:
            loss, expected = loss.sort().values, sorted(row.loss)
        else:
            expected = row.loss
        yield from _errors(f"{label} loss", loss, expected)
        yield from _errors(f"{label} mean", loss.mean(), row.mean)
        yield from _errors(f"{label} gradient of the first", grads[0], row.first)
        yield from _errors(f"{label} gradient of the second", grads[1], row.second)
    first, second = helpers.fixture(dtype)
    for name, expected in (("cpo_hinge", golden.CPO_HINGE), ("cpo_ipo", golden.CPO_IPO)):
        yield from _errors(name, by_name(name, beta=0.1, sft=0.0).loss(first, second, {}), expected)
    yield from _errors("sft token", by_name("sft").loss(first, second, context_of(by_name("sft"), first, second)).mean(), 1.90540541)
    yield from _errors("sft sequence", by_name("sft", reduction="sequence").loss(first, second, {}), (2, 2, 1.5, 1.9375))


def golden_robust(dtype: torch.dtype) -> Iterator[Error]:
    """The distributionally robust scalar's gradient, from (1) with w = softmax(-keep) as a treatment sets it."""
    first, second = helpers.fixture(dtype, grad=True)
    keep = by_name("sigmoid", beta=0.1).loss(first, second, {})
    scalar, by_first, by_second = golden.ROBUST
    yield from _errors("robust scalar", -torch.logsumexp(-keep, 0) + torch.log(torch.tensor(4.0, dtype=dtype)), scalar)
    grads = torch.autograd.grad((torch.softmax(-keep, 0).detach() * keep).sum(), [first.logp, second.logp])
    yield from _errors("robust gradient of the first", grads[0], by_first)
    yield from _errors("robust gradient of the second", grads[1], by_second)


def golden_points(dtype: torch.dtype) -> Iterator[Error]:
    """Single responses, and KTO on pairs."""
    first, second = helpers.fixture(dtype)
    nothing = Side()
    for row in golden.POINTWISE:
        objective = by_name(row.name, **row.settings)
        context = {k: torch.tensor(v, dtype=dtype) for k, v in row.context.items()} if row.context else context_of(objective, first, second)
        sides = [
            Side(logp=s.logp, reference_logp=s.reference_logp, mismatch_log_ratio=torch.zeros(4, dtype=dtype)) for s in (first, second)
        ]
        yield from _errors(f"{row.name} good", objective.loss(sides[0], nothing, context), row.good)
        yield from _errors(f"{row.name} bad", objective.loss(nothing, sides[1], context), row.bad)
    objective = by_name("kto_pair", beta=0.1)
    both = [a + b for a, b in zip(*golden.KTO_PAIR, strict=True)]
    yield from _errors("kto_pair", objective.loss(first, second, context_of(objective, first, second)), both)


def golden_rewards(dtype: torch.dtype) -> Iterator[Error]:
    """Scores, and ties."""
    first, second = helpers.rewards(dtype)
    for name, settings, expected, p in golden.REWARD:
        yield from _errors(f"{name} {settings} p {p:g}", under(p, by_name(name, **settings), first, second, {}), expected)
    assert first.score is not None
    assert second.score is not None
    yield from _errors("rao_kupper tie", rao_kupper_tie(first.score - second.score, 2.0), golden.RAO_KUPPER_TIE)
    yield from _errors("davidson tie", davidson_tie(first.score - second.score, 1.0), golden.DAVIDSON_TIE)


def golden_lists(dtype: torch.dtype) -> Iterator[Error]:
    """Lists, each also with its entries turned round and padding, which must change nothing."""
    scores = torch.tensor([golden.LIST_SCORES], dtype=dtype)
    for name, settings, relevance, expected in golden.LISTS:
        objective = list_by_name(name, **settings)
        grades = None if relevance is None else torch.tensor([relevance], dtype=dtype)
        yield from _errors(name, objective.loss(RankedList(scores, relevance=grades)), [expected])
        pad = torch.full((1, 2), float("nan"), dtype=dtype)
        turned = RankedList(
            torch.cat([pad, scores.flip(1)], 1),
            mask=torch.tensor([[False, False, True, True, True, True]]),
            relevance=None if grades is None else torch.cat([pad, grades.flip(1)], 1),
            position=torch.tensor([[0, 0, 4, 3, 2, 1]]),
        )
        yield from _errors(f"{name} turned and padded", objective.loss(turned), [expected])


def golden_tokens(dtype: torch.dtype) -> Iterator[Error]:
    """The token fixture, with rubbish outside the mask."""
    for name, settings, epsilon, expected in golden.TOKENS:
        first, second = helpers.token_sides(epsilon, dtype)
        yield from _errors(f"{name} {settings}", by_name(name, beta=0.5, **settings).loss(first, second, {}), expected)
    first, second = helpers.token_sides(0.0, dtype, dress=False)
    for field, expected in (
        ("token_logp", golden.TOKEN_LOGP), ("reference_token_logp", golden.REFERENCE_TOKEN_LOGP), ("divergence", golden.DIVERGENCE),
    ):  # fmt: skip
        for s in range(4):
            side = first if s < 2 else second
            yield from _errors(f"{field} of sequence {s}", getattr(side, field)[s % 2][side.mask[s % 2]], expected[s])


def golden_denoising(dtype: torch.dtype) -> Iterator[Error]:
    """Denoising errors."""
    for settings, expected, by_first, by_second in golden.MAPO:
        first, second = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in golden.ERRORS)
        mean = by_name("mapo", **settings).loss(Side(error=first), Side(error=second), {}).mean()
        yield from _errors(f"mapo {settings}", mean, expected)
        if by_first is not None:
            grads = torch.autograd.grad(mean, [first, second])
            yield from _errors(f"mapo {settings} gradient of the first", grads[0], by_first)
            yield from _errors(f"mapo {settings} gradient of the second", grads[1], by_second)
    a, b, c, d = (torch.tensor(x, dtype=dtype) for x in golden.DIFFUSION_ERRORS)
    for beta, expected in golden.DIFFUSION_DPO:
        loss = by_name("diffusion_dpo", beta=beta).loss(Side(error=a, reference_error=c), Side(error=b, reference_error=d), {})
        yield from _errors(f"diffusion_dpo {beta}", loss.mean(), expected)


def golden_odds(dtype: torch.dtype) -> Iterator[Error]:
    """Log-odds of losses, and the likelihood combinator on the fixture."""
    at = torch.tensor(golden.ODDS_AT, dtype=dtype)
    first, second = (Side(logp=x, reference_logp=torch.zeros_like(x), n_tokens=torch.ones(5)) for x in (at, torch.zeros_like(at)))
    for name, settings, expected in golden.ODDS:
        yield from _errors(f"log-odds of {name} {settings}", likelihood(by_name(name, **settings)).margin(first, second, {}), expected)
    first, second = helpers.fixture(dtype)
    for name, settings, odds, loss, p in golden.LIKELIHOOD:
        objective = likelihood(by_name(name, **settings))
        found = objective.margin(first, second, {})
        yield from _errors(f"log-odds of {name} {settings}", found, odds)
        posterior = torch.sigmoid(found + torch.log(torch.tensor(9.0, dtype=dtype)))
        if p is not None:
            yield from _errors(f"posterior of {name} {settings}", posterior, p)
        if loss is not None:
            keep, flip = objective.loss(first, second, {}), objective.loss(second, first, {})
            yield from _errors(f"likelihood of {name} {settings}", posterior * keep + (1 - posterior) * flip, loss)


ALL_GOLDEN = {
    "pairs": golden_pairs, "robust": golden_robust, "points": golden_points, "rewards": golden_rewards, "lists": golden_lists,
    "tokens": golden_tokens, "denoising": golden_denoising, "odds": golden_odds,
}  # fmt: skip


def finite_differences(name: str, seed: int = 0, step: float = 1e-5) -> Iterator[Error]:
    """Relative error of the gradient along a random direction of every field of both sides, by five-point central differences."""
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs, seed=seed)
    context = context_of(objective, first, second)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(len(first), generator=generator, dtype=torch.float64) + 0.5
    for which, side in (("first", first), ("second", second)):
        for field in helpers.floating(side):
            if field in DETACHED.get(name, {}).get(which, set()):
                continue
            value = getattr(side, field)
            direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)

            def total(x: Tensor, which: str = which, field: str = field) -> Tensor:
                sides = {"first": first, "second": second}
                sides[which] = replace(sides[which], **{field: x})
                return (weight * objective.loss(sides["first"], sides["second"], context)).sum()

            x = value.clone().requires_grad_()
            whole = total(x)
            grad = torch.autograd.grad(whole, x, allow_unused=True)[0] if whole.requires_grad else None
            slope = 0.0 if grad is None else float((grad * direction).sum())
            near = total(value + step * direction) - total(value - step * direction)
            far = total(value + 2 * step * direction) - total(value - 2 * step * direction)
            found = float((8 * near - far) / (12 * step))
            size = 0.0 if grad is None else float((grad.abs() * direction.abs()).sum())
            yield Error(f"{name} {which}.{field}", abs(slope - found) / max(size, abs(found), 1e-3))


class Extreme(NamedTuple):
    """What became of an objective at margins up to `EXTREME`: values and gradients that are not finite, and how many saturated."""

    name: str
    values: int
    not_finite: int
    saturated: int


def extremes(name: str, dtype: torch.dtype, **settings: Any) -> Extreme:
    """Loss, swapped loss, margin and all gradients at every pair of extreme inputs."""
    objective = by_name(name, **settings)
    first, second = helpers.extreme_sides(objective.needs, dtype, EXTREME)
    for side in (first, second):
        for field in helpers.floating(side):
            getattr(side, field).requires_grad_()
    context = context_of(objective, first, second)
    values = [objective.loss(first, second, context), objective.margin(first, second, context)]
    if objective.swap == "comparison":
        values.append(objective.loss(second, first, context))
    inputs = [getattr(side, field) for side in (first, second) for field in helpers.floating(side)]
    grads = [g for v in values for g in torch.autograd.grad(v.sum(), inputs, allow_unused=True, retain_graph=True) if g is not None]
    everything = [*values, *grads]
    saturated = 0 if objective.saturated is None else int(objective.saturated(first, second, context).sum())
    return Extreme(name, sum(v.numel() for v in everything), sum(int((~v.isfinite()).sum()) for v in everything), saturated)


NAMES = available()
