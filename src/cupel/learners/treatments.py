"""Noise treatments of the linear head: maps on the target (p, w) of arrays; none of them ever sees the head.

`conservative` and `unbiased` are closed forms. The two EM treatments replace p by the posterior that the first side is truly better,
given all votes on the pair, the reliability of who voted, and a margin from a head that saw none of these labels (cross-fitted).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.records.schema import Votes

TreatmentName = Literal["none", "em", "em-annotator", "conservative", "unbiased"]
TREATMENTS: tuple[TreatmentName, ...] = get_args(TreatmentName)

#: Beta prior of a reliability: 4 agreeing and 2 disagreeing votes less one of each (card 00-annotator-models, one-coin)
PRIOR = (4.0, 2.0)
#: reliabilities stay this far from 0 and 1
EDGE = 1e-3
#: an annotator with this many votes can be told from the others
RECURS = 20


def conservative(p: np.ndarray, flip: float) -> np.ndarray:
    """Target smoothed toward one half: p <- (1 - e) p + e (1 - p) (label smoothing, cDPO); e = flip in [0, 1/2), else InputError.

    >>> conservative(np.array([1.0, 0.0, 0.5]), 0.1).tolist()
    [0.9, 0.1, 0.5]
    """
    e = _rate(flip)
    return (1 - e) * p + e * (1 - p)


def unbiased(p: np.ndarray, flip: float) -> np.ndarray:
    """Target whose expected loss under symmetric flips equals the clean loss: p <- (p - e) / (1 - 2e), which may leave [0, 1].

    Chowdhury et al. 2024, "Provably Robust DPO", arXiv:2403.00409. e = flip in [0, 0.45), else InputError: the factor explodes.

    >>> unbiased(np.array([1.0, 0.0]), 0.25).tolist()
    [1.5, -0.5]
    """
    e = _rate(flip)
    if e >= 0.45:
        raise InputError(f"unbiased: flip {e} leaves almost no signal (the target grows by 1 / (1 - 2e)); use em, or a rate below 0.45")
    return (p - e) / (1 - 2 * e)


@dataclass(frozen=True)
class Posterior:
    """What EM found. Of m pairs and K annotators.

    p            [m] posterior that the pair's first response is better, given margin and votes
    evidence     [m] log-odds of the votes alone (without the margin)
    reliability  [K] probability that a vote of the annotator agrees with the truth; below 1/2: tends to answer the reverse
    votes        [K] votes (sum of weights) of each annotator
    slope        factor that turns the margin into log-odds of the truth
    flip_rate    share of votes that are wrong, estimated: 1 - vote-weighted mean reliability
    log_likelihood  per vote, at the end
    iterations, converged
    """

    p: np.ndarray
    evidence: np.ndarray
    reliability: np.ndarray
    votes: np.ndarray
    slope: float
    flip_rate: float
    log_likelihood: float
    iterations: int
    converged: bool


def one_coin_posterior(
    margin: np.ndarray,
    pair: np.ndarray,
    p: np.ndarray,
    w: np.ndarray,
    annotator: np.ndarray,
    n_annotators: int,
    *,
    prior: tuple[float, float] = PRIOR,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> Posterior:
    """Truth of each pair with one reliability per annotator and the slope of a cross-fitted margin, fitted jointly.

    Truth t of a pair has prior odds exp(slope * margin); a vote of annotator k agrees with t with probability eta_k ~ Beta(prior).
    E: log-odds(t) = slope * margin + sum over its votes of w (2p - 1) logit(eta_k).
    M: eta_k = (sum of w P(agrees) + a - 1) / (sum of w + a + b - 2) over k's votes; slope by logistic regression of P(t) on the margin.
    EM creeps where the flip rate is high, so its likelihood is climbed by L-BFGS: the same fixed points, in tens of steps.
    One annotator for all votes is the global flip rate (card 02-lcpo, likelihood form). (t, eta) and (reverse t, 1 - eta) fit the votes
    equally well: where the mean reliability ends below one half the mirror image is returned.

    margin [m] of each pair, from a head that saw none of the pair's labels; pair int [n] of each vote; p, w [n]: the vote in the
    orientation of the pair, and its weight; annotator int [n] in 0 ... n_annotators - 1.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random(2000) < 0.5
    >>> pair, who = np.repeat(np.arange(2000), 3), np.tile(np.arange(3), 2000)
    >>> right = rng.random(6000) < np.array([0.9, 0.8, 0.2])[who]
    >>> found = one_coin_posterior(np.zeros(2000), pair, (truth[pair] == right) * 1.0, np.ones(6000), who, 3)
    >>> bool(np.abs(found.reliability - [0.9, 0.8, 0.2]).max() < 0.03)
    True
    """
    from scipy.optimize import minimize

    m = len(margin)
    a, b = prior
    scale = float(np.sqrt(np.mean(margin**2))) if m else 0.0
    z = margin / scale if scale > 0 else np.zeros(m)
    lean = w * (2 * p - 1)  # [n]
    total = np.bincount(annotator, weights=w, minlength=n_annotators)
    mass = float(total.sum())

    def against(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log posterior of (log-odds of the reliabilities, slope) per vote, and its gradient: EM's, by Fisher's identity."""
        right, wrong = -np.logaddexp(0, -x[:-1]), -np.logaddexp(0, x[:-1])
        odds = x[-1] * z
        yes = -np.logaddexp(0, -odds) + np.bincount(pair, weights=w * (p * right[annotator] + (1 - p) * wrong[annotator]), minlength=m)
        no = -np.logaddexp(0, odds) + np.bincount(pair, weights=w * ((1 - p) * right[annotator] + p * wrong[annotator]), minlength=m)
        q = _sigmoid(yes - no)
        agrees = np.bincount(annotator, weights=w * (p * q[pair] + (1 - p) * (1 - q[pair])), minlength=n_annotators)
        turn = agrees + a - 1 - (total + a + b - 2) * np.exp(right)
        value = float(np.logaddexp(yes, no).sum() + (a - 1) * right.sum() + (b - 1) * wrong.sum())
        return -value / mass, -np.append(turn, z @ (q - _sigmoid(odds))) / mass

    bound = float(np.log((1 - EDGE) / EDGE))
    start = np.append(np.full(n_annotators, np.log(3.0)), 1.0 if scale > 0 else 0.0)
    limits = [(-bound, bound)] * n_annotators + [(-50.0, 50.0) if scale > 0 else (0.0, 0.0)]
    found = minimize(
        against, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": max_iterations, "ftol": 1e-15, "gtol": tolerance}
    )
    eta, slope = _sigmoid(found.x[:-1]), float(found.x[-1])
    if mass > 0 and float(total @ eta) / mass < 0.5:
        eta, slope = 1 - eta, -slope
    evidence = np.bincount(pair, weights=lean * _logit(eta)[annotator], minlength=m)
    odds = slope * z
    likelihood = np.logaddexp(
        -np.logaddexp(0, -odds) + _sum_log(pair, p, w, eta[annotator], m),
        -np.logaddexp(0, odds) + _sum_log(pair, 1 - p, w, eta[annotator], m),
    )
    return Posterior(
        p=_sigmoid(odds + evidence), evidence=evidence, reliability=eta, votes=total, slope=slope / scale if scale > 0 else 0.0,
        flip_rate=1 - float(total @ eta) / mass if mass > 0 else float("nan"),
        log_likelihood=float(likelihood.sum()) / max(mass, 1e-300), iterations=int(found.nit),
        converged=bool(np.abs(against(found.x)[1]).max() < 1e-4),
    )  # fmt: skip


