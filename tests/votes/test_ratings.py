"""Agreement on ratings: kappa against scikit-learn and against loops over pairs, annotators, close ratings, refusals."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.votes.agreement import cohen_kappa
from cupel.votes.ratings import annotator_agreement, flag_untrusted, pairwise_kappas, qwk, rating_agreement

ONE, TWO = np.array([0, 1, 2, 3, 4, 4, 3, 2, 1, 0]), np.array([0, 2, 2, 3, 4, 3, 3, 1, 1, 1])


def ratings(seed=0, items=60, people=8, noise=0.8):
    """Items with 1 to 5 ratings each by different people."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(5, items, p=(0.08, 0.12, 0.17, 0.28, 0.35))
    item = np.repeat(np.arange(items), rng.integers(1, 6, items))
    annotator = np.concatenate([rng.permutation(people)[: (item == i).sum()] for i in range(items)])
    value = np.clip(np.rint(truth[item] + rng.normal(0, noise, len(item))), 0, 4).astype(int)
    order = rng.permutation(len(item))
    return item[order], annotator[order], value[order]


def pairs_of(item, annotator, value):
    """(annotator, rating, annotator, rating) of every ordered pair of ratings of one item."""
    for i, j in combinations(range(len(item)), 2):
        if item[i] == item[j]:
            yield annotator[i], value[i], annotator[j], value[j]
            yield annotator[j], value[j], annotator[i], value[i]


def by_histogram(x, y, levels=5):
    """The formula as it is written, with its matrices."""
    weight = (np.arange(levels)[:, None] - np.arange(levels)[None, :]) ** 2 / (levels - 1) ** 2
    observed = np.zeros((levels, levels))
    np.add.at(observed, (x, y), 1)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / observed.sum()
    return 1 - (weight * observed).sum() / (weight * expected).sum()


def test_worked_example():
    assert qwk(ONE, TWO) == pytest.approx(0.882353, abs=1e-6)
    assert cohen_kappa(ONE, TWO) == pytest.approx(0.5)
    assert qwk(ONE, ONE) == 1
    assert by_histogram(ONE, TWO) == pytest.approx(qwk(ONE, TWO))


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sklearn(seed):
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 40), rng.integers(0, 5, 40)
    assert qwk(a, b) == pytest.approx(cohen_kappa_score(a, b, weights="quadratic", labels=range(5)))
    gaps = np.array([0, 4, 4, 0, 1])  # 2 and 3 never occur: distances are of the values, not of ranks
    assert qwk(gaps, gaps[::-1]) == pytest.approx(cohen_kappa_score(gaps, gaps[::-1], weights="quadratic", labels=range(5)))


