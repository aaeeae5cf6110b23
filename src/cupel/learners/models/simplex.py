"""Weights over several rewards that depend on the prompt: targets for them, two exact fits, and what a set of weights looks like.

Card "Preference Orchestrator" (Liu et al. 2025, arXiv:2511.10656): targets w* = softmax(r~(y+) / T), equation (7) as its reviews quote it,
and a cross-entropy whose direction is [unverified]. The difference target and the fit to preferences are ours, because a high score is not
the same as an important objective. K is the number of objectives; f(x) = softmax(x A + b) is the adapter of prompt vectors x [n, P].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError

TARGETS = ("preference", "winner", "difference")


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(l) / sum exp(l) over the last axis.

    >>> softmax(np.array([0.0, np.log(3)])).round(12).tolist()
    [0.25, 0.75]
    """
    found = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def on_simplex(weights: object, k: int) -> np.ndarray:
    """Weights [..., K] as float64; InputError unless they are at least 0 and sum to 1 (to 1e-6).

    >>> on_simplex([0.4, 0.7], 2)
    Traceback (most recent call last):
    cupel.errors.InputError: weights of objectives are at least 0 and sum to 1, and these are [0.4, 0.7] (sum 1.1)
    """
    found = np.asarray(weights, np.float64)
    if found.ndim < 1 or found.shape[-1] != k:
        raise InputError(f"there are {k} objectives, and weights for {found.shape[-1] if found.ndim else 1}")
    flat = found.reshape(-1, k)
    bad = np.flatnonzero(~((flat >= 0).all(axis=1) & (np.abs(flat.sum(axis=1) - 1) < 1e-6)))
    if len(bad):
        row = flat[bad[0]]
        many = f" ({len(bad):,} of {len(flat):,} rows, first: {bad[0]})" if len(flat) > 1 else ""
        these = f"{row.round(6).tolist()} (sum {row.sum():g}){many}"
        raise InputError(f"weights of objectives are at least 0 and sum to 1, and these are {these}")
    return found


