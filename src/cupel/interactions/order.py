"""Sorting millions of rows: by several keys, not at all where they are sorted, and distinct numbers in order."""

from __future__ import annotations

import numpy as np


def order(*keys: np.ndarray) -> np.ndarray:
    """Rows in the order of the keys, the last key deciding first, equal rows as they stand (`numpy.lexsort`), int64 [n].

    Most logs lie sorted by user and time: then nothing is sorted, which saves seconds for 10^7 rows.

    >>> order(np.array([3, 1, 2]), np.array([0, 0, 1])).tolist()
    [1, 0, 2]
    """
    rising = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        rising = (key[1:] > key[:-1]) | ((key[1:] == key[:-1]) & rising)
    return np.arange(len(keys[0])) if rising.all() else np.lexsort(keys)


def distinct(values: np.ndarray) -> np.ndarray:
    """The distinct values, sorted; for 10^7 numbers by an order faster than a hash table of them.

    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    found = np.sort(values)
    return found[np.r_[True, found[1:] != found[:-1]]] if len(found) else found


def among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among `known`, sorted and distinct, bool [n].

    >>> among(np.array([1, 2]), np.array([2, 5])).tolist()
    [False, True]
    """
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
