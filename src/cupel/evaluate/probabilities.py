"""How good probabilities are on labels they were not fitted to: log loss and Brier score beside two models that know nothing.

A constant one half and a model that sees only length are what any reward model has to beat; differences to them are paired on the same
comparisons, with intervals by group. The calibration error (ECE) stands beside them and never alone: a constant one half has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.calibration import Calibration, Method, Target, checked, fit_calibration, fit_slope, out_of_fold, sigmoid
from cupel.evaluate.paired import Share
from cupel.votes.folds import group_folds
from cupel.votes.intervals import cluster_bootstrap


@dataclass(frozen=True)
class CalibrationReport:
    """How good probabilities are on labels they were not fitted to; losses are per comparison, lower is better.

    calibration  fitted to all rows: what is saved beside a model
    loss         {raw, calibrated, half, length: {log_loss, brier: Share}}; half is a constant one half (ln 2 and 1/4)
    difference   {raw, half, length: {log_loss, brier: Share}}: calibrated minus it, on the same rows and draws
    ece          {raw, calibrated, half}: shown beside the losses only; a constant one half has almost none
    reliability  {predicted, observed, low, high, n} of the side that the model prefers, in bins of equal size
    """

    calibration: Calibration
    loss: Mapping[str, Mapping[str, Share]]
    difference: Mapping[str, Mapping[str, Share]]
    ece: Mapping[str, float]
    reliability: Mapping[str, list[float | None]]
    n: int
    skipped: int

    @property
    def words(self) -> list[str]:
        """The report in sentences."""
        kind = "recorded votes" if self.calibration.on == "votes" else "the truth given"
        out = [f"Probabilities are {self.calibration}; the losses below come from folds by group that the calibration did not see."]
        if self.calibration.on == "votes" and self.calibration.flip is None:
            out.append("They say what a vote would say. No flip rate was stated, so they are not probabilities of being right.")
        if self.calibration.bounded:
            out.append("Every comparison agrees with the sign of its margin: the temperature cannot be told from 0.")
        if self.calibration.slope == 0:
            out.append("The margins do not rise with the labels: the best temperature is infinite and every probability one half.")
        name = {"half": "a constant one half", "length": "length alone", "raw": "the raw sigmoid"}
        for key, row in self.difference.items():
            share = row["log_loss"]
            said = "no interval"
            if share.low is not None and share.high is not None:
                said = "better" if share.high < 0 else "worse" if share.low > 0 else "not distinguishable"
            out.append(f"Log loss against {kind}, calibrated minus {name[key]}: {share} ({said}).")
        return out

    def to_json(self) -> dict[str, Any]:
        """What `trust.json` holds of it."""
        return {
            "calibration": self.calibration.to_json(), "n": self.n, "skipped": self.skipped, "ece": dict(self.ece),
            "loss": {k: {m: s.to_json() for m, s in row.items()} for k, row in self.loss.items()},
            "difference": {k: {m: s.to_json() for m, s in row.items()} for k, row in self.difference.items()},
            "reliability": dict(self.reliability),
        }  # fmt: skip


def calibrate(
    margin: np.ndarray,
    sign: np.ndarray,
    group: np.ndarray,
    length: np.ndarray | None = None,
    *,
    method: Method = "temperature",
    on: Target = "votes",
    flip: float | None = None,
    seed: int = 0,
    folds: int = 5,
    draws: int = 1000,
    bins: int = 10,
) -> CalibrationReport:
    """A calibration, and log loss and Brier score of its cross-fitted probabilities with paired differences; intervals by group.

    length [n]: log length of the first side minus that of the second; the length-only model is sigmoid(a length), a of either sign,
    cross-fitted in the same folds; without it there is no such row. The other arguments are those of `fit_calibration`.

    >>> rng = np.random.default_rng(0)
    >>> quality = rng.normal(size=600)
    >>> sign = np.where(rng.random(600) < sigmoid(quality), 1, -1)
    >>> found = calibrate(5 * quality, sign, np.arange(600) // 2, draws=200)
    >>> 3 < found.calibration.temperature < 8, found.difference["raw"]["log_loss"].high < 0
    (True, True)
    """
    margin, sign, group = checked(margin, sign, group)
    fitted = fit_calibration(margin, sign, group, method=method, on=on, flip=flip)
    rows = np.flatnonzero(sign)
    y, g, m = sign[rows] > 0, group[rows], margin[rows]
    stated = {"raw": sigmoid(m), "half": np.full(len(rows), 0.5)}
    try:
        fold = group_folds(g, folds, seed)
    except InputError as error:
        raise InputError(f"a calibration is judged on groups that it did not see, and all {len(rows):,} comparisons share one") from error
    stated["calibrated"] = out_of_fold(m, sign[rows], g, method=method, flip=flip, folds=folds, seed=seed, on=on)
    if length is not None:
        stated["length"] = _length_only(np.asarray(length, dtype=np.float64)[rows], sign[rows], fold)
    table = {name: {"log_loss": _log_loss(p, y), "brier": (p - y) ** 2} for name, p in stated.items()}
    table["raw"]["log_loss"] = np.logaddexp(0, -m * sign[rows])  # exact where the sigmoid rounds to 1
    loss = {name: {k: mean(v, g, seed, draws, clip=(0.0, np.inf)) for k, v in row.items()} for name, row in table.items()}
    against = [name for name in ("half", "length", "raw") if name in table]
    difference = {
        name: {k: mean(v - table[name][k], g, seed, draws) for k, v in table["calibrated"].items()} for name in against
    }  # fmt: skip
    return CalibrationReport(
        calibration=fitted, loss=loss, difference=difference, ece={k: ece(stated[k], y, bins) for k in ("raw", "calibrated", "half")},
        reliability=reliability_table(stated["calibrated"], y, g, bins=bins, seed=seed, draws=draws),
        n=len(rows), skipped=len(sign) - len(rows),
    )  # fmt: skip


def reliability_table(
    p: np.ndarray, y: np.ndarray, group: np.ndarray, *, bins: int = 10, seed: int = 0, draws: int = 500
) -> dict[str, list[float | None]]:
    """Stated and observed share of labels for the preferred side, max(p, 1 - p), in bins of equal size, with intervals by group.

    y: the label prefers the first side; where p is exactly 1/2 half a hit is counted.
    """
    confidence, hit, index = _binned(p, y, bins)
    out: dict[str, list[float | None]] = {name: [] for name in ("predicted", "observed", "low", "high", "n")}
    for b in range(int(index.max(initial=-1)) + 1):
        rows = index == b
        share = mean(hit[rows], group[rows], seed, draws, clip=(0.0, 1.0))
        for name, value in zip(out, (float(confidence[rows].mean()), share.estimate, share.low, share.high, int(rows.sum())), strict=True):
            out[name].append(value)
    return out


def ece(p: np.ndarray, y: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: sum over bins of n_b / n |observed - stated|, bins of equal size of max(p, 1 - p).

    Not a measure of a good model: knowing nothing gives none.

    >>> ece(np.full(4, 0.5), np.array([True, False, True, True]))
    0.0
    """
    confidence, hit, index = _binned(p, y, bins)
    gaps = np.abs(np.bincount(index, weights=hit - confidence))
    return float(gaps.sum() / len(index)) if len(index) else 0.0


def mean(values: np.ndarray, group: np.ndarray, seed: int, draws: int, clip: tuple[float, float] = (-np.inf, np.inf)) -> Share:
    """The mean of values with its interval by group, as a Share (no interval with one group)."""
    if len(values) == 0:
        return Share(None, None, None, 0, 0)
    found = cluster_bootstrap(values, group, seed=seed, draws=draws, clip=clip)
    ends = (found.low, found.high) if np.isfinite(found.low) else (None, None)
    return Share(found.estimate, *ends, len(values), found.groups)


def _log_loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(np.where(y, p, 1 - p), 1e-300))


def _length_only(length: np.ndarray, sign: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """P(first preferred) by length alone, each fold by the slope (of either sign) of the others."""
    out = np.full(len(length), 0.5)
    for k in range(int(fold.max()) + 1):
        train = (length * sign)[fold != k]
        up, down = fit_slope(train)[0], fit_slope(-train)[0]
        out[fold == k] = sigmoid((up if up > 0 else -down) * length[fold == k])
    return out


def _binned(p: np.ndarray, y: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence, hit, bin) of every row; equal confidences share a bin."""
    confidence = np.maximum(p, 1 - p)
    hit = np.where(p == 0.5, 0.5, (p > 0.5) == y).astype(np.float64)
    _, at, count = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / max(len(confidence), 1)
    index = np.floor(bins * middle).astype(np.int64)[at.reshape(-1)]
    return confidence, hit, np.unique(index, return_inverse=True)[1].reshape(-1)
