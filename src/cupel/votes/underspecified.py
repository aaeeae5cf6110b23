"""Pairs whose label depends on who judges or under which context: what to look at before a flip is called noise.

If two people, or two contexts, prefer different sides, a flip-rate estimate calls one of them wrong. What separates the two cases is how
often labels differ *within* a person or a context: noise flips there too, a missing criterion does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.intervals import Interval, cluster_bootstrap, wilson

if TYPE_CHECKING:
    from cupel.records.schema import Votes

Kind = Literal["annotator", "context"]


@dataclass(frozen=True)
class Contrast:
    """How often two votes on one pair differ between annotators (or contexts), and how often within one.

    pairs     pairs that at least two different annotators (contexts) decided
    flipping  those of them where two prefer different sides; `share` of them with Wilson's interval
    between, within  share of vote pairs that differ; None where there is no such vote pair
    excess    between minus within: what noise within an annotator (context) does not explain; None where one of them is unknown
    flipped   int64, the pairs that flip (indices into `Votes.pair`), those with most differing vote pairs first
    """

    kind: Kind
    pairs: int
    flipping: int
    share: Interval | None
    between: Interval | None
    within: Interval | None
    excess: Interval | None
    flipped: np.ndarray

    @property
    def words(self) -> str:
        """The finding as a sentence."""
        if not self.pairs:
            return f"no pair was decided by two known {self.kind}s: whether labels depend on the {self.kind} cannot be told"
        assert self.share is not None
        said = (
            f"the label of {self.flipping:,} of {self.pairs:,} pairs flips between {self.kind}s "
            f"({self.share.estimate:.0%}, interval {self.share.low:.0%} to {self.share.high:.0%})"
        )
        if self.excess is None:
            return f"{said}; no {self.kind} decided a pair twice, so noise cannot be told from a missing criterion"
        verdict = "noise alone does not explain it" if self.excess.low > 0 else "noise alone may explain it"
        more = f"{self.excess.estimate:+.0%} against votes of one {self.kind} ({self.excess.low:+.0%} to {self.excess.high:+.0%})"
        return f"{said}, {more}: {verdict}"


@dataclass(frozen=True)
class Underspecified:
    """Both contrasts, and the prompts of flipping pairs. `prompts` counts prompts with a decided vote, `open_prompts` those that flip."""

    annotator: Contrast
    context: Contrast
    prompts: int
    open_prompts: int


def underspecified(votes: Votes, *, column: str = "context", level: float = 0.95, draws: int = 1000, seed: int = 0) -> Underspecified:
    """Pairs whose decided label flips between annotators, or between values of a column of the source (the stated context).

    Ties are left out, as are votes of unknown people and empty contexts in their contrast. Intervals resample groups of the votes.
    InputError where a `column` other than the default is asked for and is not there; without a column `context` that contrast has no pairs.

    >>> from cupel.records import read
    >>> rows = [{"prompt": "Greet.", "response_a": "Hey", "response_b": "Good day", "vote": v, "context": c}
    ...         for v, c in (("a", "to a friend"), ("b", "to a court"), ("a", "to a friend"))]
    >>> found = underspecified(read(rows, heldout=0)).context
    >>> found.flipping, found.pairs, found.between.estimate, found.within.estimate
    (1, 1, 1.0, 0.0)
    """
    context = np.full(len(votes), -1, np.int64)
    if votes.source is not None and column in votes.source.column_names and votes.meta.get("columns", {}).get("prompt") != column:
        values = votes.source[column].to_pylist()
        names = {name: k for k, name in enumerate(sorted({str(v) for v in values if v not in (None, "")}))}
        context = np.array([-1 if v in (None, "") else names[str(v)] for v in values], np.int64)
    elif column != "context":
        have = ", ".join(votes.source.column_names) if votes.source is not None else "none"
        raise InputError(f"the votes have no column {column!r} (columns: {have})")
    decided = votes.sign != 0
    options = {"level": level, "draws": draws, "seed": seed}
    people = _contrast("annotator", votes, decided & (votes.annotator >= 0), votes.annotator, **options)
    scenes = _contrast("context", votes, decided & (context >= 0), context, **options)
    flipped = np.isin(votes.pair, np.concatenate([people.flipped, scenes.flipped]))
    return Underspecified(people, scenes, len(np.unique(votes.prompt[decided])), len(np.unique(votes.prompt[flipped])))


def _contrast(kind: Kind, votes: Votes, rows: np.ndarray, who: np.ndarray, *, level: float, draws: int, seed: int) -> Contrast:
    pair, first, who = votes.pair[rows], votes.pair_sign[rows] > 0, who[rows].astype(np.int64)
    if not len(pair):
        return Contrast(kind, 0, 0, None, None, None, None, np.zeros(0, np.int64))
    names, at = np.unique(pair, return_inverse=True)
    at = at.reshape(-1)
    group = np.zeros(len(names), np.int64)
    group[at] = votes.group[rows]
    cell, owner = np.unique(np.stack([at, who]), axis=1, return_inverse=True)[:2]
    owner = owner.reshape(-1)
    ups, size = np.bincount(owner, weights=first), np.bincount(owner)
    differ_in, couples_in = (np.bincount(cell[0], weights=x, minlength=len(names)) for x in (ups * (size - ups), size * (size - 1) / 2))
    ups, size = np.bincount(at, weights=first), np.bincount(at)
    differ, couples = ups * (size - ups) - differ_in, size * (size - 1) / 2 - couples_in
    seen, open_ = couples > 0, differ > 0

    def rate(top: np.ndarray, of: np.ndarray) -> Interval | None:
        keep = of > 0
        if not keep.any():
            return None
        return cluster_bootstrap(top[keep], group[keep], denominator=of[keep], seed=seed, draws=draws, level=level, clip=(0, 1))

    between, within = rate(differ, couples), rate(differ_in, couples_in)
    excess = None
    if between is not None and within is not None:
        table = np.stack([differ, couples, differ_in, couples_in], axis=1)
        keep = (couples > 0) | (couples_in > 0)
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw without one of the two kinds says nothing, and is passed over
            excess = cluster_bootstrap(
                table[keep], group[keep], seed=seed, draws=draws, level=level, clip=(-1, 1),
                statistic=lambda sums: sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3],
            )  # fmt: skip
    share = None
    if seen.any():
        low, high = wilson(int(open_.sum()), int(seen.sum()), level)
        share = Interval(float(open_.sum() / seen.sum()), low, high, int(seen.sum()))
    order = np.flatnonzero(open_)[np.argsort(-differ[open_], kind="stable")]
    return Contrast(kind, int(seen.sum()), int(open_.sum()), share, between, within, excess, names[order].astype(np.int64))
