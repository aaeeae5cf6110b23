"""Margins to probabilities, and how good those are: temperature or isotonic, fitted on held-out votes, antisymmetric in the sides.

A model's sigmoid(margin) is a probability only if its scale happens to be right. A calibration is fitted on comparisons the model was
not trained on, swapping the sides turns p into 1 - p, and what is reported about it comes from folds by group that it did not see.

Votes are claims. With a flip rate e (symmetric, the same everywhere) a vote prefers the first side with p_vote = (1 - e) p + e (1 - p)
where p is the probability that it is better: p_vote is what agreement with votes can show, p what a label being right means.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.folds import group_folds

Method = Literal["temperature", "isotonic"]
Target = Literal["votes", "truth"]

FORMAT = "cupel-calibration"
VERSION = 1
FILE = "calibration.json"
#: 1 / T is looked for up to this many times 1 / (root mean square of the margins)
_STEEPEST = 100.0


@dataclass(frozen=True)
class Calibration:
    """A map from the margin of two sides to the probability that the first is better; map(-m) = 1 - map(m).

    method   temperature: sigmoid(slope m) with slope = 1 / T; isotonic: `levels` at the margins `knots` >= 0, straight between them,
             level beyond the last
    on       what it was fitted to: votes, or a known truth
    flip     flip rate e of the votes, None where nobody stated one
    n, groups  comparisons with a preference it was fitted to, and their groups
    bounded  the slope ended at its bound: every comparison agrees with its margin, so a temperature cannot be told from 0
    """

    method: Method
    on: Target
    slope: float | None
    knots: tuple[float, ...]
    levels: tuple[float, ...]
    flip: float | None
    n: int
    groups: int
    bounded: bool = False

    @property
    def temperature(self) -> float | None:
        """T = 1 / slope; infinite where the margins say nothing; None for isotonic."""
        if self.slope is None:
            return None
        return float("inf") if self.slope == 0 else 1 / self.slope

    @property
    def reading(self) -> Target:
        """What `probability` is about: `truth` where the fit knew it or a flip rate leads to it, else `votes`."""
        return "truth" if self.on == "truth" or self.flip is not None else "votes"

    def probability(self, margin: np.ndarray) -> np.ndarray:
        """P(first side better) in the sense of `reading`, float64 of the margin's shape.

        >>> found = Calibration("temperature", "votes", 0.5, (), (), None, 10, 10)
        >>> found.probability(np.array([-2.0, 0.0, 2.0])).round(4).tolist()
        [0.2689, 0.5, 0.7311]
        """
        margin = np.asarray(margin, dtype=np.float64)
        if self.slope is not None:
            return sigmoid(self.slope * margin)
        height = np.interp(np.abs(margin), (0.0, *self.knots), (0.5, *self.levels))
        return np.where(margin < 0, 1 - height, height)

    def p_truth(self, margin: np.ndarray) -> np.ndarray:
        """P(first side better). InputError where only votes were seen and no flip rate was stated."""
        if self.reading != "truth":
            raise InputError(
                "this calibration was fitted to votes and knows no flip rate: it says what votes say, not what is true. "
                "State a flip rate (cupel audit estimates one), or fit it to checked labels."
            )
        return self.probability(margin)

    def p_vote(self, margin: np.ndarray) -> np.ndarray:
        """P(a vote prefers the first side) = (1 - e) p + e (1 - p). InputError where it was fitted to truth and e is not known."""
        if self.reading == "votes":
            return self.probability(margin)
        if self.flip is None:
            raise InputError("this calibration was fitted to truth and knows no flip rate of votes: state one (flip=)")
        return mixed(self.probability(margin), self.flip)

    def __str__(self) -> str:
        how = "isotonic" if self.slope is None else f"temperature {self.temperature:.3g}"
        noise = (
            "" if self.flip is None else f", flip rate {self.flip:.3g} taken out" if self.on == "votes" else f", flip rate {self.flip:.3g}"
        )
        return f"calibrated to {self.on} ({how}{noise}; n = {self.n:,} in {self.groups:,} groups)"

    def to_json(self) -> dict[str, Any]:
        """What `calibration.json` holds."""
        return {
            "format": FORMAT, "version": VERSION, "method": self.method, "on": self.on, "slope": self.slope, "knots": list(self.knots),
            "levels": list(self.levels), "flip": self.flip, "n": self.n, "groups": self.groups, "bounded": self.bounded,
        }  # fmt: skip

    def save(self, directory: str | Path) -> Path:
        """Write `calibration.json`, with the digest of the model's weights, beside the model in `directory`; returns its path."""
        from cupel.records.files import write_json

        path = Path(directory) / FILE
        write_json(path, {**self.to_json(), "model": _weights(path.parent)})
        return path

    @classmethod
    def load(cls, directory: str | Path) -> Calibration | None:
        """The calibration that lies in a model's folder, None where there is none.

        InputError where the file is not one, or was fitted to other weights than those that lie beside it.
        """
        path = Path(directory) / FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["format"] != FORMAT or found["version"] != VERSION:
                raise ValueError(f"{found['format']} version {found['version']}")
            slope, flip, weights = found["slope"], found["flip"], found["model"]
            loaded = cls(
                found["method"], found["on"], None if slope is None else float(slope), tuple(map(float, found["knots"])),
                tuple(map(float, found["levels"])), None if flip is None else float(flip), int(found["n"]), int(found["groups"]),
                bool(found["bounded"]),
            )  # fmt: skip
            loaded._check()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a calibration that cupel wrote ({error}); delete it or calibrate again") from error
        if weights != _weights(path.parent):
            raise InputError(
                f"{path} was fitted to other weights than those beside it (trained again since?); delete it or calibrate again"
            )
        return loaded

    def _check(self) -> None:
        ends = np.array([0.0, *self.knots]), np.array([0.5, *self.levels])
        sound = self.method in ("temperature", "isotonic") and self.on in ("votes", "truth") and len(ends[0]) == len(ends[1])
        sound = sound and (self.slope is None) == (self.method == "isotonic") and all(np.isfinite(e).all() for e in ends)
        sound = sound and (self.slope is None or 0 <= self.slope < np.inf) and (self.flip is None or 0 <= self.flip < 0.5)
        if not (sound and (np.diff(ends[0]) >= 0).all() and (np.diff(ends[1]) >= 0).all() and ends[1][-1] <= 1):
            raise ValueError("its values make no antisymmetric rising map")


