"""Distances to the training sides: Mahalanobis's where nothing is left out, calibrated on rows that were not looked at."""

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.learners.familiar import QUANTILES, Familiar, unlike, vote_of
from cupel.votes.folds import group_folds


def cloud(seed, n, d, shape=None):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) if shape is None else shape
    return rng.normal(size=(n, d)) @ mix + np.arange(d)


def test_with_all_directions_it_is_the_distance_of_mahalanobis():
    x, y = cloud(0, 900, 5), cloud(1, 40, 5)
    found = Familiar.fit(x)
    assert found.directions.shape == (5, 5)
    half = x[group_folds(np.arange(900), 2, 0) == 0]
    off = y - half.mean(axis=0)
    slow = np.array([row @ np.linalg.inv(np.cov(half, rowvar=False)) @ row for row in off])
    np.testing.assert_allclose(found.distance(y), slow, rtol=1e-7)
    other = x[group_folds(np.arange(900), 2, 0) == 1]
    np.testing.assert_allclose(found.quantiles, np.quantile(found.distance(other), QUANTILES))
    assert found.held == len(other)


def test_with_fewer_directions_the_others_share_their_variance():
    x, y = cloud(0, 220, 30), cloud(1, 20, 30)  # 110 rows in a half: 11 directions
    found = Familiar.fit(x)
    half = x[group_folds(np.arange(220), 2, 0) == 0]
    values, vectors = np.linalg.eigh(np.cov(half, rowvar=False))
    values[: 30 - 11] = values[: 30 - 11].mean()
    inverse = vectors @ np.diag(1 / values) @ vectors.T
    off = y - half.mean(axis=0)
    np.testing.assert_allclose(found.distance(y), np.einsum("nd,de,ne->n", off, inverse, off), rtol=1e-7)


def test_alike_rows_lie_beyond_as_often_as_they_should():
    shares = [Familiar.fit(cloud(seed, 4000, 20)).beyond(cloud(seed + 50, 4000, 20)).mean() for seed in range(8)]
    assert 0.007 < np.mean(shares) < 0.014


def test_groups_that_differ_widen_the_limit():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(60, 8)) * 4
    group = np.repeat(np.arange(60), 20)
    x = centre[group] + rng.normal(size=(1200, 8)) * 0.3
    new = (rng.normal(size=(60, 8)) * 4)[group] + rng.normal(size=(1200, 8)) * 0.3  # groups that nobody has seen
    assert Familiar.fit(x, group).beyond(new).mean() < 0.08
    few = np.repeat(np.arange(3), 400)  # fewer than 10: the next labels, or rows, are what halves are cut by
    np.testing.assert_array_equal(Familiar.fit(x, few, group).quantiles, Familiar.fit(x, group).quantiles)
    np.testing.assert_array_equal(Familiar.fit(x, few).quantiles, Familiar.fit(x).quantiles)


def test_too_little_says_nothing():
    assert Familiar.fit(cloud(0, 199, 4)) is None
    assert Familiar.fit(np.ones((500, 4))) is None
    assert unlike(None, np.ones((3, 4)), np.array([0]), np.array([1])) is None


def test_a_constant_column_is_no_division_by_zero():
    x = np.concatenate([cloud(0, 400, 3), np.full((400, 2), 7.0)], axis=1)
    found = Familiar.fit(x)
    assert np.isfinite(found.distance(x)).all()
    moved = x.copy()
    moved[:, 4] += 1
    assert found.beyond(moved).all()


def test_many_rows_are_cut_and_the_same_seed_gives_the_same():
    x = cloud(0, 20_000, 3)
    one, two = Familiar.fit(x, seed=3), Familiar.fit(x, seed=3)
    assert one.quantiles == two.quantiles
    assert one.held == 4000
    for name, value in one.tensors().items():
        np.testing.assert_array_equal(value, two.tensors()[name])
    assert Familiar.fit(x, seed=4).quantiles != one.quantiles


def test_it_is_read_as_it_was_written_and_only_so():
    found = Familiar.fit(cloud(0, 300, 6))
    config, tensors = {"familiar": found.recorded()}, found.tensors()
    again = Familiar.read(config, tensors)
    assert again.quantiles == found.quantiles
    np.testing.assert_array_equal(again.distance(cloud(2, 9, 6)), found.distance(cloud(2, 9, 6)))
    assert Familiar.read({}, {}) is None
    with pytest.raises(InputError, match="version 2"):
        Familiar.read({"familiar": {**found.recorded(), "version": 2}}, tensors)
    with pytest.raises(ValueError, match="directions"):
        Familiar.read(config, {**tensors, "familiar.middle": np.zeros(5)})


def test_each_side_has_a_comparison():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 30, 80), rng.integers(0, 30, 80)
    at = vote_of(first, second, 30)
    for row in np.union1d(first, second):
        assert row in (first[at[row]], second[at[row]])
