"""Terms made of two lists of losses, a Bradley-Terry objective on scores, and the shared fixture F of four pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cupel.noise.types import Target, Terms
from cupel.objectives.types import Objective, Side

torch.set_num_threads(1)


def make_terms(keep: object, flip: object | None = None, **changes: object) -> Terms:
    k = torch.as_tensor(keep, dtype=torch.float64)
    f = torch.full_like(k, float("nan")) if flip is None else torch.as_tensor(flip, dtype=torch.float64)
    none = torch.full((len(k),), -1)
    return Terms(k, f, torch.arange(len(k)), none, none)._replace(**changes)


def make_margin_terms(margin: object, **changes: object) -> Terms:
    m = torch.as_tensor(margin, dtype=torch.float64)
    return make_terms(torch.nn.functional.softplus(-m), torch.nn.functional.softplus(m), **changes)


def make_target(p: object, w: object | None = None) -> Target:
    p = torch.as_tensor(p, dtype=torch.float64)
    return Target(p, torch.ones_like(p) if w is None else torch.as_tensor(w, dtype=torch.float64))


@pytest.fixture
def terms() -> Callable[..., Terms]:
    """terms(keep, flip=NaN, **fields)."""
    return make_terms


@pytest.fixture
def margin_terms() -> Callable[..., Terms]:
    """margin_terms(m, **fields): the terms of the sigmoid objective at margins m."""
    return make_margin_terms


@pytest.fixture
def target() -> Callable[..., Target]:
    """target(p, w=1)."""
    return make_target


@pytest.fixture
def toy() -> Objective:
    """softplus(-(r_first - r_second)) on scores."""

    def loss(first: Side, second: Side, context: object) -> Tensor:
        return torch.nn.functional.softplus(second.score - first.score)

    return Objective("toy", loss, lambda first, second, context: first.score - second.score, frozenset({"score"}))


@pytest.fixture
def rigid(toy: Objective) -> Objective:
    """The same loss, which claims that its sides cannot be swapped."""
    return toy._replace(name="rigid", swap="none")


@pytest.fixture
def pairs() -> dict[str, Tensor]:
    """Fixture F of card 00-objectives-reference: log-probabilities, lengths, log-ratios a and b, h = a - b."""
    f = {
        "lp_w": [-12.0, -20.0, -7.5, -31.0], "lp_l": [-15.0, -18.5, -9.25, -40.0], "ref_w": [-13.0, -19.0, -7.5, -36.0],
        "ref_l": [-14.0, -19.5, -9.5, -38.0], "n_w": [6.0, 10.0, 5.0, 16.0], "n_l": [8.0, 9.0, 5.0, 20.0],
    }  # fmt: skip
    out = {name: torch.tensor(values, dtype=torch.float64) for name, values in f.items()}
    out["a"], out["b"] = out["lp_w"] - out["ref_w"], out["lp_l"] - out["ref_l"]
    out["h"] = out["a"] - out["b"]
    return out
