# pyright: strict
"""What was seen with unequal chance, averaged as if all had been: naive, by inverse propensity, clipped, self-normalised; and at what cost.

Numpy only. The treatments `propensity` and `propensity_weights` train with such weights; here they judge: the mean of a loss or reward
over everything, a ranking from clicks, and how much bias and variance a clip trades (card 32-unbiased-mnar, Saito et al. 2020, WSDM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cupel.errors import InputError

Form = Literal["naive", "ips", "snips"]
Floats = NDArray[np.float64]
#: weights of this share of the rows are stated together: where they carry most, few rows decide
TOP = 0.01


@dataclass(frozen=True)
class Average:
    """A mean over everything, estimated from the rows that were seen.

    value with its standard error (of the draw of what is seen, propensities taken as exact); n rows seen; effective: rows of equal
    weight that would be as many, (sum w)^2 / sum w^2; top: share of the weight on the 1 % of rows with most of it; clipped: share of
    rows whose propensity lies below the clip; warnings in words
    """

    form: Form
    value: float
    error: float
    n: int
    effective: float
    top: float
    clipped: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Clip:
    """What a clip M does to the mean loss on clicks: bias, variance and mean square error of the estimate; and to the weights of clicks."""

    clip: float
    bias: float
    variance: float
    error: float
    effective: float
    top: float


def effective_size(weights: ArrayLike) -> float:
    """Rows of equal weight that would be as many: (sum w)^2 / sum w^2; 0 where there is no weight.

    >>> effective_size([1, 1, 1, 1]), effective_size([10, 0, 0])
    (4.0, 1.0)
    """
    w = np.asarray(weights, dtype=np.float64)
    square = float(w @ w)
    return float(w.sum()) ** 2 / square if square > 0 else 0.0


def top_share(weights: ArrayLike, share: float = TOP) -> float:
    """Share of the weight on the `share` of rows with most of it (at least one row); 0 where there is no weight.

    >>> top_share([1.0] * 99 + [101.0])
    0.505
    """
    w = np.sort(np.asarray(weights, dtype=np.float64))[::-1]
    total = float(w.sum())
    return float(w[: max(1, round(share * len(w)))].sum()) / total if total > 0 else 0.0


def average(
    values: ArrayLike, exposure: ArrayLike, *, form: Form = "snips", clip: float = 0.0, total: int | None = None, wanted: ArrayLike = 1.0
) -> Average:
    """Mean of a value over everything, from the values of the rows that were seen and the chance with which each was.

    naive  mean of the values seen: biased where exposure goes with the value
    ips    sum v w / total, w = wanted / max(theta, clip): unbiased without a clip; its error is large where theta is small, and all of
           an error in the scale of theta is in the estimate
    snips  sum v w / sum w: self-normalised; its bias is of the order of 1 / n, the scale of theta cancels, and it stays within the values

    exposure  theta in (0, 1]. clip in [0, 1]. total: number of rows, seen or not (default: those given, as in a log of actions)
    wanted    the chance that each row would have under what is asked for: 1 for "everything", the probability of the action under
              another policy for a log. At least 0

    InputError for other values, with the count and the first row.

    >>> found = average([1.0, 0.0], [0.5, 0.25], form="ips", total=6)
    >>> round(found.value, 4), round(found.effective, 2), average([1.0, 0.0], [0.5, 0.25]).value
    (0.3333, 1.8, 0.3333333333333333)
    """
    v, theta = _same("values", values), _propensities(exposure)
    if v.shape != theta.shape:
        raise InputError(f"{len(v):,} values and {len(theta):,} propensities: give one of each per row seen")
    n = len(v) if total is None else int(total)
    if n < len(v):
        raise InputError(f"total is {n:,}, fewer than the {len(v):,} rows seen")
    w = _wanted(wanted, len(v)) / np.maximum(theta, _clip(clip))
    if form == "naive":
        mean, error = float(v.mean()), float(v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else float("nan")
        w = np.ones(len(v))
    elif form == "ips":
        terms = w * v
        mean = float(terms.sum()) / n
        error = float(np.sqrt(max(0.0, float(terms @ terms) - n * mean**2) / (n * (n - 1)))) if n > 1 else float("nan")
    elif form == "snips":
        weight = float(w.sum())
        if weight <= 0:
            raise InputError(f"none of the {len(v):,} rows seen has weight: nothing that is wanted was seen")
        mean = float(w @ v) / weight
        error = float(np.sqrt(((w * (v - mean)) ** 2).sum())) / weight
    else:
        raise InputError(f"form is naive, ips or snips, not {form!r}")
    below = float((theta < clip).mean())
    size, top = effective_size(w), top_share(w)
    return Average(form, mean, error, len(v), size, top, below, _warned(clip, below, size, len(v)))


def clipping(exposure: ArrayLike, relevance: ArrayLike, gap: ArrayLike, clips: Sequence[float]) -> list[Clip]:
    """Bias, variance and mean square error of the mean loss on clicks for each clip M, in closed form, [len(clips)].

    The estimate is mean of (Y/t) d1 + (1 - Y/t) d0, t = max(theta, M), P(Y = 1) = theta gamma: with gap = d1 - d0,
    bias = mean (theta/t - 1) gamma gap and variance = sum theta gamma (1 - theta gamma) / t^2 gap^2 / n^2 (card 32-unbiased-mnar,
    oracle 1). M = 0 is unbiased, M = 1 the naive loss. effective and top are of the weights of clicks, each counted with its chance:
    (sum theta gamma / t)^2 / sum theta gamma / t^2, and the share of the weight on the 1 % of rows with most of it.

    exposure theta in (0, 1], relevance gamma in [0, 1] (known, or a model's), gap: loss if relevant minus loss if not. InputError for
    other values.

    >>> d1, d0 = np.array([0.513015252, 0.798138869, 0.313261688]), np.array([0.913015252, 0.598138869, 1.313261688])
    >>> for row in clipping([0.8, 0.3, 0.1], [0.6, 0.5, 0.2], d1 - d0, [0.0, 0.25]):
    ...     print(round(row.bias, 6) + 0, round(row.variance, 6), round(row.error, 6))
    0.0 0.231007 0.231007
    0.04 0.048074 0.049674
    """
    theta, d = _propensities(exposure), _same("gap", gap)
    gamma = _same("relevance", relevance)
    if not (theta.shape == gamma.shape == d.shape):
        raise InputError(f"{len(theta):,} propensities, {len(gamma):,} relevances and {len(d):,} gaps: give one of each per row")
    _refuse("relevance", (gamma < 0) | (gamma > 1), "in [0, 1]")
    chance, out = theta * gamma, list[Clip]()
    for clip in clips:
        t = np.maximum(theta, _clip(clip))
        bias = float(((theta / t - 1) * gamma * d).mean())
        variance = float((chance * (1 - chance) / t**2 * d**2).sum()) / len(t) ** 2
        spread = float((chance / t**2).sum())
        size = float((chance / t).sum()) ** 2 / spread if spread > 0 else 0.0
        out.append(Clip(float(clip), bias, variance, variance + bias**2, size, top_share(chance / t)))
    return out


def ranking(
    clicks: ArrayLike, exposure: ArrayLike, scores: ArrayLike, *, k: int, form: Form = "snips", clip: float = 0.01, seed: int = 0
) -> dict[str, float]:
    """Quality of a ranking of candidates judged by clicks that were seen with unequal chance: {"dcg": ..., "recall": ...} at k.

    dcg = sum over clicked items of rank r <= k of w / log2(r + 1), recall = sum of their w; w = 1 (naive, divided by the number of
    clicks), 1 / max(theta, clip) (ips: not divided), the same divided by its sum over all clicked candidates (snips, in [0, 1]). The
    published code discounts by 1 at ranks 1 and 2; here as usual. MAP is not given: no card says how it is weighted.

    clicks 0 or 1, exposure in (0, 1], scores: one each per candidate. Equal scores are put in an order by the seed. InputError for other
    values, k below 1, or candidates without a click.

    >>> clicks, theta = [1, 0, 1, 0, 0, 1], [0.5, 0.4, 0.1, 1, 0.2, 0.25]
    >>> ranking(clicks, theta, [0.9, 0.8, 0.7, 0.3, 0.2, 0.1], k=3)
    {'dcg': 0.4375, 'recall': 0.75}
    """
    y, theta, s = _same("clicks", clicks), _propensities(exposure), _same("scores", scores)
    if not (y.shape == theta.shape == s.shape):
        raise InputError(f"{len(y):,} clicks, {len(theta):,} propensities and {len(s):,} scores: give one of each per candidate")
    _refuse("clicks", (y != 0) & (y != 1), "0 or 1")
    if k < 1 or not y.any():
        raise InputError(f"k is at least 1 (here {k}) and at least one of the {len(y):,} candidates has a click ({int(y.sum())} have)")
    if form not in ("naive", "ips", "snips"):
        raise InputError(f"form is naive, ips or snips, not {form!r}")
    w = y if form == "naive" else y / np.maximum(theta, _clip(clip))
    share = w if form == "ips" else w / w.sum()
    rank = np.empty(len(s))
    rank[np.lexsort((np.random.default_rng(seed).random(len(s)), -s))] = np.arange(1, len(s) + 1)
    inside = rank <= k
    return {"dcg": float((share / np.log2(rank + 1))[inside].sum()), "recall": float(share[inside].sum())}


# ---- checks ----------------------------------------------------------------------------------------------------------------


def _same(name: str, values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) == 0:
        raise InputError(f"{name} are one number per row, for at least one row, not an array of shape {found.shape}")
    _refuse(name, ~np.isfinite(found), "finite")
    return found


def _propensities(exposure: ArrayLike) -> Floats:
    """Propensities, none of them silently taken to be 1."""
    theta = np.asarray(exposure, dtype=np.float64)
    if theta.ndim != 1 or len(theta) == 0:
        raise InputError(f"exposure is one propensity per row, for at least one row, not an array of shape {theta.shape}")
    _refuse("exposure", ~((theta > 0) & (theta <= 1)), "a probability in (0, 1]: a row that could not be seen cannot be corrected for")
    return theta


def _wanted(wanted: ArrayLike, n: int) -> Floats:
    found = np.asarray(wanted, dtype=np.float64)
    if found.ndim > 1 or (found.ndim == 1 and len(found) != n):
        raise InputError(f"wanted is one number, or one for each of the {n:,} rows seen, not an array of shape {found.shape}")
    _refuse("wanted", np.atleast_1d(~(np.isfinite(found) & (found >= 0))), "finite and at least 0")
    return np.broadcast_to(found, (n,))


def _refuse(name: str, wrong: NDArray[Any], rule: str) -> None:
    if wrong.any():
        raise InputError(f"{int(wrong.sum()):,} of {len(wrong):,} values of {name} are not {rule} (first: row {int(np.argmax(wrong))})")


def _clip(clip: float) -> float:
    if not 0 <= clip <= 1:
        raise InputError(f"clip is a propensity below which none is used, in [0, 1], not {clip!r}")
    return clip


def _warned(clip: float, below: float, effective: float, n: int) -> tuple[str, ...]:
    out: list[str] = []
    if clip > 0 and below == 1:
        out.append(f"the clip {clip:g} exceeds every propensity: this is a rescaled naive mean")
    if effective < 0.1 * n:
        out.append(f"the {n:,} rows weigh as {effective:,.0f} equal ones: a few with small propensities decide. Clip, or use snips")
    return tuple(out)
