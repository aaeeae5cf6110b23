from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.votes.label_error import ceiling, p_correct, repeats, single, symmetric_part, trusted, trusted_plan, trusted_uniform
from cupel.votes.lower_bound import lower_bound
from cupel.votes.repeats import _MEANS, _SPREADS, bounds, folded_interval, folded_table
from cupel.votes.trusted import recheck_error

# ---- single ----


def least_errors(first, second, sign):
    """The fewest rows to reverse so that no cycle is left, over every order of the nodes (exact, tiny graphs only)."""
    from itertools import permutations

    nodes = sorted(set(first) | set(second))
    best = len(first)
    for order in permutations(nodes):
        rank = {node: i for i, node in enumerate(order)}
        best = min(best, sum((rank[a] < rank[b]) != (s > 0) for a, b, s in zip(first, second, sign, strict=True)))
    return best


@given(seed=st.integers(0, 100_000), nodes=st.integers(2, 6), n=st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_the_lower_bound_never_exceeds_the_least_number_of_errors(seed, nodes, n):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, nodes, n), rng.integers(0, nodes, n)
    keep = first != second
    if not keep.any():
        return
    first, second, sign = first[keep], second[keep], rng.choice([-1, 1], n)[keep]
    found = lower_bound(first, second, sign)
    exact = least_errors(first, second, sign)
    assert found.contradictions + found.cycles <= exact
    assert (found.contradictions + found.cycles == 0) == (exact == 0) or nodes > 3
    swapped = lower_bound(second, first, -sign)
    assert swapped == found


def test_transitive_data_have_no_certain_error_and_cycles_share_no_row():
    first, second = np.array(list(combinations(range(9), 2))).T
    assert lower_bound(first, second, np.ones(len(first))).share == 0
    two = lower_bound(np.array([0, 1, 2, 2, 3]), np.array([1, 2, 0, 3, 1]), np.ones(5))  # two triangles on one edge 1 > 2
    assert (two.contradictions, two.cycles) == (0, 1)


def test_contradictions_leave_room_for_cycles():
    first, second = np.array([0, 0, 0, 1, 2]), np.array([1, 1, 1, 2, 0])
    found = lower_bound(first, second, np.array([1, 1, -1, 1, 1]))
    assert (found.contradictions, found.cycles, found.n) == (1, 1, 5)


def test_ties_have_no_direction():
    assert lower_bound(np.array([0, 0]), np.array([1, 1]), np.array([1, 0])).n == 1


