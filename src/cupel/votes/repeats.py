"""Label error from several votes per pair by different people: bounds that always follow from agreement, and a point.

A pair whose votes are wrong with probability rho gives agreement 1 - 2 rho (1 - rho) = (1 + u^2) / 2 with u = 1 - 2 rho, so the
agreement A of two random votes gives E[u^2] = 2 A - 1 and nothing more: (1 - sqrt(2 A - 1)) / 2 <= E[rho] <= 1 - A. A point needs a
model of how rho varies: over pairs (folded beta-binomial, four or more votes) or over people (one coin each).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import Interval, expanded_percentile, group_sums, resampled_sums

if TYPE_CHECKING:
    from cupel.audit.types import FlipRate

Ties = Literal["drop", "half"]

ASSUMPTIONS = (
    "votes on a pair are independent given the pair, and each pair's votes are right more often than wrong",
    "errors that people share stay invisible: a majority that is wrong counts as right",
)


@dataclass(frozen=True)
class Counts:
    """Votes per pair: up, down [pairs] wins of either direction (halves with ties="half"), dropped ties and repeated people."""

    up: np.ndarray
    down: np.ndarray
    ties: np.ndarray
    item: np.ndarray
    ties_dropped: int
    same_person: int

    @property
    def votes(self) -> np.ndarray:
        """Votes counted per pair."""
        return self.up + self.down + self.ties


def ceiling(agreement: float) -> tuple[float, float]:
    """Bounds on the accuracy of the best possible model against one vote: E[max(rho, 1 - rho)] in [A, (1 + sqrt(2 A - 1)) / 2].

    Agreement between two people is not the ceiling of a model; it is the lower end of what the ceiling can be.

    >>> low, high = ceiling(0.787)
    >>> low, round(high, 3)
    (0.787, 0.879)
    """
    return float(agreement), float((1 + np.sqrt(max(0.0, 2 * agreement - 1))) / 2)


def repeats(
    pair: np.ndarray,
    sign: np.ndarray,
    groups: np.ndarray | None = None,
    annotator: np.ndarray | None = None,
    *,
    ties: Ties = "drop",
    point: Literal["auto", "folded", "one_coin"] = "auto",
    seed: int = 0,
    draws: int = 500,
    level: float = 0.95,
) -> FlipRate:
    """Label error rate from pairs with two or more votes: a point by a model, with its interval, inside bounds from agreement.

    A weighs pairs by their votes, so the rate is that of a recorded vote. `low` and `high` are the bounds, each pushed outward to
    the end of its bootstrap interval; `details["point_low"]`, `details["point_high"]` are the interval of the estimate.
    point: "folded" (folded beta-binomial: rho = B/2 with B ~ Beta(a, b)), "one_coin" (a flip rate per annotator, by EM), or "auto":
    folded where 200 pairs, or half of them, have four votes (fewer cannot identify it: three votes give two outcomes, hence one
    number for two parameters), else one coin where annotators are known and shared between pairs, else no point.

    pair int [n]: the unordered pair of each vote; sign [n] in the orientation of the pair: +1, -1, 0 for a tie; groups [n]: what is
    resampled (prompts; the pair where None); annotator int [n], negative where unknown: a person's first vote on a pair counts.
    ties: "drop" leaves ties out, "half" counts a tie as a coin that says either side. InputError with no pair voted on twice.

    >>> rng = np.random.default_rng(0)
    >>> pair = np.repeat(np.arange(800), 5)
    >>> sign = np.where(rng.random(4000) < np.repeat(rng.beta(1, 4, 800) / 2, 5), -1, 1)
    >>> rate = repeats(pair, sign)
    >>> round(rate.estimate, 1), rate.low < rate.estimate < rate.high, rate.details["model"]
    (0.1, True, 'folded')
    """
    from cupel.audit.types import FlipRate

    pair, sign = np.asarray(pair), np.asarray(sign)
    kept = one_vote_each(pair, annotator)
    counts = count_votes(pair[kept], sign[kept], ties=ties, same_person=int(len(pair) - kept.sum()))
    several = counts.votes >= 2
    if not several.any():
        raise InputError(
            f"none of {len(several):,} pairs has two decided votes by different people: agreement cannot be measured. "
            "Collect a second vote on some pairs, or re-check rows with `cupel review`."
        )
    group = _group_of(counts.item, pair, groups)[several]
    agree, votes = agreement_shares(counts)[several], counts.votes[several]
    sums = group_sums(np.stack([agree * votes, votes], axis=1), group)
    total = sums.sum(axis=0)
    a = float(total[0] / total[1])
    drawn = resampled_sums(sums, seed=seed, draws=draws)
    spread = expanded_percentile(a, drawn[:, 0] / drawn[:, 1], len(sums), level, (0.0, 1.0))
    lowest, highest = bounds(a)
    low, high = bounds(spread.high)[0], bounds(spread.low)[1]
    policy = "ties are left out" if ties == "drop" else "a tie counts as a coin that says either side"
    assumptions = [*ASSUMPTIONS, policy, "the rate is that of a random recorded vote"]
    if not np.isfinite(spread.low):
        low, high = lowest, highest
        assumptions.append("all votes share one group: the bounds have no interval")
    model = _choose(point, votes, annotator)
    details: dict[str, Any] = {
        "agreement": a, "agreement_low": spread.low, "agreement_high": spread.high, "bound_low": lowest, "bound_high": highest,
        "ceiling": list(ceiling(a)), "pairs": int(several.sum()), "votes": float(votes.sum()), "groups": len(sums), "model": model,
        "ties": ties, "ties_dropped": counts.ties_dropped, "same_person": counts.same_person, "level": level,
    }  # fmt: skip
    estimate = None
    if model != "none":
        if model == "folded":
            up, down, tied = counts.up[several], counts.down[several], counts.ties[several]
            found = folded_interval(up, down, tied, group, seed=seed + 1, draws=draws, level=level)
            assumptions.append("error varies between pairs like half of a beta variable")
        else:
            from cupel.votes.one_coin import one_coin_rate

            row_group = (pair if groups is None else np.asarray(groups))[kept]
            people = np.asarray(annotator)[kept]
            found = one_coin_rate(pair[kept], sign[kept], people, row_group, seed=seed + 1, level=level, ties=ties)
            assumptions.append("each annotator errs at one rate on every pair")
        ends = (found.low, found.high)
        estimate = float(np.clip(found.estimate, lowest, highest))
        if estimate != found.estimate:  # agreement alone contradicts the model: the nearer bound, both intervals joined
            side = 0 if found.estimate < lowest else 1
            ends = (min(ends[0], bounds(spread.high)[side]), max(ends[1], bounds(spread.low)[side]))
            assumptions.append("the model's point lay outside the bounds from agreement and was moved to the nearer bound")
        details |= {"point_low": ends[0], "point_high": ends[1], "model_estimate": found.estimate}
    return FlipRate("repeats", estimate, low, high, tuple(assumptions), int(votes.sum()), details)


def bounds(agreement: float) -> tuple[float, float]:
    """[(1 - sqrt(2 A - 1)) / 2, 1 - A] for the mean error of votes that agree with probability A; below 1/2 A counts as 1/2.

    >>> [round(x, 4) for x in bounds(0.68)]
    [0.2, 0.32]
    """
    a = max(float(agreement), 0.5)
    return float((1 - np.sqrt(2 * a - 1)) / 2), float(1 - a)


def count_votes(pair: np.ndarray, sign: np.ndarray, *, ties: Ties = "drop", same_person: int = 0) -> Counts:
    """Votes in either direction and ties per pair; ties are counted only with ties="half"."""
    if ties not in ("drop", "half"):
        raise InputError(f'ties are "drop" or "half" here, not {ties!r}: bounds on error need two directions')
    item, index = np.unique(pair, return_inverse=True)
    index = index.reshape(-1)
    up = np.bincount(index, weights=sign > 0, minlength=len(item))
    down = np.bincount(index, weights=sign < 0, minlength=len(item))
    tied = np.bincount(index, weights=sign == 0, minlength=len(item))
    dropped = int(tied.sum()) if ties == "drop" else 0
    return Counts(up, down, tied if ties == "half" else np.zeros(len(item)), item, dropped, same_person)


def agreement_shares(counts: Counts) -> np.ndarray:
    """Share of the pairs of votes on each pair that agree (a tie agrees with anything one time in two); NaN below two votes."""
    up, down, tied, m = counts.up, counts.down, counts.ties, counts.votes
    same = up * (up - 1) / 2 + down * (down - 1) / 2 + 0.5 * (tied * (up + down) + tied * (tied - 1) / 2)
    return np.where(m >= 2, same / np.maximum(m * (m - 1) / 2, 1), np.nan)


# ---- folded beta-binomial ----

#: E[rho] and log(a + b) at which the likelihood is tabulated; draws of the bootstrap are read off this table
_MEANS = 0.5 / (1 + np.exp(-np.linspace(-5.5, 6.0, 140)))
_SPREADS = np.linspace(-3.0, 7.0, 33)


def folded_table(cells: np.ndarray) -> np.ndarray:
    """log P(k, m - k votes in either direction) under rho = B/2, B ~ Beta(a, b), direction unknown: [means, spreads, cells].

    (1 - B/2)^(m-k) = sum_j C(m-k, j) (1 - B)^(m-k-j) (B/2)^j, so every moment is a sum of positive beta functions.
    cells int [c, 2]: (k, m - k).
    """
    from scipy.special import gammaln

    cells = cells.astype(int)
    top = int(cells.sum(axis=1).max(initial=0))
    total = np.exp(_SPREADS)[None, :]
    a, b = 2 * _MEANS[:, None] * total, (1 - 2 * _MEANS[:, None]) * total
    steps = np.arange(top + 1)
    up, down = (gammaln(x[..., None] + steps) - gammaln(x)[..., None] for x in (a, b))
    both = gammaln((a + b)[..., None] + steps) - gammaln(a + b)[..., None]
    out = np.empty((len(_MEANS), len(_SPREADS), len(cells)))
    for index, (k, other) in enumerate(cells):
        chance = np.zeros(out.shape[:2])
        for wrong, right in {(k, other), (other, k)}:
            for j in range(right + 1):
                choose = gammaln(right + 1) - gammaln(j + 1) - gammaln(right - j + 1) - (wrong + j) * np.log(2.0)
                chance += np.exp(choose + up[..., wrong + j] + down[..., right - j] - both[..., wrong + right])
        out[..., index] = np.log(np.maximum(chance, 1e-300))
    return out


def folded_mean(table: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """E[rho] of greatest likelihood for each row of cell weights [draws, c], a parabola through the best three means."""
    profile = np.full((len(weight), len(_MEANS)), -np.inf)
    for spread in range(table.shape[1]):
        np.maximum(profile, weight @ table[:, spread, :].T, out=profile)
    best = np.clip(profile.argmax(axis=1), 1, len(_MEANS) - 2)
    rows = np.arange(len(weight))
    left, middle, right = (profile[rows, best + i] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend < 0, np.clip(0.5 * (left - right) / np.where(bend < 0, bend, -1), -1, 1), 0.0)
    return np.interp(best + shift, np.arange(len(_MEANS)), _MEANS)


def folded_interval(
    up: np.ndarray, down: np.ndarray, tied: np.ndarray, groups: np.ndarray, *, seed: int, draws: int = 500, level: float = 0.95
) -> Interval:
    """Interval of E[rho] under the folded beta-binomial, by maximum likelihood and a bootstrap over groups.

    up, down, tied [pairs]: votes of either direction, and ties, each dealt to a random side by the seed; groups [pairs].
    Pairs weigh as many votes as they have, so that the rate is that of a random vote.
    """
    extra = np.random.default_rng([seed, 2]).binomial(tied.astype(int), 0.5)
    up, down = up + extra, down + tied - extra
    table = np.stack([np.minimum(up, down), np.maximum(up, down)], axis=1)
    cells, index = np.unique(table, axis=0, return_inverse=True)
    index = index.reshape(-1)
    table = folded_table(cells)
    label, row = np.unique(groups, return_inverse=True)
    flat = np.bincount(row.reshape(-1) * len(cells) + index, weights=up + down, minlength=len(label) * len(cells))
    histogram = flat.reshape(len(label), len(cells))
    estimate = float(folded_mean(table, histogram.sum(axis=0, keepdims=True))[0])
    drawn = folded_mean(table, resampled_sums(histogram, seed=seed, draws=draws)) if len(label) > 1 else np.zeros(0)
    return expanded_percentile(estimate, drawn, len(label), level, (0.0, 0.5))


def one_vote_each(pair: np.ndarray, annotator: np.ndarray | None) -> np.ndarray:
    """Rows that are the first vote of a known person on a pair, or by nobody known."""
    kept = np.ones(len(pair), dtype=bool)
    if annotator is None:
        return kept
    annotator = np.asarray(annotator)
    known = np.flatnonzero(annotator >= 0)
    key = np.stack([pair[known], annotator[known]], axis=1)
    once = np.unique(key, axis=0, return_index=True)[1] if len(known) else np.zeros(0, dtype=int)
    kept[known] = False
    kept[known[once]] = True
    return kept


def _group_of(item: np.ndarray, pair: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Group of each pair: that of its first row."""
    if groups is None:
        return item
    at = np.unique(pair, return_index=True)[1]
    return np.asarray(groups)[at]


def _choose(point: str, votes: np.ndarray, annotator: np.ndarray | None) -> str:
    people = annotator is not None and bool((np.asarray(annotator) >= 0).all())
    if point == "one_coin" and not people:
        raise InputError("the one-coin model needs to know who cast each vote; use point='folded' or leave it to 'auto'")
    if point != "auto":
        return point
    enough = int((votes >= 4).sum())
    if enough >= 200 or 2 * enough >= len(votes):
        return "folded"
    if people and len(np.unique(np.asarray(annotator))) < 0.5 * len(np.asarray(annotator)):
        return "one_coin"
    return "none"
