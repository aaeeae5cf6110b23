"""What is chosen by noisy validation labels alone: the ridge of every treatment, and the treatment that is recommended."""

from __future__ import annotations

import numpy as np

from cupel.votes.intervals import group_sums


def row_losses(margin: np.ndarray) -> np.ndarray:
    """Log loss of each label after one slope was fitted to all of them, float64 [..., n]; log 2 where the best slope is 0.

    margin [..., n] in favour of the recorded label, in any unit. min over s >= 0 of mean log(1 + exp(-s m)), by Newton: so margins of
    different objectives are comparable, and symmetric flips, which shrink s, keep the order of heads.

    >>> np.round(row_losses(np.array([1.0, 1.0, 1.0, -1.0])), 4).tolist()
    [0.2877, 0.2877, 0.2877, 1.3863]
    """
    size = np.sqrt(np.mean(np.square(margin, dtype=np.float64), axis=-1, keepdims=True))
    z = margin / np.where(size > 0, size, 1.0)
    s = np.zeros_like(size)
    for _ in range(40):
        q = 0.5 * (1 - np.tanh(0.5 * s * z))  # P(the label is wrong)
        rise = (z * q).mean(axis=-1, keepdims=True)
        bend = (z * z * q * (1 - q)).mean(axis=-1, keepdims=True)
        s = np.clip(s + np.clip(rise / np.maximum(bend, 1e-9), -1.0, 1.0), 0.0, 30.0)
    return np.logaddexp(0, -s * z)


def noisy_losses(margin: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Log loss of each recorded label where its annotator's flip rate is known, after one slope was fitted: float64 [n].

    -log(P (1 - e) + (1 - P) e), P = sigmoid(s m), s >= 0 the best of a grid in steps of 10 %. With e = 0 it is `row_losses`: both are
    log losses of the same recorded labels, so heads that know who errs and heads that do not can be compared.

    margin [n] in favour of the recorded label, rate float [n] in [0, 1].

    >>> np.round(noisy_losses(np.array([2.0, 2.0, -2.0]), np.array([0.0, 0.0, 1.0])), 4).tolist()
    [0.0, 0.0, 0.0]
    """
    size = float(np.sqrt(np.mean(np.square(margin, dtype=np.float64))))
    z = margin / (size if size > 0 else 1.0)
    slopes = np.concatenate([[0.0], 1.1 ** np.arange(-50, 37)])[:, None]
    p = 0.5 * (1 + np.tanh(0.5 * slopes * z))
    losses = -np.log(np.maximum(p * (1 - rate) + (1 - p) * rate, 1e-12))
    return losses[int(np.argmin(losses.mean(axis=1)))]


def tuned(loss: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """Index of the ridge with the least mean loss; ties go to the larger. loss [..., R], ridges [R] ascending.

    >>> tuned(np.array([[0.5, 0.4, 0.4], [0.1, 0.2, 0.3]]), np.array([0.1, 1.0, 10.0])).tolist()
    [2, 0]
    """
    assert (np.diff(ridges) > 0).all()
    best = loss.min(axis=-1, keepdims=True)
    near = loss <= best + 1e-9 * np.abs(best)
    return loss.shape[-1] - 1 - np.argmax(near[..., ::-1], axis=-1)


def recommended(losses: np.ndarray, group: np.ndarray, *, level: float = 0.95, draws: int = 1000) -> int:
    """Index of the treatment to use: the one that gains most over the first (plain) among those whose gain is more than luck; else 0.

    A gain is the mean fall of the validation loss, in units of its standard error over groups. The best of 64 is positive by luck alone:
    a gain has to exceed what the largest of all would exceed with probability 1 - level if there were none, by a multiplier bootstrap
    over groups, which knows how the gains hang together.

    losses float [T, n] of validation rows (`row_losses`), group int [n].

    >>> rng = np.random.default_rng(0)
    >>> plain = rng.random(400)
    >>> recommended(np.stack([plain, plain - 0.1, plain + 0.2 * rng.normal(size=400)]), np.arange(400))
    1
    >>> noise = plain + 0.2 * rng.normal(size=(64, 400))
    >>> recommended(np.vstack([plain, noise]), np.arange(400))
    0
    """
    if len(losses) < 2:
        return 0
    gains = (losses[0] - losses[1:]).T
    sums, sizes = group_sums(gains, group), group_sums(np.ones(len(gains)), group)
    if len(sums) < 2:
        return 0
    influence = (sums - gains.mean(axis=0) * sizes) * np.sqrt(len(sums) / (len(sums) - 1)) / len(gains)
    error = np.maximum(np.sqrt((influence**2).sum(axis=0)), 1e-300)
    luck = np.random.default_rng(0).normal(size=(draws, len(sums))) @ (influence / error)
    sure = gains.mean(axis=0) / error > np.quantile(luck.max(axis=1), level)
    return 1 + int(np.argmax(np.where(sure, gains.mean(axis=0), -np.inf))) if sure.any() else 0
