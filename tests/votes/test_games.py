"""Cycles, games and targets on numbers worked out elsewhere, beside obvious versions of each computation."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.votes.counts import count_votes
from cupel.votes.cycle_test import cycle_scores, cycle_test
from cupel.votes.cycles import agreement, best_transitive_accuracy, cyclicity, skew
from cupel.votes.games import exploitability, payoff, play, rated_rows, step, targets, von_neumann_winner

CIRCLE = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
UNEQUAL = np.array([[0, 2, -1], [-2, 0, 3], [1, -3, 0]])


def random_skew(n, seed, scale=1.0):
    s = np.random.default_rng(seed).normal(size=(n, n)) * scale
    return s - s.T


def ring(n):
    """Only the n edges of a cycle: i beats i + 1, the last beats the first."""
    s, w = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        j = (i + 1) % n
        s[i, j], s[j, i], w[i, j], w[j, i] = 1, -1, 1, 1
    return s, w


# ---- cycles ------------------------------------------------------------------------------------------------------------------------------


def test_ratings_of_a_complete_matrix_are_row_means():
    s = random_skew(9, 0)
    found = cyclicity(s)
    np.testing.assert_allclose(found.ratings, s.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.loops.sum(axis=1), 0, atol=1e-12)
    gradient = found.ratings[:, None] - found.ratings
    assert found.share == pytest.approx(1 - (gradient**2).sum() / (s**2).sum())
    assert found.independent == 9 * 8 // 2 - 9 + 1


@given(st.integers(2, 9), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_weighted_split_is_the_dense_least_squares(n, seed):
    """The twin: one row of a design matrix per observed pair, numpy's own least squares with the smallest norm."""
    rng = np.random.default_rng(seed)
    s = random_skew(n, seed)
    w = np.triu(rng.exponential(size=(n, n)) * (rng.random((n, n)) < 0.6), 1)
    w = w + w.T
    pairs = np.argwhere(np.triu(w) > 0)
    design = np.zeros((len(pairs), n))
    design[np.arange(len(pairs)), pairs[:, 0]], design[np.arange(len(pairs)), pairs[:, 1]] = 1, -1
    y, root = s[pairs[:, 0], pairs[:, 1]], np.sqrt(w[pairs[:, 0], pairs[:, 1]])
    expected = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0] if len(pairs) else np.zeros(n)
    unseen = np.where(w > 0, s, np.nan)  # pairs of weight 0 are not looked at
    np.fill_diagonal(unseen, 0)
    found = cyclicity(unseen, w)
    residual = y - design @ expected
    np.testing.assert_allclose(found.loops[pairs[:, 0], pairs[:, 1]], residual, atol=1e-8)
    np.testing.assert_allclose(found.ratings, expected, atol=1e-8)
    total = float((w[pairs[:, 0], pairs[:, 1]] * y**2).sum())
    assert found.share == pytest.approx((root**2 * residual**2).sum() / total if total else 0, abs=1e-9)
    assert found.independent == len(pairs) - n + int(found.component.max()) + 1


