"""Planted errors that lean, cluster, gather on hard pairs, or belong to annotators or judges: what flips, how much, nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.records import read
from cupel.records.corrupt import (
    annotator_rates,
    answer_like_judge,
    flip_by_annotator,
    flip_hard_pairs,
    flip_position_biased,
    flip_some_groups,
    judge_confusion,
)

POOLS = ["spammers", "adversaries", "few_bad", "many_mild", "equal"]


@pytest.fixture(scope="module")
def votes():
    rng = np.random.default_rng(0)
    rows = [
        {
            "prompt": f"p{i % 40}", "response_a": f"x {i}", "response_b": f"y {i}", "annotator": f"k{rng.integers(5)}",
            "vote": ["a", "b", "tie", "skip", "both_bad"][rng.choice(5, p=[0.4, 0.4, 0.1, 0.05, 0.05])],
        }
        for i in range(3000)
    ]  # fmt: skip
    return read(rows)


def only_flips(before, after, mask):
    """Flipped rows are reversed, other rows and other columns are as they were."""
    np.testing.assert_array_equal(after.sign, np.where(mask, -before.sign, before.sign))
    np.testing.assert_array_equal(after.p, np.where(mask, 1 - before.p, before.p))
    np.testing.assert_array_equal(after.w, before.w)
    np.testing.assert_array_equal(after.first, before.first)
    assert not mask[before.sign == 0].any()
    assert after.ids.equals(before.ids)


@pytest.mark.parametrize("side", ["first", "second"])
def test_position_bias_names_one_side(votes, side):
    bad, mask = flip_position_biased(votes, 0.15, seed=1, side=side)
    only_flips(votes, bad, mask)
    assert mask.sum() == round(0.15 * (votes.sign != 0).sum())
    assert (bad.sign[mask] == (1 if side == "first" else -1)).all()
    flat = read([{"prompt": "p", "chosen": "x", "rejected": "y"}])
    with pytest.raises(InputError, match="shown first"):
        flip_position_biased(flat, 0.1, seed=0)


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.25), (0.1, 0.25), (0.1, 0.0), (0.4, 0.1), (1.0, 0.5)])
def test_errors_of_some_topics(votes, rate, share):
    topics = votes.prompt % 20
    bad, mask = flip_some_groups(votes, rate, seed=2, groups=topics, share=share)
    only_flips(votes, bad, mask)
    decided = votes.sign != 0
    assert mask.sum() == round(rate * decided.sum())
    hit = np.unique(topics[mask])
    held = np.isin(topics, hit) & decided
    if 0 < rate < 1:
        assert held.sum() <= max(share, rate) * decided.sum() + np.bincount(topics, weights=decided).max()
    np.testing.assert_array_equal(flip_some_groups(votes, rate, seed=2, groups=topics, share=share)[1], mask)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.45])
def test_hard_pairs_flip_more(votes, rate):
    strength = np.random.default_rng(3).normal(0, 2, len(votes))
    bad, mask = flip_hard_pairs(votes, strength, rate, seed=4)
    only_flips(votes, bad, mask)
    decided = votes.sign != 0
    assert abs(mask[decided].mean() - rate) < 0.03
    if rate:
        order = np.argsort(np.abs(strength[decided]))
        thirds = [part.mean() for part in np.array_split(mask[decided][order], 3)]
        assert thirds[0] > thirds[2]
        assert max(thirds) < 0.55, "no pair is wrong more often than not"
    np.testing.assert_array_equal(flip_hard_pairs(votes, strength * 17, rate, seed=4)[1], mask), "the scale of strength does not matter"


def test_equal_strengths_are_symmetric_flips_and_impossible_rates_are_refused(votes):
    mask = flip_hard_pairs(votes, np.zeros(len(votes)), 0.2, seed=5)[1]
    assert abs(mask[votes.sign != 0].mean() - 0.2) < 0.03
    with pytest.raises(InputError, match=r"\[0, 1/2\)"):
        flip_hard_pairs(votes, np.zeros(len(votes)), 0.5, seed=5)
    with pytest.raises(InputError, match="finite"):
        flip_hard_pairs(votes, np.full(len(votes), np.nan), 0.1, seed=5)
    extreme = np.ones(len(votes))
    extreme[0] = 1e9
    assert flip_hard_pairs(votes, extreme, 0.3, seed=5)[1].any()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(POOLS), st.floats(0, 1), st.integers(1, 60), st.integers(0, 99))
def test_pools_have_the_rate_they_are_asked_for(kind, rate, n, seed):
    if kind == "spammers" and rate > 0.5:
        with pytest.raises(InputError, match="coins"):
            annotator_rates(kind, rate, n, seed)
        return
    found = annotator_rates(kind, rate, n, seed)
    assert found.shape == (n,)
    assert ((found >= 0) & (found <= 1)).all()
    assert abs(found.mean() - rate) < 1e-6
    if kind == "spammers":
        assert (found <= 0.5).all()
    if kind in ("spammers", "adversaries", "few_bad"):
        worst = found.max()
        assert ((found == 0) | (found == worst)).sum() >= n - 1, "at most one in part"


def test_the_same_error_spread_differently():
    few, many = annotator_rates("few_bad", 0.08, 50, 0), annotator_rates("many_mild", 0.08, 50, 0)
    assert (few > 0).sum() == 5
    assert (many > 0.001).sum() > 30
    assert few.max() > 0.79
    assert many.max() < 0.5
    assert np.sort(many)[-5:].sum() < 0.6 * many.sum()


def test_annotators_flip_at_their_rates(votes):
    rates = np.array([0.0, 0.2, 0.5, 0.9])
    bad, mask = flip_by_annotator(votes, rates, seed=6)
    only_flips(votes, bad, mask)
    decided = votes.sign != 0
    for code, rate in enumerate(rates):
        rows = decided & (bad.annotator == code)
        assert abs(mask[rows].mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / rows.sum()) + 1e-9
    assert bad.meta["planted_rates"] == dict(zip(bad.annotators, rates, strict=True))
    own, mask = flip_by_annotator(votes, np.array([1.0, 0, 0, 0, 0]), seed=6, deal=False)
    np.testing.assert_array_equal(own.annotator, votes.annotator)
    np.testing.assert_array_equal(mask, decided & (votes.annotator == 0))
    unknown = votes.with_(annotator=np.full(len(votes), -1, dtype=np.int32))
    assert not flip_by_annotator(unknown, np.ones(5), seed=6, deal=False)[1].any()
    with pytest.raises(InputError, match="5 numbers"):
        flip_by_annotator(votes, np.ones(4), seed=6, deal=False)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        flip_by_annotator(votes, np.array([1.1]), seed=6)


def test_a_judge_is_copied(votes):
    table = np.array([[0.7, 0.1, 0.2], [0.25, 0.5, 0.25], [0.1, 0.0, 0.9]])
    bad, mask = answer_like_judge(votes, table, seed=7)
    answered = np.isin(votes.outcome, (0, 1, 2))
    assert not mask[~answered].any()
    np.testing.assert_array_equal(bad.outcome[~mask], votes.outcome[~mask])
    np.testing.assert_array_equal(mask, answered & (bad.sign != votes.sign))
    np.testing.assert_array_equal(bad.p[mask], (bad.sign[mask] + 1) / 2)
    found = judge_confusion(votes.sign[answered], bad.sign[answered])
    np.testing.assert_allclose(found, table, atol=0.06)
    untouched, none = answer_like_judge(votes, np.eye(3), seed=7)
    assert not none.any()
    np.testing.assert_array_equal(untouched.outcome, votes.outcome)


def test_confusion_is_shares_of_rows():
    found = judge_confusion(np.array([1, 1, 1, -1]), np.array([1, 0, 1, 1]))
    np.testing.assert_allclose(found, [[0, 0, 1], [1 / 3] * 3, [0, 1 / 3, 2 / 3]])
    smooth = judge_confusion(np.array([1]), np.array([1]), smooth=1.0)
    np.testing.assert_allclose(smooth[2], [0.25, 0.25, 0.5])
    with pytest.raises(InputError, match="signs"):
        judge_confusion(np.array([2]), np.array([1]))


@pytest.mark.parametrize("table", [np.eye(2), np.ones((3, 3)), np.array([[2.0, -1, 0], [0, 1, 0], [0, 0, 1]])])
def test_no_confusion(votes, table):
    with pytest.raises(InputError, match="3 x 3"):
        answer_like_judge(votes, table, seed=0)
