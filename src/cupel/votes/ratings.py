"""How far people agree on ratings: quadratically weighted kappa over pairs of raters, per annotator, and how often they are close.

    kappa = 1 - sum_ij W_ij O_ij / sum_ij W_ij E_ij,   W_ij = (i - j)^2,  E the product of the two margins

Cohen 1968. Any scale of W cancels, and both sums are moments: sum W O = mean (x - y)^2 over pairs of ratings, sum W E = var x + var y +
(mean x - mean y)^2. Kappa depends on how spread the ratings are: where nearly everything is rated 4, people who almost always agree have a
low kappa, so that the shares of equal and of neighbouring ratings stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import expanded_percentile, group_sums, resampled_sums


@dataclass(frozen=True)
class RatingAgreement:
    """Agreement of all pairs of ratings of the same item by different annotators, each pair in both orders.

    kappa and its interval (bootstrap over items, or groups of them); exact, within_one: shares of the pairs that are equal, or at most 1
    apart; items with two ratings or more, the ratings in them, pairs counted once; alone: items with one rating, which say nothing.
    """

    kappa: float
    low: float
    high: float
    exact: float
    within_one: float
    items: int
    ratings: int
    pairs: int
    alone: tuple[int, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotatorRatings:
    """Each annotator against everybody else who rated the same items. Arrays over annotators, sorted by index.

    annotator int; kappa, low, high: pooled over all pairs with the others, NaN where it is 0/0; items: shared with anybody; exact,
    within_one: shares of those pairs; mean: the annotator's ratings minus the others' of the same items; constant: always one rating.
    """

    annotator: np.ndarray
    kappa: np.ndarray
    low: np.ndarray
    high: np.ndarray
    items: np.ndarray
    exact: np.ndarray
    within_one: np.ndarray
    mean: np.ndarray
    constant: np.ndarray
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairKappas:
    """Kappa of each two annotators with shared items: first < second int, items shared, kappa (NaN where it is 0/0)."""

    first: np.ndarray
    second: np.ndarray
    items: np.ndarray
    kappa: np.ndarray


def qwk(a: np.ndarray, b: np.ndarray) -> float:
    """Quadratically weighted kappa of two raters of the same items, on the values themselves (a level that nobody used still counts).

    A rater who always says the same has kappa 0 with one who does not; two who always say the same thing have 0/0, NaN. InputError for
    unequal lengths and values that are not finite.

    >>> round(qwk(np.array([0, 1, 2, 3, 4, 4, 3, 2, 1, 0]), np.array([0, 2, 2, 3, 4, 3, 3, 1, 1, 1])), 6)
    0.882353
    >>> qwk(np.array([3, 3]), np.array([3, 3]))
    nan
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"two raters need one finite rating each of the same items, not {x.shape} and {y.shape}")
    return float(_kappa(np.array([[len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]]))[0])


def check_ratings(item: np.ndarray, annotator: np.ndarray, value: np.ndarray, low: float = 0, high: float = 4) -> np.ndarray:
    """The ratings as float64, checked: one row per rating, whole numbers in [low, high], no annotator twice on an item. InputError else.

    >>> check_ratings(np.array([0, 0]), np.array([0, 1]), np.array([4, 3])).tolist()
    [4.0, 3.0]
    """
    item, annotator, value = np.asarray(item), np.asarray(annotator), np.asarray(value, np.float64)
    if not (item.shape == annotator.shape == value.shape) or item.ndim != 1 or not len(item):
        raise InputError(f"ratings need one item, annotator and value per row, not {item.shape}, {annotator.shape}, {value.shape}")
    bad = np.flatnonzero(~((value >= low) & (value <= high) & (value == np.floor(value))))
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {len(value):,} ratings are no whole number from {low:g} to {high:g} (first: row {bad[0]}, "
            f"{value[bad[0]]:g}); give the ends of your scale, or leave these rows out"
        )
    twice = _repeats(item, annotator)
    if len(twice):
        raise InputError(
            f"{len(twice):,} of {len(value):,} ratings are an annotator's second of the same item (first: row {twice[0]}); keep one of them"
        )
    return value


def _repeats(*columns: np.ndarray) -> np.ndarray:
    """Rows whose values in all columns occurred in an earlier row, int64, sorted."""
    order = np.lexsort(columns[::-1])
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    return np.sort(order[1:][same])


