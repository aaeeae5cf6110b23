"""The strongest circles of three of a large, sparse tournament, found without looking at the others."""

from __future__ import annotations

from typing import Any

import numpy as np


def strongest_circles(winner: np.ndarray, loser: np.ndarray, margin: np.ndarray, most: int) -> np.ndarray:
    """Edges of at most `most` 3-cycles by their weakest margin, int64 [k, 3]: i over j, j over k, k over i, the smallest edge number first.

    winner, loser [m] nodes of a digraph with no edge in both directions, none twice; margin [m] > 0. The level of the weakest margin
    that enough circles reach is found by counting (trace of the cubed adjacency of the edges at or above it), and only the circles of
    that graph are listed. Of circles with equal weakest margins those with the busiest edge at that level come first, then those in the
    order of their edges.

    >>> strongest_circles(np.array([0, 1, 2, 2, 3]), np.array([1, 2, 0, 3, 0]), np.array([5, 4, 3, 1, 9]), 1).tolist()
    [[0, 1, 2]]
    """
    levels = np.unique(margin)
    low, high = 0, len(levels) - 1  # the highest level that `most` circles reach, or the lowest of all
    while low < high:
        middle = (low + high + 1) // 2
        use = margin >= levels[middle]
        if int(through(winner[use], loser[use]).sum()) // 3 >= most:
            low = middle
        else:
            high = middle - 1
    found: dict[tuple[int, int, int], None] = {}
    above = np.flatnonzero(margin > levels[low]) if len(levels) else np.zeros(0, np.int64)
    _list(winner, loser, above, np.flatnonzero(through(winner[above], loser[above])), found, None)
    if len(levels) and len(found) < most:
        use = np.flatnonzero(margin >= levels[low])
        count = through(winner[use], loser[use])
        start = np.flatnonzero((margin[use] == levels[low]) & (count > 0))
        _list(winner, loser, use, start[np.lexsort((start, -count[start]))], found, most)
    edges = np.array(list(found), dtype=np.int64).reshape(-1, 3)
    order = np.argsort(-margin[edges].min(axis=1), kind="stable") if len(edges) else np.zeros(0, np.int64)
    return edges[order]


def through(winner: np.ndarray, loser: np.ndarray) -> np.ndarray:
    """3-cycles through each edge, int64 [m]: paths of two edges from loser back to winner.

    >>> through(np.array([0, 1, 2, 0]), np.array([1, 2, 0, 3])).tolist()
    [1, 1, 1, 0]
    """
    if not len(winner):
        return np.zeros(0, dtype=np.int64)
    edges = _adjacency(winner, loser, np.ones(len(winner), dtype=np.int64))
    return np.asarray((edges @ edges).tocsr()[loser, winner]).reshape(-1).astype(np.int64)


def _adjacency(winner: np.ndarray, loser: np.ndarray, values: np.ndarray) -> Any:
    from scipy.sparse import csr_matrix

    nodes = int(max(winner.max(initial=-1), loser.max(initial=-1))) + 1
    return csr_matrix((values, (winner, loser)), shape=(nodes, nodes))


def _list(
    winner: np.ndarray, loser: np.ndarray, use: np.ndarray, start: np.ndarray, found: dict[tuple[int, int, int], None], most: int | None
) -> None:
    """Add the 3-cycles of the edges `use` that pass through `use[start]`, in that order, until there are `most`."""
    if not len(start):
        return
    number = _adjacency(winner[use], loser[use], use + 1)  # edge numbers from 1, so that 0 is no edge
    back = number.tocsc()
    for edge in use[start].tolist():
        i, j = int(winner[edge]), int(loser[edge])
        onward, home = number[j], back[:, i]
        _, a, b = np.intersect1d(onward.indices, home.indices, return_indices=True)
        for second, third in zip((onward.data[a] - 1).tolist(), (home.data[b] - 1).tolist(), strict=True):
            if most is not None and len(found) >= most:
                return
            turned = min((edge, second, third), (second, third, edge), (third, edge, second))
            found.setdefault(turned)
