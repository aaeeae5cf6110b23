"""Propensities from counts, from displays and from features: what was planted is found again."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.noise.exposure import average
from cupel.noise.propensities import display_frequency, logistic_propensity, popularity_propensity


def test_popularity() -> None:
    """Card 32, oracle 4, and the two versions agree; items without a positive keep their own place."""
    import torch

    from cupel.noise.propensity import popularity

    counts = {"a": 100, "b": 25, "c": 4, "d": 1}
    found = popularity_propensity(counts)
    assert found == {"a": 1.0, "b": 0.5, "c": 0.2, "d": 0.1}
    np.testing.assert_allclose(popularity(torch.tensor(list(counts.values()))), list(found.values()), rtol=1e-6)
    shifted = popularity_propensity({"a": 100, "none": 0, "b": 25}, floor=0.01)
    assert shifted == {"a": 1.0, "none": 0.01, "b": 0.5}


def test_frequencies_of_displays_find_the_policy() -> None:
    """Two positions with policies of their own: within 4 standard errors everywhere; ips with them finds the mean under even choice."""
    rng = np.random.default_rng(0)
    policy = np.stack([rng.dirichlet(np.full(10, 2.0)) for _ in range(2)], axis=1)
    at = rng.integers(0, 2, 60_000)
    item = np.concatenate([rng.choice(10, int((at == k).sum()), p=policy[:, k]) for k in (0, 1)])
    at = np.sort(at)
    found = display_frequency(item.tolist(), at.tolist(), catalogue=range(10), floor=1e-4)
    away = np.abs(found.theta - policy[:, list(found.positions)]) / np.maximum(found.error, 1e-9)
    assert away.max() < 4
    value = rng.normal(size=10)
    theta = found.of(item.tolist(), at.tolist())
    even = average(value[item], theta, form="ips", wanted=0.1)
    assert abs(even.value - value.mean()) < 0.01, "the counted frequencies weigh their own log exactly, up to items never shown"
    assert abs(average(value[item], theta, form="naive").value - value.mean()) > 0.02


def test_frequencies_without_positions_and_with_occasions() -> None:
    found = display_frequency(["a", "b", "a", "a"], catalogue=["c", "a", "b"], occasions=6, floor=0.05)
    assert found.theta.round(4).tolist() == [[0.05], [0.5], [0.1667]]
    assert (found.floored, found.displays.tolist(), found.positions) == (1, [6], (None,))
    assert found.of(["b"]).round(4).tolist() == [0.1667]


def test_logistic_finds_planted_coefficients() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 3))
    truth = np.array([-1.0, 0.8, -0.5, 0.0])
    theta = 1 / (1 + np.exp(-(truth[0] + x @ truth[1:])))
    shown = rng.random(len(x)) < theta
    model = logistic_propensity(x, shown)
    found = np.array([model.intercept, *model.coefficients])
    assert (np.abs(found - truth) < 4 * model.error).all()
    assert np.abs(model.predict(x) - theta).max() < 0.05
    assert abs(model.predict(x).mean() - shown.mean()) < 1e-6, "the intercept is free"
    assert model.steps < 12


def test_logistic_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 4))
    y = rng.random(400) < 0.3
    ours = logistic_propensity(x, y, l2=2.0)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_[0], atol=1e-6)
    assert abs(ours.intercept - theirs.intercept_[0]) < 1e-6


def test_the_floor_is_counted() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2000, 1)) * 3
    y = rng.random(2000) < 1 / (1 + np.exp(3 - 2 * x[:, 0]))
    model = logistic_propensity(x, y, floor=0.05)
    assert model.predict(x).min() == 0.05
    assert model.floored == pytest.approx(float((model.predict(x) == 0.05).mean()))
    assert model.floored > 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: popularity_propensity({"a": 3, "b": 0}), r"1 of 2 items have no positive \(first: 'b'\)"),
        (lambda: popularity_propensity({"a": 0}), "none of the 1 items has a positive"),
        (lambda: popularity_propensity({"a": -1}), "negative"),
        (lambda: popularity_propensity({"a": 1}, power=0.0), "power"),
        (lambda: popularity_propensity({"a": 1}, floor=0.0), "floor"),
        (lambda: display_frequency([]), "at least one row"),
        (lambda: display_frequency(["a"], catalogue=["b"]), r"1 of 1 displayed items are not in the catalogue \(first: 'a'\)"),
        (lambda: display_frequency(["a", "a"], occasions=1), "more often than the 1 occasions"),
        (lambda: display_frequency(["a"], [1], occasions=1), "leave `occasions` out"),
        (lambda: display_frequency(["a"]).of(["b"]), r"1 of 1 rows .*first: row 0, item 'b'"),
        (lambda: logistic_propensity([[0.0], [1.0]], [0, 2]), "0 or 1"),
        (lambda: logistic_propensity([[0.0], [1.0]], [1, 1]), "all of the 2 rows were shown"),
        (lambda: logistic_propensity([[0.0], [np.nan]], [0, 1]), r"1 of 2 rows of features are not finite \(first: row 1\)"),
        (lambda: logistic_propensity([[0.0], [1.0]], [0, 1], l2=0.0), "separate|converge"),
        (lambda: logistic_propensity([[0.0], [1.0]], [0, 1], l2=-1.0), "l2"),
        (lambda: logistic_propensity([[0.0, 1.0], [1.0, 0.0]], [0, 1]).predict([[1.0]]), "2 features, these rows 1"),
    ],
)  # fmt: skip
def test_bad_input(make, message) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_it_costs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, cupel.noise.propensities; assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
