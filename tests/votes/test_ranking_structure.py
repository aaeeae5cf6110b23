"""What a ranking does where scores do not exist, where controls explain votes, and how often its intervals cover the truth."""

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.votes.counts import PairCounts, count_votes
from cupel.votes.ranking import RankingModel, connectivity, style_difference
from cupel.votes.ranking.graph import ties_are_bounded

W, L, T = 0, 1, 2
UNIT = 400 / np.log(10)


def fit(votes, n_items, *, count=None, **options):
    first, second, outcome = np.array(votes).T
    return RankingModel(**options).fit(count_votes(first, second, outcome, n_items, **(count or {}))).result_


#: 0, 1, 2 beat each other in a circle; 3 beats 0 and never loses; 4 and 5 are another component; 6 is never compared; 7 never wins
BROKEN = [(0, 1, W), (1, 2, W), (2, 0, W), (3, 0, W), (3, 1, W), (4, 5, W), (5, 4, W), (4, 5, W), (2, 7, W)]


def test_infinite_scores_are_named_and_not_given():
    found = fit(BROKEN, 8)
    assert np.isfinite(found.scores.value).tolist() == [True, True, True, False, True, True, False, False]
    np.testing.assert_allclose(found.scores.value[:3], 0, atol=1e-12)
    np.testing.assert_allclose(found.scores.value[4] - found.scores.value[5], np.log(2), atol=1e-10)
    assert np.isnan(found.scores.se[[3, 6, 7]]).all()
    assert found.connectivity.undefeated.tolist() == [3]
    assert found.connectivity.winless.tolist() == [7]
    assert found.connectivity.unplayed.tolist() == [6]
    assert found.connectivity.n_components == 3
    assert found.connectivity.n_groups == 5
    assert found.ranks().tolist() == [1, 1, 1, 0, 1, 1, 0, 0]
    words = " | ".join(found.warnings)
    for piece in ("1 item (6) never compared", "2 unconnected components", "(7) never won or tied", "-infinity"):
        assert piece in words
    assert "(3) never lost or tied: the maximum likelihood score is +infinity" in words
    for i, j in ((0, 3), (0, 4), (0, 0)):
        with pytest.raises(InputError, match="cannot be compared"):
            found.contrast(i, j)
    with pytest.raises(InputError, match="anchor"):
        found.elo(anchor=0)


def test_a_ridge_makes_scores_finite_and_says_so():
    found = fit(BROKEN, 8, ridge=0.5)
    assert np.isfinite(found.scores.value).tolist() == [True] * 6 + [False, True]
    assert found.scores.value[3] > max(found.scores.value[:3])
    assert found.group[3] == found.group[0] != found.group[4]
    np.testing.assert_allclose([found.scores.value[[0, 1, 2, 3, 7]].sum(), found.scores.value[4:6].sum()], 0, atol=1e-10)
    assert "only the ridge keeps the score finite" in " | ".join(found.warnings)


def test_groups_of_a_chain_are_fitted_apart_and_their_order_is_known():
    inside = [(0, 1, W), (1, 0, W), (1, 0, W), (2, 3, W), (3, 2, W)]
    found = fit([*inside, (0, 2, W), (1, 3, W)], 4)
    assert found.connectivity.above.tolist() == [[0, 1]]
    np.testing.assert_allclose(found.scores.value, fit(inside, 4).scores.value, atol=1e-12)
    assert "2 groups of items in 1 components" in found.warnings[-1]


def test_nothing_finite_is_refused():
    with pytest.raises(InputError, match=r"no score has a finite maximum likelihood.*never lost or tied.*set a ridge"):
        fit([(0, 1, W), (1, 2, W)], 3)
    assert np.isfinite(fit([(0, 1, W), (1, 2, W)], 3, ridge=0.1).scores.value).all()
    with pytest.raises(InputError, match="none of 2 votes can be used"):
        fit([(0, 1, T), (1, 2, 4)], 3, ties="drop")