def test_many_rows_are_quick_and_bounded():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=2000)
    first, second = rng.integers(0, 2000, (2, 70_000))
    first, second = (np.sort(np.stack([first // 40 * 40 + first % 7, first // 40 * 40 + second % 37]), axis=0))[:2]
    sign = np.where(truth[first % 2000] > truth[second % 2000], 1, -1)
    wrong = rng.random(len(sign)) < 0.2
    found = lower_bound(first, second, np.where(wrong, -sign, sign))
    assert 0.05 < found.share <= np.mean(wrong[first != second])


def simulated(seed, n=1500, error=0.15, groups=60):
    """Scores, symmetric errors, and margins of an imperfect model, with prompts that differ in how well it does."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    score = rng.normal(size=n) * 2
    model = score + rng.normal(size=n) + 0.3 * rng.normal(size=groups)[group]
    recorded = np.where(rng.random(n) < error, -1, 1) * np.sign(score)
    return group, recorded, model * recorded, np.mean(recorded != np.sign(score))


def test_single_gives_bounds_that_hold_and_no_point():
    for seed in range(5):
        group, sign, margin, truth = simulated(seed)
        rate = single(np.arange(1500), np.arange(1500, 3000), sign, margin, group, seed=seed, draws=200)
        assert rate.estimate is None
        assert rate.basis == "single"
        assert rate.low <= truth <= rate.high
        assert rate.high > rate.details["disagreement"]
        assert any("unless a whole kind of pair" in text for text in rate.assumptions)
        assert "not a bound" in rate.details["symmetric_part_label"]


def test_single_counts_decided_rows_only_and_is_deterministic():
    group, sign, margin, _ = simulated(3)
    sign[:100] = 0
    one = single(np.arange(1500), np.arange(1500, 3000), sign, margin, group, seed=1, draws=100)
    two = single(np.arange(1500), np.arange(1500, 3000), sign, margin, group, seed=1, draws=100)
    assert one.n == 1400
    assert one == two


def test_single_says_that_one_group_has_no_clusters():
    _, sign, margin, _ = simulated(4)
    rate = single(np.arange(1500), np.arange(1500, 3000), sign, margin, np.zeros(1500), draws=50)
    assert any("share one group" in text for text in rate.assumptions)
    assert rate.high > rate.details["disagreement"]


def test_single_refuses_what_has_no_label():
    with pytest.raises(InputError, match="none of 3 rows"):
        single(np.arange(3), np.arange(3, 6), np.zeros(3), np.ones(3), np.arange(3))
    with pytest.raises(InputError, match="1 of 3 margins"):
        single(np.arange(3), np.arange(3, 6), np.ones(3), np.array([1, np.nan, 1]), np.arange(3))


@pytest.mark.parametrize("error", [0.0, 0.1, 0.35])
def test_symmetric_part_finds_a_planted_rate(error):
    rng = np.random.default_rng(0)
    score = 4 * rng.normal(size=30_000)
    recorded = (rng.random(30_000) < 1 / (1 + np.exp(-score))) ^ (rng.random(30_000) < error)
    rate, slope = symmetric_part(np.where(recorded, score, -score) / 7)
    assert rate == pytest.approx(error, abs=0.015)
    assert slope == pytest.approx(7, rel=0.25)


# ---- repeats ----


def voted(rng, rho, m):
    pair = np.repeat(np.arange(len(rho)), m)
    truth = rng.choice([-1, 1], len(rho))[pair]
    wrong = rng.random(len(pair)) < rho[pair]
    return pair, np.where(wrong, -truth, truth), wrong


def test_bounds_hold_for_every_mixture_of_errors():
    for rho in (np.repeat([0.0, 0.4], 2000), np.linspace(0, 0.5, 4000)):
        pair, sign, wrong = voted(np.random.default_rng(0), rho, 2)
        rate = repeats(pair, sign, draws=200)
        assert rate.low <= wrong.mean() <= rate.high
        assert rate.estimate is None  # two votes and nobody's name: bounds only
        agree = 1 - 2 * rho.mean() + 2 * (rho**2).mean()
        assert rate.details["agreement"] == pytest.approx(agree, abs=0.03)


def test_one_rate_for_all_pairs_meets_the_lower_end():
    inside = 0
    for seed in range(40):  # the truth is the bound itself, so the end of its interval decides
        pair, sign, _ = voted(np.random.default_rng(seed), np.full(1000, 0.2), 2)
        inside += repeats(pair, sign, draws=200).low <= 0.2
    assert inside >= 34
    assert bounds(1 - 2 * 0.2 * 0.8)[0] == pytest.approx(0.2)
    assert bounds(0.4) == (0.5, 0.5)
    low, high = ceiling(0.68)
    assert low == 0.68
    assert high == pytest.approx(0.8)


def test_folded_point_is_near_the_truth():
    rng = np.random.default_rng(1)
    for a, b in ((1, 4), (4, 6), (0.5, 1.5)):
        pair, sign, wrong = voted(rng, rng.beta(a, b, 3000) / 2, 5)
        rate = repeats(pair, sign, draws=200)
        assert rate.details["model"] == "folded"
        assert rate.estimate == pytest.approx(wrong.mean(), abs=0.02)
        assert rate.details["point_low"] < wrong.mean() < rate.details["point_high"]


def test_folded_table_equals_numerical_integration():
    from scipy.integrate import quad
    from scipy.stats import beta

    table = folded_table(np.array([[1, 3], [2, 2], [0, 5]]))
    for i, j in ((60, 12), (100, 16)):
        total = np.exp(_SPREADS[j])
        density = beta(2 * _MEANS[i] * total, (1 - 2 * _MEANS[i]) * total)

        def chance(k, m, density=density):
            def at(x):
                return density.pdf(x) * ((x / 2) ** k * (1 - x / 2) ** (m - k) + (k != m - k) * (x / 2) ** (m - k) * (1 - x / 2) ** k)

            return quad(at, 0, 1, limit=500)[0]

        np.testing.assert_allclose(np.exp(table[i, j]), [chance(1, 4), chance(2, 4), chance(0, 5)], rtol=1e-5)


def test_one_coin_point_for_two_votes_by_known_people():
    rng = np.random.default_rng(2)
    pair = np.repeat(np.arange(2000), 2)
    who = np.argsort(rng.random((2000, 40)), axis=1)[:, :2].reshape(-1)
    wrong = rng.random(4000) < np.linspace(0.02, 0.35, 40)[who]
    sign = np.where(wrong, -1, 1) * np.repeat(rng.choice([-1, 1], 2000), 2)
    rate = repeats(pair, sign, annotator=who, draws=200)
    assert rate.details["model"] == "one_coin"
    assert rate.estimate == pytest.approx(wrong.mean(), abs=0.025)
    assert rate.details["bound_low"] <= rate.estimate <= rate.details["bound_high"]


def test_three_votes_cannot_identify_the_folded_model():
    rng = np.random.default_rng(3)
    pair, sign, _ = voted(rng, rng.beta(1, 4, 500) / 2, 3)
    assert repeats(pair, sign, draws=50).estimate is None


def test_a_person_counts_once_and_ties_follow_the_policy():
    pair, sign, who = np.array([0, 0, 0, 1, 1]), np.array([1, 1, -1, 1, 0]), np.array([5, 5, 6, 5, 6])
    rate = repeats(pair, sign, annotator=who, draws=20)
    assert rate.details["same_person"] == 1
    assert rate.details["ties_dropped"] == 1
    assert rate.details["agreement"] == 0  # votes 1, -1 on pair 0; pair 1 has one decided vote
    assert repeats(pair, sign, annotator=who, ties="half", draws=20).details["agreement"] == 0.25
    with pytest.raises(InputError, match="two directions"):
        repeats(pair, sign, ties="category")
    with pytest.raises(InputError, match="none of 2 pairs"):
        repeats(np.array([0, 1]), np.array([1, 1]))


def test_a_wrong_majority_is_stated_to_be_invisible():
    rate = repeats(np.repeat(np.arange(50), 5), np.ones(250), draws=50)
    assert rate.estimate == pytest.approx(0, abs=0.005)
    assert any("majority that is wrong counts as right" in text for text in rate.assumptions)


def test_folded_interval_deals_ties_by_the_seed():
    args = np.array([3.0, 2, 4, 1]), np.array([1.0, 1, 0, 3]), np.array([1.0, 2, 1, 1]), np.arange(4)
    assert folded_interval(*args, seed=1, draws=20) == folded_interval(*args, seed=1, draws=20)


# ---- trusted ----


def test_plan_takes_equal_random_shares_of_suspicion():
    suspicion = np.random.default_rng(0).normal(size=1000)
    plan = trusted_plan(suspicion, 100, seed=3)
    assert len(np.unique(plan.rows)) == 100
    assert sorted(np.bincount(plan.stratum)) == [16, 16, 17, 17, 17, 17]
    assert plan.sizes.sum() == 1000
    assert plan.sizes.max() - plan.sizes.min() <= 1
    for h in range(5):
        assert suspicion[plan.stratum_of == h].max() < suspicion[plan.stratum_of == h + 1].min()
    np.testing.assert_array_equal(plan.stratum, plan.stratum_of[plan.rows])
    np.testing.assert_array_equal(plan.rows, trusted_plan(suspicion, 100, seed=3).rows)
    assert not np.array_equal(plan.rows, trusted_plan(suspicion, 100, seed=4).rows)


@pytest.mark.parametrize(("size", "n"), [(3, 100), (100, 3), (7, 7), (1, 1), (13, 12)])
def test_small_plans(size, n):
    plan = trusted_plan(np.zeros(size), n, seed=0)
    assert len(np.unique(plan.rows)) == min(size, n)
    assert plan.sizes.sum() == size


def test_trusted_by_hand():
    wrong = np.array([0] * 9 + [1] + [1] * 4 + [0] * 6)
    rate = trusted(wrong, np.repeat([0, 1], 10), np.array([300, 100]))
    assert rate.estimate == pytest.approx(0.75 * 0.1 + 0.25 * 0.4)
    p = np.array([1.3, 4.3]) / 10.6
    variance = (np.array([0.75, 0.25]) ** 2 * p * (1 - p) / 10).sum()
    assert rate.details["n_effective"] == pytest.approx(max(20, 0.175 * 0.825 / variance))
    assert (rate.basis, rate.n) == ("trusted", 20)


def test_unanswered_strata_join_their_neighbour():
    rate = trusted(np.array([0, 1, 1, 1]), np.array([0, 0, 2, 2]), np.array([10, 10, 10]))
    assert rate.estimate == pytest.approx(1 / 3 * 0.5 + 2 / 3 * 1)
    last = trusted(np.array([0, 1]), np.array([0, 0]), np.array([10, 30]))
    assert last.estimate == 0.5


def test_a_fallible_recheck_is_corrected_with_its_uncertainty():
    wrong, stratum = np.tile([0, 0, 0, 1], 50), np.repeat(np.arange(2), 100)
    plain = trusted(wrong, stratum, np.array([500, 500]))
    double = trusted(wrong, stratum, np.array([500, 500]), double=(9, 50))
    assert double.details["recheck_error"] == pytest.approx(0.1)
    assert double.estimate == pytest.approx((0.25 - 0.1) / 0.8)
    assert double.high - double.low > plain.high - plain.low
    assert double.assumptions != plain.assumptions
    with pytest.raises(InputError, match="no better than a coin"):
        recheck_error(25, 50)


@pytest.mark.parametrize(
    ("wrong", "stratum", "words"),
    [([], [], "no row was re-checked"), ([0.5], [0], "either wrong"), ([1], [4], "stratum in 0 ... 1")],
)
def test_unusable_answers_are_named(wrong, stratum, words):
    with pytest.raises(InputError, match=words):
        trusted(np.array(wrong), np.array(stratum, dtype=int), np.array([5, 5]))


def coverage_and_error(seed, n, draws, informative, rate):
    rng = np.random.default_rng(seed)
    wrong = rng.random(3000) < rate
    suspicion = informative * wrong + rng.normal(size=3000)
    found, plain = [], []
    for draw in range(draws):
        plan = trusted_plan(suspicion, n, draw)
        found.append(trusted(wrong[plan.rows], plan.stratum, plan.sizes))
        plain.append(trusted_uniform(wrong[rng.choice(3000, n, replace=False)]))
    truth = wrong.mean()
    covered = np.mean([f.low <= truth <= f.high for f in found])
    errors = [np.sqrt(np.mean([(f.estimate - truth) ** 2 for f in fs])) for fs in (found, plain)]
    return covered, errors[0] / errors[1]


@pytest.mark.parametrize(("informative", "rate", "n"), [(2.0, 0.2, 100), (0.0, 0.2, 50), (-1.0, 0.1, 100), (2.0, 0.02, 100)])
def test_trusted_covers_whatever_the_scorer_is_worth(informative, rate, n):
    covered, ratio = coverage_and_error(7, n, 250, informative, rate)
    assert covered >= 0.91
    if informative == 2.0 and rate == 0.2:
        assert ratio < 0.85  # stratification pays where suspicion says something


# ---- p_correct ----


def test_p_correct_is_monotone_has_the_rate_as_mean_and_is_calibrated():
    rng = np.random.default_rng(0)
    suspicion = rng.normal(size=4000)
    wrong = rng.random(4000) < 1 / (1 + np.exp(2 - 2 * suspicion))
    tau = wrong.mean()
    right = p_correct(suspicion, rng.choice(4000, 600, replace=False), np.zeros(600), tau)
    np.testing.assert_allclose(right, 1 - tau)  # nobody wrong: no slope, the mean stays
    checked = rng.choice(4000, 600, replace=False)
    right = p_correct(suspicion, checked, wrong[checked].astype(float), tau)
    assert (1 - right).mean() == pytest.approx(tau, abs=1e-9)
    order = np.argsort(suspicion)
    assert (np.diff(right[order]) <= 1e-12).all()
    for low, high in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.0)):
        part = (right >= low) & (right < high)
        assert abs((1 - right[part]).mean() - wrong[part].mean()) < 0.1


def test_p_correct_accepts_probabilities_and_weights():
    suspicion = np.arange(5.0)
    heavy = p_correct(suspicion, np.arange(5), np.array([0.1, 0.1, 0.5, 0.6, 0.9]), 0.4, weight=np.array([1, 1, 1, 1, 5.0]))
    assert heavy[0] > heavy[-1]
    np.testing.assert_array_equal(p_correct(suspicion, np.array([0]), np.array([1.0]), 0.0), 1.0)


@pytest.mark.parametrize(("wrong", "tau", "words"), [([2.0], 0.5, "0 ... 1"), ([1.0], -0.1, "rate lies"), ([], 0.5, "needs checked rows")])
def test_unusable_calibration_is_named(wrong, tau, words):
    with pytest.raises(InputError, match=words):
        p_correct(np.arange(3.0), np.zeros(len(wrong), dtype=int), np.array(wrong), tau)
