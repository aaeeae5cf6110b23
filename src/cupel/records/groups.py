"""Rows that a split must not separate: connected components over prompts and responses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.records.arrow import pc

#: a response shorter than this many characters ("Yes.") recurs by chance and connects nothing by itself
MIN_SHARED = 40


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
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(prompt)
    if n == 0:
        return np.zeros(0, dtype=np.int32)
    rows = np.arange(n)
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    size = n

    def join(members: np.ndarray, node: np.ndarray, count: int) -> None:
        nonlocal size
        starts.append(members)
        ends.append(size + node)
        size += count

    named = (pc.utf8_length(prompts).to_numpy(zero_copy_only=False) > 0)[prompt]
    join(rows[named], prompt[named].astype(np.int64), len(prompts))
    long = pc.utf8_length(responses).to_numpy(zero_copy_only=False) >= MIN_SHARED
    for side in (first, second):
        starts.append(rows[long[side]])
        ends.append(size + side[long[side]].astype(np.int64))
    size += len(responses)
    low, high = np.minimum(first, second).astype(np.int64), np.maximum(first, second).astype(np.int64)
    keys = np.stack([prompt.astype(np.int64), low, high], axis=1)[~named]
    if len(keys):
        pair = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        join(rows[~named], pair.astype(np.int64), int(pair.max()) + 1)
    if given is not None:
        join(rows[given >= 0], given[given >= 0].astype(np.int64), int(given.max(initial=-1)) + 1)
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_matrix((np.ones(len(start), dtype=np.int8), (start, end)), shape=(size, size))
    label = connected_components(graph, directed=False)[1][:n]
    appearance, inverse = np.unique(label, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(appearance))[inverse.reshape(-1)].astype(np.int32)
