"""How many recorded labels must be wrong: contradictions and cycles that share no row.

Two rows that contradict each other on one pair contain an error. If true preferences are transitive, so does every directed cycle;
2-cycles and 3-cycles that share no row therefore count distinct errors, whatever the truth is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError


@dataclass(frozen=True)
class LowerBound:
    """Rows that must be wrong, out of n decided rows.

    contradictions: sum over pairs of min(n_AB, n_BA); cycles: 3-cycles that share no row among the rows left after contradicting
    rows were set aside two by two. The first needs no assumption, the second that true preferences are transitive.
    """

    n: int
    contradictions: int
    cycles: int

    @property
    def share(self) -> float:
        """(contradictions + cycles) / n, a lower bound on the share of wrong rows if true preferences are transitive."""
        return (self.contradictions + self.cycles) / self.n if self.n else 0.0


def lower_bound(first: np.ndarray, second: np.ndarray, sign: np.ndarray) -> LowerBound:
    """Least number of wrong rows that the recorded directions allow (a bound, not the minimum: cycles are packed greedily).

    first, second: int [n], node of each side, a node being a response under a prompt; sign: +1 the first side won, -1 the second;
    rows with sign 0 have no direction and are left out, as are rows whose sides are one node.

    >>> lower_bound(np.array([0, 1, 2, 0]), np.array([1, 2, 0, 1]), np.array([1, 1, 1, -1]))  # 0>1 twice recorded, both ways
    LowerBound(n=4, contradictions=1, cycles=0)
    >>> lower_bound(np.array([0, 1, 2]), np.array([1, 2, 0]), np.array([1, 1, 1])).share
    0.3333333333333333
    """
    first, second, sign = np.asarray(first), np.asarray(second), np.asarray(sign)
    if not len(first) == len(second) == len(sign):
        raise InputError(f"{len(first):,} first sides, {len(second):,} second sides and {len(sign):,} signs: one of each per row")
    decided = (sign != 0) & (first != second)
    a, b, up = first[decided], second[decided], sign[decided] > 0
    if len(a) == 0:
        return LowerBound(0, 0, 0)
    node, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    a, b = index.reshape(2, -1)
    low, high = np.minimum(a, b), np.maximum(a, b)
    key, pair = np.unique(low * np.int64(len(node)) + high, return_inverse=True)
    toward = np.where(up, a, b) == low  # the smaller node won
    wins = np.bincount(pair.reshape(-1), weights=toward, minlength=len(key)).astype(np.int64)
    total = np.bincount(pair.reshape(-1), minlength=len(key))
    net = 2 * wins - total
    contradictions = int(np.minimum(wins, total - wins).sum())
    low, high = key // len(node), key % len(node)
    source, target = np.where(net > 0, low, high), np.where(net > 0, high, low)
    edge = net != 0
    return LowerBound(len(a), contradictions, _pack_triangles(source[edge], target[edge], np.abs(net[edge])))


def _pack_triangles(source: np.ndarray, target: np.ndarray, capacity: np.ndarray) -> int:
    """Number of directed triangles, greedily packed so that edge e lies in at most capacity[e] of them.

    Edges in few triangles go first, and the third node is the one whose two edges lie in the fewest; time is about the sum over
    edges of the smaller degree.
    """
    out: dict[int, set[int]] = {}
    into: dict[int, set[int]] = {}
    edges = list(zip(source.tolist(), target.tolist(), strict=True))
    for u, v in edges:
        out.setdefault(u, set()).add(v)
        into.setdefault(v, set()).add(u)
    nothing: set[int] = set()
    load = {(u, v): len(out.get(v, nothing) & into.get(u, nothing)) for u, v in edges}
    left = {edge: count for edge, count in zip(edges, capacity.tolist(), strict=True) if load[edge]}
    packed = 0
    for u, v in sorted(left, key=lambda edge: (load[edge], edge)):
        while left[u, v]:
            thirds = out.get(v, nothing) & into.get(u, nothing)
            if not thirds:
                break
            w = min(thirds, key=lambda x: (load[v, x] + load[x, u], x))
            used = min(left[u, v], left[v, w], left[w, u])
            packed += used
            for edge in ((u, v), (v, w), (w, u)):
                left[edge] -= used
                if not left[edge]:
                    out[edge[0]].discard(edge[1])
                    into[edge[1]].discard(edge[0])
    return packed
