"""How many recorded choices are wrong: a rate from a source's own distributions, fitted with their sharpness, and a probability for each.

The model (ours; method card 20-usersim asks that an estimate of the noise is logged and names none). The true choice follows the mean of a
source's distributions, sharpened by an exponent tau, and is replaced by a uniform other option with probability e:

    q = mean_k(p_k)^tau / sum        P(recorded = a) = (1 - e) q_a + e (1 - q_a) / (n - 1)

e and tau are found together by maximum likelihood: at a wrong sharpness the rate is wrong too. What is identified is how often the recorded
choice is one that the source is sure against. It is the rate of wrong records only if the source is never sure of something wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.curate.rationales import Padded, Source, chosen_of, padded
from cupel.errors import InputError

#: half the width of a 95 % interval of the log likelihood ratio with one free number
_CHI = 1.9207294103470614
#: sharpness is looked for between exp(-_RANGE) and exp(_RANGE)
_RANGE = 4.0


@dataclass(frozen=True)
class ChoiceNoise:
    """Estimated share of wrong recorded choices.

    rate, low, high   maximum likelihood and 95 % by the profile of the likelihood (clusters of users are not allowed for)
    sharpness         tau; 1 where the source is as sure as it should be
    wrong             float64 [scenes], the probability of each scene's record to be wrong; its mean over a selection is the noise kept
    """

    rate: float
    low: float
    high: float
    sharpness: float
    wrong: np.ndarray


def choice_noise(probs: Source | Padded, chosen: np.ndarray, *, mask: np.ndarray | None = None, grid: int = 41) -> ChoiceNoise:
    """The rate of wrong recorded choices (`ChoiceNoise`) by the source `probs` ([scenes, K, n] or a list), which has not seen them.

    grid: rates between 0 and chance at which the profile is computed before it is refined. InputError for no scene, or as `padded`.

    >>> p = np.tile([[[0.98, 0.01, 0.01]]], (200, 1, 1))
    >>> found = choice_noise(p, np.arange(200) % 5 // 4)
    >>> bool(found.low < 0.2 < found.high), found.wrong[[0, 4]].round(2).tolist()
    (True, [0.0, 1.0])
    """
    from scipy.optimize import minimize_scalar

    source = padded(probs, mask)
    if not len(source.p):
        raise InputError("no scene: there is nothing to estimate a rate from")
    a, n = chosen_of(chosen, source), source.sizes
    mean = source.p.mean(axis=1)
    logs = np.where(source.there, np.log(np.where(source.there, mean, 1.0)), -np.inf)
    logs -= logs.max(axis=1, keepdims=True)
    at = logs[np.arange(len(a)), a]

    def chance(log_tau: float) -> np.ndarray:
        """q_a of every scene."""
        tau = np.exp(log_tau)
        return np.exp(tau * at) / np.exp(tau * logs).sum(axis=1)

    def loss(log_tau: float, e: float) -> float:
        q = chance(log_tau)
        return -float(np.log(np.maximum((1 - e) * q + e * (1 - q) / (n - 1), 1e-300)).sum())

    def profile(e: float) -> tuple[float, float]:
        found: Any = minimize_scalar(loss, bounds=(-_RANGE, _RANGE), args=(e,), method="bounded", options={"xatol": 1e-4})
        return float(found.fun), float(found.x)

    top = 1 - 1 / n.min()  # at chance the record says nothing, beyond it it speaks against itself
    rates = np.linspace(0, top, grid)
    losses = np.array([profile(e)[0] for e in rates])
    best = int(losses.argmin())
    ends = (rates[max(best - 1, 0)], rates[min(best + 1, grid - 1)])
    fine: Any = minimize_scalar(lambda e: profile(e)[0], bounds=ends, method="bounded", options={"xatol": 1e-5})
    rate, least = (float(fine.x), float(fine.fun)) if fine.fun < losses[best] else (float(rates[best]), float(losses[best]))
    inside = losses <= least + _CHI
    low = _crossing(rates, losses, least + _CHI, rate, inside, down=True)
    high = _crossing(rates, losses, least + _CHI, rate, inside, down=False)
    log_tau = profile(rate)[1]
    q = chance(log_tau)
    other = rate * (1 - q) / (n - 1)
    return ChoiceNoise(rate, low, high, float(np.exp(log_tau)), other / np.maximum((1 - rate) * q + other, 1e-300))


def _crossing(rates: np.ndarray, losses: np.ndarray, level: float, rate: float, inside: np.ndarray, *, down: bool) -> float:
    """Where the profile reaches `level` on one side of the best rate, by straight lines between points of the grid."""
    beyond = np.flatnonzero(~inside & (rates < rate if down else rates > rate))
    if not len(beyond):
        return float(rates[0] if down else rates[-1])
    out = beyond[-1] if down else beyond[0]
    back = out + 1 if down else out - 1
    x, y = (rates[back], losses[back]) if inside[back] else (rate, losses.min())
    share = (losses[out] - level) / max(losses[out] - y, 1e-12)
    return float(rates[out] + np.clip(share, 0, 1) * (x - rates[out]))