@given(st.integers(3, 9), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_triangles_are_those_of_three_loops(n, seed):
    s = np.round(random_skew(n, seed), 1)
    slow = {}
    for i, j, k in permutations(range(n), 3):
        if i < j and i < k and min(s[i, j], s[j, k], s[k, i]) > 0:
            slow[(i, j, k)] = min(s[i, j], s[j, k], s[k, i])
    found = cyclicity(s, most=10**6)
    assert {x.items: x.strength for x in found.triangles} == pytest.approx(slow)
    assert [x.strength for x in found.triangles] == sorted(slow.values(), reverse=True)
    few = cyclicity(s, most=2)
    assert few.triangles == found.triangles[:2]
    assert few.n_triangles == len(slow)
    for one in found.triangles:
        assert one.margins == tuple(s[one.items[a], one.items[(a + 1) % 3]] for a in range(3))


def test_a_transitive_matrix_has_no_loops():
    r = np.array([0.3, -0.2, 1.0, 4.0])
    found = cyclicity(r[:, None] - r)
    assert found.share < 1e-20
    assert found.triangles == ()
    assert best_transitive_accuracy(r[:, None] - r).items == (3, 2, 0, 1)
    assert cyclicity(np.zeros((3, 3))).share == 0


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_best_ratings_and_best_likelihood_of_a_ring(n):  # oracle 5
    s, w = ring(n)
    best = best_transitive_accuracy(s, w)
    assert best.accuracy == pytest.approx((n - 1) / n)
    assert best.exact
    brute = max(agreement(np.argsort(order), s, w) for order in permutations(range(n)))
    assert brute == pytest.approx((n - 1) / n)
    assert agreement(np.zeros(n), s, w) == 0.5  # all rewards equal: every pair a tie, each one half
    from scipy.optimize import minimize

    edges = np.argwhere(s > 0)
    fit = minimize(lambda r: np.logaddexp(0, -(r[edges[:, 0]] - r[edges[:, 1]])).mean(), np.linspace(0, 1, n), tol=1e-12)
    assert fit.fun == pytest.approx(np.log(2), abs=1e-9)
    np.testing.assert_allclose(fit.x - fit.x.mean(), 0, atol=1e-4)
    assert cyclicity(s, w).share == pytest.approx(1)


@given(st.integers(2, 7), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_best_order_is_that_of_all_orders(n, seed):
    rng = np.random.default_rng(seed)
    s = np.round(random_skew(n, seed), 0)  # with ties
    w = np.triu(rng.integers(0, 4, (n, n)), 1)
    w = (w + w.T).astype(float)
    wins = np.where(s > 0, w, 0)
    if not wins.any():
        with pytest.raises(InputError, match="nothing to put in order"):
            best_transitive_accuracy(s, w)
        return
    brute = max(sum(wins[a, b] for a, b in combinations(order, 2)) for order in permutations(range(n))) / wins.sum()
    found = best_transitive_accuracy(s, w)
    assert found.accuracy == pytest.approx(brute)
    assert sum(wins[a, b] for a, b in combinations(found.items, 2)) / wins.sum() == pytest.approx(brute)
    assert agreement(-np.argsort(found.items), s, w) == pytest.approx(brute)
    searched = best_transitive_accuracy(s, w, exact=1)
    assert searched.accuracy <= brute + 1e-12
    assert searched.accuracy >= 0.5  # no order is worse than its reverse


def test_a_large_circle_is_searched_and_said_so():
    s = random_skew(40, 1)
    found = best_transitive_accuracy(s)
    assert not found.exact
    assert agreement(s.mean(axis=1), s) <= found.accuracy < 1
    joined = np.zeros((6, 6))  # two circles of three, all of one above all of the other: exact in parts, and larger than `exact`
    joined[:3, :3], joined[3:, 3:], joined[:3, 3:], joined[3:, :3] = CIRCLE, CIRCLE, 1, -1
    found = best_transitive_accuracy(joined, exact=3)
    assert found.exact
    assert found.accuracy == pytest.approx(13 / 15)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.0]], "at least 2"),
        ([[0, 1]], "n x n matrix"),
        ([[0, np.nan], [0, 0]], "1 of 4 scores are not finite"),
        ([[0, 1], [1, 0]], "symmetrise=True"),
        ([[1, 1], [-1, 0]], "first: 1 at \\(0, 0\\)"),
    ],
)
def test_bad_matrices_are_refused(scores, message):
    with pytest.raises(InputError, match=message):
        skew(scores)
    for function in (von_neumann_winner, targets, cyclicity, best_transitive_accuracy):
        with pytest.raises(InputError):
            function(scores)


def test_only_on_request_is_a_matrix_made_skew():
    assert skew([[3, 2], [0, 5]], symmetrise=True).tolist() == [[0, 1], [-1, 0]]
    assert cyclicity([[3, 2], [0, 5]], symmetrise=True).share == 0


@pytest.mark.parametrize(
    ("w", "message"), [(np.ones((2, 2)), "two n x n"), (np.triu(np.ones((3, 3))), "differ from"), (-np.ones((3, 3)), "negative")]
)
def test_bad_weights_are_refused(w, message):
    with pytest.raises(InputError, match=message):
        cyclicity(CIRCLE, w)


