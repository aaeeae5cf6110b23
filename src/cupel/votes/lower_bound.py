"""How many recorded labels must be wrong: contradictions and cycles that share no row.

Two rows that contradict each other on one pair contain an error. If true preferences are transitive, so does every directed cycle;
2-cycles and 3-cycles that share no row therefore count distinct errors, whatever the truth is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.records.keys import dense

#: paths of two edges looked at at a time
_PATHS = 1 << 20


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
    a, b = dense(np.concatenate([a, b])).reshape(2, -1)
    low, high = np.minimum(a, b), np.maximum(a, b)
    pair = dense(low, high)
    toward = np.where(up, a, b) == low  # the smaller node won
    total = np.bincount(pair)
    wins = np.bincount(pair[toward], minlength=len(total))
    net = 2 * wins - total
    contradictions = int(np.minimum(wins, total - wins).sum())
    ends = np.empty((2, len(total)), dtype=np.int64)
    ends[:, pair] = low, high
    low, high = ends
    source, target = np.where(net > 0, low, high), np.where(net > 0, high, low)
    edge = net != 0
    return LowerBound(len(a), contradictions, _pack_triangles(source[edge], target[edge], np.abs(net[edge])))


def _pack_triangles(source: np.ndarray, target: np.ndarray, capacity: np.ndarray) -> int:
    """Number of directed triangles, greedily packed so that edge e lies in at most capacity[e] of them.

    Edges in few triangles go first, and the third node is the one whose two edges lie in the fewest. Edges that close no triangle are left
    out from the start, and triangles that share no edge with another are counted at once; time is about the sum over edges of the
    smaller degree.
    """
    order = np.lexsort((target, source))
    source, target, capacity = source[order], target[order], capacity[order]
    load, other = _triangles(source, target)
    closed = np.flatnonzero(load == 1)
    alone = closed[(load[other[closed]] == 1).all(axis=1)]
    members = np.concatenate([alone[:, None], other[alone]], axis=1)
    packed = int(capacity[members].min(axis=1, initial=np.iinfo(np.int64).max).sum()) // 3 if len(alone) else 0
    left = load > 0
    left[alone] = False
    return packed + _pack_shared(source[left].tolist(), target[left].tolist(), capacity[left].tolist(), load[left].tolist())


def _pack_shared(source: list[int], target: list[int], capacity: list[int], loads: list[int]) -> int:
    """`_pack_triangles` of edges that all lie in `loads` triangles, one at a time."""
    out: dict[int, set[int]] = {}
    into: dict[int, set[int]] = {}
    edges = list(zip(source, target, strict=True))
    for u, v in edges:
        out.setdefault(u, set()).add(v)
        into.setdefault(v, set()).add(u)
    nothing: set[int] = set()
    load, left = dict(zip(edges, loads, strict=True)), dict(zip(edges, capacity, strict=True))
    packed = 0
    for u, v in sorted(edges, key=lambda edge: (load[edge], edge)):
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


def _triangles(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [E] directed triangles through each edge, int64 [E, 2] the other two edges of one of them); edges sorted by their ends.

    For each edge u -> v the third nodes are looked for among the successors of v or the predecessors of u, whichever are fewer.
    """
    n = int(max(source.max(initial=-1), target.max(initial=-1))) + 1
    key = source * np.int64(n) + target
    back = np.lexsort((source, target))  # edges by target
    after, before = np.bincount(source, minlength=n), np.bincount(target, minlength=n)
    begin_out, begin_in = np.cumsum(after) - after, np.cumsum(before) - before
    load = np.zeros(len(key), dtype=np.int64)
    other = np.zeros((len(key), 2), dtype=np.int64)
    forward = after[target] <= before[source]
    many = np.where(forward, after[target], before[source])
    upto = np.cumsum(many)
    low = 0
    while low < len(key):
        high = max(int(np.searchsorted(upto, (upto[low - 1] if low else 0) + _PATHS, side="right")), low + 1)
        at = np.arange(low, high)
        edge = np.repeat(at, many[at])
        place = np.arange(len(edge)) - np.repeat(np.cumsum(many[at]) - many[at], many[at])
        ahead = forward[edge]
        follow = np.where(ahead, begin_out[target[edge]] + place, 0)
        precede = back[np.where(ahead, 0, begin_in[source[edge]] + place)]
        found = np.where(ahead, follow, precede)  # v -> w, or w -> u
        third = np.where(ahead, target[found], source[found])
        want = np.where(ahead, third * np.int64(n) + source[edge], target[edge] * np.int64(n) + third)
        close = np.minimum(np.searchsorted(key, want), len(key) - 1)
        hit = key[close] == want
        load[at] += np.bincount(edge[hit] - low, minlength=len(at))
        other[edge[hit], 0], other[edge[hit], 1] = found[hit], close[hit]
        low = high
    return load, other