def default_treatment(votes: Votes) -> TreatmentName:
    """`em-annotator` where at least half of the votes come from annotators with 20 votes or more (two or more people), else `em`."""
    known = votes.annotator[(votes.annotator >= 0) & (votes.sign != 0)]
    counts = np.bincount(known) if len(known) else np.zeros(0, dtype=int)
    often = counts >= RECURS
    stated = int((votes.sign != 0).sum())
    return "em-annotator" if often.sum() >= 2 and counts[often].sum() * 2 >= stated else "em"


def check_treatment(name: str, flip: float | None) -> TreatmentName:
    """The treatment's name, if it exists and has the flip rate it needs. InputError otherwise."""
    if name not in TREATMENTS:
        raise InputError(f"there is no treatment {name!r}; choose one of {', '.join(TREATMENTS)}")
    if name in ("conservative", "unbiased") and flip is None:
        raise InputError(f"treatment {name} needs a known flip rate: --flip 0.1 (flip=0.1). Where it is not known, em estimates it")
    if name not in ("conservative", "unbiased") and flip is not None:
        raise InputError(
            f"treatment {name} takes no flip rate (em and em-annotator estimate it); leave flip out, or use conservative or unbiased"
        )
    return name  # type: ignore[return-value]


def _rate(flip: float) -> float:
    if not 0 <= flip < 0.5:
        raise InputError(f"a flip rate lies in [0, 1/2), not {flip!r}; labels that are wrong more often than not should be swapped first")
    return float(flip)


def _sum_log(pair: np.ndarray, p: np.ndarray, w: np.ndarray, eta: np.ndarray, m: int) -> np.ndarray:
    return np.bincount(pair, weights=w * (p * np.log(eta) + (1 - p) * np.log1p(-eta)), minlength=m)


def _logit(x: np.ndarray) -> np.ndarray:
    return np.log(x) - np.log1p(-x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