# ---- games -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "expected"), [(100, 0.0907), (1000, 0.0633), (10000, 0.0091)])
def test_gpo_on_rock_paper_scissors(steps, expected):  # oracle 7
    found = play(CIRCLE, [0.6, 0.3, 0.1], steps=steps, beta=steps**0.5)
    assert exploitability(found.average, CIRCLE) == pytest.approx(expected, abs=6e-5)
    assert exploitability(found.last, CIRCLE) > 0.3  # it goes round for ever


def test_gpo_and_sppo_solve_different_games():  # oracle 8
    gpo = play(UNEQUAL, steps=10000, beta=100).average
    sppo = play(UNEQUAL, steps=10000, beta=100, game="sppo").average
    np.testing.assert_allclose(gpo, [0.4998, 0.1698, 0.3304], atol=6e-5)
    np.testing.assert_allclose(sppo, [0.4252, 0.2170, 0.3579], atol=6e-5)
    np.testing.assert_allclose(von_neumann_winner(UNEQUAL).policy, np.array([3, 1, 2]) / 6, atol=1e-9)
    np.testing.assert_allclose(von_neumann_winner(UNEQUAL, "sppo").policy, sppo, atol=2e-3)
    assert abs(von_neumann_winner(UNEQUAL, "sppo").policy - gpo).max() > 0.04


def test_steps_on_a_transitive_game_are_exact():  # oracle 9
    r, start = np.array([0.3, -0.2, 1.0]), np.array([0.5, 0.3, 0.2])
    s = r[:, None] - r
    p = start
    for _ in range(7):
        p = step(p, s, beta=1 / 0.4)
    closed = start * np.exp(0.4 * 7 * r)
    np.testing.assert_allclose(p, closed / closed.sum(), rtol=1e-12)
    np.testing.assert_allclose(p, [0.250772, 0.037104, 0.712124], atol=5e-7)
    np.testing.assert_allclose(play(s, start, steps=7, beta=2.5).last, p, rtol=1e-12)


