# pyright: strict
"""Where propensities come from: counts of positives, a log of what was displayed, a logistic model of what was shown. Numpy only.

What they feed: the treatments `propensity` and `missed`, and the averages of `cupel.noise.exposure`. Everything is found by id, never by
place: counts compacted to the items that occur would shift every propensity after the first item without a positive.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cupel.errors import InputError

Floats = NDArray[np.float64]


def popularity_propensity(counts: Mapping[str, float], power: float = 0.5, floor: float | None = None) -> dict[str, float]:
    """Propensity by item, (n / max n)^power from counts of positives in training, in (0, 1] (card 32-unbiased-mnar, Saito et al. 2020).

    Clicks are exposure times relevance: popular because relevant is taken for popular because shown. floor: the propensity of items
    below it, those without a positive included; without one, such items are an error.

    InputError for counts that are negative or not finite, for no positive at all, for items without a positive where no floor is given,
    and for a floor or power outside (0, 1].

    >>> popularity_propensity({"a": 100, "b": 25, "c": 4, "d": 1})
    {'a': 1.0, 'b': 0.5, 'c': 0.2, 'd': 0.1}
    """
    if not 0 < power <= 1:
        raise InputError(f"power lies in (0, 1], not {power!r}")
    _check_floor(floor)
    wrong = [key for key, n in counts.items() if not (np.isfinite(n) and n >= 0)]
    if wrong:
        raise InputError(f"{len(wrong):,} of {len(counts):,} counts are negative or not finite (first: {wrong[0]!r})")
    largest = max(counts.values(), default=0)
    if largest == 0:
        raise InputError(f"none of the {len(counts):,} items has a positive: there is nothing to estimate exposure from")
    none = [key for key, n in counts.items() if n == 0]
    if none and floor is None:
        raise InputError(
            f"{len(none):,} of {len(counts):,} items have no positive (first: {none[0]!r}); their propensity cannot be estimated. Leave "
            f"them out, or give a floor"
        )
    return {key: max(float((n / largest) ** power), floor or 0.0) for key, n in counts.items()}


@dataclass(frozen=True)
class Frequencies:
    """How often things were displayed.

    theta [I, K] (K = 1 without positions): share of the displays at a position that showed an item, at least the floor; error [I, K] its
    binomial standard error before the floor; displays [K]; items and positions name rows and columns (None for the one column there is
    without positions); floored: how many cells lie on the floor
    """

    items: tuple[Hashable, ...]
    positions: tuple[Hashable, ...]
    theta: Floats
    error: Floats
    displays: NDArray[np.int64]
    floored: int

    def of(self, items: Sequence[Hashable], positions: Sequence[Hashable] | None = None) -> Floats:
        """Propensity of each row of a log, [n]. InputError for items or positions the frequencies were not counted for, never 1."""
        row, column = ({key: place for place, key in enumerate(keys)} for keys in (self.items, self.positions))
        where: Sequence[Hashable] = [None] * len(items) if positions is None else positions
        if len(where) != len(items):
            raise InputError(f"{len(items):,} items and {len(where):,} positions: give one of each per row")
        unknown = [k for k, (item, at) in enumerate(zip(items, where, strict=True)) if item not in row or at not in column]
        if unknown:
            k = unknown[0]
            raise InputError(
                f"{len(unknown):,} of {len(items):,} rows have an item or a position that was not counted (first: row {k}, item "
                f"{items[k]!r}, position {where[k]!r})"
            )
        i = np.array([row[item] for item in items], dtype=np.int64)
        j = np.array([column[at] for at in where], dtype=np.int64)
        return self.theta[i, j]


def display_frequency(
    items: Sequence[Hashable], positions: Sequence[Hashable] | None = None, *, catalogue: Sequence[Hashable] | None = None,
    occasions: int | None = None, floor: float = 1e-3,
) -> Frequencies:  # fmt: skip
    """Propensity as the observed frequency of display, from a log with one row per item displayed (clicked or not).

    theta_ik = displays of item i at position k / displays at position k. With `occasions` (without positions): displays of i / occasions,
    the chance that an occasion shows i among others. Right where what is shown does not look at the user; where it does, the frequency
    is a mean over users, and `logistic_propensity` on what it looks at is the better one.

    catalogue  all items that could be shown; those never displayed get the floor. Default: those in the log
    floor      smallest propensity, in (0, 1]: 1 / theta is at most 1 / floor, and what lies on it is biased

    InputError for an empty log, items outside the catalogue, an item displayed more often than there were occasions, other floors.

    >>> found = display_frequency(["a", "a", "b", "a"], [1, 1, 1, 2], catalogue=["a", "b", "c"], floor=0.01)
    >>> found.theta.round(3).tolist(), found.floored
    ([[0.667, 1.0], [0.333, 0.01], [0.01, 0.01]], 3)
    >>> found.of(["b", "a"], [1, 2]).round(3).tolist()
    [0.333, 1.0]
    """
    _check_floor(floor)
    n = len(items)
    if n == 0 or (positions is not None and len(positions) != n):
        raise InputError(f"a log has at least one row and one position per row, not {n:,} items and {len(positions or ()):,} positions")
    if occasions is not None and positions is not None:
        raise InputError("with positions the displays at a position are the occasions; leave `occasions` out")
    rows = tuple(dict.fromkeys(items)) if catalogue is None else tuple(dict.fromkeys(catalogue))
    where: Sequence[Hashable] = [None] * n if positions is None else positions
    columns = tuple(dict.fromkeys(where))
    row, column = ({key: place for place, key in enumerate(keys)} for keys in (rows, columns))
    outside = [item for item in items if item not in row]
    if outside:
        raise InputError(f"{len(outside):,} of {n:,} displayed items are not in the catalogue (first: {outside[0]!r})")
    count = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(count, (np.array([row[item] for item in items]), np.array([column[at] for at in where])), 1)
    displays = count.sum(axis=0) if occasions is None else np.array([occasions], dtype=np.int64)
    if (count > displays).any():
        first = rows[int(np.argmax((count > displays).any(axis=1)))]
        raise InputError(f"{first!r} was displayed more often than the {occasions:,} occasions: count an occasion's repeats once")
    share = count / displays
    return Frequencies(
        rows, columns, np.maximum(share, floor), np.sqrt(share * (1 - share) / displays), displays, int((share < floor).sum())
    )


@dataclass(frozen=True)
class LogisticPropensity:
    """A logistic model of being shown: intercept, coefficients [F] and their standard errors [F + 1] (intercept first), floor, number of
    Newton steps, and the share of the training rows whose propensity lies on the floor."""  # fmt: skip

    intercept: float
    coefficients: Floats
    error: Floats
    floor: float
    steps: int
    floored: float

    def predict(self, features: ArrayLike) -> Floats:
        """Propensity of each row of features [n, F], in [floor, 1). InputError for another width or values that are not finite."""
        x = _matrix(features)
        if x.shape[1] != len(self.coefficients):
            raise InputError(f"the model has {len(self.coefficients)} features, these rows {x.shape[1]}")
        return np.maximum(_sigmoid(self.intercept + x @ self.coefficients), self.floor)


def logistic_propensity(
    features: ArrayLike, shown: ArrayLike, *, l2: float = 1e-3, floor: float = 1e-3, steps: int = 100, tolerance: float = 1e-8
) -> LogisticPropensity:
    """P(shown | features) by penalised logistic regression: minimises sum of log-losses + l2 / 2 |coefficients|^2, intercept free.

    Newton with step halving. The intercept is not penalised, so the mean prediction (before the floor) is the share that was shown.
    features [n, F] (standardise what differs in scale: the ridge is the same for all), shown [n] 0 or 1, floor in (0, 1].

    InputError for other values, where all or none were shown, where a coefficient runs away (l2 0 on separable data), or where `steps`
    do not suffice.

    >>> x = np.array([[0.0], [0.0], [1.0], [1.0], [1.0], [1.0]])
    >>> model = logistic_propensity(x, [1, 0, 1, 1, 1, 0], l2=0.0)
    >>> model.predict([[0.0], [1.0]]).round(4).tolist()
    [0.5, 0.75]
    """
    x, y = _matrix(features), np.asarray(shown, dtype=np.float64)
    _check_floor(floor)
    if y.shape != (len(x),) or not np.isin(y, (0.0, 1.0)).all():
        raise InputError(f"shown is 0 or 1 for each of the {len(x):,} rows of features, not an array of shape {y.shape} with other values")
    if not 0 < y.mean() < 1:
        raise InputError(f"{'all' if y[0] else 'none'} of the {len(y):,} rows were shown: give what was not shown as well")
    if not (np.isfinite(l2) and l2 >= 0):
        raise InputError(f"l2 is a number of at least 0, not {l2!r}")
    design = np.hstack([np.ones((len(x), 1)), x])
    ridge = np.full(design.shape[1], l2)
    ridge[0] = 0.0
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(y.mean() / (1 - y.mean()))

    def value(beta: Floats) -> float:
        z = design @ beta
        return float((np.logaddexp(0, z) - y * z).sum() + ridge @ beta**2 / 2)

    now = value(beta)
    for step in range(1, steps + 1):
        p = _sigmoid(design @ beta)
        slope = design.T @ (p - y) + ridge * beta
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        try:
            move = np.linalg.solve(curvature, slope)
        except np.linalg.LinAlgError as error:
            raise InputError("the features are linearly dependent, or separate what was shown exactly; give l2 above 0") from error
        size = 1.0
        while size > 1e-10 and value(beta - size * move) > now:
            size /= 2
        beta = beta - size * move
        now = value(beta)
        if float(np.abs(beta).max()) > 1e4:
            raise InputError("a coefficient runs away: the features separate what was shown exactly. Give l2 above 0")
        if float(np.abs(size * move).max()) < tolerance:
            error = np.sqrt(np.diag(np.linalg.inv(curvature)))
            low = float((_sigmoid(design @ beta) < floor).mean())
            return LogisticPropensity(float(beta[0]), beta[1:], error, floor, step, low)
    raise InputError(f"{steps} Newton steps did not converge: the features nearly separate what was shown. Give a larger l2")


# ---- checks ----------------------------------------------------------------------------------------------------------------


def _matrix(features: ArrayLike) -> Floats:
    x: NDArray[Any] = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) == 0:
        raise InputError(f"features are a matrix with a row per pair, for at least one pair, not an array of shape {x.shape}")
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise InputError(f"{int(bad.sum()):,} of {len(x):,} rows of features are not finite (first: row {int(np.argmax(bad))})")
    return x


def _check_floor(floor: float | None) -> None:
    if floor is not None and not 0 < floor <= 1:
        raise InputError(f"floor is the smallest propensity that is used, in (0, 1], not {floor!r}")


def _sigmoid(z: Floats) -> Floats:
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))
