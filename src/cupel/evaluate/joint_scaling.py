"""How a loss falls with the number of comparisons and with the size of the model at once: each power with its interval, or why not.

    L(n, N) = c + a n^-b + d N^-e,   c, a, d >= 0,   0 < b, e <= 3

by least squares on the losses themselves, as `cupel.evaluate.scaling` fits one size: every pair of exponents of a grid is solved exactly
for c, a, d >= 0, the best are polished. What the data do not tell has no number: an exponent whose term may as well be absent or whose
interval is nearly the whole range, a floor that may be nearly anything below the losses.

The form is the card's (WorldPM, arXiv:2505.10527); whether the source fitted it, and with which exponents, is not known to us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import expanded_percentile

NAMES = ("floor", "data_scale", "data_exponent", "model_scale", "model_exponent")
#: points that five unknowns need; different sizes of either kind, joined by points, that its scale and exponent need
POINTS, SIZES = 6, 3
#: ends of the exponents, and how many of each are looked at before the polish
LOW, HIGH, STEPS = 0.01, 3.0, 40
#: an interval of this share of what is possible says nothing
ALL = 0.9
_GRID = np.geomspace(LOW, HIGH, STEPS)
#: the columns of a fit: floor, data, model
EVERY = frozenset({0, 1, 2})
_SUBSETS = [list(which) for size in (1, 2, 3) for which in combinations(range(3), size)]


@dataclass(frozen=True)
class Joint:
    """A fitted L(n, N); estimate, low, high: by `NAMES`.

    estimate   None where the data do not tell the number
    low, high  ends of the 95 % intervals of the floor and of both exponents
    fitted     (c, a, b, d, e) of the least squares, told or not: for `at`
    heldout    prediction and error of the point of the largest model (and most data) by a fit to the others; empty where these are too few
    """

    estimate: Mapping[str, float | None]
    low: Mapping[str, float]
    high: Mapping[str, float]
    fitted: tuple[float, float, float, float, float]
    rms: float
    points: int
    replicates: int
    heldout: Mapping[str, float]
    words: tuple[str, ...]

    def at(self, n: np.ndarray | float, model: np.ndarray | float) -> np.ndarray:
        """The loss expected of n comparisons and a model of this size."""
        c, a, b, d, e = self.fitted
        return c + a * np.asarray(n, np.float64) ** -b + d * np.asarray(model, np.float64) ** -e

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        maps = {key: dict(getattr(self, key)) for key in ("estimate", "low", "high", "heldout")}
        return {**self.__dict__, **maps, "fitted": list(self.fitted), "words": list(self.words)}


def fit_joint(data: np.ndarray, model: np.ndarray, losses: np.ndarray, *, seed: int = 0, draws: int = 300) -> Joint:
    """c + a n^-b + d N^-e fitted to losses of several data sizes and model sizes, with intervals.

    data, model [k] > 0: the sizes of each point, in any order, not necessarily a full grid; losses [k], or [r, k] with a row per replicate
    (training seed), whose mean is fitted and whose rows are resampled. Intervals hold both the bootstrap over replicates and the profile
    of the least squares (F quantile).

    InputError for fewer than 6 points, fewer than 3 different sizes of either kind (a power then cannot be told from the floor), and where
    data and model sizes move together (no three of each are joined by points).

    >>> n, size = (x.reshape(-1) for x in np.meshgrid([1e3, 1e4, 1e5, 1e6], [1e6, 1e7, 1e8, 1e9]))
    >>> found = fit_joint(n, size, 0.3 + 4 * n**-0.3 + 20 * size**-0.25)
    >>> [round(found.estimate[name], 5) for name in NAMES]
    [0.3, 4.0, 0.3, 20.0, 0.25]
    """
    n, size, table = _checked(data, model, losses)
    mean, rows = table.mean(axis=0), len(table)
    best = _polished(n, size, mean)
    rms = float(np.sqrt(np.mean((_at(best, n, size) - mean) ** 2)))
    low, high, absent = _profile(n, size, mean, best)
    if rows > 1:
        picks = np.random.default_rng([seed, 26]).multinomial(rows, np.full(rows, 1 / rows), size=draws) / rows
        drawn = _fits(n, size, picks @ table)
        for name, k, top in (("floor", 0, float(mean.min())), ("data_exponent", 2, HIGH), ("model_exponent", 4, HIGH)):
            found = expanded_percentile(best[k], drawn[:, k], rows, clip=(0.0, top))
            low[name], high[name] = min(low[name], found.low), max(high[name], found.high)
        for name, k in (("data", 1), ("model", 3)):
            absent[name] |= bool((drawn[:, k] <= 0).mean() > 0.025)
    estimate = _told(best, low, high, absent, float(mean.min()))
    heldout = _heldout(n, size, mean)
    words = tuple(_words(estimate, low, high, absent, rms, len(n), rows))
    return Joint(estimate, low, high, tuple(best.tolist()), rms, len(n), rows, heldout, words)


# ---- fits ------------------------------------------------------------------------------------------------------------------------


def _solve(design: np.ndarray, losses: np.ndarray, columns: AbstractSet[int] = EVERY) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with coefficients >= 0, every subset of the columns tried: ([..., q, 3], sum of squares [..., q]) of design
    [..., k, 3] and losses [..., k, q]."""
    gram = np.swapaxes(design, -1, -2) @ design
    right = np.swapaxes(design, -1, -2) @ losses
    whole = (losses**2).sum(axis=-2)
    shape = np.broadcast_shapes(right.shape[:-2], losses.shape[:-2])
    square = np.full((*shape, losses.shape[-1]), np.inf)
    found = np.zeros((*square.shape, 3))
    for which in _SUBSETS:
        if not set(which) <= columns:
            continue
        part = gram[..., which, :][..., which]
        try:
            solved = np.linalg.solve(part, right[..., which, :])
        except np.linalg.LinAlgError:  # columns that are multiples of each other
            continue
        left = whole - (solved * right[..., which, :]).sum(axis=-2)
        better = (solved >= 0).all(axis=-2) & (left < square)
        square = np.where(better, left, square)
        coefficients = np.zeros_like(found)
        coefficients[..., which] = np.swapaxes(solved, -1, -2)
        found = np.where(better[..., None], coefficients, found)
    return found, np.maximum(square, 0.0)