def test_play_is_the_step_again_and_again():
    s, p = random_skew(6, 3), np.full(6, 1 / 6)
    seen = []
    for _ in range(25):
        seen.append(p)
        p = step(p, s, 4.0, "sppo", tau=0.5)
    found = play(s, steps=25, beta=4.0, game="sppo", tau=0.5)
    np.testing.assert_allclose(found.last, p, rtol=1e-10)
    np.testing.assert_allclose(found.average, np.mean(seen, axis=0), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_the_winner_is_beaten_by_nobody(seed):
    s = random_skew(15, seed, scale=10.0**seed)
    for game in ("gpo", "sppo"):
        found = von_neumann_winner(s, game)
        assert found.policy.sum() == pytest.approx(1)
        assert (found.policy >= 0).all()
        assert found.exploitability <= 1e-6 * np.abs(s).max()
    far = play(s, steps=3000, beta=np.abs(s).max() * 3000**0.5 / 3).average
    assert exploitability(far, s) < 0.1 * np.abs(s).max()


def test_sampled_opponents_learn_the_same_game_and_by_the_seed():
    found = play(UNEQUAL, steps=4000, beta=40.0, opponents=16, seed=1)
    np.testing.assert_allclose(found.average, np.array([3, 1, 2]) / 6, atol=0.05)
    assert (
        play(UNEQUAL, steps=50, beta=10, opponents=4, seed=1).last.tolist()
        == play(UNEQUAL, steps=50, beta=10, opponents=4, seed=1).last.tolist()
    )
    assert (
        play(UNEQUAL, steps=50, beta=10, opponents=4, seed=1).last.tolist()
        != play(UNEQUAL, steps=50, beta=10, opponents=4, seed=2).last.tolist()
    )


def test_payoff_of_sppo_is_a_probability():
    np.testing.assert_allclose(payoff(UNEQUAL, "sppo", tau=2.0), 1 / (1 + np.exp(-UNEQUAL / 2)) - 0.5, atol=1e-15)
    assert np.isfinite(payoff(UNEQUAL * 1e6, "sppo")).all()


def test_bad_games_are_refused():
    with pytest.raises(InputError, match="the game is gpo"):
        payoff(CIRCLE, "dpo")
    with pytest.raises(InputError, match="beta is a positive number"):
        step([1 / 3] * 3, CIRCLE, beta=0)
    with pytest.raises(InputError, match="3 probabilities"):
        step([0.5, 0.5], CIRCLE, beta=1)
    with pytest.raises(InputError, match="3 probabilities"):
        exploitability([2, -1, 0], CIRCLE)
    with pytest.raises(InputError, match="steps is a whole number"):
        play(CIRCLE, steps=0, beta=1)


# ---- targets -----------------------------------------------------------------------------------------------------------------------------

TABLE = np.array([[0, 1.2, -0.4], [-1.2, 0, 0.7], [0.4, -0.7, 0]])


def test_targets_of_three_responses():  # oracle 10, its first half; the losses are in tests/learners/models/test_gpm.py
    found = targets(TABLE)
    np.testing.assert_allclose(found.score, [0.266667, -0.166667, -0.1], atol=5e-7)
    np.testing.assert_allclose(found.win, [0.556612, 0.466554, 0.476833], atol=5e-7)
    assert found.self_comparison == 2 / 3
    np.testing.assert_allclose(found.rating("sppo"), found.win - 0.5)


def test_the_bias_of_comparing_with_oneself():
    biased, plain = targets(TABLE, tau=0.3), targets(TABLE, tau=0.3, self_comparison=False)
    np.testing.assert_allclose(biased.score, plain.score * 2 / 3)
    np.testing.assert_allclose(biased.win - 0.5, (plain.win - 0.5) * 2 / 3)
    assert plain.self_comparison == 1
    p = 1 / (1 + np.exp(-TABLE / 0.3))
    np.testing.assert_allclose(biased.win, p.mean(axis=1))
    np.testing.assert_allclose(plain.win, [(p[0, 1] + p[0, 2]) / 2, (p[1, 0] + p[1, 2]) / 2, (p[2, 0] + p[2, 1]) / 2])
    many = targets(np.stack([TABLE, -TABLE]))
    np.testing.assert_allclose(many.score[1], -many.score[0])
    assert many.win.shape == (2, 3)


def test_rows_hold_the_best_and_the_worst_with_their_ratings():
    rows = rated_rows(["q", "r"], [["a", "b", "c"], ["d", "e"]], [TABLE, [[0, -2], [2, 0]]])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("a", "b"), ("e", "d")]
    assert rows[0]["chosen_rating"] == pytest.approx(0.8 / 3)
    assert rows[0]["rejected_rating"] == pytest.approx(-0.5 / 3)
    assert rows[1]["preference_strength"] == pytest.approx(2)
    four = rated_rows(["q"], [list("abcd")], [random_skew(4, 0)], game="sppo", every=True)
    assert sorted(row[side] for row in four for side in ("chosen", "rejected")) == list("abcd")
    assert all(abs(row["chosen_rating"]) < 0.5 for row in four)
    assert len(rated_rows(["q"], [list("abc")], [TABLE], every=True)) == 1
    for arguments in ((["q"], [], []), (["q"], [["a", "b"]], [TABLE])):
        with pytest.raises(InputError):
            rated_rows(*arguments)


# ---- the test of cycles ------------------------------------------------------------------------------------------------------------------


def simulated(n, votes, seed, loop=0.0, spread=1.0):
    """Wins of n items; log-odds r_i - r_j + loop * a skew-symmetric normal matrix."""
    rng = np.random.default_rng(seed)
    r = rng.normal(size=n) * spread
    s = r[:, None] - r + loop * random_skew(n, seed) / np.sqrt(2)
    drawn = rng.binomial(np.triu(np.full((n, n), votes), 1), 1 / (1 + np.exp(-s)))
    return drawn + np.triu(votes - drawn, 1).T


def test_level_and_power_of_the_cycle_test():
    quiet = [cycle_test(simulated(8, 6, seed), draws=19).p for seed in range(40)]
    assert np.mean(np.array(quiet) <= 0.05) <= 0.15  # 0.05 expected; 7 and more of 40 have probability 0.003
    assert 0.3 < np.mean(quiet) < 0.7
    loud = [cycle_test(simulated(8, 20, seed, loop=1.5), draws=19).p for seed in range(5)]
    assert max(loud) == 0.05
    found = cycle_test(simulated(8, 20, 0, loop=1.5), draws=19)
    assert found.share > found.high
    assert found.excess == found.share - found.expected
    assert (found.items, found.pairs, found.independent, found.votes) == (8, 28, 21, 560)


