"""Which items can be compared at all: components of the graph of comparisons, and items without wins or without losses.

A finite maximum likelihood exists exactly where the directed graph "beat or tied" is strongly connected (Ford 1957): in every division of
the items into two sets, some item of each set has beaten or tied one of the other. Where it is not, the likelihood grows for ever as
one group is moved away from another, and only comparisons inside a group carry finite information.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Connectivity:
    """The groups into which comparisons divide the items.

    component [items]: items joined by any chain of comparisons; group [items]: items joined by chains of wins or ties in both directions
    (strongly connected); both numbered by falling size, then by smallest item. undefeated, winless: items that never lost or
    tied, never won or tied, though compared; unplayed: never compared; above [k, 2]: pairs of groups of which the first won every
    comparison with the second.

    >>> found = connectivity(np.array([0, 1, 2]), np.array([1, 0, 0]), np.array([[1, 0, 0], [1, 0, 0], [5, 0, 0]]), 4)
    >>> found.group.tolist(), found.undefeated.tolist(), found.unplayed.tolist(), found.above.tolist()
    ([0, 0, 1, 2], [2], [3], [[1, 0]])
    """

    component: np.ndarray
    group: np.ndarray
    undefeated: np.ndarray
    winless: np.ndarray
    unplayed: np.ndarray
    above: np.ndarray

    @property
    def n_components(self) -> int:
        """Number of components, items that were never compared counted one each."""
        return int(self.component.max(initial=-1)) + 1

    @property
    def n_groups(self) -> int:
        """Number of strongly connected groups."""
        return int(self.group.max(initial=-1)) + 1

    def sentences(self, ridge: bool) -> tuple[str, ...]:
        """What a reader of scores has to know, in words; empty where all items are comparable."""
        out = []
        if len(self.unplayed):
            out.append(f"{_items(self.unplayed)} never compared: no score")
        if self.n_components - len(self.unplayed) > 1:
            played = self.n_components - len(self.unplayed)
            out.append(f"the comparisons fall into {played} unconnected components: scores of different components cannot be compared")
        for items, did, way in ((self.undefeated, "never lost or tied", "+"), (self.winless, "never won or tied", "-")):
            if len(items):
                end = (
                    "only the ridge keeps the score finite" if ridge else f"the maximum likelihood score is {way}infinity, so none is given"
                )
                out.append(f"{_items(items)} {did}: {end}")
        if not ridge and self.n_groups > self.n_components and len(self.above):
            rest = "scores are given within groups and cannot be compared across them; more votes between groups or a ridge join them"
            out.append(
                f"{self.n_groups} groups of items in {self.n_components} components, one of which wins all against the other: {rest}"
            )
        return tuple(out)


def connectivity(first: np.ndarray, second: np.ndarray, votes: np.ndarray, n_items: int) -> Connectivity:
    """Components, groups and unbeaten items from cells: votes [m, 3], how often `first` beat `second`, lost and tied."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    win, loss, tie = votes.T > 0
    up, down = win | tie, loss | tie
    tail = np.concatenate([first[up], second[down]])
    head = np.concatenate([second[up], first[down]])
    graph = coo_array((np.ones(len(tail), dtype=np.int8), (tail, head)), shape=(n_items, n_items)).tocsr()
    n_groups, group = connected_components(graph, directed=True, connection="strong")
    group = _numbered(group)
    component = group if n_groups == 1 else _numbered(connected_components(graph, directed=False)[1])
    gained = np.bincount(tail, minlength=n_items) > 0
    gave = np.bincount(head, minlength=n_items) > 0
    across = group[tail] != group[head]
    above = np.unique(np.stack([group[tail[across]], group[head[across]]], axis=1), axis=0)
    return Connectivity(
        component, group, np.flatnonzero(gained & ~gave), np.flatnonzero(gave & ~gained), np.flatnonzero(~gained & ~gave), above
    )


def ties_are_bounded(first: np.ndarray, second: np.ndarray, votes: np.ndarray) -> bool:
    """Whether a tie model has a finite threshold: some cycle of results, each item beating or tying the next, has more wins than ties.

    Without such a cycle strengths can move apart by two thresholds per win while ties stay within one, so the likelihood of both Davidson
    and Rao-Kupper grows for ever in the threshold (our derivation from the directions of recession). A pair with a win each way is
    such a cycle; only where no pair has one are longer cycles looked for (Bellman-Ford).
    """
    win, loss, tie = votes.T
    key = np.minimum(first, second) * (int(max(first.max(initial=0), second.max(initial=0))) + 1) + np.maximum(first, second)
    _, index = np.unique(key, return_inverse=True)
    turned = first > second
    up = np.bincount(index.reshape(-1), weights=np.where(turned, loss, win)) > 0
    down = np.bincount(index.reshape(-1), weights=np.where(turned, win, loss)) > 0
    if (up & down).any():
        return True
    won, lost, tied = win > 0, loss > 0, tie > 0
    tail = np.concatenate([first[won], second[lost], first[tied], second[tied]])
    head = np.concatenate([second[won], first[lost], second[tied], first[tied]])
    length = np.concatenate([np.full(int(won.sum() + lost.sum()), -1), np.full(2 * int(tied.sum()), 1)])
    n = int(max(tail.max(initial=-1), head.max(initial=-1))) + 1
    distance = np.zeros(n, dtype=np.int64)  # every item is a source
    for _ in range(n + 1):
        before = distance.copy()
        np.minimum.at(distance, head, before[tail] + length)
        if np.array_equal(before, distance):
            return False
    return True


def _numbered(label: np.ndarray) -> np.ndarray:
    """Labels renumbered by falling size, then by smallest member."""
    _, start, index, size = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((start, -size))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[index.reshape(-1)]


def _items(items: np.ndarray) -> str:
    shown = ", ".join(str(i) for i in items[:5]) + (", ..." if len(items) > 5 else "")
    return f"{len(items):,} item{'s' * (len(items) > 1)} ({shown})"