def fit_calibration(
    margin: np.ndarray,
    sign: np.ndarray,
    group: np.ndarray | None = None,
    *,
    method: Method = "temperature",
    on: Target = "votes",
    flip: float | None = None,
) -> Calibration:
    """The calibration of greatest likelihood on comparisons that the model was not trained on.

    temperature: minimises mean -log(e + (1 - 2 e) sigmoid(s t)) over s = 1 / T >= 0, t = sign margin, e the flip rate (0 where the
    labels are the target themselves); no intercept. isotonic: pool adjacent violators on (m, y) and (-m, 1 - y) together; a step of k
    right among n stands at (k + 1/2) / (n + 1), so that no probability is 0 or 1; with e its p_vote is kept in [e, 1 - e] and the
    truth read off it.

    margin [n] of the first side; sign [n] +1, -1, 0 (no preference: left out); group [n] only counted; flip in [0, 1/2): with
    on="votes" it is taken out of the fit, with on="truth" it only serves `p_vote`. InputError where nothing can be fitted.

    >>> margin = np.array([-2.0, -1, 1, 2, 1, -1])
    >>> found = fit_calibration(margin, np.array([-1, -1, 1, 1, -1, -1]))
    >>> found.reading, round(found.temperature, 2)
    ('votes', 0.7)
    """
    margin, sign, group = checked(margin, sign, group)
    if method not in ("temperature", "isotonic") or on not in ("votes", "truth"):
        raise InputError(f"a calibration is temperature or isotonic, on votes or truth; not {method!r} on {on!r}")
    if flip is not None and not 0 <= flip < 0.5:
        raise InputError(f"a flip rate lies in 0 ... 1/2, not {flip!r}: at one half votes say nothing about the truth")
    noise = flip if flip is not None and on == "votes" else 0.0
    rows = sign != 0
    toward = (margin * sign)[rows]
    if len(toward) == 0:
        raise InputError(f"none of {len(sign):,} comparisons has a preference: there is nothing to calibrate to")
    counts = len(toward), len(np.unique(group[rows]))
    if method == "temperature":
        slope, bounded = fit_slope(toward, noise)
        return Calibration(method, on, slope, (), (), flip, *counts, bounded=bounded)
    knots, levels = _isotonic(toward, noise)
    return Calibration(method, on, None, knots, levels, flip, *counts)


