"""The flip rate of labels from margins of a model that did not see them, together with the scale of those margins.

A label is right with probability eta = 1 - e, and a model's margin m in its favour has log-odds s m of being right about the clean label:
P(label) = P eta + (1 - P)(1 - eta), P = sigmoid(s m). A rate fitted at the wrong slope is wrong (card 02-lcpo, oracle 9: a true .2 reads
0 at a quarter of the scale and .3 at four times it), so both are fitted. Margins must be held out or cross-fitted: of labels that the
model has learned, every one agrees with it.

What is identified is the disagreement that remains at large margins. It is the flip rate only if the model is never confidently wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cupel.errors import InputError

Basis = Literal["held-out", "cross-fitted", "in-sample"]

#: fewer labels than this say little about one annotator
FEW = 30
#: reliabilities on the log-odds scale stay within this (about 1e-9 from 0 and 1)
LIMIT = 20.0
#: half the width of a 95 % interval of the log likelihood ratio with one free number
CHI = 1.9207294103470614


class NotIdentifiableError(InputError):
    """The margins say nothing, or too little, about the flip rate."""


@dataclass(frozen=True)
class FlipRateFit:
    """Flip rates and the slope of the margins, with what is known of their precision.

    rate        share of wrong labels, estimated without a prior, weighted by labels; `error` its standard error; `low`, `high` 95 %
    slope       factor that turns margins into log-odds (1: calibrated), and its standard error
    by_annotator [K] rate of each annotator (posterior mode under the Beta prior); nan without labels
    low_by_annotator, high_by_annotator [K]  95 % by the likelihood ratio without the prior, widened for the slope that is not known
    labels [K]  labels of each; few [K]: fewer than 30, mostly the prior
    log_likelihood per label; n labels; converged; basis: where the margins come from
    """

    rate: float
    error: float
    low: float
    high: float
    slope: float
    slope_error: float
    by_annotator: np.ndarray
    low_by_annotator: np.ndarray
    high_by_annotator: np.ndarray
    labels: np.ndarray
    few: np.ndarray
    log_likelihood: float
    n: int
    converged: bool
    basis: Basis


@dataclass(frozen=True)
class Memorisation:
    """In-sample beside held-out: rates, mean margins, and a warning in words where the model has learned its labels by heart."""

    in_sample: float
    held_out: float
    error: float
    margin_in_sample: float
    margin_held_out: float
    warning: str | None


def estimate_flip_rate(
    margins: np.ndarray,
    annotators: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
    slope: float | None = None,
    prior: tuple[float, float] | None = (8.0, 2.0),
    basis: Basis = "held-out",
    largest_error: float = 0.1,
) -> FlipRateFit:
    """Flip rate and slope, jointly, by maximum marginal likelihood of labels given margins.

    margins     float [n], in favour of the recorded label: flip - keep of any objective, or a difference of scores; held out
    annotators  int [n] in 0 ... K-1, one rate each; None: one rate for all
    weights     float [n], at least 0
    slope       fix it (1 for margins known to be calibrated) instead of fitting it
    prior       Beta(a, b) of a reliability 1 - e, for `by_annotator` at the fitted slope (not for `rate` and `slope`); None for none
    largest_error  NotIdentifiableError where the standard error of the rate exceeds it

    The mirrored fit (all labels wrong, the model reversed) has the same likelihood; the slope is at least 0 and a rate above 1/2 refused.
    InputError for bad input; NotIdentifiableError where the margins vanish, contradict the labels on the whole, or leave rate or slope
    (less than two standard errors from 0) too uncertain.

    >>> rng = np.random.default_rng(0)
    >>> m = rng.normal(0, 4, 50_000)
    >>> m = np.where(rng.random(50_000) < 1 / (1 + np.exp(-m)), m, -m)      # labels drawn from the model
    >>> fit = estimate_flip_rate(2 * np.where(rng.random(50_000) < 0.2, -m, m))     # a fifth flipped, margins twice too large
    >>> bool(abs(fit.rate - 0.2) < 4 * fit.error), bool(abs(fit.slope - 0.5) < 4 * fit.slope_error)
    (True, True)
    """
    m, slot, w, n_slots = _checked(margins, annotators, weights)
    scale = float(np.sqrt(np.average(m**2, weights=w)))
    if scale < 1e-12:
        raise NotIdentifiableError(f"all {len(m):,} margins are 0: labels cannot contradict a model that says nothing. Train it further")
    z, fixed = m / scale, None if slope is None else slope * scale
    x, converged = _fit(z, slot, w, n_slots, 1.0, 1.0, fixed)
    eta, found = _sigmoid(x[:n_slots]), float(np.exp(x[-1])) if fixed is None else fixed
    mass = np.bincount(slot, weights=w, minlength=n_slots)
    share = mass / mass.sum()
    if fixed is None and found < 1e-4:
        raise NotIdentifiableError(
            f"the {len(m):,} margins do not favour the recorded labels (slope {found / scale:.2g}): either the model says nothing, or half "
            f"of the labels are wrong. Use a model that predicts held-out labels better than chance"
        )
    if share @ (1 - eta) > 0.5:
        raise NotIdentifiableError(
            f"the {len(m):,} margins contradict the labels more often than not (rate {float(share @ (1 - eta)):.2f}): either the model is "
            f"reversed or the labels are, and margins cannot tell which. Turn the margins round if the model is known to be reversed"
        )
    error, slope_error, wider = _errors(z, slot, w, 1 - eta, found, share, fixed is None)
    if not np.isfinite(error) or error > largest_error:
        raise NotIdentifiableError(
            f"the flip rate is {float(share @ (1 - eta)):.2f} with a standard error of {error:.2g} (more than {largest_error:g}): the "
            f"{len(m):,} margins are too few, or too small, to tell flips from close calls. Give more of them, a better model, or a known "
            f"slope"
        )
    if fixed is None and found < 2 * slope_error:
        raise NotIdentifiableError(
            f"the slope of the {len(m):,} margins is {found / scale:.3g} with a standard error of {slope_error / scale:.2g}: their scale "
            f"is not known well enough to tell flips from close calls. Give more of them, a better model, or a known slope"
        )
    low, high = _likelihood_interval(z * found, slot, w, n_slots, CHI * wider)
    rate, single = float(share @ (1 - eta)), 1 - eta
    if annotators is not None and prior is not None:  # a prior inside the joint fit would move the slope: many modes, one slope
        x, also = _fit(z, slot, w, n_slots, *prior, found)
        single, converged = 1 - _sigmoid(x), converged and also
    rates = np.where(mass > 0, single, np.nan)
    value = float(np.average(_log_marginal(z * found, eta[slot]), weights=w))
    return FlipRateFit(
        rate=rate, error=error, low=max(0.0, rate - 1.959964 * error), high=min(1.0, rate + 1.959964 * error), slope=found / scale,
        slope_error=slope_error / scale, by_annotator=rates, low_by_annotator=np.where(mass > 0, low, np.nan),
        high_by_annotator=np.where(mass > 0, high, np.nan), labels=mass, few=mass < FEW, log_likelihood=value, n=len(m),
        converged=converged, basis=basis,
    )  # fmt: skip


def memorisation(in_sample: np.ndarray, held_out: np.ndarray, *, largest_error: float = 0.1) -> Memorisation:
    """Flip rate read from margins of labels the model was trained on, beside the held-out one: a warning, never an estimate.

    in_sample, held_out: margins in favour of the recorded label. The in-sample rate is fitted at slope 1, as EM in training does. The
    warning stands where it lies three standard errors below the held-out rate and the margins are larger in-sample.
    Raises as `estimate_flip_rate` for the held-out margins.

    >>> rng = np.random.default_rng(0)
    >>> m = rng.normal(0, 4, 20_000)
    >>> clean = np.where(rng.random(20_000) < 1 / (1 + np.exp(-m)), m, -m)
    >>> fresh = np.where(rng.random(20_000) < 0.2, -clean, clean)
    >>> memorisation(np.abs(fresh) + 2, fresh).warning is None, memorisation(fresh, fresh).warning is None
    (False, True)
    """
    outside = estimate_flip_rate(held_out, basis="held-out", largest_error=largest_error)
    inside = estimate_flip_rate(in_sample, slope=1.0, basis="in-sample", largest_error=1.0)
    at_one = estimate_flip_rate(held_out, slope=1.0, basis="held-out", largest_error=1.0)
    error = float(np.hypot(inside.error, max(outside.error, at_one.error)))
    margin_in, margin_out = float(np.mean(in_sample)), float(np.mean(held_out))
    learned = inside.rate + 3 * error < min(outside.rate, at_one.rate) and margin_in > margin_out
    warning = None
    if learned:
        warning = (
            f"margins of trained labels read a flip rate of {inside.rate:.3f}, held-out ones {outside.rate:.3f}: the model has learned "
            f"wrong labels by heart. Cross-fit the posterior (evidence='peer'), train for fewer epochs, or regularise"
        )
    return Memorisation(inside.rate, outside.rate, outside.error, margin_in, margin_out, warning)


def _checked(
    margins: np.ndarray, annotators: np.ndarray | None, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    m = np.asarray(margins, dtype=np.float64)
    if m.ndim != 1 or len(m) < 2:
        raise InputError(f"margins are one number per label, for two labels or more, not an array of shape {m.shape}")
    if not np.isfinite(m).all():
        wrong = ~np.isfinite(m)
        raise InputError(f"{int(wrong.sum()):,} of {len(m):,} margins are not finite (first: row {int(np.argmax(wrong))})")
    w = np.ones(len(m)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != m.shape or not np.isfinite(w).all() or w.min() < 0 or w.sum() <= 0:
        raise InputError("weights are one finite number of at least 0 per margin, not all 0")
    if annotators is None:
        return m, np.zeros(len(m), dtype=np.int64), w, 1
    slot = np.asarray(annotators)
    if slot.shape != m.shape or slot.dtype.kind not in "iu" or slot.min() < 0:
        raise InputError("annotators are one index 0, 1, ... per margin; leave rows of unknown annotators out, or give them one index")
    return m, slot.astype(np.int64), w, int(slot.max()) + 1


def _fit(
    z: np.ndarray, slot: np.ndarray, w: np.ndarray, n_slots: int, a: float, b: float, fixed: float | None
) -> tuple[np.ndarray, bool]:
    """(logit of each reliability, log slope) that maximise the penalised marginal likelihood.

    EM creeps along the ridge of rate and slope; L-BFGS climbs the same likelihood, whose gradient in logit eta is EM's r - eta. Several
    starts of the slope run, of many rows on every k-th, from which the best slope goes on with all of them.
    """
    starts = np.log([1.0, 0.2, 5.0]) if fixed is None else np.zeros(1)
    begin = [np.append(np.full(n_slots, np.log(4.0)), start) if fixed is None else np.full(n_slots, np.log(4.0)) for start in starts]
    step = max(1, len(z) // 4000) if len(begin) > 1 else 1
    tried = [_climb(x, z[::step], slot[::step], w[::step], n_slots, a, b, fixed) for x in begin]
    x, _, converged = min(tried, key=lambda found: found[1])
    if step > 1:
        x, _, converged = _climb(np.append(np.full(n_slots, np.log(4.0)), x[-1]), z, slot, w, n_slots, a, b, fixed)
    for _ in range(5):  # far out, the logit of a reliability is flat: where the likelihood rises inward from 0 or 1, go on from inside
        stuck = _rises_inward(x, z, slot, w, n_slots, a, b, float(np.exp(x[-1])) if fixed is None else fixed)
        if not stuck.any():
            break
        x[:n_slots] = np.where(stuck, np.sign(x[:n_slots]) * np.log(19.0), x[:n_slots])
        x, _, converged = _climb(x, z, slot, w, n_slots, a, b, fixed)
    return x, converged


def _rises_inward(
    x: np.ndarray, z: np.ndarray, slot: np.ndarray, w: np.ndarray, n_slots: int, a: float, b: float, s: float
) -> np.ndarray:
    """Slots so near reliability 0 or 1 that the climb has stopped, though the penalised likelihood rises toward the inside."""
    t = np.clip(s * z, -500, 500) * np.sign(x[:n_slots])[slot]
    rise = np.bincount(slot, weights=w * (np.exp(-t) - 1), minlength=n_slots)
    return (np.abs(x[:n_slots]) > 12) & (rise > np.where(x[:n_slots] > 0, a - 1, b - 1))


def _climb(
    x0: np.ndarray, z: np.ndarray, slot: np.ndarray, w: np.ndarray, n_slots: int, a: float, b: float, fixed: float | None
) -> tuple[np.ndarray, float, bool]:
    """(x, minus the penalised log likelihood per label, converged) from a start."""
    from scipy.optimize import minimize

    total = float(w.sum())

    def against(x: np.ndarray) -> tuple[float, np.ndarray]:
        odds, s = x[:n_slots], float(np.exp(x[-1])) if fixed is None else fixed
        t, eta = s * z, _sigmoid(odds)
        right, wrong = _log_sigmoid(odds), _log_sigmoid(-odds)
        value = np.logaddexp(t + right[slot], wrong[slot]) - np.logaddexp(t, 0)
        r = _sigmoid(t + odds[slot])  # the label is right
        gradient = np.bincount(slot, weights=w * r, minlength=n_slots) - mass * eta + (a - 1) * (1 - eta) - (b - 1) * eta
        if fixed is None:
            gradient = np.append(gradient, s * float(w @ (z * (r - _sigmoid(t)))))
        penalty = float((a - 1) * right.sum() + (b - 1) * wrong.sum())
        return -(float(w @ value) + penalty) / total, -gradient / total

    mass = np.bincount(slot, weights=w, minlength=n_slots)
    limits = [(-LIMIT, LIMIT)] * n_slots + ([(np.log(1e-5), np.log(1e5))] if fixed is None else [])
    found = minimize(against, x0, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-8})
    small = np.abs(_projected(found.x, found.jac, limits)).max() < 1e-5
    return np.asarray(found.x), float(found.fun), bool(small)


def _projected(x: np.ndarray, gradient: np.ndarray, limits: list[tuple[float, float]]) -> np.ndarray:
    """The gradient without the parts that press against a bound."""
    low, high = np.array(limits).T
    return np.where(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)), 0.0, gradient)


def _errors(
    z: np.ndarray, slot: np.ndarray, w: np.ndarray, e: np.ndarray, s: float, share: np.ndarray, free: bool
) -> tuple[float, float, np.ndarray]:
    """Standard errors of the mean rate and of the slope, and the factor [K] by which not knowing the slope raises each rate's variance.

    From the observed information: an arrow of rates around the slope.
    """
    p = _sigmoid(s * z)
    q = _sigmoid(-s * z)
    rate = e[slot]
    f = np.maximum(p * (1 - rate) + q * rate, 1e-300)
    bend = (1 - 2 * rate) * p * q * z
    i_e = np.bincount(slot, weights=w * ((q - p) / f) ** 2, minlength=len(e))
    empty = i_e <= 0
    variance = np.where(empty, np.inf, 1 / np.where(empty, 1.0, i_e))
    seen = share > 0
    direct = float(np.sum(share[seen] ** 2 * variance[seen]))
    if not free:
        return float(np.sqrt(direct)), 0.0, np.ones(len(e))
    i_s = float(w @ ((bend / f) ** 2 - (1 - 2 * rate) * p * q * (q - p) * z**2 / f))
    i_es = np.bincount(slot, weights=w * (2 * p * q * z / f + (q - p) * bend / f**2), minlength=len(e))
    schur = i_s - float(np.sum(i_es[~empty] ** 2 * variance[~empty]))
    if not schur > 0:
        return float("inf"), float("inf"), np.ones(len(e))
    lean = float(np.sum(share[seen] * i_es[seen] * variance[seen]))
    wider = 1 + np.where(empty, 0.0, i_es**2 / np.where(empty, 1.0, i_e)) / schur
    return float(np.sqrt(direct + lean**2 / schur)), float(1 / np.sqrt(schur)), wider


def _likelihood_interval(
    t: np.ndarray, slot: np.ndarray, w: np.ndarray, n_slots: int, fall: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rates of each slot whose log likelihood (concave, without prior) lies within `fall` [K] of the best, by bisection."""
    p = _sigmoid(t)

    def value(e: np.ndarray) -> np.ndarray:
        f = np.maximum(p * (1 - e[slot]) + (1 - p) * e[slot], 1e-300)
        return np.bincount(slot, weights=w * np.log(f), minlength=n_slots)

    def rise(e: np.ndarray) -> np.ndarray:
        f = np.maximum(p * (1 - e[slot]) + (1 - p) * e[slot], 1e-300)
        return np.bincount(slot, weights=w * (1 - 2 * p) / f, minlength=n_slots)

    left, right = np.zeros(n_slots), np.ones(n_slots)
    for _ in range(40):
        middle = (left + right) / 2
        up = rise(middle) > 0
        left, right = np.where(up, middle, left), np.where(up, right, middle)
    best = (left + right) / 2
    wanted = value(best) - fall
    ends = []
    for edge in (0.0, 1.0):
        inner, outer = best.copy(), np.full(n_slots, edge)
        reaches = value(outer) >= wanted
        for _ in range(40):
            middle = (inner + outer) / 2
            inside = value(middle) >= wanted
            inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
        ends.append(np.where(reaches, edge, inner))
    return ends[0], ends[1]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def _log_marginal(t: np.ndarray, eta: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.logaddexp(_log_sigmoid(t) + np.log(eta), _log_sigmoid(-t) + np.log1p(-eta))
