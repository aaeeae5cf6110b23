"""Rate and slope of margins, jointly: known truth, an obvious twin, intervals, and when nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brute

from cupel.errors import InputError
from cupel.noise.rate import NotIdentifiableError, estimate_flip_rate, memorisation


def labels(rng, n, sd, rate):
    """Margins in favour of labels drawn from the model, then flipped at `rate` (a number or one per label)."""
    z = rng.normal(0, sd, n)
    z = np.where(rng.random(n) < 1 / (1 + np.exp(-z)), z, -z)
    return np.where(rng.random(n) < rate, -z, z)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.4])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_recovers_rate_and_slope_at_any_scale(rate, scale):
    m = labels(np.random.default_rng(round(10 * rate)), 20_000, 4, rate)
    fit = estimate_flip_rate(scale * m)
    assert fit.converged
    assert abs(fit.rate - rate) < 4 * fit.error + 1e-6
    assert abs(fit.slope - 1 / scale) < 4 * fit.slope_error
    assert fit.low <= fit.rate <= fit.high
    assert fit.basis == "held-out"


def test_same_rate_at_every_scale():
    m = labels(np.random.default_rng(1), 5000, 4, 0.2)
    fits = [estimate_flip_rate(scale * m) for scale in (1e-3, 0.25, 1.0, 40.0)]
    assert np.ptp([fit.rate for fit in fits]) < 1e-4
    np.testing.assert_allclose([fit.slope * scale for fit, scale in zip(fits, (1e-3, 0.25, 1, 40), strict=True)], fits[2].slope, rtol=1e-3)


def test_wrong_slope_reads_a_wrong_rate():
    """Card 02, oracle 9: what fixing the slope does; true sigmoid(m), m ~ N(0, 2), e = .2, the model says c m."""
    m = labels(np.random.default_rng(2), 50_000, 2, 0.2)
    for c, golden in {0.25: 0.0, 0.5: 0.068, 1.0: 0.201, 2.0: 0.265, 4.0: 0.298}.items():
        assert abs(estimate_flip_rate(c * m, slope=1.0).rate - golden) < 0.012, c


def test_agrees_with_a_grid():
    """Slow twin: the likelihood of 400 labels, looked up everywhere."""
    rng = np.random.default_rng(3)
    m, w = labels(rng, 400, 5, 0.25), rng.uniform(0.5, 2, 400)

    def against(x):
        e, s = x
        p = 1 / (1 + np.exp(-s * m))
        return -np.sum(w * np.log(p * (1 - e) + (1 - p) * e))

    e, s = brute(against, (slice(0.01, 0.5, 0.005), slice(0.1, 4, 0.05)))
    fit = estimate_flip_rate(m, weights=w)
    assert abs(fit.rate - e) < 1e-3
    assert abs(fit.slope - s) < 5e-3
    np.testing.assert_allclose(fit.log_likelihood * w.sum(), -against((fit.rate, fit.slope)), rtol=1e-9)
    step = 1e-4
    hessian = np.empty((2, 2))
    at = np.array([fit.rate, fit.slope])
    for i in range(2):
        for j in range(2):
            di, dj = np.eye(2)[i] * step, np.eye(2)[j] * step
            hessian[i, j] = (against(at + di + dj) - against(at + di - dj) - against(at - di + dj) + against(at - di - dj)) / (4 * step**2)
    np.testing.assert_allclose(np.sqrt(np.diag(np.linalg.inv(hessian))), [fit.error, fit.slope_error], rtol=1e-3)


def test_annotators_are_told_apart():
    rng = np.random.default_rng(4)
    rates = np.append(rng.uniform(0, 0.4, 25), [0.9, 0.9])
    who = np.repeat(np.arange(27), 200)
    fit = estimate_flip_rate(labels(rng, len(who), 2, rates[who]), who)
    assert set(np.argsort(-fit.by_annotator)[:2]) == {25, 26}
    assert np.abs(fit.by_annotator - rates).mean() < 0.06
    inside = (fit.low_by_annotator <= rates) & (rates <= fit.high_by_annotator)
    assert inside.mean() > 0.8
    assert abs(fit.rate - rates[who].mean()) < 4 * fit.error
    assert not fit.few.any()


def test_interval_of_an_annotator_is_the_likelihood_ratio_one():
    rng = np.random.default_rng(5)
    who = np.repeat([0, 2], 150)
    m = labels(rng, 300, 3, np.where(who == 0, 0.1, 0.3))
    fit = estimate_flip_rate(m, who, slope=1.0, prior=None)
    assert np.isnan(fit.by_annotator[1])
    assert fit.labels.tolist() == [150, 0, 150]
    assert fit.few.tolist() == [False, True, False]
    grid = np.linspace(0, 1, 20_001)[:, None]
    for k in (0, 2):
        p = 1 / (1 + np.exp(-m[who == k]))
        value = np.log(p * (1 - grid) + (1 - p) * grid).sum(axis=1)
        inside = grid[value >= value.max() - 1.9207294, 0]
        np.testing.assert_allclose([inside[0], inside[-1]], [fit.low_by_annotator[k], fit.high_by_annotator[k]], atol=1e-4)
        np.testing.assert_allclose(grid[np.argmax(value), 0], fit.by_annotator[k], atol=1e-4)


def test_prior_pulls_an_annotator_with_few_labels_and_moves_neither_rate_nor_slope():
    rng = np.random.default_rng(6)
    who = np.append(np.zeros(3000, dtype=int), np.ones(5, dtype=int))
    m = np.append(labels(rng, 3000, 4, 0.2), [-6.0] * 5)
    free, pulled = estimate_flip_rate(m, who, prior=None), estimate_flip_rate(m, who)
    assert free.by_annotator[1] > 0.95
    assert 0.2 < pulled.by_annotator[1] < 0.6
    assert (free.rate, free.slope) == (pulled.rate, pulled.slope)
    assert pulled.few.tolist() == [False, True]


def test_nothing_can_be_said():
    rng = np.random.default_rng(7)
    with pytest.raises(NotIdentifiableError, match="all 100 margins are 0"):
        estimate_flip_rate(np.zeros(100))
    with pytest.raises(NotIdentifiableError, match="more often than not"):
        estimate_flip_rate(-np.abs(rng.normal(size=500)))
    for seed in range(5):
        with pytest.raises(NotIdentifiableError):
            estimate_flip_rate(labels(np.random.default_rng(seed), 300, 0.4, 0.2))
    with pytest.raises(InputError, match=r"1 of 3 margins are not finite \(first: row 1\)"):
        estimate_flip_rate(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(InputError, match="index"):
        estimate_flip_rate(np.ones(3), np.array([0, -1, 1]))
    with pytest.raises(InputError, match="weights"):
        estimate_flip_rate(np.ones(3), weights=np.array([1.0, -1.0, 1.0]))


def test_permuting_labels_changes_nothing():
    rng = np.random.default_rng(8)
    who = np.repeat(np.arange(4), 500)
    m = labels(rng, 2000, 4, 0.2)
    order = rng.permutation(2000)
    one, two = estimate_flip_rate(m, who), estimate_flip_rate(m[order], who[order])
    np.testing.assert_allclose(one.by_annotator, two.by_annotator, atol=1e-4)
    assert abs(one.rate - two.rate) < 1e-4


def test_memorised_labels_are_warned_about_and_learned_ones_are_not():
    rng = np.random.default_rng(9)
    fresh = labels(rng, 20_000, 4, 0.2)
    learned = memorisation(np.abs(fresh) + 3, fresh)
    assert learned.warning is not None
    assert learned.in_sample < 0.01
    assert abs(learned.held_out - 0.2) < 0.02
    assert "peer" in learned.warning
    assert memorisation(labels(rng, 20_000, 4, 0.2), fresh).warning is None
