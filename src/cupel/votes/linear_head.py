"""Ridge-logistic head on the difference of two sides: the audit's content model and the first reward model.

    minimise over theta   sum_i w_i [ p_i softplus(-m_i) + (1 - p_i) softplus(m_i) ] + ridge/2 |theta|^2,
    m_i = (x_first_i - x_second_i) theta

No intercept: swapping the sides of a row flips its margin and nothing else. Because p softplus(-m) + (1-p) softplus(m) equals
softplus(m) - p m, the problem is convex for every real p (a corrected target may leave [0, 1]) as long as w >= 0.

Several heads (folds x ridges) are solved at once: their coefficients are columns, so a pass over the data is a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.votes.folds import group_folds

#: half decades; the features are expected to have unit scale or less
RIDGES: tuple[float, ...] = tuple(float(x) for x in 10.0 ** np.arange(-0.5, 6.01, 0.5))
#: above this many rows the ridge is tuned on a random part of this size (whole groups), and the result says so
TUNING_ROWS = 20_000


@dataclass(frozen=True)
class HeadFit:
    """A fitted head: coefficients [d], the ridge and how it was chosen, and whether the solver arrived.

    gradient is the largest absolute entry of the gradient of the objective divided by the total weight; loss is the mean weighted
    log loss without the ridge term; cv_loss holds the cross-validated log loss of each ridge tried (empty: not tuned).
    """

    theta: np.ndarray
    ridge: float
    converged: bool
    iterations: int
    gradient: float
    loss: float
    n: int
    ridges: tuple[float, ...] = ()
    cv_loss: tuple[float, ...] = ()
    tuned_on: int = 0


@dataclass(frozen=True)
class OutOfFold:
    """Margins of rows by heads that saw no row of their group.

    margin [n], positive where the first side is predicted; fold int [n]; ridge and cv_loss of each fold; tuned_on: rows used to
    choose each ridge; converged: every solver arrived.
    """

    margin: np.ndarray
    fold: np.ndarray
    ridges: tuple[float, ...]
    cv_loss: tuple[float, ...]
    tuned_on: tuple[int, ...]
    converged: bool


class LinearHead:
    """Linear reward head, fitted on pairs: score(x) = x theta, margin = score(first) - score(second).

    >>> rng = np.random.default_rng(0)
    >>> first, second = rng.normal(size=(400, 3)), rng.normal(size=(400, 3))
    >>> label = ((first - second) @ np.array([2.0, 0.0, -1.0]) > 0).astype(float)
    >>> head = LinearHead(ridge=1.0).fit(first, second, label)
    >>> head.result_.converged, bool(np.mean((head.margin(first, second) > 0) == label) > 0.97)
    (True, True)
    """

    theta_: np.ndarray
    result_: HeadFit

    def __init__(self, ridge: float = 1.0, *, tolerance: float = 1e-7, max_iterations: int = 500) -> None:
        self.ridge = ridge
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def fit(self, x_first: np.ndarray, x_second: np.ndarray, p: np.ndarray, w: np.ndarray | None = None) -> LinearHead:
        """Fit to targets p [n] (1: first is better) with weights w [n] >= 0; x_first, x_second [n, d]. Returns self."""
        x, p, w = _prepare(x_first, x_second, p, w)
        space = _Space(x, w)
        everything, ridge = np.ones((len(x), 1), dtype=bool), np.array([self.ridge])
        solved = _solve(space, p, w, everything, ridge, tolerance=self.tolerance, limit=self.max_iterations)
        return self._take(solved, 0, space, p, w)

    def margin(self, x_first: np.ndarray, x_second: np.ndarray) -> np.ndarray:
        """Predicted log-odds that the first side is better, float64 [n]."""
        return (np.asarray(x_first, dtype=np.float64) - np.asarray(x_second, dtype=np.float64)) @ self.theta_

    def score(self, x: np.ndarray) -> np.ndarray:
        """Reward of one side, float64 [n]; only differences within a prompt mean something."""
        return np.asarray(x, dtype=np.float64) @ self.theta_

    def _take(self, solved: _Solved, column: int, space: _Space, p: np.ndarray, w: np.ndarray, **more: object) -> LinearHead:
        theta = space.back(solved.theta[:, column])
        margin = space.z @ solved.theta[:, column]
        total = w.sum()
        loss = float(w @ (np.logaddexp(0, margin) - p * margin) / total)
        self.theta_ = theta
        self.result_ = HeadFit(
            theta=theta, ridge=self.ridge, converged=bool(solved.converged[column]), iterations=solved.iterations,
            gradient=float(solved.gradient[column]), loss=loss, n=len(p), **more,  # type: ignore[arg-type]
        )  # fmt: skip
        return self


def objective(theta: np.ndarray, x: np.ndarray, p: np.ndarray, w: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
    """Objective of the module's first line and its gradient, for differences x [n, d]; the reference for the fast solver.

    >>> value, gradient = objective(np.zeros(1), np.array([[2.0]]), np.array([1.0]), np.array([1.0]), 0.5)
    >>> round(value, 4), gradient.tolist()
    (0.6931, [-1.0])
    """
    margin = x @ theta
    value = float(w @ (p * np.logaddexp(0, -margin) + (1 - p) * np.logaddexp(0, margin)) + ridge / 2 * theta @ theta)
    return value, x.T @ (w * (_sigmoid(margin) - p)) + ridge * theta


def fit_tuned(
    x_first: np.ndarray,
    x_second: np.ndarray,
    p: np.ndarray,
    w: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
) -> LinearHead:
    """Head whose ridge has the least log loss in cross-validation by group; ties go to the larger ridge.

    groups [n]: rows that stay together (prompts); each row is its own group where None. Above TUNING_ROWS rows the ridge is chosen
    on a random part of whole groups of about that size and scaled by the ratio of weights; `result_.tuned_on` says how many.
    """
    x, p, w = _prepare(x_first, x_second, p, w)
    groups = np.arange(len(x)) if groups is None else np.asarray(groups)
    space = _Space(x, w)
    ridge, losses, used, start = _tune(space, p, w, groups, np.ones(len(x), dtype=bool), seed, tuple(ridges), folds)
    head = LinearHead(ridge)
    everything = np.ones((len(x), 1), dtype=bool)
    solved = _solve(space, p, w, everything, np.array([ridge]), tolerance=head.tolerance, limit=head.max_iterations, start=start)
    return head._take(solved, 0, space, p, w, ridges=tuple(ridges), cv_loss=losses, tuned_on=used)


def out_of_fold(
    x_first: np.ndarray,
    x_second: np.ndarray,
    p: np.ndarray,
    w: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
    folds: int = 10,
    ridges: Sequence[float] = RIDGES,
    inner_folds: int = 5,
) -> OutOfFold:
    """Margin of every row by a head that saw no row of its group, the ridge tuned inside each training part (nested).

    Rows of weight 0 get a margin too; they teach nothing.

    >>> rng = np.random.default_rng(1)
    >>> first, second = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    >>> label = (first[:, 0] > second[:, 0]).astype(float)
    >>> found = out_of_fold(first, second, label, groups=np.arange(300) // 3, seed=0, folds=5)
    >>> found.converged, bool(np.mean((found.margin > 0) == label) > 0.95)
    (True, True)
    """
    x, p, w = _prepare(x_first, x_second, p, w)
    groups = np.arange(len(x)) if groups is None else np.asarray(groups)
    fold = group_folds(groups, folds, seed)
    space = _Space(x, w)
    count = int(fold.max()) + 1
    margin, chosen, losses, used, good = np.empty(len(x)), [], [], [], True
    for k in range(count):
        train = fold != k
        _needs_weight(w[train], f"fold {k}")
        ridge, loss, rows, start = _tune(space, p, w, groups, train, seed + 1 + k, tuple(ridges), inner_folds)
        solved = _solve(space, p, w, train[:, None], np.array([ridge]), tolerance=1e-6, limit=500, start=start)
        margin[~train] = space.z[~train] @ solved.theta[:, 0]
        good &= bool(solved.converged.all())
        chosen.append(ridge)
        losses.append(min(loss) if loss else float("nan"))
        used.append(rows)
    return OutOfFold(margin, fold, tuple(chosen), tuple(losses), tuple(used), good)


# ---- the solver -----------------------------------------------------------------------------------------------------------------


class _Space:
    """Differences in the basis of eigenvectors of their weighted Gram matrix, in which the Hessian is nearly diagonal."""

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        values, self.basis = np.linalg.eigh((x * w[:, None]).T @ x)
        self.values = np.maximum(values, 0.0)
        self.z = x @ self.basis
        self.total = float(w.sum())

    def back(self, theta: np.ndarray) -> np.ndarray:
        """Coefficients in the original coordinates."""
        return self.basis @ theta


@dataclass(frozen=True)
class _Solved:
    theta: np.ndarray  # [d, B]
    converged: np.ndarray  # [B]
    gradient: np.ndarray  # [B]
    iterations: int


def _prepare(x_first: np.ndarray, x_second: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = np.asarray(x_first), np.asarray(x_second)
    if first.ndim != 2 or first.shape != second.shape:
        raise InputError(f"the sides need the same shape [n, d], not {first.shape} and {second.shape}")
    x = first.astype(np.float64) - second
    p = np.asarray(p, dtype=np.float64)
    w = np.ones(len(x)) if w is None else np.asarray(w, dtype=np.float64)
    if p.shape != (len(x),) or w.shape != (len(x),):
        raise InputError(f"{len(x):,} rows need as many targets and weights, not {p.shape} and {w.shape}")
    for name, bad in (
        ("features", ~np.isfinite(x).all(axis=1)), ("targets", ~np.isfinite(p)), ("weights", ~(np.isfinite(w) & (w >= 0))),
    ):  # fmt: skip
        if bad.any():
            first_bad = int(np.flatnonzero(bad)[0])
            rule = "finite and not negative" if name == "weights" else "finite"
            raise InputError(f"{int(bad.sum()):,} of {len(x):,} {name} are not {rule} (first: row {first_bad}); leave them out")
    _needs_weight(w, "the data")
    return x, p, w


def _needs_weight(w: np.ndarray, where: str) -> None:
    if not w.sum() > 0:
        raise InputError(f"no row of {where} has a weight above 0: there is nothing to learn from")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _solve(
    space: _Space, p: np.ndarray, w: np.ndarray, mask: np.ndarray, ridge: np.ndarray, *,
    tolerance: float, limit: int, start: np.ndarray | None = None, rows: np.ndarray | None = None, memory: int = 8,
    kind: type = np.float64,
) -> _Solved:  # fmt: skip
    """L-BFGS on B problems at once: column b uses rows mask[:, b] and ridge[b]. Exact gradients, backtracking, diagonal start."""
    z = space.z if rows is None else space.z[rows]
    p = p if rows is None else p[rows]
    w = w if rows is None else w[rows]
    total = np.maximum(w @ mask, 1e-300)
    z, target, weights = z.astype(kind, copy=False), p[:, None].astype(kind), mask * w[:, None].astype(kind)  # weights [n, B]
    ridge = np.asarray(ridge, dtype=np.float64)
    if (ridge <= 0).any():
        raise InputError(f"a ridge is positive, not {float(ridge.min())!r}; a tiny one (1e-6) stands for none")

    def value_gradient(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margin = z @ theta.astype(kind, copy=False)
        small = np.exp(-np.abs(margin))
        value = np.einsum("nb,nb->b", weights, np.maximum(margin, 0) + np.log1p(small) - target * margin, dtype=np.float64)
        np.divide(np.where(margin >= 0, kind(1), small), 1 + small, out=margin)  # sigmoid(margin), in place
        margin -= target
        margin *= weights
        gradient = z.T @ margin + ridge * theta
        return value + 0.5 * ridge * (theta * theta).sum(axis=0), gradient

    theta = np.zeros((z.shape[1], mask.shape[1])) if start is None else np.array(start, dtype=np.float64).reshape(-1, mask.shape[1])
    diagonal = 1.0 / (0.2 * space.values[:, None] * (total / space.total) + ridge)
    value, gradient = value_gradient(theta)
    size = np.abs(gradient).max(axis=0, initial=0.0) / total
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    iterations, slack = 0, 1e-13 if kind is np.float64 else 1e-7
    stuck = np.zeros(mask.shape[1], dtype=bool)
    while iterations < limit and ((size > tolerance) & ~stuck).any():
        iterations += 1
        step = _direction(gradient, pairs, diagonal)
        slope = (step * gradient).sum(axis=0)
        uphill = slope >= 0
        step[:, uphill] = -(diagonal * gradient)[:, uphill]
        slope = (step * gradient).sum(axis=0)
        step[:, (size <= tolerance) | stuck] = 0.0
        length, worse = np.ones(mask.shape[1]), np.ones(mask.shape[1], dtype=bool)
        for _ in range(30):
            moved = theta + length * step
            new_value, new_gradient = value_gradient(moved)
            worse = new_value > value + 1e-4 * length * slope + slack * np.abs(value)
            if not worse.any():
                break
            length = np.where(worse, length * 0.5, length)
        else:
            length = np.where(worse, 0.0, length)
            moved = theta + length * step
            new_value, new_gradient = value_gradient(moved)
            stuck |= worse
        change, turn = moved - theta, new_gradient - gradient
        curvature = (change * turn).sum(axis=0)
        rho = np.where(curvature > 1e-300, 1.0 / np.maximum(curvature, 1e-300), 0.0)
        pairs = [*pairs[-(memory - 1) :], (change, turn, rho)]
        theta, value, gradient = moved, new_value, new_gradient
        size = np.abs(gradient).max(axis=0, initial=0.0) / total
    return _Solved(theta, size <= 10 * tolerance, size, iterations)


def _direction(gradient: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]], diagonal: np.ndarray) -> np.ndarray:
    """Two-loop recursion of L-BFGS, columnwise."""
    q = gradient.copy()
    alphas = []
    for change, turn, rho in reversed(pairs):
        alpha = rho * (change * q).sum(axis=0)
        q -= alpha * turn
        alphas.append(alpha)
    q *= diagonal
    for (change, turn, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q += change * (alpha - rho * (turn * q).sum(axis=0))
    return -q


def _tune(
    space: _Space, p: np.ndarray, w: np.ndarray, groups: np.ndarray, train: np.ndarray, seed: int, ridges: tuple[float, ...],
    folds: int,
) -> tuple[float, tuple[float, ...], int, np.ndarray | None]:  # fmt: skip
    """(ridge, cross-validated loss per ridge, rows used, a starting point in the rotated basis)."""
    ordered = np.array(sorted(ridges))
    if len(ordered) == 0:
        raise InputError("the ridge grid is empty")
    if len(ordered) == 1:
        return float(ordered[0]), (), 0, None
    rows = _tuning_rows(groups, train & (w > 0), seed)
    fold = group_folds(groups[rows], folds, seed)
    count = int(fold.max()) + 1
    mask = np.repeat(fold[:, None] != np.arange(count), len(ordered), axis=1)  # columns: fold-major, ridge-minor
    scale = 1.0 if len(rows) == train.sum() else w[rows].sum() / w[train].sum()
    grid = np.tile(ordered * scale, count)
    solved = _solve(space, p, w, mask, grid, tolerance=2e-4, limit=60, rows=rows, kind=np.float32)
    margin = space.z[rows] @ solved.theta
    held = ~mask * w[rows][:, None]
    loss = (held * (np.logaddexp(0, margin) - p[rows][:, None] * margin)).sum(axis=0).reshape(count, -1).sum(axis=0)
    loss /= held.sum() / len(ordered)
    best = int(np.flatnonzero(loss <= loss.min() + 1e-9 * abs(loss.min()))[-1])
    start = solved.theta.reshape(len(solved.theta), count, -1)[:, :, best].mean(axis=1, keepdims=True)
    back = {float(r): float(v) for r, v in zip(ordered, loss, strict=True)}
    return float(ordered[best]), tuple(back[float(r)] for r in ridges), len(rows), start


def _tuning_rows(groups: np.ndarray, usable: np.ndarray, seed: int) -> np.ndarray:
    """Usable rows, or whole random groups of about TUNING_ROWS of them."""
    rows = np.flatnonzero(usable)
    if len(rows) <= TUNING_ROWS:
        return rows
    label, index, size = np.unique(groups[rows], return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(label))
    enough = int(np.searchsorted(np.cumsum(size[order]), TUNING_ROWS)) + 1
    kept = np.zeros(len(label), dtype=bool)
    kept[order[: max(2, enough)]] = True
    return rows[kept[index.reshape(-1)]]
