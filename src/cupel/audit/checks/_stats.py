"""Small statistics of the checks: shares with their intervals, exact binomial tails, a two-parameter logistic fit, false discovery
rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.records.keys import dense
from cupel.votes.intervals import wilson_at


def binomial_p(k: int, n: int) -> float:
    """Exact two-sided p of k successes of n under a rate of one half.

    >>> round(binomial_p(10, 12), 4)
    0.0386
    """
    from scipy.special import bdtr

    return float(min(1.0, 2 * bdtr(min(k, n - k), n, 0.5))) if n else 1.0


def lower_tail(k: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """P(Binomial(n, p) <= k), element by element.

    >>> lower_tail(np.array([1]), np.array([2]), np.array([0.5])).tolist()
    [0.75]
    """
    from scipy.special import bdtr

    return bdtr(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.int64), p)


def two_sided_p(k: np.ndarray, n: np.ndarray, p: float | np.ndarray) -> np.ndarray:
    """Two-sided p of k of n under the rate p, element by element: twice the smaller exact tail, at most 1.

    >>> two_sided_p(np.array([0, 5]), np.array([10, 10]), 0.5).round(4).tolist()
    [0.002, 1.0]
    """
    k, n = np.asarray(k), np.asarray(n)
    rate = np.broadcast_to(np.asarray(p, dtype=np.float64), k.shape)
    return np.minimum(1.0, 2 * np.minimum(lower_tail(k, n, rate), lower_tail(n - k, n, 1 - rate)))


@dataclass(frozen=True)
class Share:
    """A share of rows, its 95 % interval, and the numbers of rows and of independent clusters behind it."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def as_dict(self) -> dict[str, float | int | None]:
        """For `Finding.details`."""
        return {
            "share": None if self.n == 0 else round(self.value, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "n": self.n,
            "clusters": self.clusters,
        }


def clustered_share(x: np.ndarray, cluster: np.ndarray) -> Share:
    """Mean of x in [0, 1] with a 95 % interval that holds when rows of one cluster are alike.

    Variance of the ratio by linearisation over clusters, v = G/(G-1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2; from it the number
    of independent rows n_eff = min(n, mean (1 - mean) / v), and Wilson's interval at n_eff with the t quantile of G - 1 degrees of
    freedom. It is the large-sample limit of the bootstrap over clusters and, unlike it, does not collapse at shares of 0 and 1.

    >>> s = clustered_share(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1]))
    >>> s.value, s.clusters, s.low < 0.05
    (0.5, 2, True)
    """
    if len(x) == 0:
        return Share(float("nan"), 0.0, 1.0, 0, 0)
    member = dense(cluster)
    return clustered_ratio(np.bincount(member, weights=np.asarray(x, dtype=np.float64)), np.bincount(member))


def clustered_ratio(k: np.ndarray, n: np.ndarray) -> Share:
    """Share sum k / sum n of clusters with k_g of n_g rows each, its interval as in `clustered_share`; (0, 1) for one cluster.

    >>> clustered_ratio(np.array([2, 0]), np.array([2, 2])).value
    0.5
    """
    from scipy.special import stdtrit

    total, g = float(n.sum()), len(n)
    mean = float(k.sum()) / total
    if g < 2:
        return Share(mean, 0.0, 1.0, int(total), g)
    v = g / (g - 1) * float(((k - mean * n) ** 2).sum()) / total**2
    n_eff = min(total, mean * (1 - mean) / v) if v > 0 and 0 < mean < 1 else float(g)
    low, high = wilson_at(mean * n_eff, n_eff, float(stdtrit(g - 1, 0.975)))
    return Share(mean, low, high, int(total), g)


def logistic(x: np.ndarray, y: np.ndarray, *, ridge: float = 1.0, intercept: bool = True) -> tuple[float, float]:
    """(intercept, slope) of P(y = 1) = sigmoid(a + b x), with penalty ridge/2 b^2 on the slope, by Newton's method.

    The ridge keeps the slope finite on separable data; `intercept=False` fixes a = 0, for differences whose orientation means
    nothing.

    >>> a, b = logistic(np.array([-1.0, 1.0, 1.0]), np.array([0, 1, 0]), intercept=False)
    >>> a, b > 0
    (0.0, True)
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    design = np.stack([np.ones_like(x), x], axis=1)
    penalty = np.array([0.0, ridge])
    active = np.array([intercept, True])
    beta = np.zeros(2)

    def loss(b: np.ndarray) -> float:
        z = design @ b
        return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (penalty * b**2).sum())

    current = loss(beta)
    for _ in range(100):
        mu = 1 / (1 + np.exp(-np.clip(design @ beta, -500, 500)))
        gradient = (design.T @ (mu - y) + penalty * beta)[active]
        hessian = ((design * (mu * (1 - mu))[:, None]).T @ design + np.diag(penalty))[np.ix_(active, active)]
        step = np.zeros(2)
        step[active] = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        size = 1.0
        while size > 1e-8 and loss(beta - size * step) > current:
            size /= 2
        beta = beta - size * step
        current = loss(beta)
        if float(np.abs(size * step).max()) < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def benjamini_hochberg(p: np.ndarray, rate: float) -> np.ndarray:
    """bool: which hypotheses are rejected with a false discovery rate of at most `rate` (Benjamini and Hochberg 1995).

    >>> benjamini_hochberg(np.array([0.001, 0.9]), 0.05).tolist()
    [True, False]
    """
    p = np.asarray(p, dtype=np.float64)
    m = len(p)
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= rate * np.arange(1, m + 1) / max(m, 1))
    rejected = np.zeros(m, dtype=bool)
    if len(passed):
        rejected[order[: passed[-1] + 1]] = True
    return rejected
