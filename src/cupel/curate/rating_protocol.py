"""The HelpSteer2 rules for ratings: ask two more people where three disagree, keep the three who agree most, set contested items aside.

Wang et al. 2024, arXiv:2406.08673, section 2.1. What the paper does not state is ours and marked so [unverified]: which three of up to five
are "most in agreement" (least variance of the deciding attribute, ties by smaller spread, then by the order of the rows), that a
published score is the rounded mean (halves up), and who is not to be trusted (`votes.ratings.flag_untrusted`; here a list that is given).

Keeping the raters who agree raises kappa by construction. What selection is worth shows on raters who had no part in it: `held_out`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.ratings import RatingAgreement, check_ratings, qwk, rating_agreement

KEPT, UNTRUSTED, OUTVOTED, FEW, CONTESTED = "", "untrusted annotator", "not among those who agree most", "too few ratings", "contested"


@dataclass(frozen=True)
class HeldOut:
    """Kappa of the deciding attribute between a rating that is left out and an item's others: all of them, and those that selection keeps.

    Left out in turn are the ratings after the first `keep`: people who were asked later, whoever disagreed before. Only items with two
    ratings more than are kept have something to select from once one is left out; `items` counts them, and they are the contested ones
    where two more people were asked only there. NaN where there are none.
    """

    all: float
    selected: float
    items: int


@dataclass(frozen=True)
class Rated:
    """What the rules make of the ratings.

    kept      bool [rows]
    reason    n words: "" where kept, else why not
    requests  items that need more ratings, with how many, in the order of the items
    contested items whose kept ratings of the deciding attribute still lie further apart than `spread`
    scores    columns item, attribute, mean, score, ratings, contested: one line per item and attribute that is kept
    agreement attribute -> stage -> agreement: "first" (the first `keep` people of each item, before more were asked), "given" (all rows),
              "selected" (the best of each item), "final" (without contested ones)
    held_out  what the selection is worth to somebody who had no part in it
    words     the same in sentences
    """

    kept: np.ndarray
    reason: tuple[str, ...]
    requests: Mapping[Any, int]
    contested: tuple[Any, ...]
    scores: Mapping[str, Sequence[Any]]
    agreement: Mapping[str, Mapping[str, RatingAgreement]]
    held_out: HeldOut
    words: tuple[str, ...]


def rating_protocol(
    item: Sequence[Any] | np.ndarray, annotator: Sequence[Any] | np.ndarray, attribute: Sequence[Any] | np.ndarray,
    value: Sequence[float] | np.ndarray, *, prompt: Sequence[Any] | np.ndarray | None = None, decide: str = "helpfulness",
    spread: int = 2, keep: int = 3, most: int = 5, contested: Literal["drop", "mark"] = "drop", untrusted: Collection[Any] = (),
    low: int = 0, high: int = 4, seed: int = 0, draws: int = 200,
) -> Rated:  # fmt: skip
    """The rules on ratings in long format, one row per (item, annotator, attribute): see `Rated`.

    prompt     of each row: where one item of a prompt is contested, all its items are (both responses must be agreed on); None: each alone
    decide     the attribute whose ratings are looked at
    spread     largest difference between ratings that is no disagreement
    keep, most people kept per item, and asked at most: an item whose first `keep` ratings disagree is asked for up to `most`
    contested  "drop" leaves them out of what is kept, "mark" keeps them with a mark: people may differ for good reasons
    untrusted  annotators whose ratings are all left out
    InputError for ratings off the scale, one that occurs twice, a missing deciding attribute, an item under two prompts.

    >>> who, about = ["a", "b", "c"] * 2, ["helpfulness"] * 6
    >>> found = rating_protocol(["x"] * 3 + ["y"] * 3, who, about, [0, 3, 1, 4, 2, 3])
    >>> found.requests, found.contested, found.kept.tolist()
    ({'x': 2}, ('x',), [False, False, False, True, True, True])
    """
    if not 2 <= keep <= most:
        raise InputError(f"of at most {most} people {keep} are to be kept: keep is at least 2 and no more than most")
    if contested not in ("drop", "mark"):
        raise InputError(f'contested items are to "drop" or to "mark", not {contested!r}')
    table = _Table(item, annotator, attribute, value, decide, low, high)
    trusted = np.array([name not in set(untrusted) for name in table.people], bool)[table.annotator]
    chosen, early = np.zeros((2, len(table.value)), bool)
    reason = np.where(trusted, OUTVOTED, UNTRUSTED).astype(object)
    requests: dict[Any, int] = {}
    apart = np.zeros(len(table.items), bool)
    for k, rows in enumerate(table.by_item(trusted)):
        ratings = table.decided[rows]
        early[table.rows_of(k, rows[:keep])] = True
        if len(rows) < keep:
            requests[table.items[k]] = keep - len(rows)
            reason[table.rows_of(k, rows)] = FEW
            continue
        if np.ptp(ratings[:keep]) > spread and len(rows) < most:
            requests[table.items[k]] = most - len(rows)
        best = agreeing(ratings, keep)
        apart[k] = np.ptp(ratings[best]) > spread
        chosen[table.rows_of(k, rows[best])] = True
    shaky = apart if prompt is None else table.shared(apart, np.asarray(prompt, object))
    there = chosen & ~shaky[table.item] if contested == "drop" else chosen
    reason[chosen] = CONTESTED
    reason[there] = KEPT
    stages = {"first": early, "given": np.ones(len(table.value), bool), "selected": chosen, "final": chosen & ~shaky[table.item]}
    agreement = {name: _agreement(table, table.attribute == a, stages, seed, draws) for a, name in enumerate(table.attributes)}
    held = _held_out(table, trusted, keep)
    names = tuple(table.items[k] for k in np.flatnonzero(shaky))
    return Rated(
        there, tuple(str(x) for x in reason), requests, names, _scores(table, there, shaky), agreement, held,
        _words(table, decide, there, requests, names, agreement, held, contested),
    )  # fmt: skip


def agreeing(ratings: np.ndarray, keep: int = 3) -> np.ndarray:
    """Positions of the `keep` ratings with least variance; of equal ones the smaller spread, then the earlier rows. Whole numbers [m].

    >>> agreeing(np.array([0, 4, 4, 3, 0])).tolist()
    [1, 2, 3]
    """
    values = np.asarray(ratings, np.int64)
    best = min(combinations(range(len(values)), keep), key=lambda at: (_spread_out(values[list(at)]), int(np.ptp(values[list(at)]))))
    return np.array(best, np.int64)


def _spread_out(values: np.ndarray) -> int:
    """n^2 times the variance, exactly."""
    return int(len(values) * (values * values).sum() - values.sum() ** 2)


class _Table:
    """The rows as codes: item, annotator, attribute int [n], names in the order of appearance; `decided`: the rating that decides, of the
    row's item and annotator."""  # fmt: skip

    def __init__(self, item: Any, annotator: Any, attribute: Any, value: Any, decide: str, low: int, high: int) -> None:
        columns = [_codes(x) for x in (item, annotator, attribute)]
        if len({len(codes) for _, codes in columns} | {len(value)}) != 1 or not len(value):
            raise InputError(
                f"ratings need item, annotator, attribute and value in each row, not {[len(c) for _, c in columns]}, {len(value)}"
            )
        (self.items, self.item), (self.people, self.annotator), (self.attributes, self.attribute) = columns
        if decide not in self.attributes:
            raise InputError(
                f"no rating is of {decide!r}: the attributes are {', '.join(map(str, self.attributes))}; name one with decide="
            )
        self.pair = self.item * len(self.people) + self.annotator  # one person's ratings of one item
        self.value = check_ratings(self.item * len(self.attributes) + self.attribute, self.annotator, value, low, high)
        mine = self.attribute == self.attributes.index(decide)
        pairs, first = np.unique(self.pair[mine], return_index=True)
        place = np.minimum(np.searchsorted(pairs, self.pair), len(pairs) - 1)
        lost = np.flatnonzero(pairs[place] != self.pair)
        if len(lost):
            raise InputError(
                f"{len(lost):,} of {len(self.value):,} ratings come without a rating of {decide} by the same annotator of the same item "
                f"(first: row {lost[0]}, item {self.items[self.item[lost[0]]]}): add it, leave them out, or decide by another attribute"
            )
        self.decided = self.value[mine][first[place]]
        self.main = mine

    def by_item(self, trusted: np.ndarray) -> list[np.ndarray]:
        """For each item the rows of its deciding ratings by trusted people, in the order of the rows."""
        rows = np.flatnonzero(self.main & trusted)
        order = rows[np.argsort(self.item[rows], kind="stable")]
        return np.split(order, np.searchsorted(self.item[order], np.arange(1, len(self.items))))

    def rows_of(self, item: int, deciding: np.ndarray) -> np.ndarray:
        """All rows of an item by the people of these deciding rows."""
        if not hasattr(self, "_order"):
            self._order = np.argsort(self.pair, kind="stable")
            self._sorted = self.pair[self._order]
        ends = [np.searchsorted(self._sorted, self.pair[deciding], side=side) for side in ("left", "right")]
        return np.concatenate([self._order[a:b] for a, b in zip(*ends, strict=True)] or [np.zeros(0, np.int64)])

    def shared(self, apart: np.ndarray, prompt: np.ndarray) -> np.ndarray:
        """The items of which one of the same prompt is contested, bool [items]."""
        if len(prompt) != len(self.item):
            raise InputError(f"{len(prompt):,} prompts for {len(self.item):,} ratings: give one to each row")
        _, code = _codes(prompt)
        of = np.full(len(self.items), -1)
        of[self.item] = code
        mixed = np.flatnonzero(of[self.item] != code)
        if len(mixed):
            raise InputError(
                f"{len(mixed):,} ratings give their item another prompt than other rows (first: row {mixed[0]}): "
                "an item is one response to one prompt"
            )
        return np.bincount(of, weights=apart, minlength=int(of.max()) + 1)[of] > 0


