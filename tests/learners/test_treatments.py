"""Targets against the cards' numbers, and EM against known truths."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.learners.treatments import conservative, default_treatment, one_coin_posterior, unbiased


@pytest.mark.parametrize("e", [0.1, 0.2, 0.4])
def test_unbiased_target_gives_back_the_clean_loss(e):
    m = np.array([-3.0, -1, -0.2, 0, 0.5, 2, 5])
    target = unbiased(np.ones(7), e)
    loss = target * np.logaddexp(0, -m) + (1 - target) * np.logaddexp(0, m)
    assert np.allclose(loss, np.logaddexp(0, -m) - e / (1 - 2 * e) * m)  # card 03, identity
    assert np.allclose((1 - e) * unbiased(np.ones(1), e) + e * unbiased(np.zeros(1), e), 1)


def test_card_values():
    m = np.array([-3.0, -1, -0.2, 0, 0.5, 2, 5])
    target = conservative(np.ones(7), 0.2)
    loss = target * np.logaddexp(0, -m) + (1 - target) * np.logaddexp(0, m)
    assert np.allclose(loss, [2.448587, 1.113262, 0.758139, 0.693147, 0.574077, 0.526928, 1.006715], atol=1e-6)
    target = unbiased(np.ones(7), 0.1)
    loss = target * np.logaddexp(0, -m) + (1 - target) * np.logaddexp(0, m)
    assert np.allclose(loss, [3.423587, 1.438262, 0.823139, 0.693147, 0.411577, -0.123072, -0.618285], atol=1e-6)


def test_rates_out_of_range_are_refused():
    for function, rate in ((conservative, 0.5), (unbiased, -0.1), (unbiased, 0.47)):
        with pytest.raises(InputError):
            function(np.ones(1), rate)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.4])
def test_global_em_recovers_rate_and_slope_jointly(rate):
    rng = np.random.default_rng(7)
    n = 50_000
    z = rng.normal(size=n) * 2.5
    clean = rng.random(n) < 1 / (1 + np.exp(-z))
    seen = clean ^ (rng.random(n) < rate)
    found = one_coin_posterior(z / 3, np.arange(n), seen * 1.0, np.ones(n), np.zeros(n, dtype=int), 1)
    assert found.converged
    assert found.flip_rate == pytest.approx(rate, abs=0.02)
    assert found.slope == pytest.approx(3, rel=0.2)


def test_posterior_is_calibrated_and_uses_every_vote():
    rng = np.random.default_rng(8)
    m, k = 20_000, 3
    truth = rng.random(m) < 0.5
    pair, who = np.repeat(np.arange(m), k), rng.integers(12, size=m * k)
    right = np.linspace(0.1, 0.95, 12)
    seen = np.where(rng.random(m * k) < right[who], truth[pair], ~truth[pair])
    found = one_coin_posterior(np.zeros(m), pair, seen * 1.0, np.ones(m * k), who, 12)
    assert np.abs(found.reliability - right).max() < 0.03
    for low in np.arange(0, 1, 0.2):
        inside = (found.p >= low) & (found.p < low + 0.2)
        assert truth[inside].mean() == pytest.approx(found.p[inside].mean(), abs=0.03)


def test_the_fit_is_a_fixed_point_of_em():
    rng = np.random.default_rng(10)
    m, k = 500, 8
    z, pair, who = rng.normal(size=m) * 2, np.repeat(np.arange(m), 3), rng.integers(k, size=3 * m)
    p, w = rng.random(3 * m), rng.uniform(0.5, 2, 3 * m)
    p[rng.random(3 * m) < 0.7] = 1.0
    found = one_coin_posterior(z, pair, p, w, who, k)
    agrees = np.bincount(who, weights=w * (p * found.p[pair] + (1 - p) * (1 - found.p[pair])), minlength=k)
    assert np.allclose((agrees + 3) / (np.bincount(who, weights=w) + 4), found.reliability, atol=1e-4)  # Beta(4, 2)
    s = 1 / (1 + np.exp(-found.slope * z))
    assert abs(z @ (found.p - s)) / m < 1e-4
    assert np.allclose(found.p, 1 / (1 + np.exp(-found.slope * z - found.evidence)))


def test_mirror_image_is_turned_back():
    rng = np.random.default_rng(9)
    z = rng.normal(size=5000) * 3
    clean = rng.random(5000) < 1 / (1 + np.exp(-z))
    found = one_coin_posterior(-z, np.arange(5000), clean * 1.0, np.ones(5000), np.zeros(5000, dtype=int), 1)
    assert found.slope < 0  # the margin is the wrong way round, the votes are not
    assert found.reliability[0] > 0.9


def test_default_treatment_asks_for_annotators_that_recur():
    import cupel

    rows = [{"prompt": f"p{i}", "response_a": "x", "response_b": f"y{i}", "vote": "a", "annotator": f"k{i % 4}"} for i in range(120)]
    assert default_treatment(cupel.read(rows)) == "em-annotator"
    assert default_treatment(cupel.read([{**row, "annotator": f"k{i}"} for i, row in enumerate(rows)])) == "em"
    assert default_treatment(cupel.read([{k: v for k, v in row.items() if k != "annotator"} for row in rows])) == "em"