def test_independent_raters_have_none():
    rng = np.random.default_rng(0)
    found = [qwk(rng.choice(5, 200, p=(0.4, 0.1, 0.1, 0.1, 0.3)), rng.integers(0, 5, 200)) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


@pytest.mark.parametrize("seed", range(4))
def test_all_pairs_in_both_orders(seed):
    item, annotator, value = ratings(seed)
    _, x, _, y = (np.array(column) for column in zip(*pairs_of(item, annotator, value), strict=True))
    found = rating_agreement(item, annotator, value, seed=seed, draws=100)
    assert found.kappa == pytest.approx(by_histogram(x, y))
    assert found.exact == pytest.approx((x == y).mean())
    assert found.within_one == pytest.approx((abs(x - y) <= 1).mean())
    assert found.pairs == len(x) // 2
    counts = np.bincount(item)
    assert found.alone == tuple(np.flatnonzero(counts == 1))
    assert (found.items, found.ratings) == ((counts > 1).sum(), counts[counts > 1].sum())
    assert found.low < found.kappa < found.high


@pytest.mark.parametrize("seed", range(4))
def test_each_against_everybody_else(seed):
    item, annotator, value = ratings(seed)
    table = list(pairs_of(item, annotator, value))
    found = annotator_agreement(item, annotator, value, draws=50)
    for k, person in enumerate(found.annotator):
        x, y = (np.array([row[c] for row in table if row[0] == person]) for c in (1, 3))
        assert found.kappa[k] == pytest.approx(by_histogram(x, y))
        assert found.exact[k] == pytest.approx((x == y).mean())
        assert found.within_one[k] == pytest.approx((abs(x - y) <= 1).mean())
        assert found.mean[k] == pytest.approx((x - y).mean())
        mine = set(item[annotator == person].tolist())
        assert found.items[k] == sum((item == i).sum() > 1 for i in mine)
    two = pairwise_kappas(item, annotator, value, min_items=3)
    for a, b, n, kappa in zip(two.first, two.second, two.items, two.kappa, strict=True):
        x, y = (np.array([row[c] for row in table if (row[0], row[2]) == (a, b)]) for c in (1, 3))
        assert (len(x), a < b) == (n, True)
        assert kappa == pytest.approx(qwk(x, y), nan_ok=True)
    shared = {(a, b) for a, _, b, _ in table if a < b and sum((r[0], r[2]) == (a, b) for r in table) >= 3}
    assert shared == set(zip(two.first.tolist(), two.second.tolist(), strict=True))


def test_same_seed_same_interval_and_groups_widen_it():
    item, annotator, value = ratings(3, items=200)
    one, again = (rating_agreement(item, annotator, value, seed=4) for _ in range(2))
    assert one == again
    grouped = rating_agreement(item, annotator, value, groups=item // 20, seed=4)
    assert grouped.kappa == one.kappa
    assert (grouped.low, grouped.high) != (one.low, one.high)


def test_high_agreement_can_have_low_kappa():
    """Why exact and within-one stand beside it: almost everything is a 4."""
    rng = np.random.default_rng(0)
    item, annotator = np.repeat(np.arange(500), 2), np.tile([0, 1], 500)
    value = np.where(rng.random(1000) < 0.95, 4, 3)
    found = rating_agreement(item, annotator, value, draws=50)
    assert found.kappa < 0.2
    assert found.exact > 0.85
    assert found.within_one == 1


def test_constant_raters():
    item, annotator = np.repeat(np.arange(30), 2), np.tile([0, 1], 30)
    value = np.stack([np.full(30, 4), np.arange(30) % 5], axis=1).reshape(-1)
    found = annotator_agreement(item, annotator, value, draws=20)
    assert found.kappa.tolist() == pytest.approx([0, 0], abs=1e-12)
    assert found.constant.tolist() == [True, False]
    assert "annotator 0 gave 4 to all 30 shared items: kappa is 0" in found.warnings[0]
    same = annotator_agreement(item, annotator, np.full(60, 4), draws=20)
    assert np.isnan(same.kappa).all()
    assert "undefined" in same.warnings[0]
    assert not flag_untrusted(same).any()
    whole = rating_agreement(item, annotator, np.full(60, 4), draws=20)
    assert np.isnan(whole.kappa)
    assert "undefined" in whole.warnings[0]
    assert np.isnan(qwk(np.full(3, 2), np.full(3, 2)))


def test_untrusted_are_found_with_enough_items():
    rng = np.random.default_rng(1)
    truth = rng.choice(5, 300, p=(0.08, 0.12, 0.17, 0.28, 0.35))
    item = np.repeat(np.arange(300), 3)
    annotator = np.concatenate([rng.permutation(10)[:3] for _ in range(300)])
    value = np.clip(np.rint(truth[item] + rng.normal(0, 0.6, 900)), 0, 4)
    value[annotator == 7] = rng.integers(0, 5, (annotator == 7).sum())
    found = annotator_agreement(item, annotator, value, draws=50)
    assert found.annotator[flag_untrusted(found)].tolist() == [7]
    assert not flag_untrusted(found, min_items=1000).any()


def test_nobody_shares_an_item():
    found = annotator_agreement(np.array([0, 0, 1]), np.array([0, 1, 2]), np.array([1, 2, 3]), draws=5)
    assert np.isnan(found.kappa[2])
    assert "annotator 2 shares no item" in found.warnings[0]
    assert len(pairwise_kappas(np.array([0, 1]), np.array([0, 0]), np.array([1, 2])).kappa) == 0
    with pytest.raises(InputError, match="none of 2 items has two ratings"):
        rating_agreement(np.array([0, 1]), np.array([0, 0]), np.array([1, 2]))


@pytest.mark.parametrize("wrong", [5, -1, 2.5, float("nan")])
def test_ratings_off_the_scale(wrong):
    with pytest.raises(InputError, match=r"1 of 2 ratings are no whole number from 0 to 4 \(first: row 1"):
        rating_agreement(np.array([0, 0]), np.array([0, 1]), np.array([1, wrong]))


def test_refusals():
    with pytest.raises(InputError, match="second of the same item"):
        rating_agreement(np.array([0, 0]), np.array([1, 1]), np.array([1, 2]))
    with pytest.raises(InputError, match="one item, annotator and value per row"):
        rating_agreement(np.array([0, 0]), np.array([1]), np.array([1, 2]))
    with pytest.raises(InputError, match="two raters"):
        qwk(np.array([1.0]), np.array([1.0, 2.0]))
