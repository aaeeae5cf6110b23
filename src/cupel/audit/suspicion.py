"""Suspicion: how much everything except a row's own label speaks against that label.

    margin m = sign * z,   z = log-odds that the first side is better, from content, graph and other people's votes on the pair

Content is a head that saw no row of the row's group; graph strengths are fitted without the row's pair; how the parts are weighed is
learned on other folds from parts that saw no row of this fold. So the size of z does not depend on the row's own label, and neither on
any label of its group except through the graph. Suspicion is -m: larger is more suspect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cupel.audit.combine import fit_logits
from cupel.audit.content import Content
from cupel.audit.features import Features
from cupel.audit.graph import RIDGES as GRAPH_RIDGES
from cupel.audit.graph import Graph
from cupel.audit.pairs import Pairs, balanced_folds, gather
from cupel.errors import InputError
from cupel.records.schema import Votes

FOLDS = 10
#: fewer pairs than this cannot teach a head anything; every margin is then 0, and the diagnostics say so
SMALLEST = 20


@dataclass(frozen=True)
class Suspicion:
    """Out-of-fold margins oriented to the recorded label, float64 [n]; 0 for rows without a preference (ties, skips).

    margin         from everything: content, graph, and the votes of other known annotators on the same pair
    pair_excluded  the same without any vote on the row's own pair (what the bounds of basis `single` rest on)
    content        from the texts alone, the row's whole group held out
    graph          from the strengths of the two responses in other pairs; 0 where `used_graph` is False; None where no response recurs
    used_graph     bool [n]
    diagnostics    folds, what was held out, ridges, weights of the parts
    """

    margin: np.ndarray
    pair_excluded: np.ndarray
    content: np.ndarray
    graph: np.ndarray | None
    used_graph: np.ndarray
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def suspicion(self) -> np.ndarray:
        """float64 [n]: -margin, larger is more suspect; 0 for rows without a preference, which no margin can contradict."""
        return 0.0 - self.margin

    @property
    def content_margin(self) -> np.ndarray:
        """The same as `content`."""
        return self.content

    @property
    def graph_margin(self) -> np.ndarray | None:
        """The same as `graph`."""
        return self.graph


@dataclass(frozen=True)
class Problem:
    """What does not depend on labels: pairs, their feature differences, folds. Planted copies of the data share it."""

    votes: Votes
    pairs: Pairs
    x: np.ndarray  # float32 [P, d], low - high
    w: np.ndarray  # float64 [P], votes on the pair
    fold: np.ndarray  # int64 [P]

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
    position_low = np.empty(len(pairs), dtype=np.int64)
    position_high = np.empty(len(pairs), dtype=np.int64)
    straight = pairs.turn > 0
    position_low[pairs.row] = np.where(straight, features.row[0], features.row[1])
    position_high[pairs.row] = np.where(straight, features.row[1], features.row[0])
    x = features.table[position_low]
    x -= features.table[position_high]
    return Problem(votes, pairs, x, w, balanced_folds(pairs, folds, seed))


def suspicion(votes: Votes, features: Features, *, seed: int, folds: int = FOLDS) -> Suspicion:
    """Margins of every row from everything but its own label; see `Suspicion`. Nested: every choice is made on other folds.

    Folds hold out whole groups (where there are too few or too uneven ones: unordered pairs; `diagnostics["held_out"]` says which), drawn
    from `seed` and the texts, so that neither the order of the rows nor the order of the sides matters.
    Raises InputError where features and votes do not belong together.
    """
    problem = prepare(votes, features, seed=seed, folds=folds)
    if problem is None:
        zero = np.zeros(len(votes))
        return Suspicion(
            zero, zero, zero, None, np.zeros(len(votes), dtype=bool), {"note": f"fewer than {SMALLEST} pairs with a preference"}
        )
    pairs, w, fold, graph = problem.pairs, problem.w, problem.fold, problem.graph
    t = pairs.labels(votes)[0]
    p = (1 + t) / 2
    nested = problem.content.nested(t)
    count = problem.content.folds
    use = graph.used
    any_graph = bool(use.any())
    ridges = problem.graph_ridges if any_graph else ()
    labels = {r: graph.left_out(t, r) for r in ridges}
    outer = problem.x @ np.stack(nested.outer, axis=1).astype(np.float32)  # [P, K]
    smooth = {r: graph.left_out(outer.astype(np.float64), r) for r in ridges}
    others = problem.others(votes.sign)
    any_others = bool(others.any())
    content, joint, strength = np.zeros(len(pairs)), np.zeros(len(pairs)), np.zeros(len(pairs))
    z = np.zeros(len(votes))
    weights, chosen = [], []
    row_fold = fold[pairs.row]
    decided = votes.sign != 0
    for k in range(count):
        train, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inside = problem.x @ np.stack([nested.inner.get((k, j), np.zeros(problem.x.shape[1])) for j in range(count)], axis=1).astype(
            np.float32
        )
        c = inside[np.arange(len(pairs)), fold].astype(np.float64)  # of a row in fold j: by the head without k and j
        b = fit_logits(c[train, None], p[train], w[train])[0]
        content[held] = b[0] * outer[held, k]
        best: tuple[float, float | None, np.ndarray, np.ndarray] | None = None
        for r in ridges or (None,):
            if r is None:
                parts = c[:, None]
            else:
                inner_smooth = graph.left_out(inside.astype(np.float64), r)[np.arange(len(pairs)), fold]
                parts = parts_of(c, labels[r], inner_smooth, use)
            b, loss = fit_logits(parts[train], p[train], w[train])
            if best is None or loss < best[0]:
                best = (loss, r, b, parts)
        assert best is not None
        _, r, b, parts = best
        c_held = outer[:, k].astype(np.float64)
        parts_held = c_held[:, None] if r is None else parts_of(c_held, labels[r], smooth[r][:, k], use)
        joint[held] = parts_held[held] @ b
        strength[held] = 0.0 if r is None else labels[r][held] * b[2]
        rows = np.flatnonzero(row_fold == k)
        if any_others:
            teach = np.flatnonzero((row_fold != k) & decided)
            both = np.stack([parts[pairs.row[teach]] @ b, others[teach]], axis=1)
            side = (votes.sign[teach] * pairs.turn[teach] + 1) / 2
            weigh = fit_logits(both, side, np.ones(len(teach)))[0]
            z[rows] = joint[pairs.row[rows]] * weigh[0] + others[rows] * weigh[1]
            weights.append([*b.tolist(), *weigh.tolist()])
        else:
            z[rows] = joint[pairs.row[rows]]
            weights.append(b.tolist())
        chosen.append(r)
    orient = (votes.sign * pairs.turn).astype(np.float64)
    return Suspicion(
        margin=orient * z + 0.0,
        pair_excluded=orient * joint[pairs.row] + 0.0,
        content=orient * content[pairs.row] + 0.0,
        graph=orient * strength[pairs.row] + 0.0 if any_graph else None,
        used_graph=use[pairs.row],
        diagnostics={
            "pairs": len(pairs), "folds": count, "held_out": pairs.unit_is, "units": int(pairs.unit.max()) + 1,
            "content_ridges": list(nested.ridges), "graph_ridges": chosen, "graph_share": float(use[pairs.row].mean()),
            "other_votes": any_others, "weights": weights,
        },
    )  # fmt: skip


def parts_of(c: np.ndarray, labels: np.ndarray, smooth: np.ndarray, use: np.ndarray) -> np.ndarray:
    """What the combination weighs, [P, 4]: content where the graph speaks and where not, graph, content smoothed along the graph.

    With weights (b, b', a, -a b) this is the posterior mean of strengths whose prior mean is the content score.
    """
    return np.stack([c * use, c * ~use, labels, smooth], axis=1)
