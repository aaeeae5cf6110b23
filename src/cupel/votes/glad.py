"""GLAD: the ability of annotators against the difficulty of items. Whitehill et al. 2009, NeurIPS."""

from __future__ import annotations

import numpy as np

from cupel.votes.table import AnnotatorFit, VoteTable, finish, normalised, one_coin_confusion


def glad(
    votes: VoteTable, *, max_iterations: int = 200, inner: int = 25, tolerance: float = 1e-5, learn_prior: bool = False
) -> AnnotatorFit:
    """Truth of items, ability alpha of annotators and ease exp(b) of items, by EM.

    sigma_v = sigmoid(alpha_w exp(b_t)); P(y = z) = sigma_v, else (1 - sigma_v) / (K - 1). M: maximise
    sum_v P_v log sigma_v + (1 - P_v) log(1 - sigma_v) - |alpha - 1|^2 / 2 - |b - 1|^2 / 2 with P_v = P[t_v, y_v], by L-BFGS of at
    most `inner` steps. accuracy is the mean sigma over an annotator's votes; parameters: ability, log_ease.

    >>> from cupel.votes.table import vote_table
    >>> golden = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
    >>> votes = vote_table(np.tile(np.arange(6), 3), np.repeat(np.arange(3), 6), golden.reshape(-1))
    >>> glad(votes, tolerance=1e-8).parameters["ability"].round(2).tolist()
    [1.05, 1.09, -0.11]
    """
    from scipy.optimize import minimize

    people, k = votes.n_annotators, votes.n_classes
    prior, trace, converged = np.full(k, 1 / k), [], False
    z = np.ones(people + votes.n_items)
    posterior = _posterior(votes, z, prior)[0]

    def loss(x: np.ndarray, p: np.ndarray) -> tuple[float, np.ndarray]:
        alpha, b = x[:people], x[people:]
        ease = np.exp(np.minimum(b, 30.0))
        at = alpha[votes.annotator] * ease[votes.item]
        value = votes.weight @ (np.logaddexp(0, at) - p * at)
        value += 0.5 * ((alpha - 1) ** 2).sum() + 0.5 * ((b - 1) ** 2).sum()
        pull = votes.weight * (p - _sigmoid(at))
        to_alpha = votes.per_annotator(pull * ease[votes.item]) - (alpha - 1)
        to_b = votes.per_item(pull * at) - (b - 1)
        return float(value), -np.concatenate([to_alpha, to_b])

    for _ in range(max_iterations):
        found = minimize(
            loss, z, args=(posterior[votes.item, votes.label],), jac=True, method="L-BFGS-B",
            options={"maxiter": inner, "gtol": 1e-8, "ftol": 1e-14},
        )  # fmt: skip
        z = found.x
        if learn_prior:
            prior = np.maximum(posterior.mean(axis=0), 1e-10)
        posterior, likelihood = _posterior(votes, z, prior)
        trace.append(likelihood)
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) < tolerance * len(votes.item):
            converged = True
            break
    right = _sigmoid(z[:people][votes.annotator] * np.exp(z[people:])[votes.item])
    accuracy = votes.per_annotator(votes.weight * right) / np.maximum(votes.per_annotator(votes.weight), 1e-300)
    confusion = one_coin_confusion(accuracy, k)
    return finish(votes, "glad", posterior, prior, accuracy, confusion, trace, converged, ability=z[:people], log_ease=z[people:])


def _posterior(votes: VoteTable, z: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    at = z[: votes.n_annotators][votes.annotator] * np.exp(np.minimum(z[votes.n_annotators :], 30.0))[votes.item]
    hit = -np.logaddexp(0, -at)
    miss = -np.logaddexp(0, at) - np.log(votes.n_classes - 1)
    cell = votes.item * votes.n_classes + votes.label
    extra = np.bincount(cell, weights=(hit - miss) * votes.weight, minlength=votes.n_items * votes.n_classes)
    return normalised(np.log(prior) + votes.per_item(miss * votes.weight)[:, None] + extra.reshape(-1, votes.n_classes))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