def target_weights(winner: object, loser: object = None, *, target: str = "winner", temperature: float = 0.1) -> np.ndarray:
    """w* = softmax(r~(y+) / T), or of the difference r~(y+) - r~(y-), [n, K] from normalised rewards [n, K].

    winner is equation (7): the winner's own scores are taken for the objectives' importance. difference also reads the rejected side.

    >>> target_weights([0.8, 0.55, 0.7]).round(6).tolist()
    [0.689672, 0.056612, 0.253716]
    """
    if not (temperature > 0 and np.isfinite(temperature)):
        raise InputError(f"temperature is a positive number, not {temperature!r}: towards 0 weights are one-hot, towards infinity uniform")
    if target not in TARGETS[1:]:
        raise InputError(f"target is winner or difference, not {target!r}")
    score = np.asarray(winner, np.float64)
    if target == "difference":
        if loser is None:
            raise InputError("the target `difference` needs the scores of the rejected response: give them, or take target=winner")
        score = score - np.asarray(loser, np.float64)
    bad = np.argwhere(~np.isfinite(score))
    if len(bad):
        raise InputError(f"{len(bad):,} of {score.size:,} scores are missing (first: row {bad[0][0]}, objective {bad[0][-1]})")
    return softmax(score / temperature)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) over the last axis, natural logarithm; 0 log 0 is 0.

    >>> round(float(divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75]))), 6)
    0.143841
    """
    p, q = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(q, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(axis=-1)


def entropy(weights: np.ndarray) -> np.ndarray:
    """-sum w log w over the last axis; log K where weights are uniform, 0 where one objective has all.

    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(6).tolist()
    [0.693147, 0.0]
    """
    w = np.asarray(weights, np.float64)
    return 0.0 - np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0.0).sum(axis=-1)


def specialisation(weights: np.ndarray, above: float = 0.95) -> float:
    """Share of prompts of which one objective has more than `above` of the weight.

    >>> specialisation(np.array([[0.97, 0.03], [0.5, 0.5]]))
    0.5
    """
    return float(np.mean(np.asarray(weights).max(axis=-1) > above))


@dataclass(frozen=True)
class Adapter:
    """f(x) = softmax(x matrix + bias), and the scale s of s f(x) . r~ (1 where it was not fitted). matrix [P, K], bias [K]."""

    matrix: np.ndarray
    bias: np.ndarray
    scale: float = 1.0

    def __call__(self, prompts: np.ndarray) -> np.ndarray:
        """Weights of prompts, [n, K]."""
        return softmax(np.asarray(prompts, np.float64) @ self.matrix + self.bias)


def fit_softmax(
    prompts: np.ndarray, targets: np.ndarray, *, weight: np.ndarray | None = None, l2: float = 1e-4, collapse: float = 0.0
) -> Adapter:  # fmt: skip
    """The adapter with the least mean KL(w* || f(x)) + collapse sum f log f + l2/2 |A|^2, by L-BFGS in float64.

    The gradient in the logits is f - w*, plus collapse f (log f - sum f log f). Without collapse the problem is convex.

    >>> found = fit_softmax(np.zeros((2, 1)), np.array([[0.2, 0.8], [0.4, 0.6]]))
    >>> found(np.zeros((1, 1))).round(4).tolist()
    [[0.3, 0.7]]
    """
    x, goal = np.asarray(prompts, np.float64), np.asarray(targets, np.float64)
    w = np.full(len(x), 1 / max(len(x), 1)) if weight is None else np.asarray(weight, np.float64) / np.sum(weight)
    size, k = x.shape[1], goal.shape[1]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix, bias = flat[: size * k].reshape(size, k), flat[size * k :]
        logits = x @ matrix + bias
        logs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        f = np.exp(logs)
        ordered = (f * logs).sum(axis=1)
        loss = w @ (collapse * ordered - (goal * logs).sum(axis=1)) + l2 / 2 * float((matrix**2).sum())
        slope = w[:, None] * (f - goal + collapse * f * (logs - ordered[:, None]))
        return loss, np.concatenate([(x.T @ slope + l2 * matrix).ravel(), slope.sum(axis=0)])

    flat = _minimised(value, np.zeros((size + 1) * k))
    return Adapter(flat[: size * k].reshape(size, k), flat[size * k :])


def fit_preferences(
    prompts: np.ndarray, differences: np.ndarray, p: np.ndarray, *, weight: np.ndarray | None = None, l2: float = 1e-4
) -> Adapter:  # fmt: skip
    """The adapter and scale with the least mean of p sp(-m) + (1 - p) sp(m), m = s f(x) . d, plus l2/2 |A|^2; sp is softplus.

    differences d [n, K] of normalised rewards, first minus second; p: probability that the first is better. With prompts [n, 0] it is the
    best fixed weighting of these preferences. L-BFGS from uniform weights.

    >>> rng = np.random.default_rng(0)
    >>> d = rng.normal(size=(4000, 2))
    >>> p = 1 / (1 + np.exp(-5 * d @ [0.8, 0.2]))
    >>> found = fit_preferences(np.zeros((4000, 0)), d, p)
    >>> found(np.zeros((1, 0))).round(2).tolist(), round(found.scale, 1)
    ([[0.8, 0.2]], 5.0)
    """
    x, d, goal = (np.asarray(a, np.float64) for a in (prompts, differences, p))
    w = np.full(len(x), 1 / max(len(x), 1)) if weight is None else np.asarray(weight, np.float64) / np.sum(weight)
    size, k = x.shape[1], d.shape[1]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix, bias, scale = flat[: size * k].reshape(size, k), flat[size * k : -1], float(np.exp(flat[-1]))
        f = softmax(x @ matrix + bias)
        mean = (f * d).sum(axis=1)
        m = scale * mean
        loss = w @ (np.logaddexp(0, -m) + (1 - goal) * m) + l2 / 2 * float((matrix**2).sum())
        pull = w * (np.exp(-np.logaddexp(0, -m)) - goal)
        slope = (pull * scale)[:, None] * f * (d - mean[:, None])
        return loss, np.concatenate([(x.T @ slope + l2 * matrix).ravel(), slope.sum(axis=0), [pull @ m]])

    flat = _minimised(value, np.zeros((size + 1) * k + 1))
    return Adapter(flat[: size * k].reshape(size, k), flat[size * k : -1], float(np.exp(flat[-1])))


def _minimised(value: object, start: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize

    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": 1e-8, "ftol": 1e-13})  # type: ignore[call-overload]
    if not np.isfinite(found.x).all():
        raise InputError(f"the fit of the weights did not end ({found.message}): raise l2, or normalise the rewards")
    return found.x


def level_correlation(weights: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Correlation over prompts of each objective's weight with the level of its scores, with its 95 % interval: [K, 3]; NaN if constant.

    level [n, K]: mean normalised score of a prompt's responses. Interval: Fisher's z +- 1.96 / sqrt(n - 3).

    >>> w = np.stack([np.linspace(0.1, 0.9, 50), np.linspace(0.9, 0.1, 50)], axis=1)
    >>> level_correlation(w, np.stack([np.arange(50.0), np.arange(50.0)], axis=1))[:, 0].round(6).tolist()
    [1.0, -1.0]
    """
    w, v = np.asarray(weights, np.float64), np.asarray(level, np.float64)
    out = np.full((w.shape[1], 3), np.nan)
    for k in range(w.shape[1]):
        if len(w) > 3 and w[:, k].std() > 1e-9 and v[:, k].std() > 1e-9:
            r = float(np.corrcoef(w[:, k], v[:, k])[0, 1])
            z, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), 1.959964 / np.sqrt(len(w) - 3)
            out[k] = r, np.tanh(z - half), np.tanh(z + half)
    return out
