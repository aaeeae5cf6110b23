import numpy as np
import pytest
from scipy.optimize import minimize

from cupel.errors import InputError
from cupel.votes.bradley_terry import fit_bradley_terry, out_of_fold_strength

WINS = np.array([(0, 1)] * 3 + [(1, 0)] + [(1, 2)] * 2 + [(2, 1)] + [(0, 2)] * 3 + [(2, 0)])


def test_the_maximum_likelihood_of_the_worked_example():
    fit = fit_bradley_terry(*WINS.T, n_items=3, ridge=1e-9)
    np.testing.assert_allclose(fit.scores, [0.740874, -0.145173, -0.595702], atol=2e-6)
    assert fit.converged
    assert fit.components == 1


@pytest.mark.parametrize("n_items", [8, 450])  # dense and sparse steps
def test_the_solution_equals_a_general_minimiser(n_items):
    rng = np.random.default_rng(n_items)
    i, j = rng.integers(0, n_items, (2, 4 * n_items))
    i, j = i[i != j], j[i != j]
    weight = rng.uniform(0, 2, len(i))

    def loss(s):
        lost = 1 / (1 + np.exp(s[i] - s[j]))
        gradient = np.bincount(j, weight * lost, n_items) - np.bincount(i, weight * lost, n_items)
        return weight @ np.logaddexp(0, s[j] - s[i]) + 0.1 * s @ s, gradient + 0.2 * s

    slow = minimize(
        loss,
        np.zeros(n_items),
        jac=True,
        method="BFGS" if n_items < 100 else "L-BFGS-B",
        options={"gtol": 1e-9} | ({} if n_items < 100 else {"ftol": 1e-16, "maxiter": 5000, "maxfun": 50_000}),
    ).x
    np.testing.assert_allclose(fit_bradley_terry(i, j, n_items, weight, 0.2).scores, slow, atol=1e-4)


def test_an_item_that_always_wins_stays_finite_and_components_are_told_apart():
    fit = fit_bradley_terry(np.array([0, 0, 2]), np.array([1, 1, 3]), 5, ridge=0.01)
    assert np.isfinite(fit.scores).all()
    assert fit.scores[0] > 0 > fit.scores[1]
    assert fit.components == 3  # {0, 1}, {2, 3}, {4}
    assert fit.component[0] != fit.component[2] != fit.component[4]
    assert fit.scores[4] == 0


def test_out_of_fold_strength_ignores_the_pair_and_its_duplicates():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 12, (2, 200))
    keep = first != second
    first, second = first[keep], second[keep]
    low, high = np.minimum(first, second), np.maximum(first, second)
    pair = np.unique(low * 12 + high, return_inverse=True)[1]
    sign = np.where(first < second, 1, -1)
    before = out_of_fold_strength(first, second, sign, pair, 12, folds=5, seed=3)
    chosen = pair == pair[0]
    flipped = np.where(chosen, -sign, sign)
    after = out_of_fold_strength(first, second, flipped, pair, 12, folds=5, seed=3)
    np.testing.assert_array_equal(before.difference[chosen], after.difference[chosen])
    assert not np.array_equal(before.difference, after.difference)
    train = before.fold != before.fold[0]
    assert before.degree[0, 0] == ((first[train] == first[0]) | (second[train] == first[0])).sum()
    far = np.abs(first - second) >= 3
    assert (np.sign(before.difference) == sign)[far].all()


def test_ties_pull_together():
    first, second = np.array([0, 0, 0, 1]), np.array([1, 1, 2, 2])
    pair = np.array([0, 0, 1, 2])
    tied = out_of_fold_strength(first, second, np.array([0, 0, 1, 1]), pair, 3, folds=3)
    assert tied.difference[2] > 0


@pytest.mark.parametrize(
    ("winner", "loser", "ridge", "words"),
    [([0], [0], 1.0, "itself"), ([0], [5], 1.0, "outside 0 ... 1"), ([0], [1], 0.0, "ridge is positive")],
)
def test_unusable_comparisons_are_named(winner, loser, ridge, words):
    with pytest.raises(InputError, match=words):
        fit_bradley_terry(np.array(winner), np.array(loser), 2, ridge=ridge)