def fit_slope(toward: np.ndarray, noise: float = 0.0) -> tuple[float, bool]:
    """(s >= 0 that minimises mean -log(e + (1 - 2 e) sigmoid(s t)), whether it ended at its upper bound); a grid, then Brent's method.

    >>> fit_slope(np.array([1.0, 1, 1, -1]))[0].__round__(4)  # sigmoid(s) = 3/4
    1.0986
    """
    from scipy.optimize import minimize_scalar

    scale = float(np.sqrt(np.mean(toward**2)))
    if scale == 0:
        return 0.0, False
    at, counts = np.unique(toward / scale, return_counts=True)

    def loss(log_slope: float) -> float:
        return float(counts @ _surprise(np.exp(log_slope) * at, noise))

    grid = np.log(np.geomspace(1e-4, _STEEPEST, 49))
    values = np.array([loss(float(g)) for g in grid])
    best = int(values.argmin())
    if values[best] >= len(toward) * np.log(2.0):
        return 0.0, False  # the margins point the wrong way or nowhere: one half is the best that rises with them
    if best == len(grid) - 1:
        return _STEEPEST / scale, True
    found: Any = minimize_scalar(loss, bounds=(grid[max(best - 1, 0)], grid[best + 1]), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x)) / scale, False


def out_of_fold(
    margin: np.ndarray, sign: np.ndarray, group: np.ndarray, *, method: Method = "temperature", flip: float | None = None,
    folds: int = 5, seed: int = 0, on: Target = "votes",
) -> np.ndarray:  # fmt: skip
    """P(the label prefers the first side) of every row, by a calibration that saw no row of its group: float64 [n].

    It is p_vote for votes and p_truth for truth. InputError with one group.
    """
    margin, sign, group = checked(margin, sign, group)
    fold = group_folds(group, folds, seed)
    out = np.empty(len(margin))
    for k in range(int(fold.max()) + 1):
        inside = fold == k
        fitted = fit_calibration(margin[~inside], sign[~inside], group[~inside], method=method, on=on, flip=flip)
        out[inside] = fitted.p_vote(margin[inside]) if on == "votes" else fitted.p_truth(margin[inside])
    return out


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)); sigmoid(-x) = 1 - sigmoid(x) exactly."""
    return 0.5 * (1 + np.tanh(np.asarray(x, dtype=np.float64) / 2))


def mixed(p: np.ndarray, flip: float) -> np.ndarray:
    """(1 - e) p + e (1 - p): what votes with flip rate e say of something true with probability p.

    >>> mixed(np.array([1.0, 0.5, 0.0]), 0.2).tolist()
    [0.8, 0.5, 0.2]
    """
    return (1 - flip) * p + flip * (1 - p)


def checked(margin: np.ndarray, sign: np.ndarray, group: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(margin float64, sign float64, group), of one length and finite; InputError otherwise."""
    margin, sign = np.asarray(margin, dtype=np.float64), np.asarray(sign, dtype=np.float64)
    group = np.arange(len(margin)) if group is None else np.asarray(group)
    if margin.ndim != 1 or not len(margin) == len(sign) == len(group):
        raise InputError(f"{margin.shape} margins, {sign.shape} labels and {group.shape} groups: one of each is needed per comparison")
    bad = np.flatnonzero(~np.isfinite(margin) | ~np.isin(sign, (-1, 0, 1)))
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {len(margin):,} comparisons have a margin that is not finite or a label that is not +1, -1 or 0 "
            f"(first: row {bad[0]}); leave them out"
        )
    return margin, sign, group


def _weights(directory: Path) -> str | None:
    """SHA-256 of `model.safetensors`, None where the folder holds none."""
    path = directory / "model.safetensors"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _surprise(log_odds: np.ndarray, noise: float) -> np.ndarray:
    """-log(e + (1 - 2 e) sigmoid(x)), exact for large |x|."""
    plain = np.logaddexp(0, -log_odds)
    return plain if noise == 0 else -np.logaddexp(np.log(noise), np.log1p(-2 * noise) - plain)


def _isotonic(toward: np.ndarray, noise: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots and levels for margins >= 0. The fit to (m, y) and (-m, 1 - y) together is the fit to |m| kept at or above 1/2."""
    from scipy.optimize import isotonic_regression

    size = np.abs(toward)
    at, index = np.unique(size, return_inverse=True)
    index = index.reshape(-1)
    count = np.bincount(index).astype(np.float64)
    right = np.bincount(index, weights=toward > 0) + 0.5 * np.bincount(index, weights=toward == 0)
    level = isotonic_regression(right / count, weights=count).x
    block = np.concatenate([[0], np.cumsum(np.diff(level) > 1e-12)]).astype(np.int64)
    n, k = np.bincount(block, weights=count), np.bincount(block, weights=right)
    middle = np.bincount(block, weights=at * count) / n
    height = np.maximum.accumulate(np.maximum((k + 0.5) / (n + 1), 0.5))
    if noise > 0:
        surest = (len(toward) + 0.5) / (len(toward) + 1)  # as sure as all comparisons together could make it
        height = np.minimum((np.clip(height, noise, 1 - noise) - noise) / (1 - 2 * noise), surest)
    kept = middle > 0
    return tuple(middle[kept].tolist()), tuple(height[kept].tolist())