def _codes(values: Any) -> tuple[list[Any], np.ndarray]:
    """Distinct values in the order of appearance, and the index of each."""
    seen: dict[Any, int] = {}
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    return list(dict.fromkeys(plain)), np.array([seen.setdefault(value, len(seen)) for value in plain], np.int64)


def _agreement(table: _Table, mine: np.ndarray, stages: Mapping[str, np.ndarray], seed: int, draws: int) -> dict[str, RatingAgreement]:
    found: dict[str, RatingAgreement] = {}
    for name, mask in stages.items():
        rows = np.flatnonzero(mask & mine)
        if len(rows) and np.bincount(table.item[rows]).max() > 1:
            low, high = table.value.min(), table.value.max()
            found[name] = rating_agreement(
                table.item[rows], table.annotator[rows], table.value[rows], low=low, high=high, seed=seed, draws=draws
            )
    return found


def _held_out(table: _Table, trusted: np.ndarray, keep: int) -> HeldOut:
    """Leave out each rating beyond the first `keep`, in turn; compare it with all others of its item, and with the best of them.

    The first ones may be why more were asked for: an item is contested because its first three disagree, so that each of these disagrees
    with the rest by the choice of the item. Those who were asked later had no part in that choice.
    """
    pairs: dict[str, list[tuple[float, float]]] = {"all": [], "selected": []}
    items = 0
    for rows in table.by_item(trusted):
        ratings = table.decided[rows]
        if len(rows) < keep + 2:
            continue
        items += 1
        for k in range(keep, len(rows)):
            others = np.delete(ratings, k)
            pairs["all"] += [(ratings[k], other) for other in others]
            pairs["selected"] += [(ratings[k], other) for other in others[agreeing(others, keep)]]
    if not items:
        return HeldOut(float("nan"), float("nan"), 0)
    whole, best = (np.array(pairs[name]) for name in ("all", "selected"))
    return HeldOut(qwk(whole[:, 0], whole[:, 1]), qwk(best[:, 0], best[:, 1]), items)