def rating_agreement(
    item: np.ndarray, annotator: np.ndarray, value: np.ndarray, *, low: float = 0, high: float = 4, groups: np.ndarray | None = None,
    seed: int = 0, draws: int = 1000, level: float = 0.95,
) -> RatingAgreement:  # fmt: skip
    """Quadratically weighted kappa over all pairs of ratings of one item, one row per rating: item, annotator int [n], value [n].

    groups [n]: resampled for the interval, e.g. the prompt; the item where None. InputError as `check_ratings`, and where no item has two
    ratings.

    >>> item, annotator = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    >>> both = np.array([0, 0, 1, 2, 2, 2, 3, 3, 4, 4, 4, 3, 3, 3, 2, 1, 1, 1, 0, 1])
    >>> found = rating_agreement(item, annotator, both)
    >>> round(found.kappa, 4), found.exact, found.within_one, found.pairs
    (0.8824, 0.6, 1.0, 10)
    """
    value = check_ratings(item, annotator, value, low, high)
    label, index, m, sums, near = _rows(item, value)
    several = m >= 2
    alone = tuple(int(x) for x in label[np.bincount(index, minlength=len(label)) == 1])
    if not several.any():
        raise InputError(f"none of {len(label):,} items has two ratings: agreement cannot be measured")
    by = index if groups is None else np.asarray(groups)
    table = group_sums(np.concatenate([sums, near], axis=1)[several], by[several])
    total = table.sum(axis=0, keepdims=True)
    kappa = float(_kappa(total[:, :6])[0])
    said = () if np.isfinite(kappa) else ("kappa is undefined: every rating is the same, so agreement by chance is certain",)
    drawn = _kappa(resampled_sums(table, seed=seed, draws=draws)[:, :6]) if len(table) > 1 else np.zeros(0)
    spread = expanded_percentile(kappa, drawn, len(table), level, (-1.0, 1.0))
    exact, within = (float(x) for x in total[0, 6:] / total[0, 0])
    return RatingAgreement(
        kappa, spread.low, spread.high, exact, within, len(label) - len(alone), int(several.sum()), int(total[0, 0]) // 2, alone, said
    )


def annotator_agreement(
    item: np.ndarray, annotator: np.ndarray, value: np.ndarray, *, low: float = 0, high: float = 4, seed: int = 0, draws: int = 500,
    level: float = 0.95,
) -> AnnotatorRatings:  # fmt: skip
    """Each annotator's kappa with everybody else on shared items, with a bootstrap over these items. InputError as `check_ratings`.

    Pooled over pairs, not a mean of kappas of pairs of people: with few shared items each of those is mostly noise (`pairwise_kappas` has
    them). A rater who always says the same has kappa 0, or NaN where the others do too; both are named in the warnings.

    >>> item, annotator = np.repeat(np.arange(50), 3), np.tile([0, 1, 2], 50)
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 5, 50)
    >>> value = np.stack([truth, np.minimum(truth + 1, 4), rng.integers(0, 5, 50)], axis=1).reshape(-1)
    >>> annotator_agreement(item, annotator, value).kappa.round(2).tolist()
    [0.41, 0.41, -0.07]
    """
    value = check_ratings(item, annotator, value, low, high)
    _, _, m, sums, near = _rows(item, value)
    who, rater = np.unique(annotator, return_inverse=True)
    columns = np.concatenate([sums, near], axis=1)
    found = np.full((len(who), 6), np.nan)
    shared, constant, said = np.zeros(len(who), np.int64), np.zeros(len(who), bool), []
    for k in range(len(who)):
        rows = np.flatnonzero((rater.reshape(-1) == k) & (m >= 2))
        shared[k] = len(rows)
        if not len(rows):
            said.append(f"annotator {who[k]} shares no item with anybody")
            continue
        constant[k] = len(rows) > 1 and len(np.unique(value[rows])) == 1
        total = columns[rows].sum(axis=0, keepdims=True)
        kappa = float(_kappa(total[:, :6])[0])
        drawn = _kappa(resampled_sums(columns[rows, :6], seed=seed, draws=draws)) if len(rows) > 1 else np.zeros(0)
        spread = expanded_percentile(kappa, drawn, len(rows), level, (-1.0, 1.0))
        found[k] = (kappa, spread.low, spread.high, *(total[0, 6:] / total[0, 0]), (total[0, 1] - total[0, 2]) / total[0, 0])
        if constant[k]:
            what = "0" if np.isfinite(kappa) else "undefined: the others say the same"
            said.append(f"annotator {who[k]} gave {value[rows[0]]:g} to all {len(rows):,} shared items: kappa is {what}")
    kappa, low_, high_, exact, within, mean = found.T
    return AnnotatorRatings(who, kappa, low_, high_, shared, exact, within, mean, constant, tuple(said))


