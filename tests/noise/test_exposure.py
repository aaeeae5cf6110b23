"""Averages of what was seen with unequal chance: worked examples, enumeration, Monte Carlo, and what may not change."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.noise.exposure import average, clipping, effective_size, ranking, top_share

quick = settings(max_examples=15, deadline=None)
CLICKS, THETA, SCORES = [1, 0, 1, 0, 0, 1], [0.5, 0.4, 0.1, 1, 0.2, 0.25], [0.9, 0.8, 0.7, 0.3, 0.2, 0.1]


def test_worked_ranking():
    """Card 32, oracle 5: the weights of clicks are 2, 10 and 4; the published discount is 1 at rank 2, and its sum is reached by hand."""
    assert ranking(CLICKS, THETA, SCORES, k=3) == {"dcg": pytest.approx(0.4375, abs=1e-12), "recall": pytest.approx(0.75, abs=1e-12)}
    raw = ranking(CLICKS, THETA, SCORES, k=3, form="ips")
    assert raw["recall"] == pytest.approx(12)
    assert raw["dcg"] == pytest.approx(2 + 10 / 2)
    published = (2 + 10 / math.log2(3)) / 16
    assert abs(published - 0.519331096) < 6e-10
    naive = ranking(CLICKS, THETA, SCORES, k=3, form="naive")
    assert naive == {"dcg": pytest.approx(1.5 / 3), "recall": pytest.approx(2 / 3)}


@quick
@given(st.floats(0.05, 1))
def test_scale_of_propensities(c):
    """Card 32, oracle 7: self-normalised values stay, inverse ones are divided by c; constant propensities give the plain metric."""
    scaled = [c * t for t in THETA]
    for name in ("dcg", "recall"):
        assert math.isclose(ranking(CLICKS, scaled, SCORES, k=3, clip=0)[name], ranking(CLICKS, THETA, SCORES, k=3, clip=0)[name])
        one, other = (ranking(CLICKS, t, SCORES, k=3, form="ips", clip=0)[name] for t in (THETA, scaled))
        assert math.isclose(other, one / c)
        flat = ranking(CLICKS, [c] * 6, SCORES, k=3)[name]
        assert math.isclose(flat, ranking(CLICKS, THETA, SCORES, k=3, form="naive")[name])
    v = [0.3, 0.1, 0.9, 0.2, 0.4, 0.5]
    assert math.isclose(average(v, scaled).value, average(v, THETA).value)
    assert math.isclose(average(v, scaled, form="ips").value, average(v, THETA, form="ips").value / c)
    assert math.isclose(average(v, [c] * 6).value, average(v, THETA, form="naive").value)


def test_equal_scores_are_ordered_by_the_seed():
    found = {ranking([1, 0, 0, 0], [1.0] * 4, [0.0] * 4, k=1, seed=s)["recall"] for s in range(20)}
    assert found == {0.0, 1.0}
    assert ranking(CLICKS, THETA, [0.0] * 6, k=2, seed=3) == ranking(CLICKS, THETA, [0.0] * 6, k=2, seed=3)


def test_clipping_agrees_with_all_outcomes():
    """The slow twin: mean and variance over the 2^5 outcomes of five clicks."""
    rng = np.random.default_rng(0)
    theta, gamma, d1, d0 = rng.uniform(0.05, 1, 5), rng.uniform(0, 1, 5), rng.uniform(0, 2, 5), rng.uniform(0, 2, 5)
    ideal = np.mean(gamma * d1 + (1 - gamma) * d0)
    clips = (0.0, 0.2, 0.6, 1.0)
    for row in clipping(theta, gamma, d1 - d0, clips):
        t, values, chances = np.maximum(theta, row.clip), [], []
        for outcome in itertools.product((0, 1), repeat=5):
            y = np.array(outcome)
            chances.append(np.prod(np.where(y == 1, theta * gamma, 1 - theta * gamma)))
            values.append(np.mean(y / t * d1 + (1 - y / t) * d0))
        mean = np.dot(chances, values)
        assert math.isclose(row.bias, mean - ideal, abs_tol=1e-12)
        assert math.isclose(row.variance, np.dot(chances, (np.array(values) - mean) ** 2), abs_tol=1e-12)
        assert math.isclose(row.error, row.variance + row.bias**2)
    sizes = [row.effective for row in clipping(theta, gamma, d1 - d0, clips)]
    assert sizes == sorted(sizes)
    naive = clipping(theta, gamma, d1 - d0, [1.0])[0]
    assert math.isclose(naive.bias, np.mean((theta - 1) * gamma * (d1 - d0)))


def test_means_of_what_was_seen():
    """Known truth: exposure goes with the value. IPS within 4 standard errors of it, SNIPS with less variance, the naive mean far away;
    the stated errors are the spread of the estimates."""
    rng = np.random.default_rng(1)
    value = rng.uniform(0, 1, 4000)
    theta = 0.05 + 0.9 * value**2
    found = {"naive": [], "ips": [], "snips": []}
    for _ in range(150):
        seen = rng.random(4000) < theta
        for form, rows in found.items():
            rows.append(average(value[seen], theta[seen], form=form, total=4000))
    mean, spread = ({f: fun([r.value for r in rows]) for f, rows in found.items()} for fun in (np.mean, np.std))
    truth, root = value.mean(), 150**0.5
    assert abs(mean["ips"] - truth) < 4 * spread["ips"] / root
    assert abs(mean["snips"] - truth) < 0.02 * abs(mean["naive"] - truth)
    assert abs(mean["naive"] - truth) > 20 * spread["naive"] / root
    for form in ("ips", "snips"):
        assert np.mean([r.error for r in found[form]]) >= 0.85 * spread[form]
    shifted = {"ips": [], "snips": []}
    for _ in range(60):
        seen = rng.random(4000) < theta
        for form, rows in shifted.items():
            rows.append(average(10 + value[seen], theta[seen], form=form, total=4000).value)
    assert np.std(shifted["snips"]) < 0.2 * np.std(shifted["ips"])


def test_another_policy():
    """A log of actions: the mean reward of a policy that chooses evenly, from one that does not."""
    rng = np.random.default_rng(2)
    policy, reward = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.5, 0.9])
    action = rng.choice(3, 60_000, p=policy)
    won = (rng.random(60_000) < reward[action]).astype(float)
    for form in ("ips", "snips"):
        fit = average(won, policy[action], form=form, wanted=1 / 3)
        assert abs(fit.value - reward.mean()) < 4 * fit.error
    assert abs(average(won, policy[action], form="naive").value - reward.mean()) > 0.2


def test_weights_in_words():
    assert effective_size([]) == 0
    assert top_share([0.0, 0.0]) == 0
    fit = average([1.0] * 100, [1e-4] + [1.0] * 99)
    assert fit.effective < 2
    assert "weigh as 1 equal" in fit.warnings[0]
    assert average([1.0] * 100, [1e-4] + [1.0] * 99, clip=0.5).warnings == ()
    assert average([1.0] * 100, [1e-4] + [1.0] * 99, clip=0.5).clipped == 0.01
    assert "rescaled naive" in average([1.0, 0.0], [0.1, 0.2], clip=0.5).warnings[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average([1.0, 2.0], [0.5, 0.0]), "1 of 2 values of exposure .*first: row 1"),
        (lambda: average([1.0, 2.0], [float("nan"), 1.5]), "2 of 2 values of exposure"),
        (lambda: average([1.0, float("inf")], [0.5, 0.5]), "values are not finite"),
        (lambda: average([1.0], [0.5, 0.5]), "one of each per row"),
        (lambda: average([], []), "at least one row"),
        (lambda: average([1.0], [0.5], clip=1.5), "clip is a propensity"),
        (lambda: average([1.0, 1.0], [0.5, 0.5], total=1), "fewer than the 2 rows"),
        (lambda: average([1.0], [0.5], wanted=0.0), "nothing that is wanted"),
        (lambda: average([1.0], [0.5], wanted=-1.0), "at least 0"),
        (lambda: average([1.0], [0.5], wanted=[1.0, 1.0]), "one for each of the 1"),
        (lambda: clipping([0.5], [1.5], [0.1], [0.0]), "values of relevance"),
        (lambda: clipping([0.5], [0.5, 0.5], [0.1], [0.0]), "one of each per row"),
        (lambda: ranking([0, 0], [0.5, 0.5], [1.0, 0.0], k=1), "at least one of the 2 candidates"),
        (lambda: ranking([1, 2], [0.5, 0.5], [1.0, 0.0], k=1), "1 of 2 values of clicks"),
        (lambda: ranking([1, 0], [0.5], [1.0, 0.0], k=1), "one of each per candidate"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
