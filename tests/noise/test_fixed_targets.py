"""Targets from known numbers: smoothing, the unbiased correction, votes, soft labels (cards 03-rdpo, 00-objectives-reference)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from cupel.noise.fixed import conservative, identity, reliability_weights, soft_labels, unbiased, unbiased_by_side, votes
from cupel.noise.loss import preference_loss
from cupel.noise.types import DataSpec, Target, Terms, bare_terms
from cupel.objectives.types import Side

quick = settings(max_examples=40, deadline=None)
M = [-3.0, -1.0, -0.2, 0.0, 0.5, 2.0, 5.0]
RDPO = {
    0.1: [3.423587, 1.438262, 0.823139, 0.693147, 0.411577, -0.123072, -0.618285],
    0.2: [4.048587, 1.646595, 0.864806, 0.693147, 0.30741, -0.539739, -1.659951],
    0.4: [9.048587, 3.313262, 1.198139, 0.693147, -0.525923, -3.873072, -9.993285],
}


def softplus(x):
    return torch.nn.functional.softplus(torch.as_tensor(x, dtype=torch.float64))


def value(treatment, keep, flip, terms, target, p=1.0, spec=None):
    """Loss (1) of labels p under a treatment."""
    t = terms(keep, flip)
    used = treatment.target(target([p] * len(t.keep)), t, treatment.init(spec or DataSpec()))
    return used.w * (used.p * t.keep + (1 - used.p) * t.flip)


@pytest.mark.parametrize("flip", sorted(RDPO))
def test_unbiased_sigmoid_is_rdpo(flip, terms, target):
    m = torch.tensor(M, dtype=torch.float64)
    found = value(unbiased(flip), softplus(-m), softplus(m), terms, target)
    torch.testing.assert_close(found, torch.tensor(RDPO[flip], dtype=torch.float64), atol=6e-7, rtol=0)
    torch.testing.assert_close(found, softplus(-m) - flip / (1 - 2 * flip) * m, atol=1e-14, rtol=0)


def test_conservative_sigmoid_is_cdpo(terms, target):
    m = torch.tensor(M, dtype=torch.float64)
    found = value(conservative(0.2), softplus(-m), softplus(m), terms, target)
    golden = [2.448587, 1.113262, 0.758139, 0.693147, 0.574077, 0.526928, 1.006715]
    torch.testing.assert_close(found, torch.tensor(golden, dtype=torch.float64), atol=6e-7, rtol=0)
    torch.testing.assert_close(found, softplus(-m) + 0.2 * m, atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("flip", "golden"),
    [(0.1, [0.57313887, 0.82313887, 0.7088503, 0.31568605]), (0.3, [0.44813887, 0.94813887, 0.7244753, -0.12181395])],
)
def test_unbiased_equals_trl_robust_on_the_fixture(flip, golden, pairs, terms, target):
    m = 0.1 * pairs["h"]
    found = value(unbiased(flip), softplus(-m), softplus(m), terms, target)
    torch.testing.assert_close(found, torch.tensor(golden, dtype=torch.float64), atol=6e-9, rtol=0)


def test_other_losses_are_corrected_by_the_same_map(terms, target):
    h = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    ipo = value(unbiased(0.2), (h - 5) ** 2, (-h - 5) ** 2, terms, target)
    torch.testing.assert_close(ipo, torch.tensor([62.333333, 16.916667, -16.0], dtype=torch.float64), atol=6e-7, rtol=0)
    hinge = value(unbiased(0.2), (1 - h).clamp(min=0), (1 + h).clamp(min=0), terms, target)
    torch.testing.assert_close(hinge, torch.tensor([4.0, 0.166667, -1.333333], dtype=torch.float64), atol=6e-7, rtol=0)
    step = value(unbiased(0.2), torch.sigmoid(-h), torch.sigmoid(h), terms, target)
    torch.testing.assert_close(step, torch.tensor([1.134662, 0.295901, -0.25429], dtype=torch.float64), atol=6e-7, rtol=0)


@quick
@given(st.floats(0, 0.44), st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 1))
def test_unbiased_in_expectation_over_flips(flip, keep, flipped, p):
    """(1 - e) corrected(label) + e corrected(reversed label) = loss of the label, for any two losses and soft labels."""
    treat = unbiased(flip)
    new = [treat.target(label(q), bare_terms(torch.zeros(1)), {}).p.item() for q in (p, 1 - p)]
    right, reverse = (q * keep + (1 - q) * flipped for q in new)
    assert math.isclose((1 - flip) * right + flip * reverse, p * keep + (1 - p) * flipped, rel_tol=1e-9, abs_tol=1e-9)


def label(p):
    """One label by itself (hypothesis and function fixtures do not mix)."""
    return Target(torch.tensor([p], dtype=torch.float64), torch.ones(1, dtype=torch.float64))


def test_worked_unbiasedness_and_variance():
    """Card 03, oracle 2: e = .2, m = .7; value .40318604888545795, variance e (1 - e) (m / (1 - 2e))^2."""
    keep, flip = softplus(-0.7).item(), softplus(0.7).item()
    p = [unbiased(0.2).target(label(q), bare_terms(torch.zeros(1)), {}).p.item() for q in (1.0, 0.0)]
    values = np.array([q * keep + (1 - q) * flip for q in p])
    chance = np.array([0.8, 0.2])
    assert math.isclose(chance @ values, 0.40318604888545795, abs_tol=1e-15)
    assert math.isclose(chance @ (values - chance @ values) ** 2, 0.21777778, abs_tol=6e-9)


def test_correcting_twice_is_correcting_once_with_the_product():
    p = unbiased(0.2).target(unbiased(0.1).target(label(1.0), bare_terms(torch.zeros(1)), {}), bare_terms(torch.zeros(1)), {}).p
    both = (1 - (1 - 0.2) * (1 - 0.4)) / 2
    torch.testing.assert_close(p, unbiased(both).target(label(1.0), bare_terms(torch.zeros(1)), {}).p, atol=1e-14, rtol=0)


POPULATION = {
    (0.1, "plain"): [0.397003, 0.776137, 1.415536, 2.046673],
    (0.1, "conservative"): [0.316102, 0.609722, 1.065342, 1.440221],
    (0.1, "unbiased"): [0.5, 1, 2, 4],
    (0.3, "plain"): [0.196565, 0.373993, 0.629248, 0.813268],
    (0.3, "conservative"): [0.078414, 0.148148, 0.244927, 0.310971],
    (0.3, "unbiased"): [0.5, 1, 2, 4],
}


@pytest.mark.parametrize(("flip", "name"), sorted(POPULATION))
def test_minimiser_of_the_population_loss(flip, name):
    """Card 03, oracle 4: where the expected loss over noisy labels ends, for clean log-odds .5, 1, 2, 4."""
    treat = {"plain": identity(), "conservative": conservative(flip), "unbiased": unbiased(flip)}[name]
    p = [treat.target(label(q), bare_terms(torch.zeros(1)), {}).p.item() for q in (1.0, 0.0)]
    for clean, golden in zip([0.5, 1.0, 2.0, 4.0], POPULATION[flip, name], strict=True):
        truth = 1 / (1 + math.exp(-clean))
        share = (1 - flip) * truth + flip * (1 - truth)
        says = share * p[0] + (1 - share) * p[1]

        def loss(m, label=says):
            return label * np.logaddexp(0, -m) + (1 - label) * np.logaddexp(0, m)

        found = minimize_scalar(loss, bounds=(-10, 10), method="bounded", options={"xatol": 1e-9}).x
        assert abs(found - golden) < 2e-6


@quick
@given(st.floats(0, 0.4), st.floats(0, 0.4))
def test_rates_by_side_are_undone(first, second):
    treat = unbiased_by_side(first, second)
    says = [treat.target(label(p), bare_terms(torch.zeros(1)), {}).p.item() for p in (1.0, 0.0)]
    assert math.isclose((1 - first) * says[0] + first * says[1], 1, abs_tol=1e-9)
    assert math.isclose(second * says[0] + (1 - second) * says[1], 0, abs_tol=1e-9)
    if first == second:
        torch.testing.assert_close(torch.tensor(says[0]), unbiased(first).target(label(1.0), bare_terms(torch.zeros(1)), {}).p[0].float())


def test_rates_by_annotator_and_the_ones_that_say_nothing(terms, target):
    treat = unbiased({"ann": 0.1, "bob": 0.9, "coin": 0.48, "": 0.25}, by="annotator")
    spec = DataSpec(annotators=("coin", "bob", "ann"))
    t = terms([0.0] * 4, [1.0] * 4, annotator=torch.tensor([2, 1, 0, -1]))
    used = treat.target(target([1.0] * 4), t, treat.init(spec))
    torch.testing.assert_close(used.p, torch.tensor([1.125, -0.125, 1.0, 1.5], dtype=torch.float64))
    assert used.w.tolist() == [1, 1, 0, 1], "a coin's label weighs nothing"
    reverse = unbiased(0.1).target(target([0.0]), t, {})
    torch.testing.assert_close(used.p[1], reverse.p[0], msg="a label that is mostly wrong is the other label")


def test_rescaled_weights_keep_the_slope(terms, target):
    used = unbiased(0.3, rescale=True).target(target([1.0, 0.0]), terms([0, 0], [0, 0]), {})
    torch.testing.assert_close(used.w, torch.tensor([0.4, 0.4], dtype=torch.float64))
    torch.testing.assert_close(used.w * (2 * used.p - 1), torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_unknown_ids_are_named(terms, target):
    treat = conservative({"ann": 0.1}, by="annotator")
    with pytest.raises(ValueError, match=r"flip is missing for 2 of 3 annotators \(first: 'bob'\)"):
        treat.init(DataSpec(annotators=("ann", "bob", "cem")))
    state = treat.init(DataSpec(annotators=("ann",)))
    with pytest.raises(ValueError, match=r"1 of 2 comparisons have no annotator \(first: row 1\)"):
        treat.target(target([1.0, 1.0]), terms([0, 0], [0, 0], annotator=torch.tensor([0, -1])), state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conservative(0.5), r"in \[0, 1/2\)"),
        (lambda: unbiased(-0.1), r"in \[0, 1/2\)"),
        (lambda: unbiased(float("nan")), r"in \[0, 1/2\)"),
        (lambda: unbiased(0.46), "extreme=True"),
        (lambda: unbiased({"a": 1.2}, by="annotator"), r"of 'a' \(1 of 1 values\)"),
        (lambda: conservative({"a": 0.1}), "say whose ids"),
        (lambda: unbiased_by_side(0.5, 0.45), "add up"),
        (lambda: soft_labels({"r": 1.5}), "probability"),
        (lambda: votes({"r": (-1, 2, 0)}), "negative counts"),
        (lambda: reliability_weights(0.6), "1/2"),
    ],
)
def test_bad_rates_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_votes_and_ties(terms, target):
    treat = votes({"x": (3, 1, 0), "y": (0, 0, 2), "z": (0, 0, 0), "v": (1, 0, 1)})
    state = treat.init(DataSpec(records=("v", "x", "y", "z")))
    used = treat.target(target([1.0] * 4, [2.0] * 4), terms([0] * 4, [0] * 4), state)
    assert used.p.tolist() == [0.75, 0.75, 0.5, 0.5]
    assert used.w.tolist() == [4, 8, 4, 0]
    once = votes({"x": (3, 1, 0), "y": (0, 0, 2), "z": (0, 0, 0), "v": (1, 0, 1)}, weight="one")
    assert once.target(target([1.0] * 4), terms([0] * 4, [0] * 4), state).w.tolist() == [1, 1, 1, 0]


def test_votes_are_their_rows_one_by_one(toy):
    """Three votes a, one b and a tie on a pair give the gradient of five rows."""
    score = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    none = torch.tensor([-1])
    at = Terms(zero, zero, torch.tensor([0]), none, none)
    treat = votes({"x": (3, 1, 1)})
    loss, _ = preference_loss(toy, treat, Side(score=score), Side(score=zero), label(1.0), at, treat.init(DataSpec(records=("x",))))
    rows = 0.0
    for p in (1.0, 1.0, 1.0, 0.0, 0.5):
        rows = rows + preference_loss(
            toy, identity(), Side(score=score), Side(score=zero), Target(torch.tensor([p], dtype=torch.float64), zero + 1), at, {}
        )[0]  # fmt: skip
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), score), torch.autograd.grad(rows.sum(), score))


@quick
@given(st.floats(-8, 8), st.floats(1.01, 5))
def test_ties_are_half_labels_up_to_a_constant(delta, theta):
    """Rao-Kupper: -log P(tie) = softplus(-(d - log t)) + softplus(-(-d - log t)) - log(t^2 - 1), twice a half label; Davidson: once."""
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    tie = 1 - sigmoid(delta - math.log(theta)) - sigmoid(-delta - math.log(theta))
    keep, flip = (-math.log(sigmoid(s * delta - math.log(theta))) for s in (1, -1))
    assert math.isclose(-math.log(tie), 2 * (0.5 * keep + 0.5 * flip) - math.log(theta**2 - 1), rel_tol=1e-6, abs_tol=1e-9)
    nu = theta
    z = math.exp(delta / 2) + math.exp(-delta / 2) + nu
    keep, flip = (-(s * delta / 2) + math.log(z) for s in (1, -1))
    assert math.isclose(-math.log(nu / z), 0.5 * keep + 0.5 * flip - math.log(nu), rel_tol=1e-9, abs_tol=1e-9)