def pairwise_kappas(
    item: np.ndarray, annotator: np.ndarray, value: np.ndarray, *, low: float = 0, high: float = 4, min_items: int = 2
) -> PairKappas:  # fmt: skip
    """Kappa of every two annotators who share at least `min_items` items. InputError as `check_ratings`.

    >>> found = pairwise_kappas(np.array([0, 0, 1, 1]), np.array([7, 9, 7, 9]), np.array([1, 2, 3, 3]))
    >>> found.first.tolist(), found.second.tolist(), found.items.tolist(), found.kappa.round(4).tolist()
    ([7], [9], [2], [0.6667])
    """
    value = check_ratings(item, annotator, value, low, high)
    item, annotator = np.asarray(item), np.asarray(annotator)
    order = np.lexsort((annotator, item))
    item, annotator, value = item[order], annotator[order], value[order]
    lefts, rights, step = [], [], 1
    while step < len(item):  # ratings of one item lie together: pair each with its next, next but one, ...
        left = np.flatnonzero(item[step:] == item[:-step])
        if not len(left):
            break
        lefts.append(left)
        rights.append(left + step)
        step += 1
    if not lefts:
        return PairKappas(annotator[:0], annotator[:0], np.zeros(0, np.int64), np.zeros(0))
    i, j = np.concatenate(lefts), np.concatenate(rights)
    x, y = value[i], value[j]
    people, code = np.unique(np.stack([annotator[i], annotator[j]], axis=1), axis=0, return_inverse=True)
    sums = group_sums(np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1), code.reshape(-1))
    enough = sums[:, 0] >= min_items
    return PairKappas(people[enough, 0], people[enough, 1], sums[enough, 0].astype(np.int64), _kappa(sums[enough]))


def flag_untrusted(found: AnnotatorRatings, *, min_items: int = 20, max_kappa: float = 0.2) -> np.ndarray:
    """bool [annotators]: whose kappa with everybody else is at most `max_kappa`, on `min_items` shared items or more.

    The published rule for removing annotators is not stated; this one is ours. Where kappa is undefined nobody is flagged: look at the
    warnings. With most ratings wrong, those who are right disagree with everybody: read the table before anybody is removed.

    >>> item, annotator = np.repeat(np.arange(40), 3), np.tile([0, 1, 2], 40)
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 5, 40)
    >>> value = np.stack([truth, truth, rng.integers(0, 5, 40)], axis=1).reshape(-1)
    >>> flag_untrusted(annotator_agreement(item, annotator, value)).tolist()
    [False, False, True]
    """
    return (found.items >= min_items) & (np.nan_to_num(found.kappa, nan=np.inf) <= max_kappa)


def _kappa(sums: np.ndarray) -> np.ndarray:
    """Kappa of each row of sums over pairs (n, x, y, x^2, y^2, x y); NaN where both margins are one and the same value."""
    n = np.maximum(sums[:, 0], 1)
    _, x, y, xx, yy, xy = sums.T
    apart = (xx + yy - 2 * xy) / n
    chance = xx / n - (x / n) ** 2 + yy / n - (y / n) ** 2 + (x / n - y / n) ** 2
    return np.where(chance > 1e-12, 1 - apart / np.where(chance > 1e-12, chance, 1), np.nan)


def _rows(item: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Items; the item of each rating; ratings of that item; sums over its pairs with the item's other ratings [n, 6]; and how many of
    those are equal and at most 1 apart [n, 2]."""  # fmt: skip
    label, index = np.unique(np.asarray(item), return_inverse=True)
    index = index.reshape(-1)
    levels, code = np.unique(value, return_inverse=True)
    counts = np.zeros((len(label), len(levels)))
    np.add.at(counts, (index, code.reshape(-1)), 1)
    total = group_sums(np.stack([np.ones(len(value)), value, value**2], axis=1), index)[index]
    others = total - np.stack([np.ones(len(value)), value, value**2], axis=1)
    n = others[:, 0]
    sums = np.stack([n, n * value, others[:, 1], n * value**2, others[:, 2], value * others[:, 1]], axis=1)
    gap = np.abs(levels[:, None] - levels[None, :])
    near = np.stack([(counts @ (gap <= reach))[index, code.reshape(-1)] - 1 for reach in (0, 1)], axis=1)
    return label, index, total[:, 0], sums, near