def _design(n: np.ndarray, size: np.ndarray, b: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Columns 1, (n / centre)^-b, (N / centre)^-e for exponents of any shape: [..., k, 3]."""
    x, y = (np.exp(-power[..., None] * (np.log(v) - np.log(v).mean())) for v, power in ((n, b), (size, e)))
    return np.stack([np.ones_like(x), x, y], axis=-1)


def _raw(coefficients: np.ndarray, b: np.ndarray, e: np.ndarray, n: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(c, a, b, d, e) [..., 5] with scales for sizes that are not divided by their geometric mean."""
    a, d = coefficients[..., 1] * np.exp(b * np.log(n).mean()), coefficients[..., 2] * np.exp(e * np.log(size).mean())
    return np.stack([coefficients[..., 0], a, b, d, e], axis=-1)


def _fits(
    n: np.ndarray, size: np.ndarray, losses: np.ndarray, columns: AbstractSet[int] = EVERY, b: np.ndarray | None = None,
    e: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The least squares of each row of losses [q, k], where an exponent is given [q] with that: (c, a, b, d, e) [q, 5].

    The best of the grid of exponents, then of ever finer grids around it.
    """
    near = [np.arange(-2, 3) / 2 if given is None else np.zeros(1) for given in (b, e)]
    rows = np.arange(len(losses))
    if b is None and e is None:
        near_b, near_e = (grid.reshape(-1) for grid in np.meshgrid(_GRID, _GRID, indexing="ij"))
        design = _design(n, size, near_b, near_e)
        parts = np.array_split(losses, -(-len(losses) // 100))
        at = np.concatenate([_solve(design, part.T, columns)[1].argmin(axis=0) for part in parts])
        at_b, at_e = near_b[at], near_e[at]
    else:
        grid = np.broadcast_to(_GRID, (len(losses), STEPS))
        near_b, near_e = (grid if v is None else np.broadcast_to(v[:, None], grid.shape) for v in (b, e))
        at = _solve(_design(n, size, near_b, near_e), losses[:, None, :, None], columns)[1][..., 0].argmin(axis=1)
        at_b, at_e = near_b[rows, at], near_e[rows, at]
    step = np.log(HIGH / LOW) / (STEPS - 1)
    around = np.stack(np.meshgrid(*near, indexing="ij"), axis=-1).reshape(-1, 2)
    coefficients = np.zeros((len(losses), 3))
    for _ in range(12):
        near_b, near_e = (np.clip(v[:, None] * np.exp(step * around[:, k]), LOW, HIGH) for k, v in enumerate((at_b, at_e)))
        found, square = _solve(_design(n, size, near_b, near_e), losses[:, None, :, None], columns)
        best = square[..., 0].argmin(axis=1)
        at_b, at_e, coefficients = near_b[rows, best], near_e[rows, best], found[rows, best, 0]
        step /= 1.8
    return _raw(coefficients, at_b, at_e, n, size)


def _polished(n: np.ndarray, size: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """(c, a, b, d, e) of the least squares of one set of losses."""
    from scipy.optimize import least_squares

    best = _fits(n, size, loss[None])[0]
    if best[1] <= 0 or best[3] <= 0:
        return best
    centre = np.log(n).mean(), np.log(size).mean()
    start = np.array([best[0], np.log(best[1]) - best[2] * centre[0], best[2], np.log(best[3]) - best[4] * centre[1], best[4]])

    def residual(t: np.ndarray) -> np.ndarray:
        return t[0] + np.exp(t[1] - t[2] * (np.log(n) - centre[0])) + np.exp(t[3] - t[4] * (np.log(size) - centre[1])) - loss

    bounds = [0.0, -np.inf, LOW, -np.inf, LOW], [float(loss.min()) + 1e-12, np.inf, HIGH, np.inf, HIGH]
    start = np.clip(start, np.array(bounds[0]) + 1e-12, np.array(bounds[1]) - 1e-12)
    found = least_squares(residual, start, bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac", max_nfev=400)
    c, a, b, d, e = found.x
    tried = np.array([c, np.exp(a + b * centre[0]), b, np.exp(d + e * centre[1]), e])
    return (tried, best)[int(_square(np.stack([tried, best]), n, size, loss).argmin())]


def _at(fitted: np.ndarray, n: np.ndarray, size: np.ndarray) -> np.ndarray:
    c, a, b, d, e = fitted
    return c + a * n**-b + d * size**-e


def _profile(
    n: np.ndarray, size: np.ndarray, loss: np.ndarray, best: np.ndarray
) -> tuple[dict[str, float], dict[str, float], dict[str, bool]]:
    """(low, high) of floor and exponents where the sum of squares stays below sse (1 + F(.95; 1, k - 5) / (k - 5)); whether it does so
    without each of the terms."""
    from scipy.special import fdtri

    free = len(n) - 5
    limit = _square(best[None], n, size, loss)[0] * (1 + float(fdtri(1, free, 0.95)) / free) + 1e-30

    def below(name: str, values: np.ndarray) -> np.ndarray:
        """Whether the sum of squares with the parameter at each value is below the limit."""
        rows = np.broadcast_to(loss, (len(values), len(loss)))
        if name == "floor":
            found = _fits(n, size, rows - values[:, None], EVERY - {0})
            found[:, 0] = values
        else:
            found = _fits(n, size, rows, **{"b" if name == "data_exponent" else "e": values})  # pyright: ignore[reportArgumentType]
        return _square(found, n, size, loss) <= limit

    low, high = {}, {}
    for name, values in (("floor", np.linspace(0.0, float(loss.min()), STEPS)), ("data_exponent", _GRID), ("model_exponent", _GRID)):
        point = float(best[NAMES.index(name)])
        low[name], high[name] = _ends(values, below(name, values), point, lambda at, name=name: below(name, at))
    without = {}
    for name, column in (("data", 1), ("model", 2)):
        without[name] = bool((_square(_fits(n, size, loss[None], EVERY - {column}), n, size, loss) <= limit)[0])
    return low, high, without


def _ends(values: np.ndarray, inside: np.ndarray, point: float, below: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """The outermost ends of where `below` holds: between the values of a scan, whose answers are `inside`, by bisection."""
    there = np.append(values[inside], point)
    ins = np.array([there.min(), there.max()])
    outs = np.array([values[values < ins[0]].max(initial=-np.inf), values[values > ins[1]].min(initial=np.inf)])
    open_ = np.isfinite(outs)  # the others end where the scan ends
    if open_.any():
        for _ in range(14):
            middle = (ins[open_] + outs[open_]) / 2
            yes = below(middle)
            ins[open_], outs[open_] = np.where(yes, middle, ins[open_]), np.where(yes, outs[open_], middle)
    return float(ins[0]), float(ins[1])


def _square(fitted: np.ndarray, n: np.ndarray, size: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Sum of squares of each (c, a, b, d, e) of fitted [q, 5]."""
    c, a, b, d, e = (column[:, None] for column in fitted.T)
    return ((c + a * n**-b + d * size**-e - loss) ** 2).sum(axis=1)


def _heldout(n: np.ndarray, size: np.ndarray, loss: np.ndarray) -> dict[str, float]:
    last = np.lexsort((n, size))[-1]
    rest = np.arange(len(n)) != last
    if len(n) <= POINTS or _unjoined(n[rest], size[rest]):
        return {}
    predicted = float(_at(_polished(n[rest], size[rest], loss[rest]), n[last : last + 1], size[last : last + 1])[0])
    return {"prediction": predicted, "error": predicted - float(loss[last])}


# ---- what may be said ------------------------------------------------------------------------------------------------------------


def _told(
    best: np.ndarray, low: Mapping[str, float], high: Mapping[str, float], absent: Mapping[str, bool], least: float
) -> dict[str, float | None]:
    """The numbers that the data tell."""
    told: dict[str, float | None] = dict(zip(NAMES, best.tolist(), strict=True))
    for name in ("data", "model"):
        power = f"{name}_exponent"
        wide = np.log(high[power] / max(low[power], LOW)) > ALL * np.log(HIGH / LOW)
        if absent[name] or wide:
            told[power] = told[f"{name}_scale"] = None
    if high["floor"] - low["floor"] > ALL * least:
        told["floor"] = None
    return told


def _words(
    told: Mapping[str, float | None], low: Mapping[str, float], high: Mapping[str, float], absent: Mapping[str, bool], rms: float,
    points: int, rows: int,
) -> list[str]:  # fmt: skip
    out = [f"{points} points{f', {rows} replicates' if rows > 1 else ''}, rms of what is left {rms:.2g}."]
    for name, size in (("data", "comparisons"), ("model", "size of the model")):
        power = f"{name}_exponent"
        span = f"[{low[power]:.3g}, {high[power]:.3g}]"
        if told[power] is None:
            why = "the losses are as well explained without it" if absent[name] else f"its interval is {span}"
            out.append(f"The exponent of the {size} is not identified: {why}. Measure more sizes, further apart, or more seeds.")
        else:
            out.append(f"Exponent of the {size}: {told[power]:.3g} {span}.")
    span = f"[{low['floor']:.3g}, {high['floor']:.3g}]"
    if told["floor"] is None:
        out.append(f"The floor is not identified: its interval is {span}, nearly everything below the losses.")
    else:
        out.append(f"Floor: {told['floor']:.4g} {span}.")
    return out


def _checked(data: np.ndarray, model: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, size = (np.asarray(x, dtype=np.float64) for x in (data, model))
    table = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    if n.ndim != 1 or size.shape != n.shape or table.ndim != 2 or table.shape[1] != len(n) or len(table) == 0:
        raise InputError(f"{n.shape} data sizes, {size.shape} model sizes and losses {table.shape}: give all three for each point")
    if not all(np.isfinite(x).all() and (x > 0).all() for x in (n, size, table)):
        raise InputError("sizes and losses are finite and above 0: a law of powers has no place for others")
    order = np.lexsort((n, size))
    n, size, table = n[order], size[order], table[:, order]
    twice = np.flatnonzero((np.diff(n) == 0) & (np.diff(size) == 0))
    if len(twice):
        raise InputError(
            f"{len(twice)} points are given twice (first: {n[twice[0]]:g} comparisons, model {size[twice[0]]:g}): give seeds as rows of "
            "losses"
        )
    for name, values in (("data", n), ("model", size)):
        if (count := len(np.unique(values))) < SIZES:
            raise InputError(
                f"{count} different {name} size{'s' * (count > 1)}: below {SIZES} the power of the {name} size cannot be told from the "
                f"floor. Measure {SIZES} or more, or fit the other size alone (cupel.evaluate.scaling.fit_scaling)"
            )
    if len(n) < POINTS:
        raise InputError(f"{len(n)} points for five unknowns: measure {POINTS} or more, or fit one size alone (fit_scaling)")
    if _unjoined(n, size):
        raise InputError(
            "data and model sizes move together: nothing tells their powers apart. Measure some models with several amounts of data and "
            f"some amounts of data with several models, so that {SIZES} of each are joined"
        )
    return n, size, table


def _unjoined(n: np.ndarray, size: np.ndarray) -> bool:
    """Whether no three sizes of each kind are joined by points that share a size."""
    label = np.arange(len(n))
    while True:
        joined = label.copy()
        for values in (n, size):
            place = np.unique(values, return_inverse=True)[1].reshape(-1)
            least = np.full(place.max() + 1, len(n))
            np.minimum.at(least, place, joined)
            joined = least[place]
        if (joined == label).all():
            break
        label = joined
    return not any(min(len(np.unique(x[label == one])) for x in (n, size)) >= SIZES for one in np.unique(label))
