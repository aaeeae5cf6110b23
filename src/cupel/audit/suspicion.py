"""Suspicion: how much everything except a row's own label speaks against that label.

    margin m = sign * z,   z = log-odds that the first side is better, from content, graph and other people's votes on the pair

Content is a head that saw no row of the row's group; graph strengths are fitted without the row's pair; how the parts are weighed is
learned on other folds from parts that saw no row of this fold. So the size of z does not depend on the row's own label, and neither on
any label of its group except through the graph. Suspicion is -m: larger is more suspect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cupel.audit.combine import fit_logits
from cupel.audit.content import Nested
from cupel.audit.features import Features
from cupel.audit.problem import FOLDS, SMALLEST, Problem, prepare
from cupel.records.schema import Votes

__all__ = ["FOLDS", "SMALLEST", "Problem", "Suspicion", "parts_of", "prepare", "suspicion"]


#: rows on which the weights of the parts are fitted
MAX_WEIGHED = 20_000
Progress = Callable[[int, int], None]


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
class Learned:
    """What was fitted, per fold k on the other folds alone: heads, the graph's ridge, and how the parts are weighed."""

    nested: Nested
    content: list[float]  # what the content alone is multiplied by
    graph_ridge: list[float | None]
    parts: list[np.ndarray]  # weights of `parts_of`, or of the content alone
    both: list[np.ndarray | None]  # weights of those parts together, and of the other votes on the pair
    n: int  # pairs fitted on


def suspicion(votes: Votes, features: Features, *, seed: int, folds: int = FOLDS, progress: Progress | None = None) -> Suspicion:
    """Margins of every row from everything but its own label; see `Suspicion`. Nested: every choice is made on other folds.

    Folds hold out whole groups (where there are too few or too uneven ones: unordered pairs; `diagnostics["held_out"]` says which), drawn
    from `seed` and the texts, so that neither the order of the rows nor the order of the sides matters. Of more than `MAX_FIT` pairs
    (`cupel.audit.problem`) a part is fitted on and all are scored; `diagnostics["fitted_on"]` says how many.
    progress: called with (folds done, folds and the scoring in all). Raises InputError where features and votes do not belong together.
    """
    problem = prepare(votes, features, seed=seed, folds=folds)
    if problem is None:
        zero = np.zeros(len(votes))
        return Suspicion(
            zero, zero, zero, None, np.zeros(len(votes), dtype=bool), {"note": f"fewer than {SMALLEST} pairs with a preference"}
        )
    found = _apply(problem, _learn(problem.to_fit(seed), progress))
    if progress is not None:
        progress(folds + 1, folds + 1)
    return found


