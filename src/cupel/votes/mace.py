"""MACE: an annotator knows the answer or guesses from a habit. Hovy et al. 2013, NAACL."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cupel.votes.table import AnnotatorFit, VoteTable, finish, normalised


def mace(
    votes: VoteTable,
    *,
    method: Literal["em", "vb"] = "em",
    learn_prior: bool = True,
    smoothing: float | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-5,
    start: float = 0.5,
) -> AnnotatorFit:
    """Truth of items, share theta_w of votes that annotator w knows, and habit xi_w of the others.

    P(y | z) = theta_w [y = z] + (1 - theta_w) xi_w[y]. E also gives the posterior of knowing,
    k_v = P[t_v, y_v] theta_w / (theta_w + (1 - theta_w) xi_w[y_v]). M ("em"): theta_w = (sum k + s) / (n_w + 2 s),
    xi_w[k] ~ sum_{y = k} (1 - k_v) + s with s = 0.01 / K; ("vb"): exponentials of digamma with 0.5 and 10 pseudo-counts, left
    unnormalised as in the paper. learn_prior: the class prior is the mean posterior rather than uniform, which on skewed classes is
    badly wrong. start: first theta; the habits start uniform.

    parameters: know [annotators], habit [annotators, classes].

    >>> from cupel.votes.table import vote_table
    >>> golden = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
    >>> votes = vote_table(np.tile(np.arange(6), 3), np.repeat(np.arange(3), 6), golden.reshape(-1))
    >>> fit = mace(votes, smoothing=0.1, learn_prior=False, max_iterations=50, tolerance=0)
    >>> fit.parameters["know"].round(4).tolist()
    [0.9156, 0.6695, 0.1004]
    """
    k, people = votes.n_classes, votes.n_annotators
    s = 0.01 / k if smoothing is None else smoothing
    prior = np.full(k, 1 / k)
    know, habit = np.full(people, start), np.full((people, k), 1 / k)
    spam = 1 - know
    cell = votes.annotator * k + votes.label
    counts = votes.per_annotator(votes.weight)
    posterior, _ = _posterior(votes, know, spam, habit, prior)
    trace, converged = [], False
    for _ in range(max_iterations):
        guess = spam[votes.annotator] * habit[votes.annotator, votes.label]
        knew = posterior[votes.item, votes.label] * know[votes.annotator] / np.maximum(know[votes.annotator] + guess, 1e-300)
        known = votes.per_annotator(votes.weight * knew)
        guessed = np.bincount(cell, weights=votes.weight * (1 - knew), minlength=people * k).reshape(-1, k)
        if method == "em":
            know = (known + s) / (counts + 2 * s)
            spam = 1 - know
            habit = (guessed + s) / (guessed.sum(axis=1, keepdims=True) + k * s)
        else:
            from scipy.special import psi

            know, spam = (np.exp(psi(x + 0.5) - psi(counts + 1)) for x in (known, counts - known))
            habit = np.exp(psi(guessed + 10) - psi(guessed.sum(axis=1, keepdims=True) + 10 * k))
        if learn_prior:
            prior = np.maximum(posterior.mean(axis=0), 1e-10)
        posterior, likelihood = _posterior(votes, know, spam, habit, prior)
        trace.append(likelihood)
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) < tolerance * len(votes.item):
            converged = True
            break
    share = know / (know + spam)
    tendency = habit / habit.sum(axis=1, keepdims=True)
    confusion = share[:, None, None] * np.eye(k) + (1 - share)[:, None, None] * tendency[:, None, :]
    accuracy = np.einsum("c,wcc->w", prior / prior.sum(), confusion)
    return finish(votes, "mace", posterior, prior, accuracy, confusion, trace, converged, know=know, habit=habit)


def _posterior(votes: VoteTable, know: np.ndarray, spam: np.ndarray, habit: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    guess = (spam[:, None] * habit)[votes.annotator, votes.label]
    miss, hit = np.log(guess), np.log(guess + know[votes.annotator])
    cell = votes.item * votes.n_classes + votes.label
    extra = np.bincount(cell, weights=(hit - miss) * votes.weight, minlength=votes.n_items * votes.n_classes)
    return normalised(np.log(prior) + votes.per_item(miss * votes.weight)[:, None] + extra.reshape(-1, votes.n_classes))
