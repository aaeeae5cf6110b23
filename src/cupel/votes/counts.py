"""Votes reduced to what a ranking needs of them: how often each ordered pair of items was compared, and how it ended.

The likelihood of Bradley-Terry and its relatives depends on n votes only through counts per (first, second, outcome), so one pass over
the votes replaces them, and every fit, bootstrap and table afterwards costs as if there were a few thousand. Counts of parts add up to
the counts of the whole: `VoteCounter.add` takes chunks, `VoteCounter.merge` takes what other processes counted. Without weights the
parts give the same bytes as the whole; sums of weights may differ in the last digit.

What bounds the pass. A vote is read once: 9 bytes from int32, int32 and int8 columns, as Parquet decodes them (about 1 ns at the
memory bandwidth of one core). Few items: a key of 32 bits is built in blocks that stay in the cache, widened to the platform's index type
(that is what `numpy.bincount` reads) and counted in a table of 5 K^2 int64; time is linear in n, memory is the table and one block. Many
items, or votes that carry a cluster: blocks of keys are sorted and run-length encoded, and runs are merged when they double, so time is
n log(block) and memory is bounded by the distinct cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cupel.errors import InputError

#: outcomes are indices into `cupel.records.schema.OUTCOMES`: first won, second won, tie, both bad, skip
N_OUTCOMES = 5
#: tables up to this many cells are dense (int64: 64 MiB); more items are counted by sorting
DENSE_CELLS = 1 << 23
#: rows that are turned into keys at once
BLOCK = 1 << 18


@dataclass(frozen=True)
class PairCounts:
    """Counts per ordered pair of items, and per cluster and control values where votes carry them; cells in sorted order.

    first, second [m]: the items of a cell; votes [m, 5]: total weight by outcome (first won, second won, tie, both bad, skip);
    squares [m, 5]: total squared weight (equal to `votes` without weights), which robust variances need; cluster int64 [m, q] or
    None: who or what the votes of a cell share (an annotator, a prompt; q is 1 or 2); controls [m, p] or None: values of covariates,
    first minus second; control_names [p]; n_items; n_votes: rows that were counted, skips included.

    >>> counts = count_votes([0, 1, 0, 0], [1, 0, 1, 2], [0, 1, 2, 1], n_items=3)
    >>> list(zip(counts.first.tolist(), counts.second.tolist())), counts.votes[:, :3].astype(int).tolist()
    ([(0, 1), (0, 2), (1, 0)], [[1, 0, 1], [0, 1, 0], [0, 1, 0]])
    >>> counts.unordered().votes[:, :3].astype(int).tolist()  # 0 beat 1 twice and tied once; 2 beat 0
    [[2, 0, 1], [0, 1, 0]]
    """

    n_items: int
    first: np.ndarray
    second: np.ndarray
    votes: np.ndarray
    squares: np.ndarray
    n_votes: int
    cluster: np.ndarray | None = None
    controls: np.ndarray | None = None
    control_names: tuple[str, ...] = ()

    def unordered(self) -> PairCounts:
        """The same counts with first < second and clusters and controls summed out; the order of sides is forgotten."""
        low, high = np.minimum(self.first, self.second), np.maximum(self.first, self.second)
        turned = self.first > self.second
        columns = np.where(turned[:, None], np.array([[1, 0, 2, 3, 4]]), np.arange(N_OUTCOMES))
        votes, squares = (np.take_along_axis(x, columns, axis=1) for x in (self.votes, self.squares))
        return _summed(self, low * self.n_items + high, votes, squares)

    def pooled(self) -> PairCounts:
        """The same counts with clusters and controls summed out."""
        return _summed(self, self.first * self.n_items + self.second, self.votes, self.squares)

    def pair_weighted(self, floor: float = 50.0) -> PairCounts:
        """Every vote weighted by 1 / max(N, floor), N the weight of all votes on its two items in either order.

        Each pair of items then counts equally, however often it was shown, so that the choice of pairs does not move the ranking where
        the model is only approximately right. The floor keeps rare pairs from dominating. Skips count for nothing.
        """
        if not floor > 0:
            raise InputError(f"the floor of pair weights is positive, not {floor!r} (50 is usual)")
        key = np.minimum(self.first, self.second) * self.n_items + np.maximum(self.first, self.second)
        _, index = np.unique(key, return_inverse=True)
        total = np.bincount(index.reshape(-1), weights=self.votes[:, :4].sum(axis=1))[index.reshape(-1)]
        unit = (1 / np.maximum(total, floor))[:, None]
        return replace(self, votes=self.votes * unit, squares=self.squares * unit**2)

    def per_item(self) -> np.ndarray:
        """Weight of the votes on each item by its own result: float64 [items, 5], won, lost, tied, both bad, skipped."""
        out = np.zeros((self.n_items, N_OUTCOMES))
        for side, columns in ((self.first, (0, 1, 2, 3, 4)), (self.second, (1, 0, 2, 3, 4))):
            for k, column in enumerate(columns):
                out[:, k] += np.bincount(side, weights=self.votes[:, column], minlength=self.n_items)
        return out


class VoteCounter:
    """Counts of votes that arrive in chunks, in memory bounded by the cells and one block.

    n_items: items are 0 ... n_items-1. Chunks hold integer arrays (numpy, or anything `numpy.asarray` takes without a copy, such as an
    Arrow column without nulls). Either all chunks carry weights, or none; the same for clusters.

    >>> counter = VoteCounter(3)
    >>> counter.add([0, 1], [1, 2], [0, 0])
    >>> other = VoteCounter(3)
    >>> other.add([0], [1], [2])
    >>> counter.merge(other)
    >>> counter.counts().votes[0].tolist(), counter.n_votes
    ([1.0, 0.0, 1.0, 0.0, 0.0], 3)
    """

    def __init__(self, n_items: int) -> None:
        if not (isinstance(n_items, int | np.integer) and 1 <= n_items <= 1_000_000_000):
            raise InputError(f"the number of items is a whole number from 1 to 10^9, not {n_items!r}")
        self.n_items, self.n_votes = int(n_items), 0
        self._kind: tuple[bool, int] | None = None  # weighted, number of cluster columns
        self._table: np.ndarray | None = None
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, first, second, outcome, weight=None, cluster=None) -> None:
        """Count a chunk: items first and second [n], outcome [n] 0 ... 4, weight [n] >= 0, cluster int [n] or [n, 2] >= 0.

        InputError, with nothing counted, for columns of different lengths, an item or outcome outside, an item against itself, a
        weight that is negative or not finite, a cluster number that is negative or too large for a 63-bit key.
        """
        first, second, outcome = (_integers(x, name) for x, name in ((first, "first"), (second, "second"), (outcome, "outcome")))
        tags = None if cluster is None else _columns(_integers(cluster, "cluster"))
        weight = None if weight is None else np.asarray(weight, dtype=np.float64)
        n = len(first)
        if not all(len(x) == n for x in (second, outcome, weight, tags) if x is not None):
            lengths = [len(x) for x in (first, second, outcome, weight, tags) if x is not None]
            raise InputError(f"columns of one length are needed, not {lengths}")
        kind = (weight is not None, 0 if tags is None else tags.shape[1])
        if self._kind not in (None, kind):
            raise InputError("either all chunks carry weights (and the same cluster columns), or none do")
        self._check(first, second, outcome, weight, tags)
        self._kind, self.n_votes = kind, self.n_votes + n
        if self._dense():
            self._add_dense(first, second, outcome, weight)
        else:
            self._add_sorted(first, second, outcome, weight, tags)

    def merge(self, other: VoteCounter) -> None:
        """Add what another counter of the same items has counted."""
        if other.n_items != self.n_items or (None not in (self._kind, other._kind) and self._kind != other._kind):
            raise InputError("counters of the same items, with the same columns, can be merged")
        self._kind, self.n_votes = self._kind or other._kind, self.n_votes + other.n_votes
        if other._table is not None:
            self._table = other._table.copy() if self._table is None else self._table + other._table
        for run in other._runs:
            self._push(run)

    def counts(self) -> PairCounts:
        """What has been counted so far."""
        q = self._kind[1] if self._kind else 0
        items = self.n_items
        if self._table is not None:
            table = self._table
            cell = np.flatnonzero(table[0].any(axis=0))
            sums = table[:, :, cell].astype(np.float64)  # [1 or 2, 5, m]
            return PairCounts(items, cell // items, cell % items, sums[0].T.copy(), sums[-1].T.copy(), self.n_votes)
        while len(self._runs) > 1:
            self._runs.append(_merged(self._runs.pop(), self._runs.pop()))
        key, sums = self._runs[0] if self._runs else (np.zeros(0, dtype=np.int64), np.zeros((1, 0)))  # [c], [1 or 2, c]
        key, sums = key[sums[0] > 0], sums[:, sums[0] > 0]
        cell, index = np.unique(key // N_OUTCOMES, return_inverse=True)
        slot = index.reshape(-1) * N_OUTCOMES + key % N_OUTCOMES
        votes, squares = (np.zeros((len(cell), N_OUTCOMES)) for _ in range(2))
        votes.reshape(-1)[slot], squares.reshape(-1)[slot] = sums[0], sums[-1]
        tag, pair = np.divmod(cell, items * items)
        cluster = None
        if q:
            bits = self._tag_bits(q)
            cluster = np.stack([(tag >> (bits * (q - 1 - k))) & ((1 << bits) - 1) for k in range(q)], axis=1)
        return PairCounts(items, pair // items, pair % items, votes, squares, self.n_votes, cluster)

    def _dense(self) -> bool:
        return self._kind is not None and self._kind[1] == 0 and N_OUTCOMES * self.n_items**2 <= DENSE_CELLS

    def _tag_bits(self, q: int) -> int:
        return (62 - (N_OUTCOMES * self.n_items**2).bit_length()) // q

    def _check(self, first, second, outcome, weight, tags) -> None:
        """Whole columns are judged by their extremes, block by block; rows are looked for only where something is wrong."""
        columns = [
            (first, self.n_items, f"have an item outside 0 ... {self.n_items - 1}"),
            (second, self.n_items, f"have an item outside 0 ... {self.n_items - 1}"),
            (outcome, N_OUTCOMES, f"have an outcome outside 0 ... {N_OUTCOMES - 1}"),
        ]
        if tags is not None:
            if tags.shape[1] > 2:
                raise InputError(f"votes carry one or two cluster columns, not {tags.shape[1]}")
            size = 1 << max(0, self._tag_bits(tags.shape[1]))
            columns += [(column, size, f"have a cluster outside 0 ... {size - 1:,} (number clusters from 0)") for column in tags.T]
        # seen as unsigned, a negative number is larger than any size: one comparison judges both ends
        columns = [(column.view(f"u{column.dtype.itemsize}"), size, reason) for column, size, reason in columns]
        for start in range(0, len(first), BLOCK):
            rows = slice(start, start + BLOCK)
            for column, size, reason in columns:
                if column[rows].max() >= size:
                    raise _rows(reason, column >= size)
            if (first[rows] == second[rows]).any():
                raise _rows("compare an item with itself", first == second)
        if weight is not None and (bad := ~(np.isfinite(weight) & (weight >= 0))).any():
            raise _rows("have a weight that is negative or not finite", bad)

    def _add_dense(self, first, second, outcome, weight) -> None:
        items, cells = self.n_items, N_OUTCOMES * self.n_items**2
        if self._table is None:
            self._table = np.zeros((1 if weight is None else 2, N_OUTCOMES, items * items), np.int64 if weight is None else np.float64)
        flat = self._table.reshape(len(self._table), -1)
        block = max(BLOCK, cells)  # a count returns a whole table, so a block is never shorter than that
        key = np.empty(min(block, len(first)), dtype=np.int32)  # cells are at most 2^23
        for start in range(0, len(first), block):
            rows = slice(start, start + block)
            k = key[: len(first[rows])]
            np.multiply(outcome[rows], items, out=k, casting="unsafe", dtype=np.int32)
            k += first[rows].astype(np.int32, copy=False)
            k *= items
            k += second[rows].astype(np.int32, copy=False)
            if weight is None and 8 * len(k) >= cells:
                flat[0] += np.bincount(k, minlength=cells)
            elif weight is None:
                np.add.at(flat[0], k, 1)
            else:
                flat[0] += np.bincount(k, weights=weight[rows], minlength=cells)
                flat[1] += np.bincount(k, weights=weight[rows] ** 2, minlength=cells)

    def _add_sorted(self, first, second, outcome, weight, tags) -> None:
        for start in range(0, len(first), BLOCK):
            rows = slice(start, start + BLOCK)
            key = np.zeros(len(first[rows]), dtype=np.int64)
            if tags is not None:
                bits = self._tag_bits(tags.shape[1])
                for column in tags[rows].T:
                    key = (key << bits) | column.astype(np.int64)
            for column, size in ((first, self.n_items), (second, self.n_items), (outcome, N_OUTCOMES)):
                key *= size
                key += column[rows].astype(np.int64, copy=False)
            if weight is None:
                key, count = np.unique(key, return_counts=True)
                self._push((key, count[None].astype(np.float64)))
            else:
                self._push(_reduced(key, np.stack([weight[rows], weight[rows] ** 2])))

    def _push(self, run: tuple[np.ndarray, np.ndarray]) -> None:
        """Runs halve in length from the first to the last, so that each vote takes part in logarithmically many merges."""
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]):
            run = _merged(self._runs.pop(), run)
        self._runs.append(run)


def count_votes(first, second, outcome, n_items: int, *, weight=None, cluster=None, controls=None, control_names=()) -> PairCounts:
    """Counts of votes held in arrays: one pass; `VoteCounter` does the same in chunks.

    first, second int [n] in 0 ... n_items-1; outcome int [n]: 0 first won, 1 second won, 2 tie, 3 both bad, 4 skip; weight [n] >= 0;
    cluster int [n] or [n, 2]: annotator, prompt; controls float [n, p]: covariates as first minus second, of which equal rows are
    counted together. InputError as `VoteCounter.add`, and for a control that is not finite or always 0.

    >>> count_votes([0, 1, 0], [1, 0, 1], [0, 0, 2], n_items=2).votes[:, :3].tolist()
    [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    counter = VoteCounter(n_items)
    if controls is None:
        counter.add(first, second, outcome, weight, cluster)
        return counter.counts()
    x = np.asarray(controls, dtype=np.float64)
    x = x.reshape(len(x), -1)
    names = tuple(control_names) or tuple(f"control {k}" for k in range(x.shape[1]))
    if len(names) != x.shape[1] or len(x) != len(np.asarray(first)):
        raise InputError(f"{len(np.asarray(first)):,} votes do not fit {len(x):,} rows of {x.shape[1]} controls named {list(names)}")
    bad = np.asarray(~np.isfinite(x).all(axis=1))
    if bad.any():
        raise _rows("have a control that is not finite", bad)
    for name, column in zip(names, x.T, strict=True):
        if len(column) and not column.any():
            raise InputError(f"the control {name!r} is 0 in every vote: it controls for nothing; leave it out")
    # equal rows of controls get one number: column by column, until all rows differ
    label = np.zeros(len(x), dtype=np.int64)
    for column in x.T:
        value, index = np.unique(column, return_inverse=True)
        label = np.unique(label * len(value) + index.reshape(-1), return_inverse=True)[1].reshape(-1)
    distinct = np.empty((int(label.max(initial=-1)) + 1, x.shape[1]))
    distinct[label] = x
    groups, back = label, None
    if cluster is not None:
        tags = _columns(_integers(cluster, "cluster"))
        if tags.shape[1] > 2 or tags.min(initial=0) < 0:
            raise InputError("votes carry one or two cluster columns, numbered from 0")
        back, index = np.unique(np.column_stack([tags, label]), axis=0, return_inverse=True)
        groups = index.reshape(-1)
    counter.add(first, second, outcome, weight, groups)
    counts = counter.counts()
    assert counts.cluster is not None
    tag = counts.cluster[:, 0]
    if back is None:
        return replace(counts, cluster=None, controls=distinct[tag], control_names=names)
    return replace(counts, cluster=back[tag, :-1], controls=distinct[back[tag, -1]], control_names=names)


def _integers(values, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind == "b" or array.size == 0:
        array = array.astype(np.int8)
    if array.dtype.kind not in "iu":
        raise InputError(f"the column {name!r} holds {array.dtype}, not integers; number items, outcomes and clusters from 0")
    return array


def _columns(values: np.ndarray) -> np.ndarray:
    """[n] or [n, q] as [n, q]."""
    return values if values.ndim == 2 else values.reshape(-1, 1)


def _rows(reason: str, bad: np.ndarray) -> InputError:
    return InputError(f"{int(bad.sum()):,} of {len(bad):,} votes {reason} (first: row {int(np.flatnonzero(bad)[0])}); leave them out")


def _reduced(key: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct keys with the sums [k, c] of equal ones."""
    order = np.argsort(key, kind="stable")
    key, sums = key[order], sums[:, order]
    start = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, dtype=np.int64)
    return key[start], np.add.reduceat(sums, start, axis=1) if len(key) else sums


def _merged(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return _reduced(np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]], axis=1))


def _summed(counts: PairCounts, key: np.ndarray, votes: np.ndarray, squares: np.ndarray) -> PairCounts:
    cell, index = np.unique(key, return_inverse=True)
    index = index.reshape(-1)

    def add(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(index, weights=column, minlength=len(cell)) for column in values.T], axis=1)

    return PairCounts(counts.n_items, cell // counts.n_items, cell % counts.n_items, add(votes), add(squares), counts.n_votes)
