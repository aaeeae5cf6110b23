"""How a loss falls with the number of comparisons (or parameters): a power law, a floor that more data will not pass, or undecided.

    constant  L(n) = c             power  L(n) = a n^-b             floor  L(n) = c + a n^-b,  c >= 0,  0 < b < 3

All three by least squares on the losses themselves. A floor is what label noise leaves: with flip rate e even a perfect calibrated model
pays H(e) (`noise_floor`). With few sizes a floor and a small exponent look alike, and then the answer is "undecided".

Several sizes of the model as well: `cupel.evaluate.joint_scaling`.

Which form the source (WorldPM, arXiv:2505.10527) fitted is not known to us; forms, bootstrap and the held-out comparison are the card's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import expanded_percentile

Form = Literal["constant", "power", "floor"]
FORMS: tuple[Form, ...] = ("constant", "power", "floor")
#: exponents looked at before the polish
_GRID = np.geomspace(1e-3, 3.0, 240)
#: sizes that a floor needs, and that a comparison by a held-out size needs
FLOOR_NEEDS, HELDOUT_NEEDS = 4, 5


@dataclass(frozen=True)
class Curve:
    """One fitted form: loss(n) = floor + scale n^-exponent; rms is the root mean square of what is left.

    low, high  ends of the 95 % intervals of (floor, scale, exponent); None where there is nothing to take them from
    """

    form: Form
    floor: float
    scale: float
    exponent: float
    rms: float
    low: Mapping[str, float] | None = None
    high: Mapping[str, float] | None = None

    def at(self, n: np.ndarray | float) -> np.ndarray:
        """The loss expected at size n."""
        return self.floor + self.scale * np.asarray(n, dtype=np.float64) ** -self.exponent

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            **self.__dict__,
            "low": None if self.low is None else dict(self.low),
            "high": None if self.high is None else dict(self.high),
        }


@dataclass(frozen=True)
class Scaling:
    """Fits of a learning curve and what may be said of them.

    curves     by form
    heldout    {form: prediction, error} of the largest size by fits to the smaller ones; empty below five sizes
    better     interval of |error of power| - |error of floor| at the held-out size over resampled replicates; None without replicates
    verdict    constant, power law, floor, or undecided
    basis      what the intervals rest on: replicates (bootstrap) and residuals (profile of the fit), residuals alone, or none
    """

    sizes: tuple[float, ...]
    losses: tuple[float, ...]
    curves: Mapping[Form, Curve]
    heldout: Mapping[Form, Mapping[str, float]]
    better: tuple[float, float] | None
    verdict: str
    basis: str
    replicates: int
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "sizes": list(self.sizes), "losses": list(self.losses), "curves": {k: c.to_json() for k, c in self.curves.items()},
            "heldout": {k: dict(v) for k, v in self.heldout.items()}, "better": None if self.better is None else list(self.better),
            "verdict": self.verdict, "basis": self.basis, "replicates": self.replicates, "words": list(self.words),
        }  # fmt: skip


def fit_scaling(
    sizes: np.ndarray, losses: np.ndarray, *, form: Literal["auto", "constant", "power", "floor"] = "auto", seed: int = 0, draws: int = 500
) -> Scaling:
    """Constant, power law and floor fitted to a learning curve, with intervals, a prediction held out, and a verdict.

    sizes [k] > 0; losses [k], or [r, k] with a row per replicate (training seed, or test item), whose mean is fitted and whose rows are
    resampled. Intervals of floor and exponent hold both the bootstrap over replicates, which knows nothing of a form that does not fit,
    and the profile of the least squares (F quantile), which is all there is for a single curve. Floor: every exponent of a grid is
    solved exactly for c >= 0 and a >= 0, the best starts are polished by bounded least squares. Below four sizes a floor is refused and
    a power law comes with a warning.

    Verdict "floor": c's interval lies above 1 % of the smallest loss and the held-out size is predicted better with a floor than
    without. "power law": c's interval ends below half of the smallest loss and a floor predicts no better. "constant": the slope of the
    loss on the logarithm of the size cannot be told from 0 (or rises). Else "undecided".

    >>> n = np.array([1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7])
    >>> found = fit_scaling(n, 0.35 + 2 * n**-0.25)
    >>> curve = found.curves["floor"]
    >>> [round(x, 6) for x in (curve.floor, curve.scale, curve.exponent)], found.verdict
    ([0.35, 2.0, 0.25], 'floor')
    """
    n, table = _checked(sizes, losses)
    forms: tuple[Form, ...] = FORMS if form == "auto" else (form,)
    words: list[str] = []
    if len(n) < FLOOR_NEEDS:
        if form == "floor":
            raise InputError(
                f"a floor has three unknowns and needs {FLOOR_NEEDS} sizes or more, not {len(n)}: measure more sizes, or fit a power law"
            )
        forms = tuple(f for f in forms if f != "floor")
        words.append(f"{len(n)} sizes cannot tell a power law from a floor: the exponent is that of a law assumed, not found.")
    mean = table.mean(axis=0)
    curves: dict[Form, Curve] = {f: _polished(n, mean, f) for f in forms}
    rows, means = len(table), table[:0]
    if rows > 1:
        picks = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws) / rows
        means = picks @ table
        curves = {f: _hull(_with_bootstrap(c, _grid_fits(n, means, f), rows), _with_profile(c, n, mean)) for f, c in curves.items()}
        basis = "replicates and residuals"
    else:
        curves = {f: _with_profile(curve, n, mean) for f, curve in curves.items()}
        basis = "residuals" if any(curve.low is not None for curve in curves.values()) else "none"
    heldout: dict[Form, dict[str, float]] = {}
    better = None
    if len(n) >= HELDOUT_NEEDS:
        for f in forms:
            predicted = float(_polished(n[:-1], mean[:-1], f).at(n[-1]))
            heldout[f] = {"prediction": predicted, "error": predicted - float(mean[-1])}
        if rows > 1 and {"power", "floor"} <= set(forms):
            compared: tuple[Form, Form] = ("power", "floor")
            misses = [np.abs(_at(_grid_fits(n[:-1], means[:, :-1], f), n[-1]) - means[:, -1]) for f in compared]
            point = abs(heldout["power"]["error"]) - abs(heldout["floor"]["error"])
            found = expanded_percentile(point, misses[0] - misses[1], rows)
            better = (found.low, found.high)
    verdict = _verdict(mean, curves, heldout, better, _falls(n, mean, means, rows)) if form == "auto" else "not compared"
    words += _words(n, curves, heldout, verdict, rows, basis)
    return Scaling(
        tuple(n.tolist()), tuple(mean.tolist()), curves, heldout, better, verdict, basis, rows, tuple(words),
    )  # fmt: skip


def noise_floor(flip: float) -> float:
    """H(e) = -e ln e - (1 - e) ln(1 - e): the log loss of a perfect, calibrated model on labels flipped at rate e, in nats.

    >>> round(noise_floor(0.2), 6), noise_floor(0.0)
    (0.500402, 0.0)
    """
    if not 0 <= flip <= 1:
        raise InputError(f"a flip rate lies in 0 ... 1, not {flip!r}")
    from scipy.special import entr

    return float(entr(flip) + entr(1 - flip))


# ---- fits ------------------------------------------------------------------------------------------------------------------------


def _grid_fits(n: np.ndarray, losses: np.ndarray, form: Form) -> np.ndarray:
    """Least squares over the grid of exponents, each solved exactly with c, a >= 0: float64 [draws, 3] (c, a, b) for losses [draws, k]."""
    if form == "constant":
        return np.column_stack([losses.mean(axis=1), np.zeros(len(losses)), np.zeros(len(losses))])
    centre = np.exp(np.log(n).mean())
    x = (n / centre) ** -_GRID[:, None]  # [grid, k]
    c, a = _linear(x, losses, floor=form == "floor")
    square = ((losses**2).sum(axis=1)[:, None] - 2 * (c * losses.sum(axis=1)[:, None] + a * (losses @ x.T)) + c**2 * len(n)
              + 2 * c * a * x.sum(axis=1) + a**2 * (x**2).sum(axis=1))  # fmt: skip
    best = square.argmin(axis=1)
    low, high = np.log(_GRID[np.maximum(best - 1, 0)]), np.log(_GRID[np.minimum(best + 1, len(_GRID) - 1)])

    def solved(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = (n / centre) ** -b[:, None]
        c, a = (v[:, 0] for v in _linear(x[:, None], losses, floor=form == "floor"))
        return c, a, ((c[:, None] + a[:, None] * x - losses) ** 2).sum(axis=1)

    golden = (np.sqrt(5) - 1) / 2
    for _ in range(34):  # golden section, all draws at once
        one, two = high - golden * (high - low), low + golden * (high - low)
        left = solved(np.exp(one))[2] <= solved(np.exp(two))[2]
        low, high = np.where(left, low, one), np.where(left, two, high)
    b = np.exp((low + high) / 2)
    c, a, _ = solved(b)
    return np.column_stack([c, a * centre**b, b])


def _linear(x: np.ndarray, losses: np.ndarray, *, floor: bool) -> tuple[np.ndarray, np.ndarray]:
    """c, a >= 0 [draws, grid] of least squares of losses [draws, k] on 1 and x [grid, k] or [draws, grid, k]; c = 0 without a floor."""
    k = losses.shape[1]
    sx, sxx, sy = x.sum(axis=-1), (x**2).sum(axis=-1), losses.sum(axis=1)[:, None]
    sxy = losses @ x.T if x.ndim == 2 else np.einsum("dgk,dk->dg", x, losses)
    alone = sxy / sxx  # c = 0; losses and x are positive
    if not floor:
        return np.zeros_like(alone), alone
    spread = sxx - sx**2 / k
    a = np.divide(sxy - sx * sy / k, spread, out=np.zeros_like(alone), where=spread > 1e-14 * sxx)
    c = (sy - a * sx) / k
    flat, none = a <= 0, c < 0
    return np.where(flat, sy / k, np.where(none, 0.0, c)), np.where(flat, 0.0, np.where(none, alone, a))


def _polished(n: np.ndarray, loss: np.ndarray, form: Form) -> Curve:
    """The fit of one curve: best exponents of the grid as starts of a bounded least squares in (c, log a, b)."""
    from scipy.optimize import least_squares

    if form == "constant":
        return _curve(form, n, loss, np.array([loss.mean(), 0.0, 0.0]))
    centre = np.log(n).mean()
    x = np.exp(-_GRID[:, None] * (np.log(n) - centre))
    c, a = _linear(x, loss[None], floor=form == "floor")
    square = ((c[0][:, None] + a[0][:, None] * x - loss) ** 2).sum(axis=1)
    inner = np.concatenate([[np.inf], square, [np.inf]])
    minima = np.flatnonzero((inner[1:-1] <= inner[:-2]) & (inner[1:-1] <= inner[2:]))
    starts = minima[np.argsort(square[minima], kind="stable")][:4]
    best = _curve(form, n, loss, _raw(c[0, starts[0]], a[0, starts[0]], float(_GRID[starts[0]]), centre))

    def residual(t: np.ndarray) -> np.ndarray:
        return (t[0] if form == "floor" else 0.0) + np.exp(t[-2] - t[-1] * (np.log(n) - centre)) - loss

    for start in starts:
        if a[0, start] <= 0:
            continue
        t = [*([max(c[0, start], 1e-9)] if form == "floor" else []), np.log(a[0, start]), _GRID[start]]
        bounds = (
            [*([0.0] if form == "floor" else []), -np.inf, 1e-6],
            [*([float(loss.min()) + 1e-12] if form == "floor" else []), np.inf, 3.0],
        )
        t = np.clip(t, np.array(bounds[0]) + 1e-12, np.array(bounds[1]) - 1e-12)
        found = least_squares(residual, t, bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac", max_nfev=400)
        tried = _curve(form, n, loss, _raw(found.x[0] if form == "floor" else 0.0, np.exp(found.x[-2]), found.x[-1], centre))
        best = tried if tried.rms < best.rms else best
    return best


def _raw(c: float, a: float, b: float, centre: float) -> np.ndarray:
    """(c, a, b) with a for sizes that are not divided by their geometric mean."""
    return np.array([c, a * np.exp(b * centre), b])


def _curve(form: Form, n: np.ndarray, loss: np.ndarray, values: np.ndarray) -> Curve:
    c, a, b = map(float, values)
    return Curve(form, c, a, b, float(np.sqrt(np.mean((c + a * n**-b - loss) ** 2))))


def _at(values: np.ndarray, n: float) -> np.ndarray:
    return values[:, 0] + values[:, 1] * n ** -values[:, 2]


def _with_bootstrap(curve: Curve, drawn: np.ndarray, rows: int) -> Curve:
    point, clips = (curve.floor, curve.scale, curve.exponent), ((0.0, np.inf), (0.0, np.inf), (0.0, 3.0))
    names = ("floor", "scale", "exponent")
    ends = [expanded_percentile(p, drawn[:, i], rows, clip=clip) for i, (p, clip) in enumerate(zip(point, clips, strict=True))]
    low, high = ({name: getattr(e, side) for name, e in zip(names, ends, strict=True)} for side in ("low", "high"))
    return Curve(curve.form, *point, curve.rms, low, high)


def _hull(one: Curve, two: Curve) -> Curve:
    """The curve with intervals that hold those of both."""
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return one
    low = {name: min(value, two.low.get(name, value)) for name, value in one.low.items()}
    high = {name: max(value, two.high.get(name, value)) for name, value in one.high.items()}
    return replace(one, low=low, high=high)


def _with_profile(curve: Curve, n: np.ndarray, loss: np.ndarray) -> Curve:
    """Intervals of floor and exponent where the profile of the sum of squares stays below sse (1 + F(.95; 1, k - p) / (k - p))."""
    from scipy.special import fdtri

    free = len(n) - {"constant": 1, "power": 2, "floor": 3}[curve.form]
    if curve.form == "constant" or free < 1:
        return curve
    x = np.exp(-_GRID[:, None] * (np.log(n) - np.log(n).mean()))
    limit = curve.rms**2 * len(n) * (1 + float(fdtri(1, free, 0.95)) / free)
    floors = np.concatenate([[curve.floor], np.linspace(0, float(loss.min()), 400)]) if curve.form == "floor" else np.zeros(1)
    left = loss - floors[:, None]
    a = np.maximum(left @ x.T / (x**2).sum(axis=1), 0.0)
    square = (left**2).sum(axis=1)[:, None] - 2 * a * (left @ x.T) + a**2 * (x**2).sum(axis=1)  # [floors, grid]
    inside = square <= limit
    at, which = floors[inside.any(axis=1)], _GRID[inside.any(axis=0)]
    low = {"floor": float(min([curve.floor, *at])), "exponent": float(min([curve.exponent, *which]))}
    high = {"floor": float(max([curve.floor, *at])), "exponent": float(max([curve.exponent, *which]))}
    return Curve(curve.form, curve.floor, curve.scale, curve.exponent, curve.rms, low, high)


# ---- what may be said ------------------------------------------------------------------------------------------------------------


def _verdict(
    loss: np.ndarray,
    curves: Mapping[Form, Curve],
    heldout: Mapping[Form, Mapping[str, float]],
    better: tuple[float, float] | None,
    falls: bool,
) -> str:
    floor = curves.get("floor")
    if not falls:
        return "constant"
    if floor is None or floor.low is None or floor.high is None or not heldout:
        return "undecided"
    gain = abs(heldout["power"]["error"]) - abs(heldout["floor"]["error"])  # above 0: a floor predicts better
    sure = better is None or better[0] > 0
    if floor.low["floor"] > 0.01 * loss.min() and gain > 0 and sure:
        return "floor"
    if floor.high["floor"] < 0.5 * loss.min() and (better is None or better[0] <= 0) and (gain <= 1e-12 or floor.low["floor"] <= 0):
        return "power law"
    return "undecided"


def _falls(n: np.ndarray, loss: np.ndarray, means: np.ndarray, rows: int) -> bool:
    """Whether the upper end of the interval of the slope of the loss on log n is below 0: by resampled curves, else by residuals."""
    from scipy.special import stdtrit

    x = np.log(n) - np.log(n).mean()
    slope = float(x @ loss / (x @ x))
    if len(means):
        return expanded_percentile(slope, means @ x / (x @ x), rows).high < 0
    if len(n) < 3:
        return slope < 0
    left = loss - loss.mean() - slope * x
    error = np.sqrt(left @ left / (len(n) - 2) / (x @ x))
    return slope + float(stdtrit(len(n) - 2, 0.975)) * error < 0


def _words(
    n: np.ndarray, curves: Mapping[Form, Curve], heldout: Mapping[Form, Mapping[str, float]], verdict: str, rows: int, basis: str
) -> list[str]:
    at = f"{len(n)} sizes from {n[0]:,.0f} to {n[-1]:,.0f}" + (f", {rows} replicates" if rows > 1 else "")
    meant = {
        "floor": "The loss approaches a floor that more data of this kind will not pass",
        "power law": "The loss falls as a power of the size, with no sign of a floor",
        "constant": "The loss cannot be told from a constant",
        "undecided": "Power law or floor: undecided",
        "not compared": "One form was asked for; forms were not compared",
    }
    out = [f"{meant[verdict]} ({at})."]
    for curve in curves.values():
        if curve.form == "constant":
            continue
        span = ""
        if curve.low is not None and curve.high is not None:
            of = ("floor", "exponent") if curve.form == "floor" else ("exponent",)
            span = ", " + ", ".join(f"{name} [{curve.low[name]:.3g}, {curve.high[name]:.3g}]" for name in of)
        miss = f", misses the held-out largest size by {heldout[curve.form]['error']:+.2g}" if curve.form in heldout else ""
        c = f"{curve.floor:.4g} + " if curve.form == "floor" else ""
        out.append(f"{curve.form}: {c}{curve.scale:.4g} n^-{curve.exponent:.3g}, rms {curve.rms:.2g}{span}{miss}.")
    if basis == "none":
        out.append("No intervals: as many unknowns as sizes, and no replicates.")
    return out


def _checked(sizes: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, table = np.asarray(sizes, dtype=np.float64), np.atleast_2d(np.asarray(losses, dtype=np.float64))
    if n.ndim != 1 or table.ndim != 2 or table.shape[1] != len(n) or len(table) == 0:
        raise InputError(f"{n.shape} sizes and losses {table.shape}: give one loss per size, or a row of them per replicate")
    if not (np.isfinite(n).all() and np.isfinite(table).all() and (n > 0).all() and (table > 0).all()):
        raise InputError("sizes and losses are finite and above 0: a law of powers has no place for others")
    if len(np.unique(n)) < len(n) or len(n) < 2:
        raise InputError(f"{len(n)} sizes, {len(np.unique(n))} different: a curve needs two or more sizes, each once")
    order = np.argsort(n)
    return n[order], table[:, order]