def test_components_are_those_of_a_search_by_hand():
    rng = np.random.default_rng(0)
    for _ in range(30):
        n, m = 9, rng.integers(4, 16)
        first = rng.integers(0, n, m)
        second = (first + rng.integers(1, n, m)) % n
        votes = np.zeros((m, 3))
        votes[np.arange(m), rng.integers(0, 3, m)] = 1
        reach = np.eye(n, dtype=bool)
        for i, j, (win, loss, tie) in zip(first, second, votes, strict=True):
            reach[i, j] |= bool(win or tie)
            reach[j, i] |= bool(loss or tie)
        joined = reach | reach.T
        for k in range(n):  # Warshall
            reach |= reach[:, [k]] & reach[[k]]
            joined |= joined[:, [k]] & joined[[k]]
        found = connectivity(first, second, votes, n)
        np.testing.assert_array_equal(found.group[:, None] == found.group[None], reach & reach.T)
        np.testing.assert_array_equal(found.component[:, None] == found.component[None], joined)


def test_a_threshold_without_bound_is_refused():
    """One win and one tie on a pair: strongly connected, yet Davidson's and Rao-Kupper's likelihoods grow for ever."""
    with pytest.raises(InputError, match="threshold"):
        fit([(0, 1, W), (0, 1, T)], 2, ties="davidson")
    with pytest.raises(InputError, match="threshold"):
        fit([(0, 1, W), (1, 2, T), (2, 0, T)], 3, ties="rao_kupper")
    for ties in ("davidson", "rao_kupper"):
        assert fit([(0, 1, W), (1, 0, W), (0, 1, T)], 2, ties=ties).converged
        assert fit([(0, 1, W), (1, 2, W), (2, 0, T)], 3, ties=ties).converged  # a circle of two wins and a tie
        assert fit([(0, 1, W), (0, 1, T)], 2, ties=ties, ridge=0.1).converged
        with pytest.raises(InputError, match="no ties"):
            fit([(0, 1, W), (1, 0, W)], 2, ties=ties)
        with pytest.raises(InputError, match="nothing but ties"):
            fit([(0, 1, T), (1, 0, T)], 2, ties=ties)


def test_bounded_thresholds_are_those_that_the_likelihood_stays_finite_for():
    """Against the likelihood itself: with an unbounded threshold it still grows between thresholds of 8 and 16."""
    from scipy.optimize import minimize

    from cupel.votes.ranking import TIE_MODELS

    rng, seen, model = np.random.default_rng(3), set(), TIE_MODELS["davidson"]
    while len(seen) < 2 or rng.random() < 0.9:
        m = int(rng.integers(3, 6))
        first = rng.integers(0, 4, m)
        second = (first + rng.integers(1, 4, m)) % 4
        votes = np.eye(3)[rng.choice([W, T], m, p=[0.6, 0.4])]
        if connectivity(first, second, votes, 4).n_groups > 1 or not votes[:, T].any() or not votes[:, W].any():
            continue

        def best(tau, first=first, second=second, votes=votes):
            run = minimize(lambda s: model.value(s[first] - s[second], tau, *votes.T).sum(), np.zeros(4), method="BFGS")
            return run.fun

        bounded = ties_are_bounded(first, second, votes)
        seen.add(bounded)
        if bounded:
            assert best(16.0) > best(8.0) + 1
        else:
            assert best(16.0) < best(8.0) + 1e-3


def test_bootstrap_leaves_out_draws_without_a_score():
    votes = [(0, 1, W)] * 12 + [(0, 1, L)] * 9 + [(1, 2, W)] * 8 + [(1, 2, L)] * 2 + [(0, 2, W)] * 9
    found = fit(votes, 3, intervals="bootstrap", draws=400, seed=0)
    share = found.missing[2]
    assert 0.09 < share < 0.18  # item 2 wins none of 40 votes with probability (38/40)^40 = 0.13
    assert found.missing[0] < 0.01
    assert abs(found.scores.low).max() < 8  # no draw of 20 log-odds
    assert "no finite score in more than 5 % of bootstrap draws (most: item 2" in " ".join(found.warnings)
    assert fit(votes, 3, intervals="bootstrap", draws=50, ridge=0.5).missing.max() == 0


