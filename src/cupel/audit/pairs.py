"""Votes gathered into unordered pairs, in an order and an orientation that depend on the texts alone.

Everything fitted for suspicion works on this table. So shuffling the rows of a file, or swapping the sides of a row together with its
label, cannot change a margin by a single bit (it flips sign in the second case), and votes on one pair share their features.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from cupel.records.groups import by_appearance
from cupel.records.keys import dense
from cupel.records.schema import TIE, Votes

_PART = 8192  # texts hashed at a time


@dataclass(frozen=True)
class Pairs:
    """Unordered pairs and the votes on them. P pairs, n votes.

    row       int64 [n], the pair of each vote
    turn      int8 [n], +1 where the vote's first side is the pair's low side, else -1
    low, high int64 [P], nodes (prompt, response), the low side being the one whose text hash is smaller
    unit      int64 [P], what folds and resampling must keep together, numbered by content
    unit_is   "group", or "pair" where the groups are too few or too uneven to be held out
    key       uint64 [P], a hash of the pair's texts
    vertex    (low, high) int64 [P], the nodes numbered by content instead of by row
    """

    row: np.ndarray
    turn: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unit: np.ndarray
    unit_is: str
    key: np.ndarray
    vertex: tuple[np.ndarray, np.ndarray]

    def __len__(self) -> int:
        return len(self.low)

    def labels(self, votes: Votes, sign: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(t, w) float64 [P]: mean vote for the low side in [-1, 1] and the number of votes; a tie is 0, a skip or both bad no vote.

        sign int8 [n] replaces the recorded preferences (planted flips); rows without a preference stay as they are.
        """
        sign = votes.sign if sign is None else sign
        counted = (votes.sign != 0) | (votes.outcome == TIE)
        w = np.bincount(self.row[counted], minlength=len(self)).astype(np.float64)
        total = np.bincount(self.row[counted], weights=(sign * self.turn)[counted], minlength=len(self))
        return total / np.maximum(w, 1.0), w


def gather(votes: Votes, *, smallest_effective: float = 3.0) -> Pairs:
    """The pairs of votes, sorted by content.

    Folds hold out whole groups where the groups are worth at least `smallest_effective` equal ones, 1 / sum(share^2); else pairs.

    >>> import pyarrow as pa
    >>> z = lambda *v: np.array(v, dtype=np.int32)
    >>> none, two = np.full(2, np.nan), np.ones(2)
    >>> votes = Votes(pa.array(["Q"]), pa.array(["yes", "no"]), pa.array(["r1", "r2"]), z(0, 0), z(0, 1), z(1, 0),
    ...     np.array([0, 0], np.int8), z(-1, -1), z(0, 0), two, two, none, none, z(-1, -1),
    ...     z(-1, -1), np.array([-1, -1], np.int8), np.array([1, 2]))
    >>> pairs = gather(votes)
    >>> len(pairs), pairs.row.tolist(), bool(pairs.turn[0] == -pairs.turn[1]), pairs.unit_is
    (1, [0, 0], True, 'pair')
    """
    n = len(votes)
    prompt_hash = _hashes(votes.prompts, votes.prompt)
    response_hash = _hashes(votes.responses, votes.first, votes.second)
    rank = np.unique(response_hash, return_inverse=True)[1].reshape(-1)
    first, second = rank[votes.first], rank[votes.second]
    turn = np.where(first <= second, 1, -1).astype(np.int8)
    lower, upper = np.minimum(first, second), np.maximum(first, second)
    row = dense(np.unique(prompt_hash, return_inverse=True)[1].reshape(-1)[votes.prompt], lower, upper)
    head = np.zeros(int(row.max(initial=-1)) + 1, dtype=np.int64)
    head[row[::-1]] = np.arange(n - 1, -1, -1)  # the first vote on each pair
    node_first, node_second = votes.node
    low = np.where(turn > 0, node_first, node_second)[head]
    high = np.where(turn > 0, node_second, node_first)[head]
    low_side = np.where(turn > 0, votes.first, votes.second)[head]
    high_side = np.where(turn > 0, votes.second, votes.first)[head]
    key = mix(prompt_hash[votes.prompt[head]], response_hash[low_side], response_hash[high_side])
    group = _joined(votes.group, row, head)
    unit = _numbered(group)
    share = np.bincount(unit) / max(len(head), 1)
    enough = len(head) > 0 and 1.0 / float(np.sum(share**2)) >= smallest_effective
    if not enough:
        unit = np.arange(len(head))
    vertex = _numbered(np.concatenate([low, high]))
    return Pairs(row, turn, low, high, unit, "group" if enough else "pair", key, (vertex[: len(head)], vertex[len(head) :]))


def balanced_folds(pairs: Pairs, folds: int, seed: int) -> np.ndarray:
    """Fold of each pair, int64 [P]: units whole, largest first to the lightest fold, ties in an order drawn from `seed` and the texts."""
    size = np.bincount(pairs.unit)
    head = np.zeros(len(size), dtype=np.int64)
    head[pairs.unit[::-1]] = np.arange(len(pairs))[::-1]
    noise = mix(pairs.key[head], np.uint64(seed & 0xFFFFFFFF))
    order = np.lexsort((noise, -size))
    folds = max(1, min(folds, len(size)))
    fold = np.zeros(len(size), dtype=np.int64)
    if len(size) > 50 * folds and size.max() * 20 * folds < len(pairs):
        fold[order] = np.arange(len(size)) % folds
    else:
        load = [(0, k) for k in range(folds)]  # a heap: the lightest fold, the first of equals
        for unit, weight in zip(order.tolist(), size[order].tolist(), strict=True):
            lightest, k = load[0]
            fold[unit] = k
            heapq.heapreplace(load, (lightest + weight, k))
    return fold[pairs.unit]


def _hashes(texts: Any, *used: np.ndarray) -> np.ndarray:
    """uint64 [len(texts)]: a hash of each text that one of the index arrays `used` names, 0 elsewhere."""
    import pyarrow as pa

    out = np.zeros(len(texts), dtype=np.uint64)
    named = np.zeros(len(texts), dtype=bool)
    for index in used:
        named[index] = True
    rows = np.flatnonzero(named)
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        whole = len(part) == part[-1] - part[0] + 1
        some = texts.slice(int(part[0]), len(part)) if whole else texts.take(pa.array(part))
        digests = [blake2b(text, digest_size=8).digest() for text in some.cast(pa.large_binary()).to_pylist()]
        out[part] = np.frombuffer(b"".join(digests), dtype="<u8")
    return out


def mix(*columns: np.ndarray | np.uint64) -> np.ndarray:
    """A 64-bit hash of columns (the finaliser of splitmix64 between them)."""
    with np.errstate(over="ignore"):
        out = np.uint64(0x9E3779B97F4A7C15) + np.zeros_like(columns[0])
        for column in columns:
            out = (out ^ column) * np.uint64(0xBF58476D1CE4E5B9)
            out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            out = out ^ (out >> np.uint64(31))
    return out


def _joined(values: np.ndarray, row: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Groups of pairs: where one pair carries several, they are joined, so that no group is torn by a fold."""
    own = values[head]
    if (own[row] == values).all():
        return own
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, codes = len(head), dense(values)
    k = int(codes.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(row)), (row, n + codes)), shape=(n + k, n + k))
    return connected_components(graph, directed=False)[1][:n]


def _numbered(group: np.ndarray) -> np.ndarray:
    """Codes renumbered by the position of their first appearance."""
    found = dense(group)
    return by_appearance(found, int(found.max(initial=-1)) + 1).astype(np.int64)
