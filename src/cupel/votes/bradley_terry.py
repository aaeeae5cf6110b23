"""Bradley-Terry strengths with a ridge, for few or very many items, and strengths that exclude the row they are used on.

    minimise over s   sum_v weight_v softplus(-(s_winner - s_loser)) + ridge/2 |s|^2

The ridge makes every score finite (an item that always wins too) and fixes the location: scores of each connected component sum to
zero. Scores of different components cannot be compared; the components are reported. Bradley & Terry 1952, Biometrika 39.
The fit is that of `cupel.votes.ranking`, which adds ties, controls and intervals to it and takes counts instead of votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.votes.folds import group_folds
from cupel.votes.ranking.design import Design
from cupel.votes.ranking.graph import connectivity
from cupel.votes.ranking.newton import minimise
from cupel.votes.ranking.ties import HALF


@dataclass(frozen=True)
class BradleyTerry:
    """Fitted strengths.

    scores [items], log-odds units; deviation [items]: 1 / sqrt(diagonal of the Hessian), a lower proxy of the standard error;
    component [items]: connected component of each item (items that were never compared stand alone); components: their number;
    degree [items]: total weight of an item's comparisons; converged, iterations and gradient (largest absolute entry).
    """

    scores: np.ndarray
    deviation: np.ndarray
    component: np.ndarray
    components: int
    degree: np.ndarray
    ridge: float
    converged: bool
    iterations: int
    gradient: float


@dataclass(frozen=True)
class OutOfFoldStrength:
    """Strength differences from fits without the row's own pair.

    difference [n] = s_first - s_second; degree [n, 2]: comparisons of the first and the second side in the fit that the row uses;
    deviation [n]: proxy of the standard error of the difference; connected [n]: the sides are in one component of that fit;
    fold [n]; converged: every fit arrived.
    """

    difference: np.ndarray
    degree: np.ndarray
    deviation: np.ndarray
    connected: np.ndarray
    fold: np.ndarray
    converged: bool


def fit_bradley_terry(
    winner: np.ndarray,
    loser: np.ndarray,
    n_items: int,
    weight: np.ndarray | None = None,
    ridge: float = 0.1,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 100,
) -> BradleyTerry:
    """Strengths from wins: winner[v] beat loser[v] with weight[v] (a tie is half a win each way). Newton on the counts.

    winner, loser: int [n] in 0 ... n_items-1; weight float [n] >= 0; ridge > 0, a tiny one (1e-9) gives the maximum likelihood
    where that is finite. InputError for an index outside, a negative weight, or a comparison of an item with itself.

    >>> wins = [(0, 1)] * 3 + [(1, 0)] + [(1, 2)] * 2 + [(2, 1)] + [(0, 2)] * 3 + [(2, 0)]
    >>> fit = fit_bradley_terry(*np.array(wins).T, n_items=3, ridge=1e-9)
    >>> fit.scores.round(4).tolist(), fit.components
    ([0.7409, -0.1452, -0.5957], 1)
    """
    winner, loser, weight = _checked(winner, loser, n_items, weight, ridge)
    low, high = np.minimum(winner, loser), np.maximum(winner, loser)
    key, index = np.unique(low * n_items + high, return_inverse=True)
    votes = np.zeros((len(key), 3))
    for k, won in enumerate((winner < loser, winner > loser)):
        votes[:, k] = np.bincount(index.reshape(-1)[won], weights=weight[won], minlength=len(key))
    first, second, (win, loss, tie) = key // n_items, key % n_items, votes.T
    component = connectivity(first, second, votes, n_items).component
    design = Design(n_items, first, second, win, loss, tie, votes, np.zeros((len(key), 0)), HALF, np.full(n_items, float(ridge)), component)
    fit = minimise(design, tolerance=tolerance, max_iterations=max_iterations)

    def per_item(values: np.ndarray) -> np.ndarray:
        return np.bincount(first, weights=values, minlength=n_items) + np.bincount(second, weights=values, minlength=n_items)

    return BradleyTerry(
        scores=fit.z, deviation=1 / np.sqrt(per_item(design.curvature(fit.z)[0]) + ridge), component=component,
        components=int(component.max(initial=-1)) + 1, degree=per_item(win + loss), ridge=ridge, converged=fit.converged,
        iterations=fit.iterations, gradient=float(np.abs(fit.gradient).max(initial=0.0)),
    )  # fmt: skip


def out_of_fold_strength(
    first: np.ndarray,
    second: np.ndarray,
    sign: np.ndarray,
    pair: np.ndarray,
    n_nodes: int,
    *,
    weight: np.ndarray | None = None,
    ridge: float = 0.3,
    folds: int = 10,
    seed: int = 0,
) -> OutOfFoldStrength:
    """Strength differences s_first - s_second from fits that exclude the row's whole unordered pair, so also its duplicates.

    first, second: node of each side (a response under a prompt), int [n]; sign: +1 the first side won, -1 the second, 0 a tie
    (half a win each way); pair: dense index of the unordered pair, the unit of the folds. Labels of other pairs of the same
    responses are used: that is what makes the graph tell more than the text.

    >>> first, second = np.array([0, 1, 0, 2, 3, 3]), np.array([1, 2, 2, 3, 0, 1])
    >>> sign = np.array([1, 1, 1, 1, -1, -1])  # 0 > 1 > 2 > 3 throughout
    >>> found = out_of_fold_strength(first, second, sign, np.arange(6), 4, folds=6)
    >>> bool(found.difference[4] < 0), found.degree[4].tolist()  # 3 against 0, learned from the other five
    (True, [2.0, 2.0])
    """
    first, second, sign, pair = (np.asarray(x) for x in (first, second, sign, pair))
    weight = np.ones(len(first)) if weight is None else np.asarray(weight, dtype=np.float64)
    fold = group_folds(pair, folds, seed)
    n = len(first)
    difference, deviation, degree = np.zeros(n), np.zeros(n), np.zeros((n, 2))
    connected, good = np.zeros(n, dtype=bool), True
    for k in range(int(fold.max()) + 1):
        train = (fold != k) & (first != second)
        tie = train & (sign == 0)
        won = train & (sign != 0)
        winner = np.concatenate([np.where(sign > 0, first, second)[won], first[tie], second[tie]])
        loser = np.concatenate([np.where(sign > 0, second, first)[won], second[tie], first[tie]])
        mass = np.concatenate([weight[won], weight[tie] / 2, weight[tie] / 2])
        fit = fit_bradley_terry(winner, loser, n_nodes, mass, ridge, tolerance=1e-7)
        good &= fit.converged
        held = fold == k
        a, b = first[held], second[held]
        difference[held] = fit.scores[a] - fit.scores[b]
        deviation[held] = np.hypot(fit.deviation[a], fit.deviation[b])
        degree[held] = np.stack([fit.degree[a], fit.degree[b]], axis=1)
        connected[held] = fit.component[a] == fit.component[b]
    return OutOfFoldStrength(difference, degree, deviation, connected, fold, good)


def _checked(
    winner: np.ndarray, loser: np.ndarray, n_items: int, weight: np.ndarray | None, ridge: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    winner, loser = np.asarray(winner), np.asarray(loser)
    weight = np.ones(len(winner)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not (winner.shape == loser.shape == weight.shape and winner.ndim == 1):
        raise InputError(f"winners, losers and weights need one length, not {winner.shape}, {loser.shape} and {weight.shape}")
    if not ridge > 0:
        raise InputError(f"the ridge is positive, not {ridge!r}; a tiny one (1e-9) gives the maximum likelihood where it is finite")
    for reason, bad in (
        (f"have an index outside 0 ... {n_items - 1}", (np.minimum(winner, loser) < 0) | (np.maximum(winner, loser) >= n_items)),
        ("compare an item with itself", winner == loser),
        ("have a weight that is negative or not finite", ~(np.isfinite(weight) & (weight >= 0))),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{int(bad.sum()):,} of {len(bad):,} comparisons {reason} (first: row {row}); leave them out")
    return winner.astype(np.int64), loser.astype(np.int64), weight
