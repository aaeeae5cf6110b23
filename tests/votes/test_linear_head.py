import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.votes import linear_head
from cupel.votes.folds import group_folds
from cupel.votes.linear_head import LinearHead, fit_tuned, objective, out_of_fold


def sides(rng, n, d):
    return rng.normal(size=(n, d)), rng.normal(size=(n, d))


def slow_objective(theta, first, second, p, w, ridge):
    """The formula, one row and one coordinate at a time."""
    value, gradient = 0.0, [ridge * t for t in theta]
    for i in range(len(p)):
        m = sum((first[i][j] - second[i][j]) * theta[j] for j in range(len(theta)))
        value += w[i] * (p[i] * np.log(1 + np.exp(-m)) + (1 - p[i]) * np.log(1 + np.exp(m)))
        pull = w[i] * (-p[i] / (1 + np.exp(m)) + (1 - p[i]) / (1 + np.exp(-m)))
        for j in range(len(theta)):
            gradient[j] += pull * (first[i][j] - second[i][j])
    return value + ridge / 2 * sum(t * t for t in theta), gradient


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), d=st.integers(1, 4), low=st.floats(-0.5, 0.0), ridge=st.floats(0.01, 10))
@settings(max_examples=40, deadline=None)
def test_objective_and_gradient_equal_the_explicit_twin(seed, n, d, low, ridge):
    rng = np.random.default_rng(seed)
    first, second = sides(rng, n, d)
    p, w, theta = rng.uniform(low, 1 - low, n), rng.uniform(0, 2, n), rng.normal(size=d)
    value, gradient = objective(theta, first - second, p, w, ridge)
    slow, slow_gradient = slow_objective(theta, first, second, p, w, ridge)
    assert value == pytest.approx(slow, rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(gradient, slow_gradient, rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 10_000), ridge=st.sampled_from([0.01, 1.0, 30.0]), outside=st.booleans())
@settings(max_examples=20, deadline=None)
def test_fit_is_the_minimum(seed, ridge, outside):
    rng = np.random.default_rng(seed)
    first, second = sides(rng, 60, 5)
    first[:, 0] *= 20  # badly scaled on purpose
    p = rng.uniform(-0.4, 1.4, 60) if outside else rng.integers(0, 2, 60).astype(float)
    w = rng.uniform(0, 3, 60)
    head = LinearHead(ridge).fit(first, second, p, w)
    _, gradient = objective(head.theta_, first - second, p, w, ridge)
    assert head.result_.converged
    assert np.abs(gradient).max() / w.sum() < 2e-6
    best = objective(head.theta_, first - second, p, w, ridge)[0]
    for _ in range(5):
        assert objective(head.theta_ + 0.01 * rng.normal(size=5), first - second, p, w, ridge)[0] >= best - 1e-9


def test_swapping_the_sides_changes_signs_only():
    rng = np.random.default_rng(0)
    first, second = sides(rng, 80, 4)
    p = rng.integers(0, 2, 80).astype(float)
    one, two = LinearHead(1.0).fit(first, second, p), LinearHead(1.0).fit(second, first, 1 - p)
    np.testing.assert_allclose(one.theta_, two.theta_, atol=1e-6)
    np.testing.assert_allclose(one.margin(first, second), -one.margin(second, first), atol=1e-12)


def test_weights_are_repetitions():
    rng = np.random.default_rng(1)
    first, second = sides(rng, 40, 3)
    p, w = rng.integers(0, 2, 40).astype(float), rng.integers(0, 4, 40)
    rows = np.repeat(np.arange(40), w)
    a = LinearHead(0.5).fit(first, second, p, w.astype(float))
    b = LinearHead(0.5).fit(first[rows], second[rows], p[rows])
    np.testing.assert_allclose(a.theta_, b.theta_, atol=1e-5)


