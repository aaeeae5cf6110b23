"""The doubly robust value: unbiased if either half is right, over every log that could have been."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.evaluate.recommending.policy import cell_means, doubly_robust
from cupel.noise.exposure import average

LOGGED, WANTED, VALUE = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5]), np.array([1.0, 3.0, -2.0])


def expectation(theta: np.ndarray, q: np.ndarray) -> float:
    """Mean of the estimate over all logs of two rows, drawn with `LOGGED` and weighed with `theta`."""
    total = 0.0
    for rows in product(range(3), repeat=2):
        at = np.array(rows)
        found = doubly_robust(VALUE[at], theta[at], wanted=WANTED[at], predicted=q[at], mean=np.full(2, WANTED @ q))
        total += float(LOGGED[at].prod()) * found.value
    return total


def test_either_half_is_enough() -> None:
    truth, wrong = float(WANTED @ VALUE), np.array([9.0, 0.0, 1.0])
    assert expectation(LOGGED, wrong) == pytest.approx(truth)
    assert expectation(np.array([0.3, 0.3, 0.4]), VALUE) == pytest.approx(truth)
    assert expectation(np.array([0.3, 0.3, 0.4]), wrong) != pytest.approx(truth, abs=0.1)


def test_predictions_of_nothing_are_plain_weights_and_good_ones_are_steadier() -> None:
    rng = np.random.default_rng(0)
    at = rng.choice(3, 4000, p=LOGGED)
    v = VALUE[at] + 0.1 * rng.normal(size=4000)
    plain = average(v, LOGGED[at], form="ips", wanted=WANTED[at])
    same = doubly_robust(v, LOGGED[at], wanted=WANTED[at], predicted=np.zeros(4000), mean=np.zeros(4000))
    assert (same.value, same.effective) == (pytest.approx(plain.value), pytest.approx(plain.effective))
    assert same.error == pytest.approx(plain.error, rel=1e-3)
    means, fold = cell_means(v, at, 3)
    better = doubly_robust(v, LOGGED[at], wanted=WANTED[at], predicted=means[fold, at], mean=(means @ WANTED)[fold])
    assert better.error < 0.2 * plain.error
    assert abs(better.value - WANTED @ VALUE) < 4 * better.error


def test_a_fold_does_not_see_its_rows() -> None:
    rng = np.random.default_rng(1)
    v, cell = rng.normal(size=30), rng.integers(0, 4, 30)
    means, fold = cell_means(v, cell, 4, folds=3, prior=2.0)
    for f in range(3):
        other = fold != f
        for c in range(4):
            own = v[other & (cell == c)]
            assert means[f, c] == pytest.approx((own.sum() + 2 * v[other].mean()) / (len(own) + 2))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="predicted is a finite number"):
        doubly_robust([1.0], [0.5], wanted=1.0, predicted=[np.nan], mean=[0.0])
    with pytest.raises(InputError, match="exposure"):
        doubly_robust([1.0], [0.0], wanted=1.0, predicted=[0.0], mean=[0.0])
    with pytest.raises(InputError, match=r"cells lie in \[0, 2\)"):
        cell_means([1.0, 0.0], [0, 2], 2, folds=2)
