import numpy as np
import pytest
from scipy.stats import binomtest

from cupel.errors import InputError
from cupel.votes.intervals import agresti_coull, clopper, cluster_bootstrap, group_sums, resampled_sums, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 10), (10, 12), (7, 7), (250, 1000)])
def test_closed_forms_equal_scipy(k, n):
    test = binomtest(k, n)
    np.testing.assert_allclose(wilson(k, n), test.proportion_ci(0.95, "wilson"), atol=1e-12)
    np.testing.assert_allclose(clopper(k, n, 0.9), test.proportion_ci(0.90, "exact"), atol=1e-10)


def test_wilson_takes_an_effective_size():
    assert wilson(3.3, 10.5)[0] < 3.3 / 10.5 < wilson(3.3, 10.5)[1]
    wide, narrow = (np.diff(wilson(0.2 * n, n))[0] for n in (30.5, 60.5))
    assert narrow < wide


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(InputError):
        wilson(k, n)


def slow_bootstrap(values, groups, counts):
    """Repeat the rows of each group as often as it was drawn."""
    out = []
    for draw in counts:
        rows = np.concatenate([np.repeat(values[groups == g], c) for g, c in enumerate(draw)])
        out.append(rows.mean())
    return np.array(out)


def test_resampled_sums_equal_repeating_rows():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 6, 40)
    values = rng.normal(size=40)
    sums = group_sums(np.stack([values, np.ones(40)], axis=1), groups)
    drawn = resampled_sums(sums, seed=5, draws=20)
    counts = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=20)
    np.testing.assert_allclose(drawn[:, 0] / drawn[:, 1], slow_bootstrap(values, groups, counts))


def test_many_groups_draw_as_many_groups():
    drawn = resampled_sums(np.ones((3000, 1)), seed=0, draws=7)
    np.testing.assert_array_equal(drawn, 3000.0)


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    level = rng.normal(size=30)
    groups = np.repeat(np.arange(30), 20)
    values = level[groups] + 0.1 * rng.normal(size=600)
    by_group, by_row = cluster_bootstrap(values, groups, seed=0), cluster_bootstrap(values, np.arange(600), seed=0)
    assert by_group.width > 3 * by_row.width
    assert by_group.groups == 30


def test_one_group_has_no_interval_and_same_seed_same_bytes():
    alone = cluster_bootstrap(np.array([1.0, 2.0]), np.zeros(2), seed=0)
    assert alone.estimate == 1.5
    assert np.isnan(alone.low)
    assert np.isnan(alone.high)
    values, groups = np.arange(20.0), np.arange(20) // 2
    assert cluster_bootstrap(values, groups, seed=3) == cluster_bootstrap(values, groups, seed=3)
    assert cluster_bootstrap(values, groups, seed=3) != cluster_bootstrap(values, groups, seed=4)


def test_rows_that_are_not_finite_are_named():
    with pytest.raises(InputError, match=r"1 of 3 rows are not finite \(first: row 1\)"):
        cluster_bootstrap(np.array([1.0, np.nan, 2.0]), np.arange(3), seed=0)


def test_mean_covers_at_its_level():
    """150 sets of 25 groups of unequal size: 95 % intervals cover the mean in most of them (binomial bounds of .95)."""
    hit = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(25), rng.integers(2, 12, 25))
        values = rng.normal(size=25)[groups] + rng.normal(size=len(groups))
        found = cluster_bootstrap(values, groups, seed=seed, draws=400)
        hit += found.low <= 0 <= found.high
    assert 0.90 <= hit / 150 <= 0.99


@pytest.mark.parametrize("n", [50, 100, 400])
def test_agresti_coull_covers_at_every_rate(n):
    """Exact coverage: the sum of binomial probabilities of the counts whose interval holds the rate."""
    from scipy.stats import binom

    ends = np.array([agresti_coull(k, n) for k in range(n + 1)])
    for rate in np.linspace(0.05, 0.4, 36):
        inside = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
        assert 0.935 <= binom.pmf(np.arange(n + 1), n, rate)[inside].sum() <= 0.9851