def test_tuning_equals_one_fit_per_fold_and_ridge():
    rng = np.random.default_rng(2)
    first, second = sides(rng, 300, 6)
    p = (rng.random(300) < 1 / (1 + np.exp(-2 * (first - second)[:, 0]))).astype(float)
    groups, ridges = np.arange(300) // 3, (0.1, 3.0, 100.0)
    head = fit_tuned(first, second, p, None, groups, seed=4, ridges=ridges, folds=4)
    fold, slow = group_folds(groups, 4, 4), []
    for ridge in ridges:
        loss = 0.0
        for k in range(4):
            at = LinearHead(ridge).fit(first[fold != k], second[fold != k], p[fold != k]).margin(first[fold == k], second[fold == k])
            loss += (np.logaddexp(0, at) - p[fold == k] * at).sum()
        slow.append(loss / 300)
    np.testing.assert_allclose(head.result_.cv_loss, slow, atol=3e-4)
    assert head.ridge == ridges[int(np.argmin(slow))]


def test_equal_losses_choose_the_larger_ridge():
    rng = np.random.default_rng(3)
    first, second = sides(rng, 40, 2)
    head = fit_tuned(first, second, np.full(40, 0.5), seed=0, ridges=(1.0, 10.0, 100.0))  # theta = 0 for every ridge
    assert head.ridge == 100.0


def test_out_of_fold_margins_see_no_label_of_their_group():
    rng = np.random.default_rng(5)
    first, second = sides(rng, 240, 5)
    groups = rng.integers(0, 30, 240)
    p = (first[:, 0] > second[:, 0]).astype(float)
    before = out_of_fold(first, second, p, None, groups, seed=1, folds=6)
    fold_of_group = {g: set(before.fold[groups == g]) for g in np.unique(groups)}
    assert all(len(folds) == 1 for folds in fold_of_group.values())
    changed = p.copy()
    held = before.fold == 2
    changed[held] = 1 - changed[held]
    after = out_of_fold(first, second, changed, None, groups, seed=1, folds=6)
    np.testing.assert_array_equal(before.margin[held], after.margin[held])
    assert not np.array_equal(before.margin[~held], after.margin[~held])
    again = out_of_fold(first, second, p, None, groups, seed=1, folds=6)
    np.testing.assert_array_equal(before.margin, again.margin)


def test_out_of_fold_equals_its_slow_twin():
    rng = np.random.default_rng(6)
    first, second = sides(rng, 200, 4)
    groups = np.arange(200) // 2
    p = (rng.random(200) < 1 / (1 + np.exp(-(first - second)[:, 1]))).astype(float)
    found = out_of_fold(first, second, p, None, groups, seed=0, folds=4)
    for k, ridge in enumerate(found.ridges):
        train = found.fold != k
        head = LinearHead(ridge).fit(first[train], second[train], p[train])
        np.testing.assert_allclose(found.margin[~train], head.margin(first[~train], second[~train]), atol=2e-4)


def test_many_rows_are_tuned_on_a_part_of_whole_groups(monkeypatch):
    monkeypatch.setattr(linear_head, "TUNING_ROWS", 100)
    rng = np.random.default_rng(7)
    first, second = sides(rng, 400, 3)
    p = (first[:, 0] > second[:, 0]).astype(float)
    head = fit_tuned(first, second, p, None, np.arange(400) // 4, seed=0)
    assert 100 <= head.result_.tuned_on < 130
    assert head.result_.n == 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.update(x_first=np.full((4, 2), np.nan)), "4 of 4 features are not finite"),
        (lambda a: a.update(w=np.array([1, -1, 1, 1.0])), "1 of 4 weights"),
        (lambda a: a.update(w=np.zeros(4)), "weight above 0"),
        (lambda a: a.update(p=np.ones(3)), "4 rows"),
        (lambda a: a.update(x_second=np.ones((4, 3))), "same shape"),
    ],
)
def test_unusable_input_is_named(change, words):
    given_ = {"x_first": np.ones((4, 2)), "x_second": np.zeros((4, 2)), "p": np.ones(4), "w": np.ones(4)}
    change(given_)
    with pytest.raises(InputError, match=words):
        LinearHead(1.0).fit(**given_)


def test_one_group_cannot_be_held_out():
    with pytest.raises(InputError, match="1 group"):
        out_of_fold(np.ones((4, 1)), np.zeros((4, 1)), np.ones(4), None, np.zeros(4), seed=0)
