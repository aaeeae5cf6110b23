"""Label error rate P(recorded label != true preference): what each kind of evidence allows to be said.

From one label per pair and an imperfect model the rate is not identifiable: a pair on which the model is confidently wrong looks
exactly like a flipped label. So `single` gives bounds and no point, `repeats` (several votes per pair by different people) a point
with bounds, and `trusted` (a blind re-check of some rows) an estimate with an interval. Every result carries its assumptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cupel.errors import InputError
from cupel.votes.calibrate import p_correct
from cupel.votes.intervals import cluster_bootstrap, wilson
from cupel.votes.lower_bound import lower_bound
from cupel.votes.repeats import ceiling, repeats
from cupel.votes.trusted import TrustedPlan, trusted, trusted_plan, trusted_uniform

if TYPE_CHECKING:
    from cupel.audit.types import FlipRate

__all__ = [
    "TrustedPlan", "ceiling", "p_correct", "repeats", "single", "symmetric_part", "trusted", "trusted_plan", "trusted_uniform",
]  # fmt: skip


def single(
    first: np.ndarray,
    second: np.ndarray,
    sign: np.ndarray,
    margin: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    draws: int = 1000,
    level: float = 0.95,
) -> FlipRate:
    """Bounds of the label error rate from one label per pair; the estimate is None, because the data cannot give one.

    low: rows that must be wrong (contradictions, and 3-cycles that share no row), as a share of the decided rows; the cycles count
    only if true preferences are transitive. high: upper end of the bootstrap interval over prompts of mean 1[m < 0] (a margin of 0
    counts one half), never below Wilson's; it holds unless some definable kind of pair is wrong more often than not.

    first, second: int [n], node (response under a prompt) of each side; sign [n]: +1 first preferred, -1 second, 0 undecided (left
    out); margin float [n]: out-of-fold margin oriented to the recorded label, positive where the model agrees; groups [n]: prompts.

    >>> rng = np.random.default_rng(0)
    >>> wrong = rng.random(2000) < 0.1
    >>> margin = np.where(wrong, -1, 1) * np.abs(rng.normal(size=2000)) + rng.normal(size=2000) * 0.3
    >>> rate = single(np.arange(2000), np.arange(2000, 4000), np.ones(2000), margin, np.arange(2000) // 4)
    >>> rate.estimate is None, rate.low <= 0.1 <= rate.high, rate.basis
    (True, True, 'single')
    """
    from cupel.audit.types import FlipRate

    first, second, sign = np.asarray(first), np.asarray(second), np.asarray(sign)
    margin, groups = np.asarray(margin, dtype=np.float64), np.asarray(groups)
    if len({len(x) for x in (first, second, sign, margin, groups)}) != 1:
        raise InputError("sides, signs, margins and groups need one value per row")
    decided = sign != 0
    n = int(decided.sum())
    if n == 0:
        raise InputError(f"none of {len(sign):,} rows prefers a side: there is no label that could be wrong")
    at = margin[decided]
    if not np.isfinite(at).all():
        raise InputError(f"{int((~np.isfinite(at)).sum()):,} of {n:,} margins are not finite; each row needs one")
    floor = lower_bound(first, second, sign)
    against = (at < 0) + 0.5 * (at == 0)
    spread = cluster_bootstrap(against, groups[decided], seed=seed, draws=draws, level=level, clip=(0.0, 1.0))
    assumptions = [
        "upper bound: unless a whole kind of pair is labelled wrong more often than not",
        "lower bound: true preferences are transitive (contradicting labels need no assumption)",
        "no point estimate: one label per pair cannot tell a wrong label from one that the model does not understand",
    ]
    high = max(wilson(float(against.sum()), n, level)[1], spread.high if np.isfinite(spread.high) else 0.0)
    if not np.isfinite(spread.high):
        assumptions.append("all rows share one group: the upper end treats rows as independent and is too low if they are not")
    rate, slope = symmetric_part(at)
    details = {
        "contradictions": floor.contradictions, "cycles": floor.cycles, "disagreement": spread.estimate,
        "disagreement_low": spread.low, "disagreement_high": spread.high, "groups": spread.groups, "level": level,
        "symmetric_part": rate, "symmetric_slope": slope,
        "symmetric_part_label": "symmetric part, if the encoder is right; not a bound",
    }  # fmt: skip
    return FlipRate("single", None, floor.share, max(high, floor.share), tuple(assumptions), n, details)


def symmetric_part(margin: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
    """(rate, slope) of symmetric careless error, fitted jointly on out-of-fold margins oriented to the recorded label.

    Maximises sum w log[(1 - e) sigmoid(b m) + e sigmoid(-b m)] over 0 <= e < 1/2 and b > 0: the disagreement that remains where
    the margin is large. It equals the error rate only if the model is never confidently wrong; it is no bound of anything else.

    >>> rng = np.random.default_rng(0)
    >>> score = 3 * rng.normal(size=20_000)
    >>> clean = rng.random(20_000) < 1 / (1 + np.exp(-score))
    >>> recorded = clean ^ (rng.random(20_000) < 0.2)
    >>> rate, slope = symmetric_part(np.where(recorded, score, -score))
    >>> round(rate, 2), 0.8 < slope < 1.2
    (0.2, True)
    """
    from scipy.optimize import minimize

    margin = np.asarray(margin, dtype=np.float64)
    weight = np.ones(len(margin)) if weight is None else np.asarray(weight, dtype=np.float64)
    scale = float(np.sqrt(np.average(margin**2, weights=weight)))
    if scale == 0:
        return float("nan"), 0.0
    at = margin / scale
    total = weight.sum()

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        rate, slope = x
        right = 0.5 * (1 + np.tanh(slope * at / 2))
        chance = np.maximum(rate + (1 - 2 * rate) * right, 1e-12)
        turn = (1 - 2 * rate) * right * (1 - right) * at / chance
        return -float(weight @ np.log(chance)) / total, np.array([-(weight @ ((1 - 2 * right) / chance)), -(weight @ turn)]) / total

    starts = ((0.05, 2.0), (0.3, 4.0))
    found = [minimize(loss, x0, jac=True, method="L-BFGS-B", bounds=((0.0, 0.4999), (1e-4, 200.0))) for x0 in starts]
    best = min(found, key=lambda f: f.fun)
    return float(best.x[0]), float(best.x[1] / scale)
