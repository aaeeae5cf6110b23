"""How well any model at all could agree with one vote, from how often two votes on the same pair agree.

A pair whose votes say its right side with probability max(rho, 1 - rho) gives the best model that much and no more. With
u = |1 - 2 rho| two votes agree with probability (1 + E[u^2]) / 2 = A, and the ceiling is (1 + E[u]) / 2; since E[u^2] <= E[u] <=
sqrt(E[u^2]) it lies in [A, (1 + sqrt(2 A - 1)) / 2]. Agreement between people is the lower end, not the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.votes.intervals import expanded_percentile, group_sums, resampled_sums
from cupel.votes.repeats import agreement_shares, ceiling, count_votes, one_vote_each

#: below this many pairs with two votes the interval is wider than anything it could tell
ENOUGH = 30


@dataclass(frozen=True)
class Ceiling:
    """Bounds on the accuracy of the best model against one vote.

    agreement           A, weighing pairs by their votes, with the ends of its 95 % interval; None with no repeated pair
    low, high           [A, (1 + sqrt(2 A - 1)) / 2] at the estimate; never below 1/2
    lowest, highest     the same bounds at the ends of A's interval: what is safe to say
    pairs, votes, groups  repeated pairs, their votes, and the groups they fall into
    words               what follows, with n
    """

    agreement: float | None
    agreement_low: float | None
    agreement_high: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None
    pairs: int
    votes: int
    groups: int
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {**self.__dict__, "words": list(self.words)}


def vote_ceiling(
    pair: np.ndarray,
    sign: np.ndarray,
    group: np.ndarray | None = None,
    annotator: np.ndarray | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> Ceiling:
    """The ceiling of any model's agreement with one vote, from pairs with several decided votes by different people.

    pair [n] unordered pair of each vote; sign [n] +1, -1 in the orientation of the pair, 0 left out; group [n] what is resampled (the
    pair where None); annotator [n], negative where unknown: a person's first vote on a pair counts. It is the ceiling on pairs like
    the repeated ones, if votes are independent given the pair; a model may exceed it only by knowing who votes.

    >>> pair, sign = np.repeat(np.arange(200), 2), np.ones(400, dtype=int)
    >>> sign[1:86:2] = -1  # 43 of 200 pairs of votes disagree
    >>> found = vote_ceiling(pair, sign)
    >>> round(found.low, 3), round(found.high, 3), found.lowest < found.low, found.pairs
    (0.785, 0.877, True, 200)
    """
    pair, sign = np.asarray(pair), np.asarray(sign)
    kept = one_vote_each(pair, annotator) & (sign != 0)
    counts = count_votes(pair[kept], sign[kept])
    several = counts.votes >= 2
    if not several.any():
        return Ceiling(None, None, None, None, None, None, None, 0, 0, 0, (
            f"No ceiling: none of {len(several):,} pairs has two decided votes by different people. Collect a second vote on some pairs.",
        ))  # fmt: skip
    votes = counts.votes[several]
    first = dict(zip(*np.unique(pair, return_index=True), strict=True))
    labels = counts.item[several] if group is None else np.asarray(group)[[first[item] for item in counts.item[several]]]
    sums = group_sums(np.stack([agreement_shares(counts)[several] * votes, votes], axis=1), labels)
    total = sums.sum(axis=0)
    a = float(total[0] / total[1])
    drawn = resampled_sums(sums, seed=seed, draws=draws)
    spread = expanded_percentile(a, drawn[:, 0] / drawn[:, 1], len(sums), 0.95, (0.0, 1.0))
    known = bool(np.isfinite(spread.low))
    low, high = _bounds(a)
    lowest, highest = (_bounds(spread.low)[0], _bounds(spread.high)[1]) if known else (None, None)
    return Ceiling(
        a, spread.low if known else None, spread.high if known else None, low, high, lowest, highest, int(several.sum()), int(votes.sum()),
        len(sums), tuple(_words(a, low, high, lowest, highest, int(several.sum()), int(votes.sum()))),
    )  # fmt: skip


def _bounds(agreement: float) -> tuple[float, float]:
    low, high = ceiling(agreement)
    return max(low, 0.5), high


def _words(a: float, low: float, high: float, lowest: float | None, highest: float | None, pairs: int, votes: int) -> list[str]:
    at = f"(n = {pairs:,} pairs with several votes, {votes:,} votes)"
    out = [f"Two votes on a pair agree with probability {a:.3f} {at}."]
    if a < 0.5:
        out.append(
            "That is less than chance: votes on a pair are not independent readings of one thing (sides swapped, or people who want "
            "different things), so no upper end follows from it."
        )
    span = "" if lowest is None or highest is None else f"; with sampling error {lowest:.3f} to {highest:.3f}"
    out.append(
        f"No model that does not know who votes can be expected to agree with one vote more often than {low:.3f} to {high:.3f}{span}."
    )
    if pairs < ENOUGH:
        out.append(f"{pairs:,} repeated pairs are too few to say more than that: collect second votes on {ENOUGH} pairs or more.")
    return out
