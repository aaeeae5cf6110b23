"""Judgement in two steps: a context is chosen, then two responses are compared under it. Errors of both steps, inference, aggregation.

Card "Improving Context-Aware Preference Modeling for Language Models" (Pitis et al. 2024, arXiv:2407.14916), from its abstract; the
decomposition is proved on the card, and whether the paper's bound has the same form is [unverified]. Everything here is arrays: margins
m_z = r(z, y1) - r(z, y2) come from any model. Z is the number of contexts; probabilities over contexts lie on the last axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import Interval, cluster_bootstrap


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(_log_sigmoid(x))


def _numbers(values: object, what: str) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        raise InputError(f"{len(bad):,} of {found.size:,} values of {what} are not finite (first: {tuple(int(k) for k in bad[0])})")
    return found


def weights(values: object, *, what: str = "weights of contexts") -> np.ndarray:
    """Weights of contexts on the last axis that sum to 1; others are divided by their sum, with a warning.

    InputError where one is negative or not finite, or where a sum is 0.

    >>> weights([0.25, 0.75]).tolist()
    [0.25, 0.75]
    """
    found = _numbers(values, what)
    if found.ndim < 1 or found.shape[-1] < 1:
        raise InputError(f"{what} need at least one context")
    if (found < 0).any():
        raise InputError(f"{int((found < 0).sum()):,} of {found.size:,} {what} are negative (least: {found.min():g})")
    total = found.sum(axis=-1, keepdims=True)
    if (total <= 0).any():
        raise InputError(f"{what} are all 0: there is no context to judge in")
    if (np.abs(total - 1) > 1e-9).any():
        off = float(total.ravel()[np.argmax(np.abs(total - 1))])
        warnings.warn(f"{what} sum to {off:g}, not 1, and were divided by their sum", stacklevel=3)
        found = found / total
    return found


def _probabilities(values: object, what: str) -> np.ndarray:
    found = _numbers(values, what)
    if ((found < 0) | (found > 1)).any():
        raise InputError(f"{what} are probabilities, and these reach from {found.min():g} to {found.max():g}")
    return found


def mixture(p: object, q: object) -> np.ndarray:
    """P(y1 > y2) = sum_z p_z q_z, [...] from p and q [..., Z]: equation (1).

    >>> round(float(mixture([0.7, 0.3], [0.9, 0.2])), 12)
    0.69
    """
    return (weights(p) * _probabilities(q, "preferences under contexts")).sum(axis=-1)


@dataclass(frozen=True)
class ErrorTerms:
    """Error of an estimated preference and the two terms that bound it, each [...].

    error      |P - Phat|
    inference  TV(p, phat): the context was inferred wrongly
    judgement  sum_z p_z |q_z - qhat_z|: preference under the context was judged wrongly
    """

    error: np.ndarray
    inference: np.ndarray
    judgement: np.ndarray

    @property
    def bound(self) -> np.ndarray:
        """inference + judgement; at least `error`."""
        return self.inference + self.judgement


def decompose_error(p: object, phat: object, q: object, qhat: object) -> ErrorTerms:
    """|P - Phat| <= TV(p, phat) + sum_z p_z |q_z - qhat_z|, equation (3), for true p, q and estimates [..., Z].

    P - Phat = sum p (q - qhat) + sum (p - phat)(qhat - 1/2), and |qhat - 1/2| <= 1/2. Where contexts are inferred by the model that also
    judges, the two terms are correlated; the bound holds but is loose.

    >>> found = decompose_error([0.7, 0.3], [0.5, 0.5], [0.9, 0.2], [0.8, 0.3])
    >>> [round(float(x), 12) for x in (found.error, found.inference, found.judgement, found.bound)]
    [0.14, 0.2, 0.1, 0.3]
    """
    one, two = weights(p), weights(phat, what="estimated weights of contexts")
    right, estimate = _probabilities(q, "preferences under contexts"), _probabilities(qhat, "estimated preferences under contexts")
    sizes = {x.shape[-1] for x in (one, two, right, estimate)}
    if len(sizes) > 1:
        raise InputError(f"p, phat, q and qhat speak of different numbers of contexts: {sorted(sizes)}")
    error = np.abs((one * right).sum(axis=-1) - (two * estimate).sum(axis=-1))
    return ErrorTerms(error, np.abs(one - two).sum(axis=-1) / 2, (one * np.abs(right - estimate)).sum(axis=-1))


# ---- which context ----------------------------------------------------------------------------------------------------------------


def posterior(prior: object, margins: object, by: np.ndarray | None = None, *, units: int | None = None) -> np.ndarray:
    """p(z | H) prop. to p(z) prod over the labelled pairs of sigmoid(m_z): [Z], or [U, Z] with `by`.

    prior    [Z] or [U, Z]; margins [k, Z], of the preferred over the other response under each context; k may be 0
    by       int64 [k], which of U units (users, say) each pair was labelled by; all pairs of a unit share its context

    >>> chosen = [[1.0 - 0.2, 0.0 - 0.9, 0.3 - 0.4], [0.0 - 0.2, 1.0 - 0.9, 0.2 - 0.4]]
    >>> posterior([0.5, 0.3, 0.2], chosen).round(8).tolist()
    [0.63754559, 0.1868842, 0.17557022]
    """
    first, m = weights(prior), _numbers(margins, "margins")
    z = first.shape[-1]
    m = m.reshape(-1, z) if m.size == 0 else m
    if m.ndim != 2 or m.shape[1] != z:
        raise InputError(f"margins are [pairs, {z} contexts], not {list(m.shape)}")
    index = np.zeros(len(m), np.int64) if by is None else np.asarray(by, np.int64)
    if len(index) != len(m):
        raise InputError(f"{len(m):,} pairs, but {len(index):,} units they belong to")
    n = 1 if by is None else units or max(int(index.max(initial=-1)) + 1, len(first) if first.ndim == 2 else 1)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n:
        raise InputError(f"units {index.min()} to {index.max()} lie outside 0 to {n - 1}")
    found = _posterior(first, _evidence(m, index, n))[0]
    return found[0] if by is None else found


def _evidence(margins: np.ndarray, unit: np.ndarray, n: int) -> np.ndarray:
    """sum of log sigmoid(m) over the pairs of each unit, [n, Z]."""
    logs = _log_sigmoid(margins)
    return np.stack([np.bincount(unit, weights=logs[:, k], minlength=n) for k in range(logs.shape[1])], axis=1)


def _posterior(prior: np.ndarray, evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(responsibilities [n, Z], log-likelihood of each unit [n])."""
    with np.errstate(divide="ignore"):
        logs = np.log(prior) + evidence
    top = logs.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(logs - top).sum(axis=1))
    return np.exp(logs - total[:, None]), total