def _scores(table: _Table, kept: np.ndarray, shaky: np.ndarray) -> dict[str, list[Any]]:
    rows = np.flatnonzero(kept)
    key, code = np.unique(table.item[rows] * len(table.attributes) + table.attribute[rows], return_inverse=True)
    number = np.bincount(code.reshape(-1), minlength=len(key))
    mean = np.bincount(code.reshape(-1), weights=table.value[rows], minlength=len(key)) / np.maximum(number, 1)
    item, attribute = key // len(table.attributes), key % len(table.attributes)
    return {
        "item": [table.items[k] for k in item], "attribute": [table.attributes[k] for k in attribute], "mean": mean.tolist(),
        "score": np.floor(mean + 0.5).astype(int).tolist(), "ratings": number.tolist(), "contested": shaky[item].tolist(),
    }  # fmt: skip


def _words(
    table: _Table, decide: str, kept: np.ndarray, requests: Mapping[Any, int], contested: Sequence[Any],
    agreement: Mapping[str, Mapping[str, RatingAgreement]], held: HeldOut, what: str,
) -> tuple[str, ...]:  # fmt: skip
    said = [
        f"{kept.sum():,} of {len(kept):,} ratings are kept; {len(requests):,} of {len(table.items):,} items need "
        f"{sum(requests.values()):,} more ratings; {len(contested):,} are contested and {'left out' if what == 'drop' else 'marked'}"
    ]
    stages = agreement[decide]
    if {"first", "selected"} <= set(stages):
        said.append(
            f"kappa of {decide} is {stages['first'].kappa:.3f} over the first ratings and {stages['selected'].kappa:.3f} over those "
            "selected: raters were selected because they agree, so most of this gain says nothing about the scores"
        )
    if held.items:
        said.append(
            f"a rating that had no part in the selection agrees with all others of its item at kappa {held.all:.3f}, with the selected "
            f"ones at {held.selected:.3f} ({held.items:,} items with ratings to spare)"
        )
    else:
        said.append("no item has ratings to spare, so that what the selection is worth to other raters cannot be measured")
    return tuple(said)