def _some(rows: np.ndarray) -> np.ndarray:
    """Rows for the weights of at most four parts: every k-th in the order of the texts, so that about `MAX_WEIGHED` are left."""
    return rows[:: max(1, -(-len(rows) // MAX_WEIGHED))]


def _learn(problem: Problem, progress: Progress | None = None) -> Learned:
    """Heads and weights of the parts from the labels of this problem."""
    pairs, w, fold, graph, votes = problem.pairs, problem.w, problem.fold, problem.graph, problem.votes
    t = pairs.labels(votes)[0]
    p = (1 + t) / 2
    nested = problem.content.nested(t)
    count, use = problem.content.folds, graph.used
    ridges = problem.graph_ridges if bool(use.any()) else ()
    labels = {r: graph.left_out(t, r) for r in ridges}
    others = problem.others(votes.sign)
    any_others = bool(others.any())
    row_fold, decided = fold[pairs.row], votes.sign != 0
    content: list[float] = []
    graph_ridge: list[float | None] = []
    weights: list[np.ndarray] = []
    both: list[np.ndarray | None] = []
    for k in range(count):
        if progress is not None:
            progress(k, count + 1)
        train = _some(np.flatnonzero(fold != k))
        inside = problem.x @ np.stack([nested.inner.get((k, j), np.zeros(problem.x.shape[1])) for j in range(count)], axis=1).astype(
            np.float32
        )
        c = inside[np.arange(len(pairs)), fold].astype(np.float64)  # of a row in fold j: by the head without k and j
        content.append(float(fit_logits(c[train, None], p[train], w[train])[0][0]))
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
        graph_ridge.append(r)
        weights.append(b)
        if any_others:
            teach = _some(np.flatnonzero((row_fold != k) & decided))
            x = np.stack([parts[pairs.row[teach]] @ b, others[teach]], axis=1)
            side = (votes.sign[teach] * pairs.turn[teach] + 1) / 2
            both.append(fit_logits(x, side, np.ones(len(teach)))[0])
        else:
            both.append(None)
    return Learned(nested, content, graph_ridge, weights, both, len(pairs))


def _apply(problem: Problem, learned: Learned) -> Suspicion:
    """Margins of all rows: each pair by what was learned without its fold, its graph from the votes on all other pairs."""
    pairs, fold, votes, nested = problem.pairs, problem.fold, problem.votes, learned.nested
    t = pairs.labels(votes)[0]
    count = len(nested.outer)
    outer = problem.differences.dot(np.stack(nested.outer, axis=1))  # [P, K]
    chosen = sorted({r for r in learned.graph_ridge if r is not None})
    use = problem.graph.used if chosen else np.zeros(len(pairs), dtype=bool)
    labels, smooth = {}, np.zeros(outer.shape if chosen else (0, 0))
    for r in chosen:
        columns = [k for k in range(count) if learned.graph_ridge[k] == r]
        labels[r] = problem.graph.left_out(t, r)
        smooth[:, columns] = problem.graph.left_out(outer[:, columns].astype(np.float64), r)
    others = problem.others(votes.sign)
    content, joint, strength = np.zeros(len(pairs)), np.zeros(len(pairs)), np.zeros(len(pairs))
    z = np.zeros(len(votes))
    row_fold = fold[pairs.row]
    for k in range(count):
        held, r, b, weigh = np.flatnonzero(fold == k), learned.graph_ridge[k], learned.parts[k], learned.both[k]
        c = outer[held, k].astype(np.float64)
        content[held] = learned.content[k] * c
        joint[held] = (c[:, None] if r is None else parts_of(c, labels[r][held], smooth[held, k], use[held])) @ b
        strength[held] = 0.0 if r is None else labels[r][held] * b[2]
        rows = np.flatnonzero(row_fold == k)
        z[rows] = joint[pairs.row[rows]]
        if weigh is not None:
            z[rows] = z[rows] * weigh[0] + others[rows] * weigh[1]
    orient = (votes.sign * pairs.turn).astype(np.float64)
    weights = [[*b.tolist(), *([] if weigh is None else weigh.tolist())] for b, weigh in zip(learned.parts, learned.both, strict=True)]
    return Suspicion(
        margin=orient * z + 0.0,
        pair_excluded=orient * joint[pairs.row] + 0.0,
        content=orient * content[pairs.row] + 0.0,
        graph=orient * strength[pairs.row] + 0.0 if chosen else None,
        used_graph=use[pairs.row],
        diagnostics={
            "pairs": len(pairs), "fitted_on": learned.n, "folds": count, "held_out": pairs.unit_is, "units": int(pairs.unit.max()) + 1,
            "content_ridges": list(nested.ridges), "graph_ridges": learned.graph_ridge, "graph_share": float(use[pairs.row].mean()),
            "other_votes": learned.both[0] is not None, "weights": weights,
        },
    )  # fmt: skip


def parts_of(c: np.ndarray, labels: np.ndarray, smooth: np.ndarray, use: np.ndarray) -> np.ndarray:
    """What the combination weighs, [P, 4]: content where the graph speaks and where not, graph, content smoothed along the graph.

    With weights (b, b', a, -a b) this is the posterior mean of strengths whose prior mean is the content score.
    """
    return np.stack([c * use, c * ~use, labels, smooth], axis=1)