@dataclass(frozen=True)
class Latent:
    """Contexts that nobody stated, estimated by EM.

    prior           [G, Z] p(z) of each group of units (a prompt, say; one row where there is one population)
    responsibility  [U, Z] p(z | the unit's labels)
    margins         [n, Z] of the last M-step
    likelihood      log-likelihood of the labels before each step and after the last, less the refit's penalty if it states one; never falls
    """

    prior: np.ndarray
    responsibility: np.ndarray
    margins: np.ndarray
    likelihood: tuple[float, ...]


def latent_contexts(
    margins: object, *, unit: np.ndarray | None = None, group: np.ndarray | None = None, prior: object = None,
    refit: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, float]] | None = None, iterations: int = 200, tolerance: float = 1e-9,
) -> Latent:  # fmt: skip
    """Contexts of labels whose context is unknown: EM on sum_u log sum_z p(z) prod_(i of u) sigmoid(m_iz).

    margins  [n, Z] of the preferred over the other response under each context
    unit     int64 [n], labels that share one context (those of a person); default: each label has its own
    group    int64 [U], which prior a unit draws from (its prompt's); default: one for all
    prior    where p(z) begins, [Z] or [G, Z]; default: equal weights
    refit    the M-step of the rewards: from the responsibility of each label's context [n, Z] to new margins, by weighted Bradley-Terry say
             (`weighted_rewards`); or (margins, penalty) where it is penalised, as by l2/2 |theta|^2. One that lowers the likelihood less
             the penalty is refused. Default: the margins stay.

    Responsibilities rho prop. to p(z) prod sigmoid(m); then p(z) is their mean. Contexts that begin equal stay equal: margins or prior have
    to tell them apart.

    >>> m = np.array([[2.0, -2.0], [2.0, -2.0], [-2.0, 2.0], [2.0, -2.0]])
    >>> found = latent_contexts(m)
    >>> found.prior.round(2).tolist(), all(b >= a - 1e-10 for a, b in zip(found.likelihood, found.likelihood[1:]))
    ([[0.83, 0.17]], True)
    """
    m = _numbers(margins, "margins")
    if m.ndim != 2 or not m.size:
        raise InputError(f"margins are [labels, contexts] with at least one of each, not {list(m.shape)}")
    owner = np.arange(len(m)) if unit is None else np.asarray(unit, np.int64)
    if len(owner) != len(m):
        raise InputError(f"{len(m):,} labels, but {len(owner):,} units they belong to")
    n = int(owner.max()) + 1
    place = np.zeros(n, np.int64) if group is None else np.asarray(group, np.int64)
    if int(owner.min()) < 0 or len(place) != n or int(place.min()) < 0:
        raise InputError(f"units count from 0, and each of the {n:,} has one group from 0 on ({len(place):,} are given)")
    size = int(place.max()) + 1
    begun = np.full(m.shape[1], 1 / m.shape[1]) if prior is None else weights(prior)
    p = np.broadcast_to(begun, (size, m.shape[1])).copy()
    counts = np.maximum(np.bincount(place, minlength=size), 1)[:, None]
    line: list[float] = []
    first = True
    rho, each = _posterior(p[place], _evidence(m, owner, n))
    line.append(float(each.sum()))
    for _ in range(iterations):
        p = np.stack([np.bincount(place, weights=rho[:, k], minlength=size) for k in range(m.shape[1])], axis=1) / counts
        penalty = None
        if refit is not None:
            found = refit(rho[owner])
            found, penalty = found if isinstance(found, tuple) else (found, None)
            m = _numbers(found, "refitted margins")
        rho, each = _posterior(p[place], _evidence(m, owner, n))
        line.append(float(each.sum()) - (penalty or 0.0))
        if penalty is not None and first:  # what the margins began with has no penalty to compare with
            line, first = line[-1:], False
            continue
        if line[-1] < line[-2] - 1e-7 * max(1.0, abs(line[-2])):
            raise InputError(
                f"the refit lowered the likelihood from {line[-2]:.6f} to {line[-1]:.6f} in step {len(line) - 1}: it has to raise "
                f"sum rho log sigmoid(margin), or leave it"
            )
        if line[-1] - line[-2] < tolerance:
            break
    return Latent(p, rho, m, tuple(line))


