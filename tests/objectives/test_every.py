"""What holds for every objective of the table of names; a new one takes part by being in it."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cupel.objectives import Side, by_name
from cupel.objectives.reading import FIELDS

checks = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("checks.py"))))
helpers = checks.helpers
every = pytest.mark.parametrize("name", checks.NAMES)


@every
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    errors = list(checks.finite_differences(name))
    assert errors
    assert [e for e in errors if e.error > 1e-6] == []


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_extreme_margins_are_finite(name: str, dtype: torch.dtype) -> None:
    """Also at beta 1, where a margin is a log-ratio."""
    for settings in ({}, {"beta": 1.0} if "beta" in by_name(name).settings else {}):
        found = checks.extremes(name, dtype, **settings)
        assert found.values > 100
        assert found.not_finite == 0


@every
def test_swapping_twice_changes_nothing(name: str) -> None:
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs, seed=1)
    context = checks.context_of(objective, first, second)
    once = (second, first)
    assert torch.equal(objective.loss(first, second, context), objective.loss(*once[::-1], context))
    assert torch.allclose(objective.margin(first, second, context), -objective.margin(*once, context), rtol=0, atol=1e-12)


@every
def test_swap_says_whether_comparisons_are_coupled(name: str) -> None:
    """Where sides may be swapped alone, the loss of one comparison does not see the others; its flip differs, unless no label is read."""
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs, seed=2)
    context = checks.context_of(objective, first, second)
    whole = objective.loss(first, second, context)
    parts = torch.cat(
        [
            objective.loss(first.map(lambda x, i=i: x[i : i + 1]), second.map(lambda x, i=i: x[i : i + 1]), context)
            for i in range(len(first))
        ]
    )
    assert whole.shape == (len(first),)
    coupled = not torch.allclose(whole, parts, rtol=1e-12, atol=1e-12)
    unlabelled = torch.allclose(whole, objective.loss(second, first, context))
    assert coupled == (objective.swap == "none")
    assert unlabelled == (objective.swap == "same")


@every
def test_settings_make_the_objective_again(name: str) -> None:
    objective = by_name(name)
    again = by_name(name, **objective.settings)
    first, second = helpers.random_sides(objective.needs, seed=3)
    context = checks.context_of(objective, first, second)
    assert again.settings == objective.settings
    assert again.name == objective.name == name or (objective.name, name) == ("tdpo", "tdpo1")
    assert torch.equal(again.loss(first, second, context), objective.loss(first, second, context))


@every
def test_half_precision_is_computed_in_single(name: str) -> None:
    objective = by_name(name)
    first, second = (side.map(lambda x: x.bfloat16() if x.is_floating_point() else x) for side in helpers.random_sides(objective.needs))
    context = checks.context_of(objective, first, second)
    exact = [side.map(lambda x: x.float() if x.is_floating_point() else x) for side in (first, second)]
    loss = objective.loss(first, second, context)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, objective.loss(*exact, context), rtol=1e-6, atol=1e-6)


@every
def test_missing_needs_are_named(name: str) -> None:
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs)
    context = checks.context_of(objective, first, second)
    for need in objective.needs:
        for field in FIELDS[need]:
            with pytest.raises(ValueError, match=field):
                objective.loss(*(replace(side, **{field: None}) if len(side) else side for side in (first, second)), context)


@every
def test_needs_are_enough(name: str) -> None:
    """A side with nothing but the declared needs is all that loss, margin and statistics read."""
    objective = by_name(name)
    wanted = {field for need in objective.needs for field in FIELDS[need]}
    first, second = helpers.random_sides(objective.needs)
    bare = [Side(**{f: getattr(side, f) for f in wanted}) for side in (first, second)]
    objective.margin(*bare, checks.context_of(objective, *bare))


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs)
    context = checks.context_of(objective, first, second)
    for field in helpers.floating(first):
        if field == "gate":
            continue
        broken = getattr(first, field).clone()
        broken.view(len(broken), -1)[2, 0] = value
        with pytest.raises(ValueError, match=rf"{field}.*1 of 6.*row 2"):
            objective.loss(replace(first, **{field: broken}), second, context)


@every
def test_lengths_below_one_and_unequal_sides_are_refused(name: str) -> None:
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs)
    context = checks.context_of(objective, first, second)
    with pytest.raises(ValueError, match=r"6 responses.*5"):
        objective.loss(first, second.map(lambda x: x[:5]), context)
    if "length" in objective.needs:
        with pytest.raises(ValueError, match="n_tokens is below 1"):
            objective.loss(replace(first, n_tokens=torch.tensor([3, 0, 1, 1, 1, 1])), second, context)


@every
def test_statistics_are_required_and_hold_no_gradient(name: str) -> None:
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs)
    for side in (first, second):
        for field in helpers.floating(side):
            getattr(side, field).requires_grad_()
    if objective.context is None:
        assert objective.loss(first, second, {}).shape == (6,)
        return
    context = objective.context(first, second, {})
    assert not any(value.requires_grad for value in context.values())
    assert objective.context(second, first, context).keys() == context.keys()
    with pytest.raises(ValueError, match="statistic of the whole step"):
        objective.loss(first, second, {})
