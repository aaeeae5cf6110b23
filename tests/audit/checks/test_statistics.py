"""Golden numbers of the published formulas: length, contradictions, cycles, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.audit.checks import _stats
from cupel.audit.checks.contradictions import contradiction_counts
from cupel.audit.checks.cycles import cyclic_triads, hodge_cyclicity, zeta
from cupel.votes.intervals import wilson

DLEN = np.array([30, -12, 5, 44, -7, 18, -25, 9, 60, -3, 14, -40], dtype=float)
WIN = np.array([1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0])


def test_longer_side_wins_golden():
    longer = (DLEN > 0) == (WIN == 1)
    assert longer.sum() == 10
    assert _stats.binomial_p(10, 12) == pytest.approx(0.038574, abs=1e-6)
    low, high = wilson(10, 12)
    assert (low, high) == pytest.approx((0.551969, 0.953035), abs=1e-6)


def test_logistic_slope_golden():
    x = DLEN / np.sqrt((DLEN**2).mean())
    assert _stats.logistic(x, WIN, ridge=0.0) == pytest.approx((-0.047925, 3.439911), abs=1e-5)
    assert _stats.logistic(x, WIN, ridge=1.0) == pytest.approx((0.108667, 1.260285), abs=1e-5)


def test_logistic_survives_separable_data():
    intercept, slope = _stats.logistic(np.array([-2.0, -1, 1, 2]), np.array([0, 0, 1, 1]), ridge=1.0)
    assert np.isfinite(slope)
    assert slope > 0
    assert intercept == pytest.approx(0, abs=1e-9)


def test_logistic_through_the_origin_does_not_depend_on_orientation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = (rng.random(200) < 1 / (1 + np.exp(-1.3 * x))).astype(int)
    turn = np.where(rng.random(200) < 0.5, -1, 1)
    plain = _stats.logistic(x, y, intercept=False)
    turned = _stats.logistic(x * turn, np.where(turn > 0, y, 1 - y), intercept=False)
    assert plain == pytest.approx(turned, abs=1e-8)


def test_contradictions_golden():
    key = np.array([0] * 4 + [1] * 4 + [2])
    sign = np.array([1, 1, 1, -1, 1, 1, -1, -1, 1])
    counts = contradiction_counts(key, sign)
    assert counts.rate == pytest.approx(3 / 9)
    assert counts.ceiling == pytest.approx(6 / 9)
    assert counts.contradictory == 2
    assert counts.keys == 3


EDGES = np.array([(0, 1), (1, 2), (2, 0), (0, 3), (0, 4), (3, 1), (1, 4), (2, 3), (2, 4), (3, 4)])


def test_cycles_golden():
    triads = cyclic_triads(EDGES[:, 0], EDGES[:, 1], 5)
    assert triads.cyclic.sum() / 3 == 2
    assert triads.triads.sum() / 3 == 10
    assert zeta(2, 5) == pytest.approx(0.6)


def test_cycles_agree_with_counting_one_by_one():
    rng = np.random.default_rng(4)
    for _ in range(20):
        n = 9
        upper = [(i, j) for i in range(n) for j in range(i) if rng.random() < 0.7]
        edges = np.array([(i, j) if rng.random() < 0.5 else (j, i) for i, j in upper])
        have = {tuple(e) for e in edges.tolist()}
        cyclic = total = 0
        for i in range(n):
            for j in range(i):
                for k in range(j):
                    sides = [(i, j), (j, k), (k, i)]
                    forward = [e in have for e in sides]
                    back = [e[::-1] in have for e in sides]
                    if all(f or b for f, b in zip(forward, back, strict=True)):
                        total += 1
                        cyclic += all(forward) or all(back)
        found = cyclic_triads(edges[:, 0], edges[:, 1], n)
        assert found.cyclic.sum() / 3 == cyclic
        assert found.triads.sum() / 3 == total
        for edge, gain in zip(edges, found.gain, strict=True):
            turned = np.array([e[::-1] if (e == edge).all() else e for e in edges])
            after = cyclic_triads(turned[:, 0], turned[:, 1], n).cyclic.sum() / 3
            assert gain == cyclic - after


def test_hodge_golden():
    wins = [(0, 1, 8, 2), (1, 2, 8, 2), (0, 2, 15, 1)]
    low, high, a, b = (np.array(c) for c in zip(*wins, strict=True))
    scores, cyclicity = hodge_cyclicity(low, high, a, b, 3)
    assert scores == pytest.approx([1.181042, 0, -1.181042], abs=1e-6)
    assert cyclicity == pytest.approx(0.000409, abs=1e-6)
    scores, cyclicity = hodge_cyclicity(low, high, np.array([8, 8, 2]), np.array([2, 2, 8]), 3)
    assert scores == pytest.approx([0, 0, 0], abs=1e-9)
    assert cyclicity == pytest.approx(1)


def test_clustered_share_covers_where_rows_of_a_cluster_are_alike():
    rng = np.random.default_rng(11)
    inside_clustered = inside_wilson = 0
    draws = 400
    for _ in range(draws):
        rate = rng.beta(3, 3, size=60)
        cluster = np.repeat(np.arange(60), 20)
        x = (rng.random(1200) < rate[cluster]).astype(float)
        low, high = _stats.clustered_share(x, cluster).interval
        inside_clustered += low <= 0.5 <= high
        low, high = wilson(x.sum(), 1200)
        inside_wilson += low <= 0.5 <= high
    assert 0.92 <= inside_clustered / draws <= 0.985
    assert inside_wilson / draws < 0.75


def test_benjamini_hochberg_golden():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    assert _stats.benjamini_hochberg(p, 0.05).tolist() == [True, True, True, True, False]
    assert _stats.benjamini_hochberg(p, 0.026).tolist() == [True, False, False, True, False]
    assert not _stats.benjamini_hochberg(np.array([]), 0.05).size
