"""Orders and sets of rows, against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.interactions.order import among, distinct, order


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_orders_and_sets_are_those_of_numpy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    keys = [rng.integers(0, 4, n) for _ in range(3)]
    assert order(*keys).tolist() == np.lexsort(keys).tolist()
    turn = np.lexsort(keys)
    assert order(*(key[turn] for key in keys)).tolist() == list(range(n))
    assert distinct(keys[0]).tolist() == np.unique(keys[0]).tolist()
    known = np.unique(rng.integers(0, 9, n))
    values = rng.integers(-1, 11, 30)
    assert among(values, known).tolist() == np.isin(values, known).tolist()