def test_misfit_is_pearsons_and_near_its_degrees_of_freedom():
    wins = simulated(6, 2000, 1, spread=0.5)
    found = cycle_test(wins, draws=199)
    assert found.expected_misfit == pytest.approx(found.independent, rel=0.2)  # 10 loops; sd of the mean .32
    from cupel.votes.ranking import RankingModel

    first, second, outcome = [], [], []
    for i, j in np.argwhere(np.ones((6, 6))):
        first += [i] * wins[i, j]
        second += [j] * wins[i, j]
        outcome += [0] * wins[i, j]
    counts = count_votes(first, second, outcome, 6)
    fit = RankingModel(ridge=0.1, intervals="none").fit(counts).result_.scores.value
    total = 0.0
    for i, j in combinations(range(6), 2):
        n, p = wins[i, j] + wins[j, i], 1 / (1 + np.exp(fit[j] - fit[i]))
        total += (wins[i, j] - n * p) ** 2 / (n * p * (1 - p))
    assert found.misfit == pytest.approx(total, rel=1e-5)
    again = cycle_test(counts, draws=199)
    assert (again.misfit, again.share) == pytest.approx((found.misfit, found.share), rel=1e-6)


def test_an_advantage_of_the_first_side_is_no_cycle():
    """Three equal items, each at home against the next: every home side wins, which looks like a circle unless home counts."""
    first, second = np.repeat([0, 1, 2], 60), np.repeat([1, 2, 0], 60)
    outcome = (np.random.default_rng(0).random(180) > 0.8).astype(int)
    first, second = np.concatenate([first, second[:60]]), np.concatenate([second, first[:60]])  # a few matches the other way round
    counts = count_votes(first, second, np.concatenate([outcome, outcome[:60]]), 3)
    assert cycle_test(counts, draws=99).p == 0.01
    home = cycle_test(counts, draws=99, slot=True)
    assert home.p > 0.05
    assert home.slot == pytest.approx(np.log(4), abs=0.5)


def test_ties_are_left_out_and_the_seed_decides():
    wins = simulated(6, 5, 2)
    first, second = np.nonzero(wins)
    n = wins[first, second]
    a, b = np.repeat(first, n), np.repeat(second, n)
    plain = count_votes(a, b, np.zeros(len(a), int), 6)
    tied = count_votes(np.append(a, [0] * 9), np.append(b, [1] * 9), np.append(np.zeros(len(a), int), [2] * 5 + [3] * 2 + [4] * 2), 6)
    assert cycle_test(plain, draws=19) == cycle_test(tied, draws=19)
    assert cycle_test(plain, draws=19, seed=1).expected != cycle_test(plain, draws=19).expected
    assert set(cycle_test(plain, draws=19).recorded()) >= {"p", "share", "expected"}
    assert "No more cycle than chance" in cycle_test(plain, draws=19).words


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        (np.array([[0, 2.5, 1], [1, 0, 1], [1, 1, 0]]), "no whole numbers"),
        (np.array([[0, -2, 1], [1, 0, 1], [1, 1, 0]]), "no whole numbers"),
        (np.array([[0, 2, 3], [2, 0, 0], [4, 0, 0]]), "form no loop"),
        (np.array([[1, 2], [2, 0]]), "against itself"),
        (np.zeros((3, 3)), "no vote is decided"),
        (np.zeros(3), "n x n matrix"),
    ],
)
def test_counts_that_cannot_be_tested(wins, message):
    with pytest.raises(InputError, match=message):
        cycle_test(wins)
    with pytest.raises(InputError, match="at least 19"):
        cycle_test(wins, draws=5)


def test_scores_of_counts_are_half_vote_log_odds():
    wins = np.array([[0, 3, 0], [1, 0, 2], [0, 2, 0]])
    found = cycle_scores(wins)
    assert found.pairs == 2
    assert found.share == pytest.approx(0, abs=1e-12)  # a line of comparisons cannot show a loop
    assert found.ratings[0] - found.ratings[1] == pytest.approx(np.log(3.5 / 1.5))
