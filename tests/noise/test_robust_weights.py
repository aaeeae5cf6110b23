"""Weights that bound single comparisons: gradients of the published losses, limits and order (cards 00, 03)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.robust import bounded, distributionally_robust, ropo, tempered, trimmed
from cupel.noise.types import Target, bare_terms

quick = settings(max_examples=40, deadline=None)
double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
sp = torch.nn.functional.softplus


def test_gradient_of_dr_dpo_on_the_fixture(pairs, terms, target):
    h = pairs["h"].clone().requires_grad_()
    keep = sp(-0.1 * h)
    w = distributionally_robust(1.0).target(target([1.0] * 4), terms(keep.detach()), {}).w
    (slope,) = torch.autograd.grad((w * keep).mean(), h, retain_graph=True)
    torch.testing.assert_close(slope, double([-0.01144883, -0.01144883, -0.01156189, -0.01025528]), atol=6e-9, rtol=0)
    scalar = -torch.log(torch.exp(-keep).mean())
    assert abs(scalar.item() - 0.61528927) < 6e-9
    assert scalar < keep.mean()
    (published,) = torch.autograd.grad(scalar, h)
    torch.testing.assert_close(slope, published, atol=1e-15, rtol=0)


ROWS = st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(0, 1), st.floats(0, 5)), min_size=1, max_size=9)


@quick
@given(ROWS, st.floats(0.05, 20))
def test_gradient_of_the_weighted_soft_scalar(rows, t):
    """-t log(sum w e^(-loss / t) / sum w) has the gradient of our weights, for soft labels and any weights."""
    keep, flip, p, w = (double([row[i] for row in rows]) for i in range(4))
    w = w + 0.01
    keep.requires_grad_()
    loss = p * keep + (1 - p) * flip
    scalar = -t * (torch.logsumexp(-loss / t + w.log(), 0) - w.sum().log())
    (published,) = torch.autograd.grad(scalar, keep)
    used = distributionally_robust(t).target(Target(p, w), bare_terms(keep.detach(), flip), {})
    torch.testing.assert_close(used.w * p / w.sum(), published, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(used.w.sum(), w.sum())


def test_limits_of_the_temperature(terms, target):
    seen, plain = terms([0.1, 2.0, 1.0]), target([1.0] * 3)
    assert distributionally_robust(math.inf).target(plain, seen, {}) == plain
    torch.testing.assert_close(distributionally_robust(1e9).target(plain, seen, {}).w, plain.w, atol=1e-6, rtol=0)
    torch.testing.assert_close(distributionally_robust(1e-3).target(plain, seen, {}).w, double([3.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    nothing = target([1.0] * 3, [0.0] * 3)
    assert distributionally_robust(1.0).target(nothing, seen, {}).w.tolist() == [0, 0, 0]


def test_a_comparison_without_weight_stays_without(terms, target):
    used = distributionally_robust(1.0).target(target([1.0] * 3, [1.0, 0.0, 2.0]), terms([0.1, 0.0, 1.0]), {})
    assert used.w[1] == 0
    assert abs(used.w.sum() - 3) < 1e-12


@quick
@given(st.floats(0, 1), st.floats(0, 40))
def test_tempered_is_the_gradient_of_the_bounded_loss(q, loss):
    at = double(loss).requires_grad_()
    published = (1 - torch.exp(-q * at)) / q if q > 1e-6 else at
    (slope,) = torch.autograd.grad(published, at)
    w = tempered(q).target(Target(double([1.0]), double([1.0])), bare_terms(double([loss])), {}).w
    torch.testing.assert_close(w[0], slope, atol=1e-4 if q < 1e-4 else 1e-9, rtol=1e-7)


@quick
@given(st.floats(-30, 30))
def test_tempered_at_power_1_cannot_be_moved_by_flips(m):
    """With the sigmoid objective the bounded losses of the two labels add up to 1 (card 03, oracle 7)."""
    both = sum(1 - torch.exp(-sp(double(sign * m))) for sign in (1, -1))
    assert abs(both - 1) < 1e-12
    seen = bare_terms(sp(double([-m])), sp(double([m])))
    w = [tempered(1.0).target(Target(double([p]), double([1.0])), seen, {}).w for p in (1.0, 0.0)]
    torch.testing.assert_close(w[0] * torch.sigmoid(double(-m)), w[1] * torch.sigmoid(double(m)), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(
    ("alpha", "loss", "slope"),
    [
        (2.0, [1.33197411, 1.68693943, 1.5273108, 0.948276], [-0.0840177, -0.09287708, -0.08943747, -0.06891004]),
        (14.0, [1.71744855, 2.11451391, 1.93964605, 1.2565298], [-0.09744991, -0.09993053, -0.09969749, -0.08551306]),
    ],
)
def test_ropo_on_the_fixture(alpha, loss, slope, pairs, terms, target):
    h = pairs["h"].clone().requires_grad_()
    keep, flip = sp(-0.1 * h), sp(0.1 * h)
    published = 4 * alpha / (1 + alpha) ** 2 * (keep + alpha * torch.sigmoid(-0.1 * h))
    torch.testing.assert_close(published.detach(), double(loss), atol=6e-9, rtol=0)
    used = ropo(alpha).target(target([1.0] * 4), terms(keep.detach(), flip.detach()), {})
    assert used.p.tolist() == [1, 1, 1, 1]
    (found,) = torch.autograd.grad((used.w * keep).sum(), h)
    torch.testing.assert_close(found, double(slope), atol=6e-9, rtol=0)


def test_ropo_weighs_at_most_1_and_where(margin_terms, target):
    for alpha in (2.0, 14.0):
        m = torch.linspace(-12, 12, 4801, dtype=torch.float64)
        used = ropo(alpha).target(target([1.0] * len(m)), margin_terms(m), {})
        pull = used.w * torch.sigmoid(-m)
        assert pull.max() <= 1 + 1e-12
        assert abs(torch.sigmoid(m[pull.argmax()]) - (alpha - 1) / (2 * alpha)) < 1e-3


@quick
@given(st.floats(-10, 10), st.floats(0, 1), st.floats(1.1, 30))
def test_ropo_of_a_soft_label_is_the_mixture(m, p, alpha):
    at = double([m]).requires_grad_()
    c = 4 * alpha / (1 + alpha) ** 2

    def published(x):
        return c * (sp(-x) + alpha * torch.sigmoid(-x))

    (wanted,) = torch.autograd.grad(p * published(at) + (1 - p) * published(-at), at)
    used = ropo(alpha).target(Target(double([p]), double([1.0])), bare_terms(sp(double([-m])), sp(double([m]))), {})
    (found,) = torch.autograd.grad(used.w * (used.p * sp(-at) + (1 - used.p) * sp(at)), at)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-9)


@quick
@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.floats(0, 10))
def test_bounded_is_the_gradient_of_the_clipped_loss(losses, ceiling):
    if any(abs(x - ceiling) < 1e-9 for x in losses):
        return
    keep = double(losses).requires_grad_()
    (published,) = torch.autograd.grad(keep.clamp(max=ceiling).sum(), keep)
    used = bounded(ceiling).target(Target(torch.ones_like(keep), torch.ones_like(keep)), bare_terms(keep.detach()), {})
    assert torch.equal(used.w, published)


def test_trimmed_mean(terms, target):
    keep = [5.0, 1.0, 9.0, 2.0, 9.0]
    used = trimmed(0.4).target(target([1.0] * 5), terms(keep), {})
    torch.testing.assert_close((used.w * double(keep)).mean(), double((5 + 1 + 2) / 3))
    used = trimmed(0.2).target(target([1.0] * 5), terms(keep), {})
    assert used.w.tolist() == [1.25, 1.25, 1.25, 1.25, 0.0], "of two equal losses the smaller record stays"
    backwards = torch.arange(4, -1, -1)
    again = trimmed(0.2).target(target([1.0] * 5), terms(keep[::-1], record=backwards), {})
    assert torch.equal(again.w, used.w.flip(0))


def test_labels_for_the_second_side_are_judged_by_the_flipped_loss(terms, target):
    seen = terms([0.1, 0.1, 3.0], [3.0, 3.0, 0.1])
    assert trimmed(1 / 3).target(target([1.0, 0.0, 0.0]), seen, {}).w.tolist() == [1.5, 0.0, 1.5]
    assert bounded(1.0).target(target([1.0, 0.0, 0.0]), seen, {}).w.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: distributionally_robust(0.0), lambda: distributionally_robust(float("nan")), lambda: tempered(1.1),
        lambda: tempered(-0.1), lambda: bounded(float("nan")), lambda: trimmed(1.0), lambda: trimmed(-0.1), lambda: ropo(1.0),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()
