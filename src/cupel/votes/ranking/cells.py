"""Counts as a fit sees them: ties and "both bad" under a stated policy, sides in one order where their order says nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.votes.counts import PairCounts


@dataclass(frozen=True)
class Cells:
    """Cells of a likelihood, and the finer cells per cluster from which they were summed.

    first, second int [m]; votes, squares [m, 3]: weight and squared weight of wins, losses, ties of `first`; x [m, p]: controls; the
    fine cells [f]: index (cell of each), fine_votes [f, 3], cluster int [f, q] or None; n_items; names [p].
    """

    n_items: int
    first: np.ndarray
    second: np.ndarray
    votes: np.ndarray
    squares: np.ndarray
    x: np.ndarray
    names: tuple[str, ...]
    index: np.ndarray
    fine_votes: np.ndarray
    cluster: np.ndarray | None

    def part(self, keep: np.ndarray, items: np.ndarray) -> Cells:
        """The cells kept (bool [m]), items renumbered: items[k] becomes k."""
        if keep.all() and len(items) == self.n_items:
            return self
        number = np.full(self.n_items, -1)
        number[items] = np.arange(len(items))
        position = np.cumsum(keep) - 1
        fine = keep[self.index]
        return Cells(
            len(items), number[self.first[keep]], number[self.second[keep]], self.votes[keep], self.squares[keep], self.x[keep],
            self.names, position[self.index[fine]], self.fine_votes[fine], None if self.cluster is None else self.cluster[fine],
        )  # fmt: skip


def cells_of(counts: PairCounts, *, ties: str, both_bad: str, slot: bool) -> Cells:
    """Cells of counts: ties kept or dropped, "both bad" as a tie or left out, skips left out.

    Without controls and slot effect the two orders of a pair are one cell. The slot effect is a control that is 1 for the first side.
    """
    wins, losses, tied = (counts.votes[:, k].copy() for k in range(3))
    wins2, losses2, tied2 = (counts.squares[:, k].copy() for k in range(3))
    if both_bad == "tie":
        tied, tied2 = tied + counts.votes[:, 3], tied2 + counts.squares[:, 3]
    if ties == "drop":
        tied, tied2 = np.zeros_like(tied), np.zeros_like(tied2)
    votes, squares = np.stack([wins, losses, tied], axis=1), np.stack([wins2, losses2, tied2], axis=1)
    keep = votes.any(axis=1)
    first, second, votes, squares = counts.first[keep], counts.second[keep], votes[keep], squares[keep]
    cluster = None if counts.cluster is None else counts.cluster[keep]
    x, names = np.zeros((len(first), 0)), counts.control_names
    if counts.controls is not None:
        x = counts.controls[keep]
    if slot:
        x, names = np.column_stack([x, np.ones(len(first))]), (*names, "first side")
        if counts.controls is not None and (counts.controls == counts.controls[:1]).all(axis=0).any():
            raise InputError(
                "a control with one value in every vote is the effect of the first side itself; leave out the one or the other"
            )
    if not x.shape[1]:
        turned = first > second
        first, second = np.where(turned, second, first), np.where(turned, first, second)
        votes[turned], squares[turned] = votes[turned][:, [1, 0, 2]], squares[turned][:, [1, 0, 2]]
        label = np.zeros(len(first), dtype=np.int64)
    elif cluster is None:  # cells that differ in nothing else are already one
        index = np.arange(len(first))
        return Cells(counts.n_items, first, second, votes, squares, x, names, index, votes, None)
    else:
        label = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
    start, index = _numbered(first * counts.n_items + second, counts.n_items**2)
    if label.any():
        start, index = _numbered(index * (label.max() + 1) + label, len(start) * (int(label.max()) + 1))

    def add(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(index, weights=column, minlength=len(start)) for column in values.T], axis=1)

    return Cells(counts.n_items, first[start], second[start], add(votes), add(squares), x[start], names, index, votes, cluster)


def _numbered(key: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(first position of each distinct key, number of each key among the sorted distinct ones); keys are in 0 ... size-1.

    As `np.unique`, but without sorting where a table of all keys is about as long as the keys.
    """
    if size > 8 * len(key):
        _, start, index = np.unique(key, return_index=True, return_inverse=True)
        return start, index.reshape(-1)
    there = np.zeros(size, dtype=bool)
    there[key] = True
    number = np.cumsum(there) - 1
    index = number[key]
    start = np.empty(int(number[-1]) + 1, dtype=np.int64)
    start[index[::-1]] = np.arange(len(key))[::-1]
    return start, index
