"""Taste apart from error: the models against slow twins, planted truth, the folds, the control and the interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.votes.ballots import Ballots, ballots
from cupel.votes.bradley_terry import fit_bradley_terry
from cupel.votes.folds import group_folds
from cupel.votes.intervals import Interval
from cupel.votes.plural import (
    _judge,
    exchange,
    held_out,
    pair_of,
    planted,
    plural_or_noise,
    shared_sides,
    smallest_spread,
    two_way_interval,
)
from cupel.votes.tastes import MODELS, _State, fit_tastes


def world(
    seed: int, n: int = 4000, people: int = 40, items: int = 40, *, taste: float = 0.0, slope: float = 0.0, careless: float = 0.0,
    ordered: bool = True, score: float = 1.0,
) -> tuple[Ballots, np.ndarray]:  # fmt: skip
    """Votes of a planted world, and the taste of each person (rank 1). careless: share of people who toss coins."""
    rng = np.random.default_rng([seed, 5])
    who, i = rng.integers(0, people, n), rng.integers(0, items, n)
    j = (i + rng.integers(1, items, n)) % items
    s, u, v = score * rng.normal(size=items), rng.normal(size=people), rng.normal(size=items)
    added = u[who] * (v[i] - v[j])
    odds = np.maximum(1 + slope * rng.normal(size=people), 0)[who] * (s[i] - s[j]) + taste * added / added.std()
    coin = (rng.random(people) < careless)[who]
    p = np.where(coin, 0.5, 1 / (1 + np.exp(-odds)))
    return ballots(i, j, rng.random(n) < p, who, items=items, people=people, ordered=ordered), u


# ---- slow twins -----------------------------------------------------------------------------------------------------------------


def _state(rank: int = 2, k: int = 1) -> _State:
    votes, _ = world(3, 300, 6, 8, taste=1.5)
    traits = np.random.default_rng(1).normal(size=(8, k))
    state = _State(replace(votes, traits=traits), "plural")
    state.run(3)
    state.add_tastes(rank, 0)
    state.run(4)
    return state


def _pieces(state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    apart = state.d @ state.items_of()
    mean, var = state.moments(state.votes, apart)
    weight, omega = state.weigh(mean, var)
    return apart, weight, omega


def test_moments_are_those_of_loops():
    state = _state()
    items = state.items_of()
    mean, var = state.moments(state.votes, state.d @ items)
    for n in range(0, 300, 37):
        a, i, j = (int(x[n]) for x in (state.votes.person, state.votes.first, state.votes.second))
        e = items[i] - items[j]
        z = np.array([*e, 1.0])
        c = np.array([1.0, 0, 0]) + state.theta[a, :3]
        both = np.outer(c, c) + state.theta_cov[a][:3, :3]
        assert mean[n] == pytest.approx(e[0] + z @ state.theta[a])
        assert var[n] == pytest.approx(z @ state.theta_cov[a] @ z + np.sum(both * (state.item_cov[i] + state.item_cov[j])))


def test_people_are_those_of_a_loop_over_votes():
    state = _state()
    apart, weight, omega = _pieces(state)
    prior, b0, cov = state.prior.copy(), state.b0, state.item_cov.copy()
    state.update_people(apart, weight, omega)
    votes = state.votes
    for a in range(votes.people):
        gram, pull = np.diag(1 / prior), np.array([0, 0, 0, b0 / prior[-1]])
        for n in np.flatnonzero(votes.person == a):
            z = np.array([*apart[n], 1.0])
            unsure = np.zeros((4, 4))
            unsure[:3, :3] = cov[votes.first[n]] + cov[votes.second[n]]
            square = np.outer(z, z) + unsure
            gram = gram + weight[n] * omega[n] * square
            pull = pull + weight[n] * ((votes.won[n] - 0.5) * z - omega[n] * square[0])
        free = np.linalg.solve(gram, pull)
        if free[0] > -1:
            assert state.theta[a] == pytest.approx(free, abs=1e-9)
            assert state.theta_cov[a] == pytest.approx(np.linalg.inv(gram), abs=1e-9)
        else:  # the same problem with the slope held at 0
            rest = np.linalg.solve(gram[1:, 1:], pull[1:] + gram[1:, 0])
            assert state.theta[a] == pytest.approx(np.array([-1, *rest]), abs=1e-9)


def test_items_are_those_of_a_dense_solve():
    state = _state()
    _, weight, omega = _pieces(state)
    votes, k, c = state.votes, state.k, 3
    item_var = state.item_var.copy()
    design = np.zeros((len(votes), votes.items + k))
    for n in range(len(votes)):
        design[n, votes.first[n]] += 1
        design[n, votes.second[n]] -= 1
        design[n, votes.items :] = votes.traits[votes.first[n]] - votes.traits[votes.second[n]]
    size = (votes.items + k) * c
    gram, right = np.diag(np.concatenate([np.tile(1 / item_var, votes.items), np.ones(k * c)])), np.zeros(size)
    for n in range(len(votes)):
        a = votes.person[n]
        load = np.array([1.0, 0, 0]) + state.theta[a, :3]
        both = np.outer(load, load) + state.theta_cov[a][:3, :3]
        gram += weight[n] * omega[n] * np.kron(np.outer(design[n], design[n]), both)
        place = load * state.theta[a, 3] + state.theta_cov[a][:3, 3]
        right += weight[n] * np.kron(design[n], (votes.won[n] - 0.5) * load - omega[n] * place)
    expected = np.linalg.solve(gram, right).reshape(-1, c)
    for _ in range(3):  # conjugate gradients start where they stopped
        state.item_var = item_var.copy()
        state.update_items(weight, omega, 1e-9)
    assert np.concatenate([state.effect, state.slopes]) == pytest.approx(expected, abs=1e-6)


def test_scalar_orders_items_as_bradley_terry_does():
    votes, _ = world(0, ordered=False)
    winner, loser = np.where(votes.won, votes.first, votes.second), np.where(votes.won, votes.second, votes.first)
    assert np.corrcoef(fit_tastes(votes, "scalar").scores, fit_bradley_terry(winner, loser, 40, ridge=1.0).scores)[0, 1] > 0.999


# ---- planted truth --------------------------------------------------------------------------------------------------------------


def test_planted_taste_is_found_and_called_so():
    votes, u = world(1, taste=2.0)
    found = plural_or_noise(votes, folds=3, power=0)
    assert found.verdict == "people_differ"
    assert found.taste_gain.low > 0.02
    assert found.control_gain.low <= 0
    assert found.spread > 0.8
    assert found.turned > 0.05
    assert max(abs(np.corrcoef(found.fit.taste[:, r], u)[0, 1]) for r in range(2)) > 0.9


def test_careless_people_err_and_do_not_differ():
    votes, _ = world(2, careless=0.4, score=2.0)
    found = plural_or_noise(votes, folds=3, power=0)
    assert found.verdict == "people_err"
    assert found.noise_gain.low > 0.01
    assert found.taste_gain.high < found.noise_gain.estimate


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [{"slope": 0.5}, {"careless": 0.3}, {}])
def test_noise_is_not_called_taste(seed, kind):
    votes, _ = world(10 + seed, 2000, **kind)
    assert plural_or_noise(votes, folds=2, power=0).verdict != "people_differ"


def test_mixed_both_gain():
    votes, _ = world(4, 4000, taste=2.0, careless=0.4, score=2.0)
    found = plural_or_noise(votes, folds=2, power=0)
    assert found.verdict == "people_differ"
    assert found.noise_gain.low > 0


def test_a_person_against_everybody_is_not_noise():
    """Answers that run the other way round tell something: the slope stays at 0 and taste takes them up."""
    votes, _ = world(5, 3000, 30, 20, score=2.0, ordered=False)
    minority = votes.person < 6
    votes = replace(votes, won=votes.won ^ minority)
    noise = fit_tastes(votes, "noise")
    assert noise.slope.min() >= 0
    assert noise.slope[:6].max() < noise.slope[6:].min()
    found = plural_or_noise(votes, folds=2, power=0)
    assert found.verdict == "people_differ"


def test_a_taste_for_a_trait_is_seen_where_items_never_come_again():
    rng = np.random.default_rng(8)
    n, people = 1500, 30
    who, trait = rng.integers(0, people, n), rng.normal(size=2 * n)
    odds = 1.5 * rng.normal(size=people)[who] * (trait[:n] - trait[n:])
    won = rng.random(n) < 1 / (1 + np.exp(-odds))
    plain = ballots(np.arange(n), np.arange(n, 2 * n), won, who)
    assert shared_sides(plain) == 0
    told = plural_or_noise(plain, power=0)
    assert told.verdict == "cannot_tell"
    assert "0% of the sides" in told.reason
    found = plural_or_noise(replace(plain, traits=trait[:, None]), folds=2, power=0)
    assert found.verdict == "people_differ"


def test_power_grows_with_votes_and_says_when_there_is_none():
    found = []
    for n in (1000, 4000):
        votes, _ = world(6, n, 30, 30)
        pair = pair_of(votes)
        fold = group_folds(pair, 2, 0)
        found.append(smallest_spread(votes, fold, np.arange(n), pair, rank=1, seed=0, copies=1))
    assert found[1] < found[0]
    assert 0.3 < found[1] < 1.2
    votes, _ = world(6, 300, 100, 300)
    fold, pair = group_folds(pair_of(votes), 2, 0), pair_of(votes)
    assert smallest_spread(votes, fold, np.arange(300), pair, rank=1, seed=0, copies=1) > 4


def test_planted_spread_is_the_one_asked_for():
    votes, _ = world(7, 40_000)
    base = fit_tastes(votes, "noise")
    flat = replace(base, scores=0 * base.scores, place=0 * base.place, coin=0 * base.coin)
    shares = [np.mean(planted(votes, flat, spread, seed=1).won) for spread in (0.0, 3.0)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.03)
    pairs = votes.person * 1600 + pair_of(votes)  # one person, one pair: the more taste the more alike
    upward = np.where(votes.first < votes.second, 1, -1)

    def alike(spread: float) -> float:
        sign = upward * np.where(planted(votes, flat, spread, seed=1).won, 1, -1)
        index = np.unique(pairs, return_inverse=True)[1]
        total, n = np.bincount(index, weights=sign), np.bincount(index)
        return float(((total**2 - n)[n > 1]).sum() / (n * (n - 1))[n > 1].sum())

    assert alike(0.0) == pytest.approx(0, abs=0.05)
    assert alike(3.0) > 0.3


# ---- folds, control, interval ---------------------------------------------------------------------------------------------------


def test_no_label_of_a_held_out_pair_is_used():
    votes, _ = world(9, 900, 10, 12, taste=1.0)
    fold = group_folds(pair_of(votes), 3, 0)
    assert (np.array([len(np.unique(fold[pair_of(votes) == p])) for p in np.unique(pair_of(votes))]) == 1).all()
    turned = replace(votes, won=votes.won ^ (fold == 1))
    one, two = (held_out(v, fold, MODELS, rank=1, seed=0) for v in (votes, turned))
    for name in MODELS:
        here = fold == 1
        assert np.exp(-one[name][here]) + np.exp(-two[name][here]) == pytest.approx(1.0, abs=1e-12)


def test_exchange_keeps_what_is_said_of_pairs_and_how_often_people_vote():
    votes, _ = world(9, 2000, 10, 8)
    pair = pair_of(votes)
    mixed, within = exchange(votes, pair, np.zeros(2000, dtype=int), 0)
    assert within == "pairs"
    assert (mixed.won == votes.won).all()
    assert (mixed.person != votes.person).mean() > 0.5
    for p in np.unique(pair):
        assert sorted(mixed.person[pair == p]) == sorted(votes.person[pair == p])
    single, _ = world(9, 60, 10, 200)
    prompts = np.arange(60) // 20
    assert exchange(single, np.arange(60), prompts, 0)[1] == "prompts"
    assert exchange(single, np.arange(60), single.person, 0)[1] == "everything"


def test_two_way_interval_is_that_of_double_loops():
    rng = np.random.default_rng(2)
    value, one, other = rng.normal(size=60), rng.integers(0, 8, 60), rng.integers(0, 12, 60)
    rest = value - value.mean()
    total = {}
    for name, same in (("one", one), ("other", other), ("both", one * 100 + other)):
        g = len(set(same.tolist()))
        total[name] = sum(rest[a] * rest[b] for a in range(60) for b in range(60) if same[a] == same[b]) / 3600 * g / (g - 1)
    variance = max(total["one"], total["other"], total["one"] + total["other"] - total["both"])
    shares = [np.bincount(x) / 60 for x in (one, other)]
    freedom = min(1 / (s**2).sum() for s in shares) - 1
    from scipy.stats import t

    found = two_way_interval(value, one, other, 0.9)
    assert found.high - found.estimate == pytest.approx(t.ppf(0.95, freedom) * np.sqrt(variance))


def test_two_way_interval_covers_where_people_and_prompts_matter():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        one, other = rng.integers(0, 25, 600), rng.integers(0, 40, 600)
        value = rng.normal(size=25)[one] + rng.normal(size=40)[other] + rng.normal(size=600)
        found = two_way_interval(value, one, other)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_sides_may_be_swapped_where_no_order_is_known():
    votes, _ = world(11, 1500, 15, 15, taste=1.5, ordered=False)
    swap = np.random.default_rng(0).random(1500) < 0.5
    other = replace(
        votes, first=np.where(swap, votes.second, votes.first), second=np.where(swap, votes.first, votes.second), won=votes.won ^ swap
    )
    assert fit_tastes(other).log_loss(other).mean() == pytest.approx(fit_tastes(votes).log_loss(votes).mean(), abs=2e-3)


def test_the_same_seed_gives_the_same_numbers():
    votes, _ = world(12, 1500, 15, 15, taste=1.5)
    one, two = (plural_or_noise(votes, folds=2, power=0, seed=3) for _ in range(2))
    assert one.loss == two.loss
    assert (one.fit.taste == two.fit.taste).all()


# ---- what is said ---------------------------------------------------------------------------------------------------------------


def _gap(estimate: float, half: float) -> Interval:
    return Interval(estimate, estimate - half, estimate + half, 30)


@pytest.mark.parametrize(
    ("noise", "taste", "control", "detectable", "verdict", "words"),
    [
        (_gap(0.1, 0.01), _gap(0.1, 0.01), _gap(0, 0.01), None, "people_differ", "who votes tells"),
        (_gap(0.1, 0.01), _gap(0.1, 0.01), _gap(0.1, 0.01), None, "cannot_tell", "exchanged"),
        (_gap(0.1, 0.01), _gap(0.0, 0.01), None, 0.7, "people_err", "0.7 in log-odds"),
        (_gap(0.1, 0.01), _gap(0.1, 0.20), None, 0.7, "cannot_tell", "90% of it is one person"),
        (_gap(0.0, 0.01), _gap(0.0, 0.00), None, 0.7, "no_sign", "neither"),
        (_gap(0.0, 0.01), _gap(0.0, 0.00), None, 1.7, "cannot_tell", "1.7 in log-odds"),
        (_gap(0.0, 0.01), _gap(0.0, 0.00), None, np.inf, "cannot_tell", "no spread of taste"),
        (_gap(0.0, 0.01), _gap(0.0, 0.00), None, None, "cannot_tell", "holds 0"),
        (_gap(0.0, 0.01), Interval(0.0, np.nan, np.nan, 1), None, 0.7, "cannot_tell", "too few people"),
    ],
)
def test_verdicts(noise, taste, control, detectable, verdict, words):
    code, reason = _judge(noise, taste, control, detectable, 0.9, 1.0)
    assert code == verdict
    assert words in reason


def test_a_taste_that_the_fit_on_all_votes_lacks_is_none():
    assert _judge(_gap(0.1, 0.01), _gap(0.1, 0.01), _gap(0, 0.01), None, 0.1, 0.0)[0] == "cannot_tell"


def test_too_little_is_said_so():
    votes, _ = world(13, 1000, 4, 10)
    assert "4 people cast 10" in plural_or_noise(votes).reason
    votes, _ = world(13, 150, 8, 10)
    assert "and 200 are needed" in plural_or_noise(votes).reason
    votes, _ = world(13, 1000, 10, 4)
    told = plural_or_noise(votes)
    assert "on 6 pairs" in told.reason
    assert (told.verdict, told.fit, told.loss) == ("cannot_tell", None, {})


def test_bad_input_is_refused_in_words():
    a, b = np.array([0, 1, 2]), np.array([1, 2, 0])
    won, who = np.array([1, 0, 1]), np.array([0, 0, 1])
    for args, words in (
        ((a, b, won[:2], who), "at least one vote"),
        ((a, a, won, who), "3 of 3 votes compare an item with itself"),
        ((a, b, np.array([1, 0.5, 0]), who), r"neither won nor lost \(first: row 1\)"),
        ((a, b, won, np.array([0, -1, 1])), r"unknown person .* \(first: row 1\)"),
        ((a - 1, b, won, who), "name an item outside"),
    ):
        with pytest.raises(InputError, match=words):
            ballots(*args)
    with pytest.raises(InputError, match="traits of 1 of 3 items are not finite"):
        ballots(a, b, won, who, traits=np.array([[0.0], [np.nan], [1.0]]))
    with pytest.raises(InputError, match="a row for each of 3 items"):
        ballots(a, b, won, who, traits=np.zeros((2, 1)))
    cast = ballots(a, b, won, who)
    with pytest.raises(InputError, match="rank of taste is 1, 2 or 3"):
        fit_tastes(cast, rank=4)
    with pytest.raises(InputError, match="the models are"):
        fit_tastes(cast, "other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="as many prompts"):
        plural_or_noise(cast, np.zeros(2))
    with pytest.raises(InputError, match="same items by the same people"):
        fit_tastes(cast).predict(replace(cast, people=9))
