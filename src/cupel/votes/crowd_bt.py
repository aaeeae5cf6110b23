"""Bradley-Terry models in which comparisons know who made them: CrowdBT, and one temperature per annotator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError


@dataclass(frozen=True)
class CrowdScores:
    """Fitted scores [items] and annotators.

    reliability [annotators]: eta in (0, 1) for CrowdBT (1 perfect, 1/2 random, 0 adversarial), gamma > 0 for temperatures; counts
    [annotators]; component [items]: scores of different components cannot be compared; posterior [n]: probability that the winner
    recorded in each row is the better item; warnings: in words.
    """

    model: str
    scores: np.ndarray
    reliability: np.ndarray
    counts: np.ndarray
    component: np.ndarray
    components: int
    posterior: np.ndarray
    objective: float
    converged: bool
    warnings: tuple[str, ...]


def crowd_bt(
    winner: np.ndarray,
    loser: np.ndarray,
    annotator: np.ndarray,
    n_items: int,
    *,
    strength: float = 0.3,
    beta: tuple[float, float] = (4.0, 2.0),
    max_iterations: int = 2000,
) -> CrowdScores:
    """Scores of items and honesty eta of annotators: P_v = eta s(d) + (1 - eta) s(-d), d = s_winner - s_loser, s = sigmoid.

    Maximises sum log P_v + strength sum_i [log s(s_i) + log s(-s_i)] + (a - 1) sum log eta + (b - 1) sum log(1 - eta). The second
    term is a virtual item that ties with everybody and fixes location and scale; the Beta(a, b) prior picks the branch in which
    most annotators are honest. Chen et al. 2013, WSDM. L-BFGS on s and logit eta from s = 0, eta = 0.8.

    >>> first = np.array([0, 0, 0, 1, 1, 2, 0, 1, 2, 0, 3, 0, 3, 2, 3, 1, 2, 2])
    >>> second = np.array([1, 2, 3, 2, 3, 3, 1, 2, 3, 3, 1, 2, 0, 0, 1, 0, 1, 3])
    >>> fit = crowd_bt(first, second, np.repeat([0, 1, 2], 6), 4, strength=0.5)
    >>> fit.scores.round(3).tolist(), fit.reliability.round(3).tolist()
    ([2.214, 0.346, -0.718, -1.483], [0.885, 0.821, 0.402])
    """
    from scipy.optimize import minimize

    winner, loser, annotator, people = _checked(winner, loser, annotator, n_items)
    start = np.concatenate([np.zeros(n_items), np.full(people, np.log(4.0))])

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = crowd_bt_objective(z, winner, loser, annotator, n_items, strength=strength, beta=beta)
        return -value, -gradient

    options = {"maxiter": max_iterations, "maxfun": 10 * max_iterations, "ftol": 1e-14, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    eta = _sigmoid(found.x[n_items:])
    margin = found.x[winner] - found.x[loser]
    right = eta[annotator] * _sigmoid(margin)
    counts = np.bincount(annotator, minlength=people)
    posterior = right / (right + (1 - eta[annotator]) * _sigmoid(-margin))
    notes = []
    mean = float(np.average(eta, weights=counts))
    if mean < 0.6:
        notes.append(f"mean eta is {mean:.2f}: the mirrored solution (-s, 1 - eta) fits as well; only checked pairs can tell")
    return _result("crowd_bt", found, n_items, winner, loser, eta, counts, posterior, notes)


def crowd_bt_objective(
    z: np.ndarray,
    winner: np.ndarray,
    loser: np.ndarray,
    annotator: np.ndarray,
    n_items: int,
    *,
    strength: float,
    beta: tuple[float, float],
) -> tuple[float, np.ndarray]:
    """Objective of `crowd_bt` (larger is better) and its gradient at z = (scores, logit eta)."""
    scores, logit = z[:n_items], z[n_items:]
    eta = _sigmoid(logit)
    p = _sigmoid(scores[winner] - scores[loser])
    honest = eta[annotator]
    chance = np.maximum(honest * p + (1 - honest) * (1 - p), 1e-300)
    log_eta, log_rest = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
    value = np.log(chance).sum() - strength * (np.logaddexp(0, -scores) + np.logaddexp(0, scores)).sum()
    value += (beta[0] - 1) * log_eta.sum() + (beta[1] - 1) * log_rest.sum()
    pull = (2 * honest - 1) * p * (1 - p) / chance
    to_scores = np.bincount(winner, weights=pull, minlength=n_items) - np.bincount(loser, weights=pull, minlength=n_items)
    to_scores += strength * (1 - 2 * _sigmoid(scores))
    to_eta = np.bincount(annotator, weights=(2 * p - 1) / chance, minlength=len(eta)) * eta * (1 - eta)
    to_eta += (beta[0] - 1) * (1 - eta) - (beta[1] - 1) * eta
    return float(value), np.concatenate([to_scores, to_eta])


def temperature_bt(
    winner: np.ndarray,
    loser: np.ndarray,
    annotator: np.ndarray,
    n_items: int,
    *,
    ridge: float = 0.1,
    spread: float = 1.0,
    max_iterations: int = 2000,
) -> CrowdScores:
    """Scores of items and a temperature gamma > 0 of annotators: P_v = s(gamma_k (s_winner - s_loser)).

    Maximises sum log P_v - ridge |s|^2 / 2 - sum_k (log gamma_k)^2 / (2 spread^2); afterwards the mean log gamma is moved into the
    scores, so that it is 0. Annotators are more or less careful, never adversarial; posterior is s(s_winner - s_loser).

    >>> rng = np.random.default_rng(0)
    >>> i, j, who = rng.integers(0, 8, 2000), rng.integers(0, 7, 2000), rng.integers(0, 2, 2000)
    >>> j = np.where(j >= i, j + 1, j)
    >>> first_wins = rng.random(2000) < 1 / (1 + np.exp(np.where(who == 0, 1.5, 0.3) * (i - j)))
    >>> fit = temperature_bt(np.where(first_wins, i, j), np.where(first_wins, j, i), who, 8)
    >>> bool(fit.reliability[0] > 2 * fit.reliability[1]), fit.scores.argmax().item()
    (True, 0)
    """
    from scipy.optimize import minimize

    winner, loser, annotator, people = _checked(winner, loser, annotator, n_items)

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        scores, log_gamma = z[:n_items], z[n_items:]
        gamma = np.exp(np.clip(log_gamma, -20, 20))[annotator]
        gap = scores[winner] - scores[loser]
        lost = _sigmoid(-gamma * gap)
        value = np.logaddexp(0, -gamma * gap).sum() + ridge / 2 * scores @ scores + log_gamma @ log_gamma / (2 * spread**2)
        pull = -lost * gamma
        to_scores = np.bincount(winner, weights=pull, minlength=n_items) - np.bincount(loser, weights=pull, minlength=n_items)
        to_gamma = np.bincount(annotator, weights=pull * gap, minlength=people)
        return float(value), np.concatenate([to_scores + ridge * scores, to_gamma + log_gamma / spread**2])

    options = {"maxiter": max_iterations, "maxfun": 10 * max_iterations, "ftol": 1e-14, "gtol": 1e-7}
    found = minimize(loss, np.zeros(n_items + people), jac=True, method="L-BFGS-B", options=options)
    log_gamma = found.x[n_items:]
    shift = float(log_gamma.mean())
    found.x[:n_items] *= np.exp(shift)
    gamma = np.exp(log_gamma - shift)
    counts = np.bincount(annotator, minlength=people)
    posterior = _sigmoid(found.x[winner] - found.x[loser])
    return _result("temperature_bt", found, n_items, winner, loser, gamma, counts, posterior, [])


def _result(
    model: str, found: object, n_items: int, winner: np.ndarray, loser: np.ndarray, reliability: np.ndarray, counts: np.ndarray,
    posterior: np.ndarray, notes: list[str],
) -> CrowdScores:  # fmt: skip
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(winner)), (winner, loser)), shape=(n_items, n_items))
    components, component = connected_components(graph, directed=False)
    if components > 1:
        notes.append(f"{components:,} groups of items were never compared with each other: compare scores within a component only")
    few = int(((counts < 5) & (counts > 0)).sum())
    if few:
        notes.append(f"{few:,} annotators have fewer than 5 comparisons: what is said of them is mostly the prior")
    if not found.success:  # type: ignore[attr-defined]
        notes.append("the fit stopped before it converged: raise max_iterations")
    return CrowdScores(
        model, found.x[:n_items].copy(), reliability, counts, component, int(components), posterior,  # type: ignore[attr-defined]
        -float(found.fun), bool(found.success), tuple(notes),  # type: ignore[attr-defined]
    )  # fmt: skip


def _checked(winner: np.ndarray, loser: np.ndarray, annotator: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    winner, loser, annotator = (np.asarray(x).astype(np.int64) for x in (winner, loser, annotator))
    if not (winner.shape == loser.shape == annotator.shape and winner.ndim == 1 and len(winner)):
        raise InputError("comparisons need one winner, loser and annotator per row, and at least one row")
    for reason, bad in (
        (f"have an item outside 0 ... {n_items - 1}", (np.minimum(winner, loser) < 0) | (np.maximum(winner, loser) >= n_items)),
        ("compare an item with itself", winner == loser),
        ("have an unknown annotator", annotator < 0),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"{int(bad.sum()):,} of {len(bad):,} comparisons {reason} (first: row {row}); leave them out")
    return winner, loser, annotator, int(annotator.max()) + 1


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
