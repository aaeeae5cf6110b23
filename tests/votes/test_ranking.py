"""The golden board of 240 votes, slow twins that see single votes, and the identities a ranking has to obey."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cupel.votes.bradley_terry import fit_bradley_terry
from cupel.votes.counts import PairCounts, count_votes
from cupel.votes.ranking import RankingModel

#: first, second, wins of the first, wins of the second, ties
GOLDEN = np.array([[0, 1, 30, 18, 12], [0, 2, 25, 10, 5], [0, 3, 14, 3, 3], [1, 2, 22, 16, 22], [1, 3, 18, 8, 4], [2, 3, 12, 11, 7]])
UNIT = 400 / np.log(10)
LOG10 = np.log(10)


def rows(table=GOLDEN, times: int = 1):
    """Single votes of a table of counts."""
    first, second, outcome = [], [], []
    for i, j, *counts in table:
        for code, n in enumerate(counts):
            first += [i] * n * times
            second += [j] * n * times
            outcome += [code] * n * times
    return np.array(first), np.array(second), np.array(outcome)


def golden(times: int = 1, **options) -> PairCounts:
    return count_votes(*rows(times=times), 4, **options)


def fit(counts=None, **options):
    return RankingModel(**options).fit(golden() if counts is None else counts).result_


def close(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("options", "elo", "tolerance"),
    [
        ({}, [1099.032245, 1018.435445, 964.522607, 918.009702], 1e-6),
        ({"ties": "drop"}, [1120.644078, 1025.699921, 953.277196, 900.378805], 1e-6),
        ({"ridge": 1.0}, [1095.723075, 1017.573637, 965.159835, 921.543453], 1e-5),
        ({"ties": "davidson"}, [1129.614152, 1024.101538, 953.608574, 892.675736], 3e-6),
        ({"ties": "rao_kupper"}, [1108.858153, 1018.691525, 962.466710, 909.983612], 1e-5),
        # the four sum to 4000, which corrects the last digits of the source (917.888709)
        ({"pair_floor": 50}, [1099.837725, 1018.968068, 963.305478, 917.888729], 1e-6),
    ],
    ids=str,
)
def test_golden_ratings(options, elo, tolerance):
    found = fit(**options)
    close(found.elo().value, elo, tolerance)
    close(found.scores.value.sum(), 0, 1e-9)
    assert found.converged
    assert found.warnings == ()
    assert found.gradient < 1e-8


def test_golden_scores_errors_and_shares():
    found = fit()
    close(found.scores.value, [0.57007543, 0.10612295, -0.20422429, -0.47197409], 1e-8)
    close(found.elo().se, [23.262073, 19.260741, 20.645291, 27.253519])
    close(found.elo().low, [1053.439, 980.685, 924.059, 864.594], 1e-3)
    close(found.elo().high, [1144.625, 1056.186, 1004.987, 971.426], 1e-3)
    close(fit(intervals="fisher").elo().se, [26.028524, 22.237159, 23.840254, 30.762889])
    close(fit(pair_floor=50).elo().se, [23.391302, 19.374503, 20.885431, 27.263485])
    close(found.expected_share(), [0.679216, 0.534549, 0.435040, 0.351195])
    close(found.probabilities(0, 1), [0.613951, 0, 1 - 0.613951])


def test_golden_tie_models():
    davidson, rao = fit(ties="davidson"), fit(ties="rao_kupper")
    assert davidson.threshold is not None
    assert rao.threshold is not None
    close(davidson.threshold.value, 0.604757)
    close(rao.threshold.value, 0.488864)
    close(-davidson.log_likelihood, 244.760774)
    close(-rao.log_likelihood, 244.347891)
    for found in (davidson, rao):
        close(sum(found.probabilities(0, 2)), 1, 1e-12)
        assert found.threshold.low[0] < found.threshold.value[0] < found.threshold.high[0]


def test_golden_contrasts_and_ranks():
    found = fit()
    expected = {(0, 1): (80.596800, 32.825613), (1, 2): (53.912838, 30.095831), (2, 3): (46.512905, 39.890916)}
    expected[0, 3] = (181.022543, 43.348672)
    for (i, j), (difference, se) in expected.items():
        contrast = found.contrast(i, j)
        close([contrast.difference * UNIT, contrast.se * UNIT], [difference, se], 2e-6)
        close(contrast.z, difference / se, 1e-6)
    close([found.contrast(0, 1).z, found.contrast(0, 1).p], [2.455302, 0.014077])
    assert found.ranks("interval").tolist() == [1, 1, 2, 3]
    assert found.ranks("contrast").tolist() == [1, 2, 2, 3]
    assert found.ranks("simultaneous").tolist() == [1, 1, 2, 2]
    top = found.top_probability(1, seed=0)
    close(top.sum(), 1, 1e-9)
    assert top[0] > 0.97


def test_golden_bootstrap():
    for resample in ("votes", "poisson"):
        found = fit(intervals="bootstrap", draws=2000, resample=resample, seed=1)
        np.testing.assert_allclose(found.elo().se, [24.01, 19.27, 21.23, 27.46], rtol=0.05)
        close(found.scores.value, fit().scores.value, 1e-9)  # the point is that of all votes
        np.testing.assert_allclose(found.elo().low, fit().elo().low, atol=4)
    again = fit(intervals="bootstrap", draws=50, seed=1)
    np.testing.assert_array_equal(again.scores.low, fit(intervals="bootstrap", draws=50, seed=1).scores.low)


def test_bootstrap_draws_equal_separate_fits():
    """What the batched iteration finds is what a fit of each draw finds, for every tie model, also after chunks of draws."""
    from cupel.votes.ranking import bootstrap as module
    from cupel.votes.ranking.bootstrap import _alone, _sampler

    for ties in ("half", "davidson", "rao_kupper"):
        model = RankingModel(ties=ties, ridge=0.0)
        captured = {}
        original = module.bootstrap

        def spy(design, z, cells, *, captured=captured, original=original, **options):
            captured.update(design=design, z=z, cells=cells)
            captured["draws"] = original(design, z, cells, **options)
            return captured["draws"]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cupel.votes.ranking.model.bootstrap", spy)
            patch.setattr(module, "_CHUNK", 6 * 3 * 7)
            model.set_params(intervals="bootstrap", draws=20, seed=3).fit(golden())
        design, z = captured["design"], captured["z"]
        votes = _sampler(captured["cells"], "votes", np.random.default_rng(3))(20)
        for k in range(20):
            close(captured["draws"][k], _alone(design, z, votes[:, :, k]), 1e-7)


WIKIPEDIA = [[0, 1, 2, 3, 0], [0, 3, 1, 4, 0], [1, 2, 5, 3, 0], [2, 3, 1, 3, 0]]


def test_the_worked_example_of_an_encyclopedia():
    found = fit(count_votes(*rows(WIKIPEDIA), 4))
    close(np.exp(found.scores.value), [0.640, 1.043, 0.660, 2.270], 6e-4)


def test_the_maximum_likelihood_of_three_items():
    wins = np.array([(0, 1)] * 3 + [(1, 0)] + [(1, 2)] * 2 + [(2, 1)] + [(0, 2)] * 3 + [(2, 0)])
    found = fit(count_votes(*wins.T, np.zeros(len(wins), dtype=int), 3))
    close(found.scores.value, [0.740874, -0.145173, -0.595702], 1e-6)
    close(found.scores.value, fit_bradley_terry(*wins.T, n_items=3, ridge=1e-9).scores, 1e-7)


def log_likelihood(ties, first, second, outcome, weight=None):
    """-log P of single votes as a function of strengths (and threshold), written out one probability at a time."""
    weight = np.ones(len(first)) if weight is None else weight

    def value(z):
        total = 0.0
        for i, j, o, w in zip(first, second, outcome, weight, strict=True):
            d = z[i] - z[j]
            if ties == "half":
                p = 1 / (1 + np.exp(-d))
                total -= w * (np.log(p) if o == 0 else np.log(1 - p) if o == 1 else (np.log(p) + np.log(1 - p)) / 2)
            elif ties == "davidson":
                a, b = np.exp(z[i]), np.exp(z[j])
                nu = np.exp(z[-1])
                parts = (a, b, nu * np.sqrt(a * b))
                total -= w * np.log(parts[o] / sum(parts))
            else:
                win, loss = 1 / (1 + np.exp(-(d - z[-1]))), 1 / (1 + np.exp(d + z[-1]))
                total -= w * np.log((win, loss, max(1 - win - loss, 1e-300))[o])
        return total

    return value


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
@pytest.mark.parametrize("weighted", [False, True])
def test_slow_twin_on_single_votes(ties, weighted):
    rng = np.random.default_rng(5)
    first = rng.integers(0, 5, 90)
    second = (first + rng.integers(1, 5, 90)) % 5
    outcome = rng.choice(3, 90, p=[0.45, 0.3, 0.25])
    weight = rng.uniform(0.2, 2, 90) if weighted else None
    value, ridge = log_likelihood(ties, first, second, outcome, weight), 0.3
    start = np.append(np.zeros(5), [] if ties == "half" else [0.5])
    slow = minimize(lambda z: value(z) + ridge / 2 * z[:5] @ z[:5], start, method="BFGS", options={"gtol": 1e-7})
    counts = count_votes(first, second, outcome, 5, weight=weight)
    fast = fit(counts, ties=ties, ridge=ridge)
    close(fast.scores.value, slow.x[:5], 1e-5)
    close(-fast.log_likelihood, value(slow.x), 1e-5)
    close(-fast.log_likelihood, value(np.append(fast.scores.value, [] if ties == "half" else [fast._tau()])), 1e-9)
    if fast.threshold is not None:
        close(fast._tau(), slow.x[-1], 1e-5)


def slow_sandwich(counts_rows, n_items, z, weight, cluster=None):
    """H^+ B H^+ of half-tie Bradley-Terry from single votes, one outer product at a time."""
    h, b, by_cluster = np.zeros((n_items, n_items)), np.zeros((n_items, n_items)), {}
    for row, (i, j, o) in enumerate(zip(*counts_rows, strict=True)):
        e = np.zeros(n_items)
        e[i], e[j] = 1, -1
        p, y = 1 / (1 + np.exp(z[j] - z[i])), (1, 0, 0.5)[o]
        h += weight[row] * p * (1 - p) * np.outer(e, e)
        score = weight[row] * (y - p) * e
        b += np.outer(score, score)
        if cluster is not None:
            by_cluster[cluster[row]] = by_cluster.get(cluster[row], 0) + score
    if cluster is not None:
        g = len(by_cluster)
        b = g / (g - 1) * sum(np.outer(s, s) for s in by_cluster.values())
    inverse = np.linalg.pinv(h)
    return inverse @ b @ inverse


def test_covariances_equal_sums_over_single_votes():
    rng = np.random.default_rng(2)
    data = rows()
    turned = rng.random(240) < 0.5  # sides in any order
    data = (np.where(turned, data[1], data[0]), np.where(turned, data[0], data[1]), np.where(turned, np.array([1, 0, 2])[data[2]], data[2]))
    weight, one, two = rng.uniform(0.5, 2, 240), rng.integers(0, 15, 240), rng.integers(0, 12, 240)
    plain = fit(count_votes(*data, 4, weight=weight))
    close(plain.covariance, slow_sandwich(data, 4, plain.scores.value, weight), 1e-12)
    z = plain.scores.value
    by_one = fit(count_votes(*data, 4, weight=weight, cluster=one), intervals="cluster")
    v1 = slow_sandwich(data, 4, z, weight, one)
    close(by_one.covariance, v1, 1e-12)
    close(by_one.quantile, 2.144787, 1e-6)  # Student's t with 14 degrees of freedom
    both = fit(count_votes(*data, 4, weight=weight, cluster=np.column_stack([one, two])), intervals="cluster")
    expected = v1 + slow_sandwich(data, 4, z, weight, two) - slow_sandwich(data, 4, z, weight, list(zip(one, two, strict=True)))
    values, vectors = np.linalg.eigh(expected)
    close(both.covariance, (vectors * np.maximum(values, 0)) @ vectors.T, 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["half", "davidson", "rao_kupper"]))
def test_identities(seed, ties):
    rng = np.random.default_rng(seed)
    table = GOLDEN + np.column_stack([np.zeros((6, 2), dtype=int), rng.integers(0, 20, (6, 3))])
    first, second, outcome = rows(table)
    base = fit(count_votes(first, second, outcome, 4), ties=ties)
    swapped = fit(count_votes(second, first, np.array([1, 0, 2])[outcome], 4), ties=ties)
    close(swapped.scores.value, base.scores.value, 1e-9)
    close(swapped.covariance, base.covariance, 1e-9)
    twice = fit(count_votes(*rows(table, times=2), 4), ties=ties)
    close(twice.scores.value, base.scores.value, 1e-9)
    close(twice.covariance, base.covariance / 2, 1e-9)
    new = rng.permutation(4)
    moved = fit(count_votes(new[first], new[second], outcome, 4), ties=ties)
    close(moved.scores.value[new], base.scores.value, 1e-9)
    close(moved.scores.se[new], base.scores.se, 1e-9)
    close(base.covariance.sum(axis=1), 0, 1e-9)
    heavy = fit(count_votes(first, second, outcome, 4, weight=np.full(len(first), 3.0)), ties=ties)
    close(heavy.scores.value, base.scores.value, 1e-9)
    close(heavy.covariance, base.covariance, 1e-9)  # B takes squares of weights: the unit of a weight is no information


def test_a_tie_is_half_a_win_each_way():
    first, second, outcome = rows()
    tie = outcome == 2
    split = count_votes(
        np.concatenate([first, first[tie]]), np.concatenate([second, second[tie]]),
        np.concatenate([np.where(tie, 0, outcome), np.ones(int(tie.sum()), dtype=int)]), 4,
        weight=np.concatenate([np.where(tie, 0.5, 1.0), np.full(int(tie.sum()), 0.5)]),
    )  # fmt: skip
    close(fit(split).scores.value, fit().scores.value, 1e-10)
    close(fit(split).log_likelihood, fit().log_likelihood, 1e-9)


def test_both_bad_is_a_tie_or_is_left_out():
    first, second, outcome = rows()
    bad = np.where((outcome == 2) & (np.arange(240) % 2 == 0), 3, outcome)
    skipped = np.where(bad == 3, 4, bad)
    counts = count_votes(first, second, bad, 4)
    close(fit(counts).scores.value, fit().scores.value, 1e-12)
    without = fit(counts, both_bad="exclude")
    close(without.scores.value, fit(count_votes(first, second, skipped, 4)).scores.value, 1e-12)
    close(without.shares[3], (bad == 3).mean(), 1e-12)
    assert without.used == (bad != 3).sum()
    assert without.n_votes == 240


def test_many_items_by_conjugate_gradients_agree_with_the_dense_solution(monkeypatch):
    rng = np.random.default_rng(0)
    n = 700
    first = rng.integers(0, n, 30_000)
    second = (first + rng.integers(1, n, 30_000)) % n
    truth = rng.normal(size=n)
    p = 1 / (1 + np.exp(truth[second] - truth[first]))
    outcome = np.where(rng.random(30_000) < 0.1, 2, rng.random(30_000) > p)
    counts = count_votes(first, second, outcome, n)
    for ties in ("half", "davidson", "rao_kupper"):
        sparse = fit(counts, ties=ties, intervals="none")
        with monkeypatch.context() as patch:
            patch.setattr("cupel.votes.ranking.newton.DENSE_SIZE", 10_000)
            dense = fit(counts, ties=ties, intervals="none")
        assert sparse.converged
        close(sparse.scores.value, dense.scores.value, 1e-8)


def test_scikit_learn_conventions():
    from sklearn.base import clone

    model = RankingModel(ties="davidson", ridge=0.5)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert not hasattr(copied, "result_")
    assert model.fit(golden()) is model
    assert model.set_params(ties="half").ties == "half"


def test_anchor_shifts_ratings_but_not_widths():
    found = fit()
    elo, shifted = found.elo(), found.elo(anchor=2)
    close(shifted.value[2], 1000)
    close(shifted.value - elo.value, shifted.value[0] - elo.value[0], 1e-9)
    close(shifted.high - shifted.low, elo.high - elo.low, 1e-9)
    close(fit().elo(centre=0, scale=1, base=np.e).value, fit().scores.value, 1e-12)


def test_the_documented_example_runs():
    page = Path(__file__).resolve().parents[2] / "docs" / "ranking.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried > 8) == (0, True)