def weighted_rewards(differences: object, rho: object, *, l2: float = 1e-3, steps: int = 50) -> np.ndarray:
    """Linear rewards of each context by weighted Bradley-Terry, [Z, d]: argmax sum_i rho_iz log sigmoid(x_i . theta_z) - l2/2 |theta_z|^2.

    differences [n, d], features of the preferred minus the other response; rho [n, Z]. Newton's method with halved steps.

    >>> x = np.array([[1.0], [1.0], [-1.0]])
    >>> weighted_rewards(x, np.ones((3, 1)), l2=0.0).round(6).tolist()
    [[0.693147]]
    """
    x, r = _numbers(differences, "differences"), _numbers(rho, "responsibilities")
    out = np.zeros((r.shape[1], x.shape[1]))

    def value(theta: np.ndarray, w: np.ndarray) -> float:
        return float((w * _log_sigmoid(x @ theta)).sum() - l2 / 2 * theta @ theta)

    for k in range(r.shape[1]):
        theta, w = out[k], r[:, k]
        for _ in range(steps):
            wrong = _sigmoid(-(x @ theta))
            slope = x.T @ (w * wrong) - l2 * theta
            bend = (x * (w * wrong * (1 - wrong))[:, None]).T @ x + (l2 + 1e-12) * np.eye(x.shape[1])
            move, here = np.linalg.solve(bend, slope), value(theta, w)
            while value(theta + move, w) < here and np.abs(move).max() > 1e-12:
                move = move / 2
            if value(theta + move, w) < here:
                break
            theta = theta + move
            if np.abs(move).max() < 1e-10:
                break
        out[k] = theta
    return out


# ---- many contexts, one order -----------------------------------------------------------------------------------------------------


def _rewards(w: object, r: object) -> tuple[np.ndarray, np.ndarray]:
    one, rewards = weights(w), _numbers(r, "rewards")
    if rewards.ndim != 2 or one.shape != (len(rewards),):
        raise InputError(f"rewards are [contexts, candidates] with one weight per context, not {list(rewards.shape)} and {list(one.shape)}")
    return one, rewards


def marginal_preference(w: object, r: object) -> np.ndarray:
    """P(i > j) = sum_z w_z sigmoid(r_zi - r_zj), [N, N], from weights [Z] and rewards [Z, N]. A constant added to a context does nothing.

    >>> marginal_preference([0.5, 0.3, 0.2], [[1, 0.2, 0], [0, 0.9, 1], [0.3, 0.4, 0.2]])[0].round(8).tolist()
    [0.5, 0.52670655, 0.55120755]
    """
    one, rewards = _rewards(w, r)
    return np.einsum("z,zij->ij", one, _sigmoid(rewards[:, :, None] - rewards[:, None, :]))