def test_clusters_that_move_together_widen_intervals():
    """Every vote of a prompt repeated four times: clustering gives the intervals of the single votes, votes alone half of them."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 4, 400)
    second = (first + rng.integers(1, 4, 400)) % 4
    outcome, prompt = rng.choice(3, 400, p=[0.5, 0.35, 0.15]), np.arange(400)
    once = RankingModel().fit(count_votes(first, second, outcome, 4)).result_
    four = count_votes(*(np.tile(x, 4) for x in (first, second, outcome)), 4, cluster=np.tile(prompt, 4))
    clustered, naive = (RankingModel(intervals=kind).fit(four).result_ for kind in ("cluster", "sandwich"))
    np.testing.assert_allclose(clustered.scores.se, once.scores.se * np.sqrt(400 / 399), rtol=1e-9)
    np.testing.assert_allclose(naive.scores.se, once.scores.se / 2, rtol=1e-9)
    drawn = RankingModel(intervals="bootstrap", resample="cluster", draws=600, seed=0).fit(four).result_
    np.testing.assert_allclose(drawn.scores.se, clustered.scores.se, rtol=0.12)


# --- controls -------------------------------------------------------------------------------------------------------------------

FIRST = np.array([0, 0, 0, 1, 1, 2, 0, 1, 2, 0, 2, 1])
SECOND = np.array([1, 2, 1, 2, 0, 0, 2, 2, 1, 1, 1, 0])
OUTCOME = np.array([W, W, L, W, T, L, W, L, W, T, L, W])
A, B = np.array([4, 7, 2, 3, 6, 1, 5, 2, 8, 3, 2, 6]), np.array([2, 3, 5, 3, 4, 6, 1, 4, 3, 3, 5, 2])
REG = 0.5 / np.log(10) ** 2


def test_style_differences():
    x = style_difference(A, B)
    golden = [0.63160319, 0.84061888, -1.14067576, -0.13478771, 0.35291559, -1.81126779]
    np.testing.assert_allclose(x[:6], golden, atol=1e-8)
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-12)
    both = style_difference(np.column_stack([A, A * 2.5]), np.column_stack([B, B]), centre=False)
    np.testing.assert_array_equal(style_difference(B, A, centre=False), -both[:, 0])
    np.testing.assert_allclose((both**2).mean(axis=0), 1)
    for first, second, words in (
        ([1, -1], [0, 0], r"1 of 2 votes have a feature that is negative or not finite \(first: row 1\)"),
        ([1, np.inf], [0, 0], "not finite"),
        ([2, 2], [2, 2], "controls for nothing"),
        ([1, 2], [1], "one shape"),
    ):
        with pytest.raises(InputError, match=words):
            style_difference(np.array(first), np.array(second))


def test_golden_controlled_fit():
    counts = count_votes(FIRST, SECOND, OUTCOME, 3, controls=style_difference(A, B), control_names=("length",))
    model = RankingModel(ridge=REG, control_ridge=0.5)
    found = model.fit(counts).result_
    np.testing.assert_allclose(found.controls.value, [1.937988411], atol=1e-6)
    np.testing.assert_allclose(found.elo().value, [1080.429845, 1020.140272, 899.429883], atol=1e-4)
    penalty = REG / 2 * found.scores.value @ found.scores.value + 0.25 * found.controls.value[0] ** 2
    np.testing.assert_allclose(-found.log_likelihood + penalty, 4.081469277, atol=1e-8)
    assert found.controls.names == ("length",)
    plain = RankingModel(ridge=REG).fit(count_votes(FIRST, SECOND, OUTCOME, 3)).result_
    np.testing.assert_allclose(plain.elo().value, [1070.462866, 1033.177595, 896.359539], atol=1e-4)
    held = RankingModel(ridge=REG, control_ridge=1e12).fit(counts).result_
    np.testing.assert_allclose(held.scores.value, plain.scores.value, atol=1e-9)


def simulate(n, n_items, beta, seed, ties=0.0, slot=0.0, spread=0.6):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n_items) * spread
    truth -= truth.mean()
    first = rng.integers(0, n_items, n)
    second = (first + rng.integers(1, n_items, n)) % n_items
    x = rng.normal(size=(n, len(beta)))
    win = rng.random(n) < 1 / (1 + np.exp(-(truth[first] - truth[second] + x @ np.array(beta) + slot)))
    outcome = np.where(rng.random(n) < ties, T, np.where(win, W, L))
    return truth, first, second, outcome, x


def test_controls_are_recovered_and_their_intervals_hold():
    truth, first, second, outcome, x = simulate(20_000, 12, (0.30, -0.10), seed=0, slot=0.2)
    found = RankingModel(slot=True).fit(count_votes(first, second, outcome, 12, controls=x, control_names=("length", "lists"))).result_
    assert found.controls.names == ("length", "lists", "first side")
    np.testing.assert_allclose(found.controls.value, [0.30, -0.10, 0.20], atol=0.05)
    assert (np.abs(found.controls.value - [0.30, -0.10, 0.20]) < 3.5 * found.controls.se).all()
    np.testing.assert_allclose(found.scores.value, truth, atol=0.12)


def test_control_removes_confounding():
    rng = np.random.default_rng(1)
    truth, first, second, _, x = simulate(20_000, 12, (0.0,), seed=1, spread=0.3)
    x = x[:, 0] + 1.5 * (truth[first] - truth[second])  # strong items are verbose
    outcome = np.where(rng.random(len(x)) < 1 / (1 + np.exp(-(truth[first] - truth[second] + 0.3 * x))), W, L)
    without = RankingModel().fit(count_votes(first, second, outcome, 12)).result_
    controlled = RankingModel().fit(count_votes(first, second, outcome, 12, controls=x)).result_
    rmse = [float(np.sqrt(np.mean((r.scores.value - truth) ** 2))) for r in (without, controlled)]
    assert rmse[1] < 0.65 * rmse[0]
    np.testing.assert_allclose(controlled.controls.value, [0.3], atol=0.05)


def test_a_control_that_says_nothing_changes_nothing_and_sides_can_be_swapped():
    _, first, second, outcome, x = simulate(3000, 5, (0.4,), seed=2, ties=0.2)
    for ties in ("half", "davidson", "rao_kupper"):
        base = RankingModel(ties=ties).fit(count_votes(first, second, outcome, 5, controls=x)).result_
        turned = RankingModel(ties=ties).fit(count_votes(second, first, np.array([1, 0, 2])[outcome], 5, controls=-x)).result_
        np.testing.assert_allclose(turned.scores.value, base.scores.value, atol=1e-9)
        np.testing.assert_allclose(turned.controls.value, base.controls.value, atol=1e-9)
        np.testing.assert_allclose(turned.covariance, base.covariance, atol=1e-10)
    tiny = count_votes(first, second, outcome, 5, controls=np.where(np.arange(3000) == 0, 1e-9, 0))
    plain = RankingModel().fit(count_votes(first, second, outcome, 5)).result_
    np.testing.assert_allclose(RankingModel(control_ridge=1.0).fit(tiny).result_.scores.value, plain.scores.value, atol=1e-8)


def test_clusters_and_bootstrap_with_controls():
    _, first, second, outcome, x = simulate(4000, 5, (0.4,), seed=3, ties=0.2)
    prompt = np.arange(4000) // 4
    counts = count_votes(first, second, outcome, 5, controls=x, cluster=prompt)
    robust = RankingModel().fit(counts).result_
    clustered = RankingModel(intervals="cluster").fit(counts).result_
    drawn = RankingModel(intervals="bootstrap", resample="cluster", draws=300, seed=0).fit(counts).result_
    np.testing.assert_allclose(clustered.scores.value, robust.scores.value, atol=1e-12)
    np.testing.assert_allclose(clustered.controls.se, robust.controls.se, rtol=0.15)  # votes of a prompt are independent here
    np.testing.assert_allclose(drawn.controls.se, clustered.controls.se, rtol=0.2)


def test_controls_that_cannot_be_fitted_are_refused():
    first, second, outcome, x = FIRST, SECOND, OUTCOME, style_difference(A, B)
    item = (first == 2).astype(float) - (second == 2)
    for controls, options, words in (
        (item, {}, r"effects of 'control 0' and the strength of item 2 cannot be told apart"),
        (np.column_stack([x, 2 * x]), {}, "effects of 'control 0', 'control 1' cannot be told apart"),
        (np.where(outcome == W, 1.0, np.where(outcome == L, -1.0, 0)) * 3, {}, "'control 0' separates the outcomes"),
        (np.ones(12), {"slot": True}, "the effect of the first side itself"),
    ):
        counts = count_votes(first, second, outcome, 3, controls=controls)
        with pytest.raises(InputError, match=words):
            RankingModel(**options).fit(counts)
    counts = count_votes(first, second, outcome, 3, controls=np.column_stack([x, 2 * x]))
    assert RankingModel(control_ridge=1.0).fit(counts).result_.converged


# --- coverage, options ----------------------------------------------------------------------------------------------------------


def test_intervals_cover_the_truth():
    """300 boards of 6 items and 600 votes from the model: 95 % sandwich intervals of their 15 contrasts cover 93 to 97 %."""
    rng = np.random.default_rng(0)
    truth = np.array([0.6, 0.3, 0.1, -0.1, -0.3, -0.6])
    first, second = np.triu_indices(6, 1)
    p = 1 / (1 + np.exp(truth[second] - truth[first]))
    covered, found, claimed = [], [], []
    for wins in rng.binomial(40, p, size=(300, 15)):
        votes = np.zeros((15, 5))
        votes[:, 0], votes[:, 1] = wins, 40 - wins
        ranking = RankingModel().fit(PairCounts(6, first, second, votes, votes, 600)).result_
        contrasts = [ranking.contrast(i, j) for i, j in zip(first, second, strict=True)]
        covered += [c.low <= d <= c.high for c, d in zip(contrasts, truth[first] - truth[second], strict=True)]
        found.append([c.difference for c in contrasts])
        claimed.append([c.se for c in contrasts])
    assert 0.93 <= np.mean(covered) <= 0.97
    assert abs(np.mean(claimed) / np.std(found, axis=0).mean() - 1) < 0.05


def test_fisher_and_sandwich_agree_where_the_model_is_right_and_there_are_no_ties():
    _, first, second, outcome, _ = simulate(200_000, 6, (), seed=4)
    counts = count_votes(first, second, outcome, 6)
    robust, fisher = (RankingModel(intervals=kind).fit(counts).result_ for kind in ("sandwich", "fisher"))
    np.testing.assert_allclose(robust.scores.se, fisher.scores.se, rtol=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ties": "thirds"}, "ties is one of half, drop"),
        ({"intervals": "wide"}, "intervals is one of"),
        ({"ridge": -1.0}, "ridge is 0"),
        ({"control_ridge": np.nan}, "control_ridge is 0"),
        ({"level": 1.5}, "level"),
        ({"intervals": "bootstrap", "draws": 1}, "at least 2 draws"),
        ({"intervals": "cluster"}, "carry a cluster"),
        ({"intervals": "bootstrap", "resample": "cluster"}, "one cluster column"),
        ({"pair_floor": -1.0}, "floor"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        fit([(0, 1, W), (1, 0, W)], 2, **options)


def test_more_refusals():
    with pytest.raises(InputError, match="no such option: rigde"):
        RankingModel().set_params(rigde=1)
    found = fit([(0, 1, W), (1, 0, W)], 2, intervals="none")
    assert found.covariance is None
    assert np.isnan(found.scores.se).all()
    for question in (found.ranks, lambda: found.contrast(0, 1), lambda: found.top_probability(1, seed=0)):
        with pytest.raises(InputError, match="needs a covariance"):
            question()
    with pytest.raises(InputError, match="rule"):
        fit([(0, 1, W), (1, 0, W)], 2).ranks("best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least two clusters"):
        fit([(0, 1, W), (1, 0, W)], 2, count={"cluster": [0, 0]}, intervals="cluster")
    first = np.arange(3100)
    chain = [(*pair, code) for pair in zip(first, (first + 1) % 3100, strict=True) for code in (W, L)]
    with pytest.raises(InputError, match=r"3,100 parameters are more than 3,000"):
        fit(chain, 3100)
    assert fit(chain, 3100, intervals="none").converged
