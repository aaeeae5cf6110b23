"""What suspicion rests on and no label changes: pairs, features of their sides, folds, and the part on which heads are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cupel.audit.content import Content
from cupel.audit.features import Features, Sides
from cupel.audit.graph import RIDGES as GRAPH_RIDGES
from cupel.audit.graph import Graph
from cupel.audit.pairs import Pairs, balanced_folds, gather
from cupel.audit.pairs import mix as mixed
from cupel.errors import InputError
from cupel.records.schema import Votes

FOLDS = 10
#: fewer pairs than this cannot teach a head anything; every margin is then 0, and the diagnostics say so
SMALLEST = 20
#: heads and the weights of the parts are fitted on at most about this many pairs; all pairs are scored. 300 coefficients from 100,000
#: pairs have converged: on twice as many the ranking of rows moves in the third digit (benchmarks/scaling_audit.py)
MAX_FIT = 100_000
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Differences:
    """Feature differences low - high of the pairs, put together for the rows that are asked for."""

    sides: Sides
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), d]."""
        x = self.sides[self.low[rows]]
        x -= self.sides[self.high[rows]]
        return x

    def all(self) -> np.ndarray:
        """float32 [P, d]."""
        return self[np.arange(len(self))]

    def dot(self, theta: np.ndarray) -> np.ndarray:
        """float32 [P, k]: differences times theta [d, k]. Where the pairs use most of the sides, each side is scored once."""
        if 2 * len(self) >= len(self.sides):
            score = self.sides.scores(theta)
            return score[self.low] - score[self.high]
        theta = theta.astype(np.float32)
        out = np.empty((len(self), theta.shape[1]), dtype=np.float32)
        for start in range(0, len(self), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(self)))
            out[rows] = self[rows] @ theta
        return out


@dataclass(frozen=True)
class Problem:
    """What does not depend on labels: pairs, their feature differences, folds. Planted copies of the data share it."""

    votes: Votes
    pairs: Pairs
    differences: Differences
    w: np.ndarray  # float64 [P], votes on the pair
    fold: np.ndarray  # int64 [P]

    @cached_property
    def x(self) -> np.ndarray:
        """float32 [P, d], low - high; of a part of at most `MAX_FIT` pairs."""
        return self.differences.all()

    @cached_property
    def content(self) -> Content:
        """Gram matrices per fold."""
        return Content(self.x, self.w, self.fold)

    @cached_property
    def graph(self) -> Graph:
        """The graph of nodes (prompt, response)."""
        return Graph(*self.pairs.vertex, self.w, self.pairs.key)

    @cached_property
    def graph_ridges(self) -> tuple[float, ...]:
        """The grid, in units of the mean number of votes on a pair."""
        return tuple(r * float(self.w[self.w > 0].mean()) for r in GRAPH_RIDGES)

    @cached_property
    def voters(self) -> tuple[np.ndarray, np.ndarray]:
        """(pair, pair and annotator) int64 [n] codes of rows by known annotators; -1 elsewhere."""
        known = self.votes.annotator >= 0
        code = self.pairs.row * (len(self.votes.annotators) + 1) + self.votes.annotator
        dense = np.unique(code[known], return_inverse=True)[1].reshape(-1)
        own = np.full(len(self.votes), -1, dtype=np.int64)
        own[known] = dense
        return np.where(known, self.pairs.row, -1), own

    def others(self, sign: np.ndarray) -> np.ndarray:
        """float64 [n]: sum of the votes of other known annotators on the row's pair, +1 for the low side; 0 where unknown."""
        pair, own = self.voters
        known = np.flatnonzero(own >= 0)
        out = np.zeros(len(self.votes))
        if len(known):
            vote = (sign * self.pairs.turn)[known].astype(np.float64)
            out[known] = np.bincount(pair[known], weights=vote)[pair[known]] - np.bincount(own[known], weights=vote)[own[known]]
        return out

    def part(self, chosen: np.ndarray) -> Problem:
        """The problem of some pairs (ascending positions) and the votes on them; folds stay what they were."""
        place = np.full(len(self.pairs), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        rows = np.flatnonzero(place[self.pairs.row] >= 0)
        pairs = Pairs(
            row=place[self.pairs.row[rows]], turn=self.pairs.turn[rows], low=self.pairs.low[chosen], high=self.pairs.high[chosen],
            unit=self.pairs.unit[chosen], unit_is=self.pairs.unit_is, key=self.pairs.key[chosen],
            vertex=_dense(self.pairs.vertex[0][chosen], self.pairs.vertex[1][chosen]),
        )  # fmt: skip
        differences = Differences(self.differences.sides, self.differences.low[chosen], self.differences.high[chosen])
        return Problem(self.votes.take(rows), pairs, differences, self.w[chosen], self.fold[chosen])

    def to_fit(self, seed: int) -> Problem:
        """Itself, or a part of about `MAX_FIT` pairs: whole units and whole components of the graph, drawn from `seed` and the texts.

        Where one component holds nearly everything there is no such part, and everything is fitted.
        """
        if len(self.pairs) <= MAX_FIT:
            return self
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n, units = len(self.pairs), int(self.pairs.unit.max()) + 1
        nodes = int(max(self.pairs.vertex[0].max(), self.pairs.vertex[1].max())) + 1
        ends = np.concatenate([self.pairs.unit, units + self.pairs.vertex[0], units + self.pairs.vertex[1]])
        graph = coo_array((np.ones(3 * n, dtype=np.int8), (np.tile(np.arange(n), 3), n + ends)), shape=(n + units + nodes,) * 2)
        label = connected_components(graph, directed=False)[1][:n]
        head, member, size = np.unique(label, return_index=True, return_inverse=True, return_counts=True)[1:]
        order = np.argsort(mixed(self.pairs.key[head], np.uint64(seed & 0xFFFFFFFF), np.uint64(1)), kind="stable")
        small = order[size[order] <= MAX_FIT // 10]
        chosen = small[np.cumsum(size[small]) <= MAX_FIT]
        if size[chosen].sum() < MAX_FIT // 2:
            return self
        kept = np.zeros(len(size), dtype=bool)
        kept[chosen] = True
        part = self.part(np.flatnonzero(kept[member.reshape(-1)]))
        return part if len(np.unique(part.fold)) == len(np.unique(self.fold)) else self


def _dense(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same vertices without gaps in their numbers, in the same order."""
    inverse = np.unique(np.concatenate([low, high]), return_inverse=True)[1].reshape(-1)
    return inverse[: len(low)], inverse[len(low) :]


def prepare(votes: Votes, features: Features, *, seed: int, folds: int = FOLDS) -> Problem | None:
    """Pairs, differences and folds; None where fewer than `SMALLEST` pairs carry a preference."""
    if len(features) != len(votes):
        raise InputError(
            f"{len(votes):,} votes need as many rows of features, not {len(features):,}. Compute side_features(votes, ...) again."
        )
    if folds < 3:
        raise InputError(f"nested margins need 3 folds or more, not {folds}")
    pairs = gather(votes)
    t, w = pairs.labels(votes)
    if np.count_nonzero((w > 0) & (t != 0)) < SMALLEST:
        return None
    low = np.empty(len(pairs), dtype=np.int64)
    high = np.empty(len(pairs), dtype=np.int64)
    straight = pairs.turn > 0
    low[pairs.row] = np.where(straight, features.row[0], features.row[1])
    high[pairs.row] = np.where(straight, features.row[1], features.row[0])
    return Problem(votes, pairs, Differences(features.sides, low, high), w, balanced_folds(pairs, folds, seed))
