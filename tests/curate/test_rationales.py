"""Oracles of method card 20-usersim on uncertainty, rejection and matches; slow twins; bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cupel.curate.choice_noise import choice_noise
from cupel.curate.rationales import (
    RationaleWarning,
    expected_match,
    explainable,
    padded,
    sample_behaviours,
    sampled_match,
    survival,
    uncertainty,
)
from cupel.errors import InputError

STRONG = np.array([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]])
WEAK = np.array([[[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.35, 0.35, 0.3]]])


def world(seed: int, scenes: int, k: int, n: int, alpha: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(n, alpha), size=(scenes, k))


def bits(row: list[float]) -> float:
    """The twin: one row of entropy, floored and renormalised in plain Python."""
    row = [max(x, 1e-10) for x in row]
    return -math.fsum(x / math.fsum(row) * math.log2(x / math.fsum(row)) for x in row)


def test_the_numbers_of_the_card() -> None:
    strong, weak = uncertainty(STRONG), uncertainty(WEAK)
    rows = [float(uncertainty(STRONG[:, [k, k]]).epistemic[0]) for k in range(3)]
    assert rows == pytest.approx([1.156779649, 1.295461844, 0.921928095], abs=1e-8)
    assert (strong.epistemic[0], strong.total[0], strong.aleatoric[0]) == pytest.approx((1.124723196, 1.368104837, 0.243381641), abs=1e-8)
    assert (weak.epistemic[0], weak.total[0], weak.aleatoric[0]) == pytest.approx((1.574397363, 1.581290899, 0.006893537), abs=1e-8)
    assert float(weak.epistemic[0] - strong.epistemic[0]) == pytest.approx(0.449674167, abs=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_slow_twin_and_is_bounded(seed: int) -> None:
    p = world(seed, 30, 4, 5, 0.1)
    found = uncertainty(p)
    for s in range(30):
        mean = np.mean([np.maximum(row, 1e-10) / np.maximum(row, 1e-10).sum() for row in p[s]], axis=0)
        assert found.total[s] == pytest.approx(bits(mean.tolist()), abs=1e-9)
        assert found.epistemic[s] == pytest.approx(np.mean([bits(row) for row in p[s].tolist()]), abs=1e-9)
    assert (found.aleatoric >= 0).all()
    assert (found.total <= np.log2(5) + 1e-12).all()
    assert found.total == pytest.approx(found.epistemic + found.aleatoric, abs=1e-12)


def test_invariances() -> None:
    p = world(1, 20, 6, 4)
    here, rng = uncertainty(p), np.random.default_rng(0)
    for other in (p[:, rng.permutation(6)], p[:, :, rng.permutation(4)]):
        there = uncertainty(other)
        assert there.total == pytest.approx(here.total, abs=1e-12)
        assert there.epistemic == pytest.approx(here.epistemic, abs=1e-12)
    same = uncertainty(np.repeat(p[:, :1], 6, axis=1))
    assert same.aleatoric == pytest.approx(np.zeros(20), abs=1e-12)
    assert (here.aleatoric > 1e-4).all()  # rows that differ


def test_one_hot_and_uniform_rows() -> None:
    hot = uncertainty(np.eye(4)[None, [0, 1, 2]])
    assert hot.epistemic[0] == pytest.approx(0, abs=1e-7)
    assert hot.aleatoric[0] == pytest.approx(hot.total[0], abs=1e-7)
    assert hot.total[0] == pytest.approx(np.log2(3), abs=1e-7)
    flat = uncertainty(np.full((1, 3, 4), 0.25))
    assert (flat.epistemic[0], flat.total[0]) == pytest.approx((2, 2), abs=1e-12)


def test_ragged_lists_and_masks_agree_with_each_scene_alone() -> None:
    parts = [world(s, 1, 3, n)[0] for s, n in enumerate([2, 5, 3])]
    found = uncertainty(parts)
    for s, part in enumerate(parts):
        assert found.total[s] == pytest.approx(uncertainty(part[None]).total[0], abs=1e-12)
    wide, mask = np.zeros((3, 3, 5)), np.zeros((3, 5), bool)
    for s, part in enumerate(parts):
        wide[s, :, 5 - part.shape[1] :], mask[s, 5 - part.shape[1] :] = part, True  # gaps may be anywhere
    assert uncertainty(wide, mask).aleatoric == pytest.approx(found.aleatoric, abs=1e-12)
    drawn = sample_behaviours(parts, seed=3)
    assert (drawn < np.array([[2], [5], [3]])).all()


def test_drawn_behaviours_follow_the_rows() -> None:
    p = np.array([[[0.6, 0.3, 0.1], [0.0, 0.2, 0.8]]])
    drawn = sample_behaviours(np.repeat(p, 20000, axis=0), seed=5)
    for k in range(2):
        assert np.bincount(drawn[:, k], minlength=3) / 20000 == pytest.approx(p[0, k], abs=0.012)
    assert (drawn == sample_behaviours(np.repeat(p, 20000, axis=0), seed=5)).all()
    assert (drawn != sample_behaviours(np.repeat(p, 20000, axis=0), seed=6)).any()
    assert expected_match(p, [2])[0] == pytest.approx([0.1, 0.8], abs=1e-8)


def test_draws_at_masked_gaps_stay_on_options() -> None:
    p, mask = np.zeros((500, 2, 4)), np.array([False, True, False, True])
    p[:, :, [1, 3]] = [0.4, 0.6]
    drawn = sample_behaviours(p, seed=0, mask=np.tile(mask, (500, 1)))
    assert set(drawn.ravel().tolist()) == {1, 3}


def test_rejection_removes_little_pure_noise() -> None:
    p = np.full((20000, 10, 5), 0.2)
    kept = explainable(sampled_match(p, np.random.default_rng(0).integers(0, 5, 20000), seed=1)).mean()
    assert kept == pytest.approx(1 - 0.8**10, abs=0.007)
    assert survival(np.full((1, 10), 0.2))[0] == pytest.approx(0.892626, abs=1e-6)


def test_survival_is_the_mean_of_rejection() -> None:
    p, q, a = world(2, 6, 3, 4), world(3, 6, 2, 4), np.array([0, 1, 2, 3, 0, 1])
    counts = np.mean([explainable(sampled_match(p, a, seed=s), sampled_match(q, a, seed=s + 5000)) for s in range(3000)], axis=0)
    assert counts == pytest.approx(survival(expected_match(p, a), expected_match(q, a)), abs=0.035)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5])
def test_the_noise_is_found_at_any_sharpness(rate: float) -> None:
    rng = np.random.default_rng(7)
    truth = rng.dirichlet(np.full(5, 0.4), size=4000)
    clean = (truth.cumsum(axis=1) <= rng.random((4000, 1))).sum(axis=1).clip(0, 4)
    wrong = rng.random(4000) < rate
    chosen = np.where(wrong, (clean + rng.integers(1, 5, 4000)) % 5, clean)
    flatter = np.maximum(truth, 1e-9) ** 0.5  # the source is half as sure as it should be: sharpness 2
    flatter /= flatter.sum(axis=1, keepdims=True)
    found = choice_noise(flatter[:, None], chosen)
    assert found.low - 0.01 <= rate <= found.high + 0.01
    assert found.high - found.low < 0.12
    assert found.rate == pytest.approx(rate, abs=0.04)
    if rate:
        assert found.sharpness == pytest.approx(2, abs=0.5)
        order = np.argsort(found.wrong)
        for part in np.array_split(order, 4):  # and it is a probability scene by scene
            assert found.wrong[part].mean() == pytest.approx(wrong[part].mean(), abs=0.1)


def test_a_source_that_knows_nothing_leaves_the_rate_open() -> None:
    found = choice_noise(np.full((300, 2, 4), 0.25), np.arange(300) % 4)
    assert found.low == 0
    assert found.high == pytest.approx(0.75)


def test_one_rationale_has_no_aleatoric_part() -> None:
    with pytest.warns(RationaleWarning, match="one rationale"):
        found = uncertainty(STRONG[:, :1])
    assert np.isnan(found.aleatoric).all()
    assert found.total == pytest.approx(found.epistemic)


@pytest.mark.parametrize(
    ("probs", "said"),
    [
        (np.ones((2, 3, 1)), "fewer than 2 options.*: 2 of 2 scenes"),
        (np.array([[[0.5, 0.5]], [[0.5, 0.6]]]), r"do not sum to 1 .*1 of 2 scenes \(first: scene 1\)"),
        (np.array([[[1.5, -0.5]]]), "negative or not finite"),
        (np.array([[[np.nan, 1.0]]]), "negative or not finite"),
        (np.full((2, 2), 0.5), "shape"),
        (np.zeros((2, 0, 3)), "no rationale"),
        ([np.full((2, 2), 0.5), np.full((3, 2), 0.5)], "2 to 3 rationales"),
        ([np.full(2, 0.5)], "not arrays"),
    ],
)
def test_what_is_no_distribution_is_refused(probs: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        padded(probs)  # type: ignore[arg-type]


def test_other_bad_input() -> None:
    with pytest.raises(InputError, match="outside the mask"):
        padded(np.full((1, 1, 3), 1 / 3), np.array([[True, True, False]]))
    with pytest.raises(InputError, match="not among the scene's options: 1 of 2"):
        expected_match([np.full((1, 2), 0.5), np.full((1, 3), 1 / 3)], [2, 2])
    with pytest.raises(InputError, match="one option"):
        expected_match(STRONG, [0.5])  # type: ignore[list-item]
    with pytest.raises(InputError, match="same scenes"):
        explainable(np.ones((2, 1), bool), np.ones((3, 1), bool))
    with pytest.raises(InputError, match="no scene"):
        choice_noise(np.zeros((0, 1, 2)), np.zeros(0, np.int64))
