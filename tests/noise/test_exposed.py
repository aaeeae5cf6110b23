"""What was not chosen: a constant weight (WMF), and the posterior that it was seen (ExpoMF; card 32-unbiased-mnar, oracle 8)."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.exposed import exposed, unobserved
from cupel.noise.loss import preference_loss
from cupel.noise.missed import missed
from cupel.noise.types import DataSpec, Target, bare_terms
from cupel.objectives import Side, bpo, squared_score

quick = settings(max_examples=40, deadline=None)
double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
sp = torch.nn.functional.softplus


def test_worked_posterior():
    """Oracle 8: lambda 1, mu .1, prediction .3: the correct constant, not the published code's .117488307."""
    x = double([0.3])
    terms = bare_terms(squared_score().loss(Side(score=x), Side(), {}), squared_score().loss(Side(), Side(score=x), {}))
    treat = exposed(0.1, by="all", form="gaussian", learn=0)
    used = treat.target(Target(double([0.0]), double([1.0])), terms, treat.init(DataSpec()))
    density = math.exp(-0.045) / math.sqrt(2 * math.pi)
    assert density == pytest.approx(0.381387815, abs=6e-10)
    assert used.w.item() == pytest.approx(0.040653667, abs=6e-10)
    assert used.p.item() == 0
    chosen = treat.target(Target(double([1.0]), double([2.0])), terms, treat.init(DataSpec()))
    assert (chosen.p.item(), chosen.w.item()) == (1, 2), "what was chosen was seen"


def test_precision_is_that_of_the_density():
    terms = bare_terms(double([9.0]), double([0.09]))
    n = math.sqrt(4 / (2 * math.pi)) * math.exp(-2 * 0.09)
    used = exposed(0.2, by="all", form="gaussian", precision=4.0, learn=0).target(Target(double([0.0]), double([1.0])), terms, {})
    assert used.w.item() == pytest.approx(0.2 * n / (0.2 * n + 0.8), abs=1e-12)


@quick
@given(st.floats(-20, 20), st.floats(0.01, 0.99), st.sampled_from([0.0, 1.0]))
def test_exposure_and_missing_are_one_likelihood(x, mu, label):
    """P(chosen) = mu s: the bernoulli form has the gradient of log(1 - mu s), which is that of `missed(1 - mu)`."""
    at = double([x]).requires_grad_()
    found = []
    for treat in (exposed(mu, by="all", learn=0), missed(1 - mu)):
        loss, _ = preference_loss(
            bpo(), treat, Side(score=at), Side(), Target(double([label]), double([1.0])), bare_terms(double([0.0])), {}
        )  # fmt: skip
        found.append(torch.autograd.grad(loss.sum(), at)[0].item())
    chance = mu * torch.sigmoid(at)
    (wanted,) = torch.autograd.grad(-(chance.log() if label else torch.log1p(-chance)).sum(), at)
    assert found[0] == pytest.approx(wanted.item(), rel=1e-7, abs=1e-12)
    assert found[0] == pytest.approx(found[1], rel=1e-7, abs=1e-12)


def test_m_step_on_all_pairs():
    """learn=1 on a step of all pairs is mu_i = (a0 + sum a - 1) / (a0 + b0 + M - 2)."""
    rng = np.random.default_rng(0)
    m, n = 7, 4
    users, items = (v.ravel() for v in np.mgrid[:m, :n])
    x = rng.normal(size=m * n)
    y = (rng.random(m * n) < 0.3).astype(float)
    terms = bare_terms(sp(-double(x)), sp(double(x)))._replace(
        annotator=torch.tensor(users), group=torch.tensor(items), given=Target(double(y), torch.ones(m * n, dtype=torch.float64))
    )  # fmt: skip
    for a0, b0 in ((1.0, 1.0), (2.0, 5.0)):
        treat = exposed(0.2, learn=1.0, prior=(a0, b0))
        state = treat.update(terms, treat.init(DataSpec(groups=("a", "b", "c", "d"))))
        s = 1 / (1 + np.exp(-x))
        a = np.where(y == 1, 1.0, 0.2 * (1 - s) / (0.2 * (1 - s) + 0.8))
        wanted = [(a0 + a[items == i].sum() - 1) / (a0 + b0 + m - 2) for i in range(n)]
        np.testing.assert_allclose(state["exposed@group"], wanted, atol=1e-12)
        assert state["exposed"].item() == 0.2, "no pair without an item was seen"


