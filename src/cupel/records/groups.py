"""Rows that a split must not separate: connected components over prompts and responses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.records.arrow import pc

#: a response shorter than this many characters ("Yes.") recurs by chance and connects nothing by itself
MIN_SHARED = 40
#: rows joined, or texts measured, at a time
_STEP = 1 << 18


def connected(
    prompts: pa.Array,
    responses: pa.Array,
    prompt: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """int32 [n]: component of each row, numbered by first appearance.

    Rows are connected that share a prompt (not the empty one), a response of at least 40 characters, the same unordered pair
    under the
    same prompt, or a given group. Shorter responses ("Yes.") recur by chance under unrelated prompts and connect nothing.

    >>> texts = pa.array(["Yes.", "No.", "x" * 40, "y" * 40])
    >>> connected(pa.array(["p", "q", "r"]), texts, np.array([0, 1, 2]), np.array([0, 0, 2]), np.array([1, 2, 3])).tolist()
    [0, 1, 1]
    """
    n = len(prompt)
    if n == 0:
        return np.zeros(0, dtype=np.int32)
    named = _lengths(prompts)[prompt] > 0
    unnamed = np.flatnonzero(~named)
    size = np.int64(max(len(responses), 1))
    pairs, pair = np.unique(
        np.minimum(first[unnamed], second[unnamed]) * size + np.maximum(first[unnamed], second[unnamed]), return_inverse=True
    )
    groups = 0 if given is None else int(given.max(initial=-1)) + 1
    answers, alone, asked = len(prompts), len(prompts) + len(responses), len(prompts) + len(responses) + len(pairs)
    # every row hangs on one node: its prompt, or its pair where the prompt is empty
    node = np.asarray(prompt).astype(np.int32)
    node[unnamed] = alone + pair.reshape(-1)
    parent = np.arange(asked + groups, dtype=np.int32)
    long = _lengths(responses) >= MIN_SHARED
    for low in range(0, n, _STEP):
        rows = slice(low, low + _STEP)
        for side in (first[rows], second[rows]):
            shared = long[side]
            join(parent, node[rows][shared], answers + side[shared])
        if given is not None:
            known = given[rows] >= 0
            join(parent, node[rows][known], asked + given[rows][known])
    return by_appearance(roots(parent, node), len(parent))


def join(parent: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Put a[i] and b[i] into one component, for all i; parent: of each node, at most the node itself, changed in place.

    >>> parent = np.arange(4)
    >>> join(parent, np.array([1, 2]), np.array([3, 1]))
    >>> parent[parent].tolist()
    [0, 1, 1, 1]
    """
    while len(a):
        top_a, top_b = roots(parent, a), roots(parent, b)
        parent[a], parent[b] = top_a, top_b
        apart = top_a != top_b
        a, b = top_a[apart], top_b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))


def by_appearance(label: np.ndarray, size: int) -> np.ndarray:
    """int32 [n]: labels (of 0 ... size - 1) numbered again in order of first appearance.

    >>> by_appearance(np.array([5, 2, 5, 0]), 6).tolist()
    [0, 1, 0, 2]
    """
    first = np.zeros(size, dtype=np.int32)
    first[label[::-1]] = np.arange(len(label) - 1, -1, -1, dtype=np.int32)
    new = first[label] == np.arange(len(label), dtype=np.int32)
    return (np.cumsum(new, dtype=np.int32) - np.int32(1))[first[label]]


def roots(parent: np.ndarray, node: np.ndarray) -> np.ndarray:
    """The component of each node: the node at the top of its chain of parents."""
    found = parent[node]
    while True:
        above = parent[found]
        if np.array_equal(above, found):
            return found
        found = above


def _lengths(texts: pa.Array) -> np.ndarray:
    """int32 [n]: characters of each text, a part of the texts at a time."""
    out = np.zeros(len(texts), dtype=np.int32)
    for low in range(0, len(texts), _STEP):
        out[low : low + _STEP] = pc.utf8_length(texts.slice(low, _STEP)).to_numpy(zero_copy_only=False)
    return out
