"""Dawid and Skene: a confusion matrix per annotator, by EM. Dawid & Skene 1979, Applied Statistics 28."""

from __future__ import annotations

import numpy as np

from cupel.votes.table import AnnotatorFit, VoteTable, finish, normalised

_FLOOR = 1e-10


def dawid_skene(
    votes: VoteTable,
    *,
    diagonal: float = 3.0,
    off_diagonal: float = 2.0,
    classes: float = 2.0,
    max_iterations: int = 500,
    tolerance: float = 1e-5,
) -> AnnotatorFit:
    """Truth of items and confusion matrices of annotators, starting from the majority.

    M: pi_c ~ sum_t P[t, c] + classes - 1;  theta[w, c, k] ~ sum_{v: w, y = k} P[t_v, c] + a_ck - 1, a = diagonal or off_diagonal.
    E: log P[t, c] = log pi_c + sum_{v in t} log theta[w_v, c, y_v] - normaliser. All ones give maximum likelihood. The default
    prior is heavier on the diagonal, because a flat one drives small data to a single label. Stops when the marginal log likelihood
    changes by less than tolerance per vote.

    Fitted on the order in which sides were shown, theta[w, 1, 1] - theta[w, 0, 0] is an annotator's position bias.

    >>> from cupel.votes.table import vote_table
    >>> golden = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
    >>> votes = vote_table(np.tile(np.arange(6), 3), np.repeat(np.arange(3), 6), golden.reshape(-1))
    >>> dawid_skene(votes, tolerance=1e-9).posterior[:, 1].round(4).tolist()
    [0.9284, 0.8773, 0.0845, 0.4354, 0.8773, 0.1433]
    """
    k = votes.n_classes
    prior_counts = np.full((k, k), off_diagonal - 1.0)
    np.fill_diagonal(prior_counts, diagonal - 1.0)
    posterior, trace, converged = votes.shares(), [], False
    cell = votes.annotator * k + votes.label
    prior, theta = np.full(k, 1 / k), np.zeros((votes.n_annotators, k, k))
    for _ in range(max_iterations):
        prior = posterior.sum(axis=0) + classes - 1
        prior = np.maximum(prior / prior.sum(), _FLOOR)
        for c in range(k):
            mass = np.bincount(cell, weights=votes.weight * posterior[votes.item, c], minlength=votes.n_annotators * k)
            theta[:, c, :] = mass.reshape(-1, k) + prior_counts[c]
        total = theta.sum(axis=2, keepdims=True)
        theta = np.clip(np.where(total > 0, theta / np.where(total > 0, total, 1), 1 / k), _FLOOR, 1.0)
        log_vote = np.log(theta).transpose(0, 2, 1)[votes.annotator, votes.label] * votes.weight[:, None]
        posterior, likelihood = normalised(np.log(prior) + votes.per_item(log_vote))
        trace.append(likelihood)
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) < tolerance * len(votes.item):
            converged = True
            break
    accuracy = np.einsum("c,wcc->w", prior / prior.sum(), theta)
    return finish(votes, "dawid_skene", posterior, prior, accuracy, theta, trace, converged)