def test_em_never_lowers_the_likelihood_and_finds_the_exposure():
    """Preferences known, exposure of two items .2 and .8: full steps climb sum log P, and end at the truth within 4 standard errors."""
    rng = np.random.default_rng(1)
    n, truth = 6000, np.array([0.2, 0.8])
    item = rng.integers(2, size=n)
    x = rng.normal(0.5, 2, n)
    s = 1 / (1 + np.exp(-x))
    y = (rng.random(n) < s) & (rng.random(n) < truth[item])
    terms = bare_terms(sp(-double(x)), sp(double(x)))._replace(
        group=torch.tensor(item), given=Target(double(y), torch.ones(n, dtype=torch.float64))
    )  # fmt: skip
    treat = exposed(0.5, learn=1.0)
    state, values = treat.init(DataSpec(groups=("a", "b"))), []
    for _ in range(60):
        chance = state["exposed@group"].numpy()[item] * s
        values.append(np.where(y, np.log(chance), np.log1p(-chance)).sum())
        state = treat.update(terms, state)
    assert (np.diff(values) >= -1e-9).all()
    assert values[-1] > values[0] + 100
    mu = state["exposed@group"].numpy()
    error = [np.sqrt(t * (1 - t) / (s[item == k].sum())) for k, t in enumerate(truth)]
    assert (np.abs(mu - truth) < 4 * np.array(error)).all()


@quick
@given(st.floats(0, 1), st.floats(0, 5), st.floats(0.1, 3))
def test_a_soft_label_weighs_its_no_only(p, c, w):
    """w (p keep + c (1 - p) flip), also for soft labels: w alone would weigh the yes of the label too."""
    used = unobserved(c).target(Target(double([p]), double([w])), bare_terms(double([2.0]), double([3.0])), {})
    loss = used.w * (used.p * 2.0 + (1 - used.p) * 3.0)
    assert loss.item() == pytest.approx(w * (p * 2.0 + c * (1 - p) * 3.0), rel=1e-12, abs=1e-12)
    assert 0 <= used.p.item() <= 1


def test_weights_by_item():
    treat = unobserved({"a": 0.1, "b": 2.0}, by="group")
    state = treat.init(DataSpec(groups=("b", "a")))
    terms = bare_terms(double([0.0, 0.0, 0.0]))._replace(group=torch.tensor([0, 1, 1]))
    used = treat.target(Target(double([0.0, 0.0, 1.0]), torch.ones(3, dtype=torch.float64)), terms, state)
    assert used.w.tolist() == [2.0, 0.1, 1.0]


def test_wmf_is_the_weighted_regression():
    """Five items of one user with one factor: the minimiser of (1) is the closed form of weighted ridge."""
    v, y = double([1.0, -0.5, 2.0, 0.3, 1.5]), double([1.0, 0.0, 1.0, 0.0, 0.0])
    u = double([0.0]).requires_grad_()
    weight = torch.where(y == 1, 1.0, 0.2)
    wanted = (weight * v * y).sum() / ((weight * v * v).sum() + 0.5)
    terms = bare_terms(torch.zeros(5, dtype=torch.float64))
    for _ in range(40):
        loss, _ = preference_loss(
            squared_score(), unobserved(0.2), Side(score=u * v), Side(), Target(y, torch.ones(5, dtype=torch.float64)), terms, {}
        )  # fmt: skip
        (slope,) = torch.autograd.grad(loss.sum() + 0.5 * (u**2).sum(), u)
        u = (u - 0.08 * slope).detach().requires_grad_()
    assert u.item() == pytest.approx(wanted.item(), abs=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: unobserved(-1.0), lambda: unobserved(math.inf), lambda: unobserved({"a": 1.0}), lambda: exposed(0.0),
        lambda: exposed(1.5), lambda: inspect.unwrap(exposed)(0.1, form="poisson"), lambda: exposed(0.1, precision=0.0),
        lambda: exposed(0.1, learn=2.0),
        lambda: exposed(0.1, prior=(0.5, 1.0)), lambda: exposed({"a": 0.1}), lambda: exposed(0.1, by="record"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()