def borda(w: object, r: object) -> np.ndarray:
    """Borda score of each candidate, [N]: its marginal preferences over all others, summed.

    >>> borda([0.5, 0.3, 0.2], [[1, 0.2, 0], [0, 0.9, 1], [0.3, 0.4, 0.2]]).round(8).tolist()
    [1.07791411, 1.00068349, 0.9214024]
    """
    return marginal_preference(w, r).sum(axis=1) - 0.5


def expected_reward(w: object, r: object) -> np.ndarray:
    """sum_z w_z r_z, [N]. It assumes that rewards of different contexts have one scale; the context with the largest scale decides.

    >>> expected_reward([0.5, 0.3, 0.2], [[1, 0.2, 0], [0, 0.9, 1], [0.3, 0.4, 0.2]]).round(12).tolist()
    [0.56, 0.45, 0.34]
    """
    one, rewards = _rewards(w, r)
    return one @ rewards


def hard_majority(w: object, r: object) -> np.ndarray:
    """Weight of the contexts that put i before j, [N, N]; equal rewards count one half. Any increasing map of a context leaves it.

    >>> hard_majority([0.5, 0.3, 0.2], [[1, 0.2, 0], [0, 0.9, 1], [0.3, 0.4, 0.2]])[0].round(12).tolist()
    [0.5, 0.5, 0.7]
    """
    one, rewards = _rewards(w, r)
    return np.einsum("z,zij->ij", one, (1 + np.sign(rewards[:, :, None] - rewards[:, None, :])) / 2)


# ---- does a model use its context -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ContextGap:
    """Accuracy against the label that belongs to the right context, with intervals over groups; None where it was not asked.

    right, none, wrong, shuffled   with that context, none, the opposed one, and those of other rows
    reversal   share of reversal rows whose two contexts are both right: 1/4 by chance, 0 for a model that ignores contexts
    """

    right: Interval
    none: Interval | None
    wrong: Interval | None
    shuffled: Interval | None
    reversal: Interval | None

    @property
    def uses_context(self) -> float | None:
        """right minus wrong (else minus shuffled): about 0 for a model that ignores its context; None without a control."""
        control = self.wrong or self.shuffled
        return None if control is None else self.right.estimate - control.estimate


def context_gap(
    right: object, *, none: object = None, wrong: object = None, shuffled: object = None, row: np.ndarray | None = None,
    group: np.ndarray | None = None, seed: int = 0,
) -> ContextGap:  # fmt: skip
    """Accuracies of one model under the right context and its controls, from margins [n] in favour of the label.

    A margin of 0 counts one half. row: int64 [n], the reversal row of each comparison (two comparisons share one). group: what intervals
    resample; default: rows, else comparisons.

    >>> found = context_gap([1.0, 2.0, 1.0, -1.0], wrong=[-1.0, -2.0, -1.0, 1.0], row=np.array([0, 0, 1, 1]))
    >>> found.right.estimate, found.wrong.estimate, found.reversal.estimate
    (0.75, 0.25, 0.5)
    """
    m = _numbers(right, "margins")
    index = np.arange(len(m)) if row is None else np.asarray(row, np.int64)
    over = index if group is None else np.asarray(group)

    def accuracy(values: object) -> Interval | None:
        if values is None:
            return None
        found = _numbers(values, "margins")
        if found.shape != m.shape:
            raise InputError(f"margins of a control are those of the same {len(m):,} comparisons, not {len(found):,}")
        return cluster_bootstrap((np.sign(found) + 1) / 2, over, seed=seed, clip=(0, 1))

    both = None
    if row is not None:
        names, at, size = np.unique(index, return_inverse=True, return_counts=True)
        if (size != 2).any():
            first = names[size != 2][0]
            raise InputError(f"{int((size != 2).sum()):,} of {len(names):,} reversal rows do not have two comparisons (first: row {first})")
        hit = np.bincount(at.reshape(-1), weights=m > 0) == 2
        owner = np.zeros(len(names), np.int64)
        owner[at.reshape(-1)] = np.unique(over, return_inverse=True)[1].reshape(-1)
        both = cluster_bootstrap(hit.astype(float), owner, seed=seed, clip=(0, 1))
    first = accuracy(m)
    assert first is not None
    return ContextGap(first, accuracy(none), accuracy(wrong), accuracy(shuffled), both)
