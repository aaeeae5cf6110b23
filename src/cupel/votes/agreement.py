"""How far people agree: pairwise agreement, Cohen's and Fleiss' kappa, Krippendorff's alpha with its interval.

Kappas depend on how common each label is: report raw agreement and the shares of labels beside them, and never compare kappas
across data with different policies for ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import Interval, cluster_bootstrap, expanded_percentile, group_sums, resampled_sums

Level = Literal["nominal", "ordinal", "interval"]
Ties = Literal["drop", "half", "category"]


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha, its interval (bootstrap over units or groups of them), the units with two votes or more, the votes in
    them, and the share of each value among those votes. alpha is NaN, with a note, where only one value occurs."""

    alpha: float
    low: float
    high: float
    units: int
    votes: int
    values: tuple[float, ...]
    shares: tuple[float, ...]
    note: str = ""


def krippendorff_alpha(
    unit: np.ndarray,
    value: np.ndarray,
    *,
    level: Level = "nominal",
    groups: np.ndarray | None = None,
    seed: int = 0,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Alpha:
    """alpha = 1 - D_o / D_e from one row per vote: observed over expected disagreement of two votes on a unit.

    Coincidences O[c, k] = sum_units sum_{pairs of different votes} 1 / (m_u - 1), n_c their row sums, n the total;
    D_o = sum O d / n, D_e = sum n_c n_k d / (n (n - 1)). d: nominal [c != k]; interval (c - k)^2; ordinal
    (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2. Units with one vote are left out. Krippendorff 2011.

    unit int [n], value [n] (finite numbers), groups [n]: resampled for the interval, the unit where None.

    >>> votes = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
    >>> found = krippendorff_alpha(np.tile(np.arange(6), 3), votes.reshape(-1))
    >>> round(found.alpha, 6), found.units, found.low < found.alpha < found.high
    (0.160494, 6, True)
    """
    unit, value = np.asarray(unit), np.asarray(value, dtype=np.float64)
    if len(unit) != len(value) or not np.isfinite(value).all():
        raise InputError("alpha needs one unit and one finite value per vote; leave missing votes out")
    label, index = np.unique(unit, return_inverse=True)
    values, code = np.unique(value, return_inverse=True)
    k = len(values)
    flat = np.bincount(index.reshape(-1) * k + code.reshape(-1), minlength=len(label) * k)
    counts = flat.reshape(len(label), k).astype(np.float64)
    total = counts.sum(axis=1)
    several = total >= 2
    if not several.any():
        raise InputError(f"none of {len(label):,} units has two votes: agreement cannot be measured")
    counts, total = counts[several], total[several]
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, np.arange(k), np.arange(k)] -= counts
    columns = (pairs / (total - 1)[:, None, None]).reshape(-1, k * k)
    by = np.arange(len(counts)) if groups is None else np.asarray(groups)[np.unique(unit, return_index=True)[1]][several]
    sums = group_sums(columns, by)
    whole = sums.sum(axis=0, keepdims=True)
    estimate = float(_alpha(whole, k, level, values)[0])
    shares = tuple(float(x) for x in counts.sum(axis=0) / counts.sum())
    names = tuple(float(v) for v in values)
    if not np.isfinite(estimate):
        note = "alpha is undefined: only one value occurs, so agreement by chance is certain"
        return Alpha(float("nan"), float("nan"), float("nan"), len(counts), int(total.sum()), names, shares, note)
    drawn = _alpha(resampled_sums(sums, seed=seed, draws=draws), k, level, values) if len(sums) > 1 else np.zeros(0)
    spread = expanded_percentile(estimate, drawn, len(sums), confidence, (-1.0, 1.0))
    return Alpha(estimate, spread.low, spread.high, len(counts), int(total.sum()), names, shares)


def _alpha(sums: np.ndarray, k: int, level: Level, values: np.ndarray) -> np.ndarray:
    """alpha of each row of coincidence sums [draws, k * k]; NaN where expected disagreement is 0."""
    o = sums.reshape(-1, k, k)
    n_c = o.sum(axis=2)
    n = n_c.sum(axis=1)
    if level == "nominal":
        d = np.broadcast_to(1.0 - np.eye(k), o.shape)
    elif level == "interval":
        d = np.broadcast_to((values[:, None] - values[None, :]) ** 2, o.shape)
    elif level == "ordinal":
        upto = np.cumsum(n_c, axis=1)
        middle = upto - n_c / 2  # sum_{g=c..k} n_g - (n_c + n_k) / 2 = |middle_k - middle_c|
        d = (middle[:, :, None] - middle[:, None, :]) ** 2
    else:
        raise InputError(f'a level is "nominal", "ordinal" or "interval", not {level!r}')
    observed = (o * d).sum(axis=(1, 2))
    expected = (n_c[:, :, None] * n_c[:, None, :] * d).sum(axis=(1, 2)) / np.maximum(n - 1, 1e-300)
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), np.nan)


