"""Exposure (card 32-unbiased-mnar) and missed positives (card 05-nbpo)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.fixed import identity, soft_labels
from cupel.noise.missed import missed
from cupel.noise.propensity import popularity, propensity, propensity_weights
from cupel.noise.types import DataSpec, Target, bare_terms

quick = settings(max_examples=40, deadline=None)
double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
sp = torch.nn.functional.softplus
THETA, GAMMA, X = [0.8, 0.3, 0.1], [0.6, 0.5, 0.2], [0.4, -0.2, 1.0]


def risk(treatment, clicks, x):
    """Mean loss (1) of clicks, with a loss of relevant and of irrelevant pairs at scores x."""
    terms = bare_terms(sp(-x), sp(x))
    state = treatment.init(DataSpec(records=tuple(str(i) for i in range(len(x)))))
    used = treatment.target(Target(clicks, torch.ones_like(clicks)), terms, state)
    return (used.w * (used.p * terms.keep + (1 - used.p) * terms.flip)).mean().item()


def by_record(values):
    return {str(i): v for i, v in enumerate(values)}


@pytest.mark.parametrize(("clip", "mean", "variance"), [(0.0, 0.828138603, 0.231007407), (0.25, 0.868138603, 0.048074074)])
def test_expectation_over_all_outcomes(clip, mean, variance):
    """Card 32, oracle 1: eight outcomes of three clicks, weighed by their probability."""
    treat, x = propensity(by_record(THETA), clip=clip), double(X)
    chance = np.array(THETA) * np.array(GAMMA)
    first, second = 0.0, 0.0
    for outcome in itertools.product((0.0, 1.0), repeat=3):
        y = np.array(outcome)
        weight = np.prod(np.where(y == 1, chance, 1 - chance))
        value = risk(treat, double(y), x)
        first, second = first + weight * value, second + weight * value**2
    assert abs(first - mean) < 6e-10
    assert abs(second - first**2 - variance) < 6e-10
    ideal = np.mean(np.array(GAMMA) * sp(-x).numpy() + (1 - np.array(GAMMA)) * sp(x).numpy())
    assert abs(ideal - 0.828138603) < 6e-10


def test_naive_and_limits():
    x, chance = double(X), np.array(THETA) * np.array(GAMMA)
    naive = propensity(1.0)
    expected = sum(
        np.prod(np.where(np.array(y) == 1, chance, 1 - chance)) * risk(naive, double(y), x) for y in itertools.product((0.0, 1.0), repeat=3)
    )
    assert abs(expected - 0.880805270) < 6e-10
    clicks = double([1.0, 0.0, 1.0])
    assert risk(propensity(by_record(THETA), clip=1.0), clicks, x) == risk(naive, clicks, x)


def test_oracle_labels_and_no_clip():
    """Card 32, oracle 2: gamma in place of Y / theta is the ideal loss; exposure 1 everywhere is plain training, bit for bit."""
    x = double(X)
    assert abs(risk(soft_labels(by_record(GAMMA)), double([1.0, 0.0, 1.0]), x) - 0.828138603) < 6e-10
    for outcome in itertools.product((0.0, 1.0), repeat=3):
        assert risk(propensity(1.0), double(outcome), x) == risk(identity(), double(outcome), x)


def test_one_click():
    x = double([0.4]).requires_grad_()
    used = propensity(0.25).target(Target(double([1.0]), double([1.0])), bare_terms(sp(-x.detach()), sp(x.detach())), {})
    loss = used.p * sp(-x) + (1 - used.p) * sp(x)
    assert abs(loss.item() + 0.686984748) < 6e-10
    (slope,) = torch.autograd.grad(loss.sum(), x)
    assert abs(slope.item() + 3.401312340) < 6e-10
    squared = used.p * (1 - torch.sigmoid(x)) ** 2 + (1 - used.p) * torch.sigmoid(x) ** 2
    assert abs(squared.item() + 0.431074367) < 6e-10


def test_monte_carlo():
    """Card 32, oracle 6, on a 20 x 30 grid: within 4 standard errors of the ideal loss; the naive loss is more than 20 away."""
    rng = np.random.default_rng(0)
    theta, gamma = rng.uniform(0.2, 1, 600), rng.uniform(0, 1, 600)
    x = double(rng.normal(size=600) - 1)
    terms = bare_terms(sp(-x), sp(x))
    ideal = np.mean(gamma * terms.keep.numpy() + (1 - gamma) * terms.flip.numpy())
    treat = propensity(by_record(theta))
    state = treat.init(DataSpec(records=tuple(map(str, range(600)))))
    y = torch.from_numpy((rng.random((8000, 600)) < theta * gamma).astype(np.float64))
    p = torch.stack([treat.target(Target(row, torch.ones_like(row)), terms, state).p for row in y[:20]])
    torch.testing.assert_close(p, y[:20] / torch.from_numpy(theta))  # the map is linear: the other draws go through it at once
    means = [(q @ terms.keep + (1 - q) @ terms.flip).numpy() / 600 for q in (y / torch.from_numpy(theta), y)]
    away = [abs(found.mean() - ideal) for found in means]
    error, naive_error = (found.std() / math.sqrt(len(found)) for found in means)
    assert away[0] < 4 * error
    assert away[1] > 20 * naive_error
    assert error < 0.02 * away[1]


def test_popularity():
    torch.testing.assert_close(popularity(torch.tensor([100, 25, 4, 1])), torch.tensor([1, 0.5, 0.2, 0.1]))
    with pytest.raises(ValueError, match="1 of 3 items have no positive"):
        popularity(torch.tensor([3, 0, 1]))


def test_nonnegative_drops_the_negative_part_of_an_item(terms, target):
    """Item 0: one click at theta .25 and one non-click with a small loss, so 1 - 4 weighs more: its d0 part goes. Item 1 keeps it."""
    seen = terms([0.5, 0.5, 0.5, 0.5], [2.0, 0.1, 0.1, 3.0], group=torch.tensor([0, 0, 1, 1]))
    labels = target([1.0, 0.0, 1.0, 0.0])
    plain = propensity(0.25).target(labels, seen, {})
    kept = propensity(0.25, nonnegative=True).target(labels, seen, {})
    first = lambda t: t.w * t.p  # noqa: E731
    second = lambda t: t.w * (1 - t.p)  # noqa: E731
    assert torch.equal(first(kept), first(plain))
    assert second(plain).tolist() == [-3, 1, -3, 1]
    assert second(kept).tolist() == [0, 0, -3, 1]
    alone = propensity(0.25, nonnegative=True).target(labels, seen._replace(group=torch.tensor([-1] * 4)), {})
    assert second(alone).tolist() == [0, 1, 0, 1]


@quick
@given(st.floats(0.01, 1), st.floats(0, 1))
def test_inverse_weights(theta, clip):
    used = propensity_weights(theta, clip=clip).target(Target(double([1.0]), double([2.0])), bare_terms(double([0.0])), {})
    assert math.isclose(used.w.item(), 2 / max(theta, clip), rel_tol=1e-12)


# ---- missed positives ----------------------------------------------------------------------------------------------------


def coefficients(treatment, x, p):
    """-d loss / d x of a recorded yes (p = 1) or no (p = 0) under the pointwise losses -log s and -log (1 - s)."""
    at = double([x]).requires_grad_()
    terms = bare_terms(sp(-at.detach()), sp(at.detach()))
    used = treatment.target(Target(double([p]), double([1.0])), terms, treatment.init(DataSpec()))
    (slope,) = torch.autograd.grad(used.w * (used.p * sp(-at) + (1 - used.p) * sp(at)), at)
    return -slope.item()


def test_worked_coefficients():
    """Card 05, oracle 1: x_i = .7, g_i = .2, x_j = -.3, g_j = .4."""
    assert abs(coefficients(missed(0.2), 0.7, 1.0) - 0.331812228) < 6e-10
    assert abs(coefficients(missed(0.4), -0.3, 0.0) + 0.196967612) < 6e-10
    assert abs(coefficients(missed(0.2, form="surrogate"), 0.7, 1.0) - 0.265449782) < 6e-10
    assert abs(coefficients(missed(0.4, form="surrogate"), -0.3, 0.0) + 0.195780476) < 6e-10
    terms = bare_terms(sp(double([0.3])), sp(double([-0.3])))
    q = missed(0.4).target(Target(double([0.0]), double([1.0])), terms, {}).p
    assert abs(q.item() - 0.228589872) < 6e-10


@quick
@given(st.floats(-30, 30), st.floats(0, 0.999))
def test_exact_form_has_the_gradient_of_the_likelihood(x, g):
    at = double(x).requires_grad_()
    (wanted,) = torch.autograd.grad(torch.log(torch.sigmoid(-at) + g * torch.sigmoid(at)), at)  # 1 - (1 - g) s without cancellation
    assert math.isclose(coefficients(missed(g), x, 0.0), wanted.item(), rel_tol=1e-6, abs_tol=1e-9)


@quick
@given(st.floats(-8, 8), st.floats(0, 0.999))
def test_surrogate_is_the_detached_form(x, g):
    s = 1 / (1 + math.exp(-x))
    assert math.isclose(coefficients(missed(g, form="surrogate"), x, 1.0), (1 - g) * (1 - s), rel_tol=1e-7, abs_tol=1e-9)
    assert math.isclose(coefficients(missed(g, form="surrogate"), x, 0.0), g * (1 - s) - s, rel_tol=1e-7, abs_tol=1e-9)


def test_fixed_point_of_a_pure_no():
    """Card 05, oracles 4 and 6: the surrogate settles at s = g / (1 + g), where its coefficient crosses zero."""
    s = 0.4 / 1.4
    assert abs(coefficients(missed(0.4, form="surrogate"), math.log(s / (1 - s)), 0.0)) < 1e-12
    values = [coefficients(missed(g, form="surrogate"), 0.3, 0.0) for g in (0.0, 0.3, 0.6, 0.9)]
    assert values == sorted(values)


def test_brute_force_over_true_labels():
    """Card 05, oracle 5: the marginal log likelihood over all 2^9 true matrices, by finite differences, is what (1) climbs."""
    rng = np.random.default_rng(0)
    x, gamma = rng.normal(size=9), rng.uniform(0.1, 0.8, 9)
    recorded = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0])

    def marginal(x):
        s, total = 1 / (1 + np.exp(-x)), 0.0
        for true in itertools.product((0, 1), repeat=9):
            t = np.array(true)
            prior = np.where(t == 1, s, 1 - s)
            seen = np.where(t == 1, np.where(recorded == 1, 1 - gamma, gamma), np.where(recorded == 1, 0, 1))
            total += np.prod(prior * seen)
        return math.log(total)

    for i in range(9):
        step = np.eye(9)[i] * 1e-5
        wanted = (marginal(x + step) - marginal(x - step)) / 2e-5
        assert abs(coefficients(missed(float(gamma[i])), float(x[i]), float(recorded[i])) - wanted) < 1e-7


def test_learned_rate_goes_to_the_truth_with_a_known_model(target):
    """P(yes) known and calibrated, a third of the yes recorded as no: the learned rate finds it; groups have their own."""
    rng = np.random.default_rng(1)
    n, truth = 40_000, np.array([0.1, 0.5])
    group = rng.integers(2, size=n)
    x = rng.normal(0, 2, n)
    yes = rng.random(n) < 1 / (1 + np.exp(-x))
    recorded = yes & (rng.random(n) >= truth[group])
    treat = missed(0.3, by="group", learn=0.2, warmup=0)
    state = treat.init(DataSpec(groups=("x", "y")))
    terms = bare_terms(sp(-double(x)), sp(double(x)))._replace(
        group=torch.tensor(group), given=Target(double(recorded.astype(float)), torch.ones(n, dtype=torch.float64))
    )  # fmt: skip
    for _ in range(150):
        state = treat.update(terms, state)
    np.testing.assert_allclose(state["missed@group"].numpy(), truth, atol=0.03)
    assert state["missed"].item() == 0.3, "no pair without a group was seen"
    used = treat.target(target([0.0, 0.0]), bare_terms(double([1.0, 1.0]), double([1.0, 1.0]))._replace(group=torch.tensor([0, 1])), state)
    assert used.p[0] < used.p[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: propensity(0.0), lambda: propensity(1.1), lambda: propensity(0.5, clip=2.0), lambda: propensity_weights(0.0),
        lambda: missed(1.0), lambda: missed(-0.1), lambda: missed(0.1, learn=2.0), lambda: missed(0.1, learn=0.1, form="surrogate"),
        lambda: missed({"a": 0.1}, by="record", learn=0.1), lambda: missed(0.1, strength=-1.0),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_missing_propensity_is_never_one():
    with pytest.raises(ValueError, match=r"exposure is missing for 1 of 2 records \(first: 'b'\)"):
        propensity({"a": 0.5}).init(DataSpec(records=("a", "b")))
