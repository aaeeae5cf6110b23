"""Intervals over users and seeds: coverage on planted truth, pairing, agreement with the bootstrap of the rest of the package."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.evaluate.crossed import crossed_interval
from cupel.evaluate.recommending.intervals import Draws, Measured, resampled


def one(above: np.ndarray, below: np.ndarray | None = None) -> Measured:
    above = np.atleast_2d(above)
    return Measured(above, np.ones(above.shape[1]) if below is None else below)


def test_sums_are_those_of_the_drawn_users() -> None:
    columns = np.random.default_rng(0).normal(size=(13, 2))
    found = resampled(columns, seed=3, draws=50)
    rng = np.random.default_rng([3, 17])
    twin = np.array([columns[rng.integers(0, 13, 13)].sum(axis=0) for _ in range(50)])
    np.testing.assert_allclose(found, twin)


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for k in range(150):
        share = Draws.make({("m", "a"): one((rng.random(40) < 0.3).astype(float))}, seed=k, draws=400).of(("m", "a"), 40)
        inside += share.low <= 0.3 <= share.high  # type: ignore[operator]
    assert 133 <= inside <= 149


def test_what_users_share_cancels_in_a_difference() -> None:
    rng = np.random.default_rng(1)
    user = rng.normal(size=300)
    a, b = user + 0.01 * rng.normal(size=300), user + 0.05 + 0.01 * rng.normal(size=300)
    made = Draws.make({("m", "a"): one(a), ("m", "b"): one(b)}, seed=0, draws=500)
    gap, alone = made.between(("m", "b"), ("m", "a"), 300), made.of(("m", "b"), 300)
    assert gap.low > 0.04  # type: ignore[operator]
    assert gap.high < 0.06  # type: ignore[operator]
    assert alone.high - alone.low > 10 * (gap.high - gap.low)  # type: ignore[operator]


def test_the_same_as_groups_crossed_with_seeds() -> None:
    """Where every user counts 1, the interval is that of `crossed_interval`, up to the draws."""
    rng = np.random.default_rng(2)
    a = np.clip(rng.random((3, 200)) * 0.5 + np.array([[0.0], [0.1], [0.2]]), 0, 1)
    b = np.clip(rng.random((3, 200)) * 0.5, 0, 1)
    made = Draws.make({("m", "a"): one(a), ("m", "b"): one(b)}, seed=0, draws=20000)
    for share, base in ((made.of(("m", "a"), 200), None), (made.between(("m", "a"), ("m", "b"), 200), b)):
        low, high, estimate, groups = crossed_interval(a, base, np.arange(200), seed=0, draws=20000)
        assert (share.estimate, share.groups) == (pytest.approx(estimate), groups)
        assert share.low == pytest.approx(low, abs=0.03 * (high - low))  # type: ignore[operator]
        assert share.high == pytest.approx(high, abs=0.03 * (high - low))  # type: ignore[operator]
    flat = Draws.make({("m", "a"): one(a.mean(axis=0))}, seed=0, draws=20000).of(("m", "a"), 200)
    assert made.of(("m", "a"), 200).high - flat.high > 0.05  # type: ignore[operator]  # seeds differ by .1


def test_ends_stay_where_metrics_can_be() -> None:
    near = np.tile(np.array([[1.0], [0.2], [0.9]]), (1, 30)) * np.linspace(0.9, 1, 30)
    made = Draws.make({(m, n): one(x) for m in ("m", "m ips") for n, x in (("a", near), ("b", 1 - near))}, seed=0, draws=200)
    assert (made.of(("m", "a"), 30).low, made.of(("m", "a"), 30).high) == (0.0, 1.0)
    assert made.of(("m ips", "a"), 30).high > 1.0  # type: ignore[operator]
    assert made.between(("m", "a"), ("m", "b"), 30).high == 1.0


def test_users_that_do_not_count_and_ratios() -> None:
    above, below = np.array([1.0, 0, 2, 0, 3]), np.array([2.0, 0, 2, 0, 4])
    share = Draws.make({("m", "a"): one(above, below)}, seed=0, draws=300).of(("m", "a"), 9)
    assert (share.estimate, share.groups, share.n) == (0.75, 3, 9)
    nobody = Draws.make({("m", "a"): one(np.zeros(3), np.zeros(3)), ("m", "b"): one(np.zeros(3), np.zeros(3))}, seed=0, draws=10)
    assert nobody.of(("m", "a"), 0).estimate is None
    assert nobody.between(("m", "a"), ("m", "b"), 0).estimate is None
    alone = Draws.make({("m", "a"): one(np.array([1.0, 0]), np.array([1.0, 0]))}, seed=0, draws=10).of(("m", "a"), 1)
    assert (alone.estimate, alone.low) == (1.0, None)
