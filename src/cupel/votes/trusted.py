"""Label error from a blind re-check of some rows: which rows to draw, and what their answers say.

Rows are sorted by suspicion and cut into strata of equal size; the same number is drawn at random from each.
The spread makes the estimate better than a uniform sample of the same size; equal shares keep it safe where the scorer is useless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import agresti_coull, wilson

if TYPE_CHECKING:
    from cupel.audit.types import FlipRate

#: added to the hits and to the misses of a stratum when its variance is estimated
SMOOTHING = 0.3

ASSUMPTIONS = (
    "the re-checked rows were drawn at random within strata of suspicion, and answered without seeing the recorded label",
    "the rate is measured against the re-check: one fallible check is not the truth",
)


@dataclass(frozen=True)
class TrustedPlan:
    """Rows to re-check. rows [n] in random order, stratum [n] of each, stratum_of [N] of every row, sizes [strata]."""

    rows: np.ndarray
    stratum: np.ndarray
    stratum_of: np.ndarray
    sizes: np.ndarray


def strata_of(suspicion: np.ndarray, seed: int, strata: int = 6) -> np.ndarray:
    """Stratum 0 (least suspect) ... strata-1 of every row, int64 [N]; equal sizes up to one row, ties broken by the seed.

    >>> strata_of(np.array([0.3, -1.0, 2.0, 0.1]), seed=0, strata=2).tolist()
    [1, 0, 1, 0]
    """
    suspicion = np.asarray(suspicion, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(suspicion))
    if len(bad):
        raise InputError(f"{len(bad):,} of {len(suspicion):,} suspicions are not finite (first: row {bad[0]}); leave them out")
    shuffled = np.random.default_rng(seed).permutation(len(suspicion))
    order = shuffled[np.argsort(suspicion[shuffled], kind="stable")]
    out = np.empty(len(suspicion), dtype=np.int64)
    out[order] = np.arange(len(suspicion)) * strata // max(len(suspicion), 1)
    return out


def trusted_plan(suspicion: np.ndarray, n: int, seed: int, strata: int = 6) -> TrustedPlan:
    """n rows drawn at random, equally from each of the strata of suspicion (the rest, n modulo strata, from random strata).

    suspicion: float [N], larger is more suspect. All rows where n >= N. InputError for n < 1.

    >>> plan = trusted_plan(np.arange(600.0), 60, seed=0)
    >>> np.bincount(plan.stratum).tolist(), plan.sizes.tolist()
    ([10, 10, 10, 10, 10, 10], [100, 100, 100, 100, 100, 100])
    """
    if n < 1 or strata < 1:
        raise InputError(f"at least one row and one stratum are needed, not n = {n}, strata = {strata}")
    strata = max(1, min(strata, n, len(suspicion)))
    of = strata_of(suspicion, seed, strata)
    sizes = np.bincount(of, minlength=strata)
    rng = np.random.default_rng([seed, 1])
    share = np.full(strata, n // strata)
    share[rng.permutation(strata)[: n % strata]] += 1
    share = np.minimum(share, sizes)
    while share.sum() < min(n, len(of)):  # a small stratum ran out
        share[int(np.argmax(sizes - share))] += 1
    by_stratum = np.split(np.argsort(of, kind="stable"), np.cumsum(sizes)[:-1])
    rows = np.concatenate([rng.permutation(members)[:k] for members, k in zip(by_stratum, share, strict=True)])
    rows = rng.permutation(rows)
    return TrustedPlan(rows, of[rows], of, sizes)


def trusted(
    wrong: np.ndarray,
    stratum: np.ndarray,
    sizes: np.ndarray,
    *,
    double: tuple[int, int] | None = None,
    level: float = 0.95,
) -> FlipRate:
    """Label error rate from re-checked rows, stratified by suspicion.

    tau = sum_h W_h k_h / n_h, v = sum_h W_h^2 p_h (1 - p_h) / n_h with p_h = (k_h + a) / (n_h + 2 a), W_h = N_h / N;
    n_eff = max(n, tau (1 - tau) / v); interval: Wilson at (tau, n_eff). Strata without an answer join their neighbour. a = 0.3: with
    eight answers in a stratum, 1/2 covers more than it says (98.7 % where suspicion is sharp) and 0.2 begins to cover too little.

    wrong [n]: 1 where the re-check contradicts the recorded label, else 0; stratum int [n]; sizes [strata]: rows of each stratum.
    double: (pairs of independent re-checks that disagree, pairs of re-checks): the re-checker's own error d solves
    2 d (1 - d) = disagree / pairs, the rate becomes (tau - d) / (1 - 2 d) and its variance includes that of d (delta method).
    InputError where nothing was answered, or where re-checks agree no more often than coins.

    >>> wrong, stratum = np.array([0, 0, 0, 0, 0, 1, 0, 0, 1, 1]), np.repeat([0, 1], 5)
    >>> rate = trusted(wrong, stratum, np.array([50, 50]))
    >>> round(rate.estimate, 3), round(rate.low, 3), round(rate.high, 3), rate.n
    (0.3, 0.127, 0.557, 10)
    """
    from cupel.audit.types import FlipRate

    wrong, stratum, sizes = np.asarray(wrong, dtype=np.float64), np.asarray(stratum), np.asarray(sizes, dtype=np.float64)
    if len(wrong) == 0:
        raise InputError("no row was re-checked: fill in the sheet of `cupel review` and give it with --trusted")
    if not np.isin(wrong, (0.0, 1.0)).all():
        raise InputError("a re-checked row is either wrong (1) or right (0); leave undecided rows out")
    if stratum.shape != wrong.shape or stratum.min() < 0 or stratum.max() >= len(sizes):
        raise InputError(f"each of {len(wrong):,} re-checked rows needs a stratum in 0 ... {len(sizes) - 1}")
    hits, checked, weight = _merged(wrong, stratum, sizes)
    rate = float(weight @ (hits / checked))
    p = (hits + SMOOTHING) / (checked + 2 * SMOOTHING)
    variance = float((weight**2 * p * (1 - p) / checked).sum())
    n = len(wrong)
    assumptions: list[str] = [*ASSUMPTIONS]
    raw, details = rate, {}
    if double is None:
        effective = max(float(n), rate * (1 - rate) / variance)
    else:
        error, error_variance = recheck_error(*double)
        scale = 1 - 2 * error
        variance = variance / scale**2 + error_variance * ((2 * rate - 1) / scale**2) ** 2
        rate = float(np.clip((rate - error) / scale, 0, 1))
        smooth = (rate * n + 0.5) / (n + 1)
        effective = max(1.0, smooth * (1 - smooth) / variance)
        details = {"recheck_error": error, "recheck_pairs": int(double[1]), "against_recheck": raw}
        assumptions[1] = f"re-checks err independently at {error:.3f}, as {double[1]} double-checked pairs say"
    low, high = wilson(rate * effective, effective, level)
    details = {
        "strata": [
            {"wrong": int(k), "checked": int(c), "weight": float(w)} for k, c, w in zip(hits, checked, weight, strict=True)
        ],
        "n_effective": float(effective), "standard_error": float(np.sqrt(variance)), "level": level, **details,
    }  # fmt: skip
    return FlipRate("trusted", rate, low, high, tuple(assumptions), n, details)


def trusted_uniform(wrong: np.ndarray, level: float = 0.95) -> FlipRate:
    """Label error rate from rows re-checked uniformly at random: k / n with Agresti and Coull's interval; the simple twin of `trusted`.

    >>> rate = trusted_uniform(np.array([1, 0, 0, 0, 0, 0, 0, 1, 0, 0]))
    >>> rate.estimate, round(rate.low, 3), round(rate.high, 3)
    (0.2, 0.046, 0.521)
    """
    from cupel.audit.types import FlipRate

    wrong = np.asarray(wrong, dtype=np.float64)
    if len(wrong) == 0:
        raise InputError("no row was re-checked: fill in the sheet of `cupel review` and give it with --trusted")
    low, high = agresti_coull(float(wrong.sum()), len(wrong), level)
    text = ("the re-checked rows were drawn uniformly at random, and answered without seeing the recorded label", ASSUMPTIONS[1])
    return FlipRate("trusted", float(wrong.mean()), low, high, text, len(wrong), {"n_effective": float(len(wrong)), "level": level})


def recheck_error(disagree: int, pairs: int) -> tuple[float, float]:
    """(d, its variance): error rate of a re-check from pairs of independent re-checks of the same rows.

    They disagree with probability D = 2 d (1 - d), so d = (1 - sqrt(1 - 2 D)) / 2 with variance D' (1 - D') / (4 pairs (1 - 2 D)),
    D' = (disagree + 1/2) / (pairs + 1). InputError where D >= 1/2 or there are no pairs.

    >>> [round(x, 5) for x in recheck_error(9, 50)]
    [0.1, 0.00118]
    """
    if pairs < 1 or not 0 <= disagree <= pairs:
        raise InputError(f"double checks need pairs >= 1 and 0 <= disagreements <= pairs, not {disagree} of {pairs}")
    share = disagree / pairs
    if share >= 0.5:
        raise InputError(f"{disagree} of {pairs} double checks disagree: the re-check is no better than a coin and says nothing")
    smooth = (disagree + 0.5) / (pairs + 1)
    return float((1 - np.sqrt(1 - 2 * share)) / 2), float(smooth * (1 - smooth) / (4 * pairs * (1 - 2 * share)))


def _merged(wrong: np.ndarray, stratum: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(wrong, checked, weight) per stratum; one without an answer lends its weight to the next (else the last)."""
    hits = np.bincount(stratum, weights=wrong, minlength=len(sizes))
    checked = np.bincount(stratum, minlength=len(sizes)).astype(np.float64)
    answered = np.flatnonzero(checked)
    target = answered[np.minimum(np.searchsorted(answered, np.arange(len(sizes))), len(answered) - 1)]
    size = np.bincount(target, weights=sizes, minlength=len(sizes))[answered]
    return hits[answered], checked[answered], size / size.sum()