def cohen_kappa(a: np.ndarray, b: np.ndarray, *, weights: Literal["none", "linear", "quadratic"] = "none") -> float:
    """kappa = 1 - sum O d / sum E d of two annotators on the same items; d = [i != j], |i - j| or (i - j)^2 over ranked labels.

    Without weights this is (p_o - p_e) / (1 - p_e). Cohen 1960, 1968. Labels are ranked by their order, unused ranks do not count.
    NaN where chance agreement is certain.

    >>> round(cohen_kappa(np.array([1, 1, 0, 0, 1, 0]), np.array([1, 1, 0, 1, 1, 0])), 6)
    0.666667
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise InputError(f"two annotators need votes on the same items, not {a.shape} and {b.shape}")
    label, code = np.unique(np.concatenate([a, b]), return_inverse=True)
    left, right = code.reshape(2, -1)
    k = len(label)
    observed = np.bincount(left * k + right, minlength=k * k).reshape(k, k) / len(a)
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0, keepdims=True)
    gap = np.abs(np.arange(k)[:, None] - np.arange(k)[None, :]).astype(np.float64)
    costs = {"none": (gap > 0).astype(np.float64), "linear": gap, "quadratic": gap**2}
    if weights not in costs:
        raise InputError(f'weights are "none", "linear" or "quadratic", not {weights!r}')
    below = float((expected * costs[weights]).sum())
    return 1 - float((observed * costs[weights]).sum()) / below if below > 0 else float("nan")


def fleiss_kappa(counts: np.ndarray) -> float:
    """kappa = (P - p_e) / (1 - p_e) from counts [items, labels] with the same number m of votes on each item.

    P = mean_i (sum_j n_ij^2 - m) / (m (m - 1)), p_e = sum_j p_j^2. Fleiss 1971. InputError for unequal numbers of votes (use
    Krippendorff's alpha); NaN where one label takes all votes.

    >>> round(fleiss_kappa(np.array([[0, 3], [1, 2], [3, 0], [2, 1], [1, 2], [2, 1]])), 6)
    0.111111
    """
    counts = np.asarray(counts, dtype=np.float64)
    m = counts.sum(axis=1)
    if counts.ndim != 2 or len(counts) == 0 or not (m == m[0]).all() or m[0] < 2:
        raise InputError("Fleiss' kappa needs the same number of votes, two or more, on each item; alpha takes unequal numbers")
    agree = float(((counts**2).sum(axis=1) - m).mean() / (m[0] * (m[0] - 1)))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (agree - chance) / (1 - chance) if chance < 1 else float("nan")


def pairwise_agreement(
    unit: np.ndarray,
    sign: np.ndarray,
    *,
    ties: Ties = "drop",
    groups: np.ndarray | None = None,
    seed: int = 0,
    draws: int = 1000,
    level: float = 0.95,
) -> Interval:
    """A: probability that two random votes on a unit agree, units weighted by their votes, with a bootstrap over groups.

    sign: +1, -1, or 0 for a tie. ties: "drop" leaves them out, "half" counts a tie as agreeing with anything one time in two,
    "category" as a third label of its own. Units with one vote say nothing.

    >>> unit, sign = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 0, 1, -1, 1])
    >>> [round(pairwise_agreement(unit, sign, ties=t).estimate, 3) for t in ("drop", "half", "category")]
    [0.5, 0.4, 0.2]
    """
    from cupel.votes.repeats import agreement_shares, count_votes

    unit, sign = np.asarray(unit), np.asarray(sign)
    if ties == "category":
        counts = count_votes(unit, sign, ties="half")
        m = counts.votes
        same = sum(x * (x - 1) / 2 for x in (counts.up, counts.down, counts.ties))
        share = np.where(m >= 2, same / np.maximum(m * (m - 1) / 2, 1), np.nan)
    else:
        counts = count_votes(unit, sign, ties=ties)
        m, share = counts.votes, agreement_shares(counts)
    several = m >= 2
    if not several.any():
        raise InputError(f"none of {len(m):,} units has two votes: agreement cannot be measured")
    by = counts.item if groups is None else np.asarray(groups)[np.unique(unit, return_index=True)[1]]
    return cluster_bootstrap(
        (share * m)[several], by[several], denominator=m[several], seed=seed, draws=draws, level=level, clip=(0.0, 1.0)
    )
