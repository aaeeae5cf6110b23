"""One coin per annotator: right with probability q, otherwise any other label; with two labels, one flip rate each."""

from __future__ import annotations

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import Interval
from cupel.votes.table import AnnotatorFit, VoteTable, finish, normalised, one_coin_confusion, vote_table


def one_coin(
    votes: VoteTable,
    *,
    beta: tuple[float, float] = (4.0, 2.0),
    learn_prior: bool = False,
    max_iterations: int = 500,
    tolerance: float = 1e-5,
    start: np.ndarray | None = None,
) -> AnnotatorFit:
    """Truth of items and accuracy q of annotators, by EM from the majority (or from accuracies `start`).

    M: q_w = (sum_v P[t_v, y_v] + a - 1) / (n_w + a + b - 2);  E: P(y = z) = q_w, else (1 - q_w) / (K - 1). beta = (1, 1) is maximum
    likelihood. The class prior is uniform unless `learn_prior`. 1 - q_w is the flip rate that noise-aware losses need.

    >>> votes = vote_table(np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3), np.array([1, 1, 0, 0, 0, 0, 1, 1, 0]))
    >>> fit = one_coin(votes)
    >>> bool(fit.accuracy[2] < fit.accuracy[0]), fit.posterior.argmax(axis=1).tolist()
    (True, [1, 0, 1])
    """
    a, b = beta
    k = votes.n_classes
    counts = votes.per_annotator(votes.weight)
    prior, trace, converged = np.full(k, 1 / k), [], False
    posterior = votes.shares() if start is None else _posterior(votes, start, prior)[0]
    accuracy = np.full(votes.n_annotators, 0.5)
    for _ in range(max_iterations):
        hits = votes.per_annotator(votes.weight * posterior[votes.item, votes.label])
        below = counts + a + b - 2
        accuracy = np.clip(np.where(below > 0, (hits + a - 1) / np.where(below > 0, below, 1), 1 / k), 1e-10, 1 - 1e-10)
        if learn_prior:
            prior = np.maximum(posterior.mean(axis=0), 1e-10)
        posterior, likelihood = _posterior(votes, accuracy, prior)
        trace.append(likelihood)
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) < tolerance * len(votes.item):
            converged = True
            break
    return finish(votes, "one_coin", posterior, prior, accuracy, one_coin_confusion(accuracy, k), trace, converged)


def one_coin_rate(
    item: np.ndarray,
    sign: np.ndarray,
    annotator: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    ties: str = "drop",
    level: float = 0.95,
    blocks: int = 25,
) -> Interval:
    """Interval of the share of wrong votes under the one-coin model: mean over votes of 1 - P[item, label].

    The model is refitted without each of `blocks` random blocks of groups (prompts); the jackknife over blocks gives the standard
    error, Student's t the interval. sign: +1, -1 and 0 for a tie, which is left out or ("half") counts half a vote for either side.

    >>> rng = np.random.default_rng(0)
    >>> truth, who = rng.integers(0, 2, 600), rng.integers(0, 30, (600, 4))
    >>> wrong = rng.random((600, 4)) < np.linspace(0.02, 0.3, 30)[who]
    >>> sign = np.where(truth[:, None] ^ wrong, 1, -1).reshape(-1)
    >>> found = one_coin_rate(np.repeat(np.arange(600), 4), sign, who.reshape(-1), np.repeat(np.arange(600), 4), ties="half")
    >>> bool(found.low < wrong.mean() < found.high)
    True
    """
    from scipy.special import stdtrit

    item, sign, annotator, groups = (np.asarray(x) for x in (item, sign, annotator, groups))
    decided, tied = sign != 0, sign == 0
    if ties == "half":
        rows = np.concatenate([np.flatnonzero(decided), np.flatnonzero(tied), np.flatnonzero(tied)])
        label = np.concatenate([sign[decided] > 0, np.zeros(tied.sum()), np.ones(tied.sum())]).astype(np.int64)
        weight = np.concatenate([np.ones(decided.sum()), np.full(2 * tied.sum(), 0.5)])
    else:
        rows = np.flatnonzero(decided)
        label, weight = (sign[rows] > 0).astype(np.int64), np.ones(len(rows))
    if len(rows) == 0:
        raise InputError("no vote prefers a side: the one-coin model has nothing to learn from")
    dense = np.unique(item[rows], return_inverse=True)[1].reshape(-1)
    person = np.unique(annotator[rows], return_inverse=True)[1].reshape(-1)
    label_group, group = np.unique(groups[rows], return_inverse=True)
    block_of = np.random.default_rng(seed).permutation(len(label_group)) % blocks
    block = block_of[group.reshape(-1)]
    people = int(person.max()) + 1

    def rate(chosen: np.ndarray, start: np.ndarray | None) -> tuple[float, np.ndarray]:
        again = np.unique(dense[chosen], return_inverse=True)[1].reshape(-1)
        table = vote_table(again, person[chosen], label[chosen], weight=weight[chosen], n_annotators=people, keep="all")
        fit = one_coin(table, start=start, tolerance=1e-6)
        wrong = 1 - fit.posterior[table.item, table.label]
        return float(table.weight @ wrong / table.weight.sum()), fit.accuracy

    whole, accuracy = rate(np.ones(len(rows), dtype=bool), None)
    used = np.unique(block)
    if len(used) < 2:
        return Interval(whole, float("nan"), float("nan"), len(label_group), 0)
    without = np.array([rate(block != b, accuracy)[0] for b in used])
    error = np.sqrt((len(used) - 1) / len(used) * ((without - without.mean()) ** 2).sum())
    half = float(stdtrit(len(used) - 1, 0.5 + level / 2)) * float(error)
    return Interval(whole, max(0.0, whole - half), min(1.0, whole + half), len(label_group), 0)


def _posterior(votes: VoteTable, accuracy: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    """E step: only the gain of the label voted for over the others differs between classes."""
    right, other = np.log(accuracy), np.log((1 - accuracy) / (votes.n_classes - 1))
    base = votes.per_item(other[votes.annotator] * votes.weight)
    gain = (right - other)[votes.annotator] * votes.weight
    cell = votes.item * votes.n_classes + votes.label
    extra = np.bincount(cell, weights=gain, minlength=votes.n_items * votes.n_classes).reshape(-1, votes.n_classes)
    return normalised(np.log(prior) + base[:, None] + extra)
