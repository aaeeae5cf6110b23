"""Ranked lists judged by events that were seen with unequal chance: metrics per user, naive, by inverse propensity, self-normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows
from cupel.noise.exposure import effective_size, top_share

#: forms of a metric, in the order of every table
FORMS = ("naive", "ips", "snips", "pooled")
#: which metrics a form is defined for
WEIGHTED = {"ips": ("recall", "dcg"), "snips": ("ndcg", "recall", "dcg"), "pooled": ("recall", "dcg")}


@dataclass(frozen=True)
class Weighing:
    """How test events were weighed, w = 1 / max(theta, clip).

    source: where theta comes from; events; effective: events of equal weight that would be as many, (sum w)^2 / sum w^2; top: share of
    the weight on the 1 % of events with most of it; clipped: share of events with theta below the clip; smallest: smallest theta
    """

    source: str
    clip: float
    events: int
    effective: float
    top: float
    clipped: float
    smallest: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return {**asdict(self), "warnings": list(self.warnings)}


def propensities(source: str | np.ndarray, test: Log, train: Log, rows: Rows, clip: float) -> tuple[np.ndarray, str]:
    """(theta of each event of `rows` in (0, 1], where it comes from in words).

    source  "log": the column of the test log; "popularity" or "popularity:0.7": (n_i / max n)^power from the training events of each
            item, found by id, power 0.5 (items without one get the clip); or an array with theta of each event of the test log

    InputError for other sources, propensities outside (0, 1] among the events that count, a log without them.
    """
    if isinstance(source, str):
        name, _, argument = source.partition(":")
        if name == "popularity":
            return _popularity(train, argument, rows, clip)
        if source != "log":
            raise InputError(f"propensity is log, popularity or popularity:POWER, not {source!r}")
        if test.propensity is None:
            raise InputError("the test log has no propensities: name their column (--map propensity=COLUMN), or estimate them (popularity)")
        theta, words = test.propensity, "the log"
    else:
        theta, words = np.asarray(source, dtype=np.float64), "given"
        if theta.shape != (len(test),):
            raise InputError(f"propensity needs one number for each of the {len(test):,} test events, not an array of shape {theta.shape}")
    found = np.asarray(theta[rows.event], dtype=np.float64)
    wrong = ~((found > 0) & (found <= 1))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise InputError(
            f"{int(wrong.sum()):,} of {len(found):,} test events have no propensity in (0, 1] (first: row {int(rows.event[k])} of the "
            f"test, {found[k]}): what could not be seen cannot be corrected for. Leave them out, or state a propensity"
        )
    return found, words


def _popularity(train: Log, argument: str, rows: Rows, clip: float) -> tuple[np.ndarray, str]:
    from cupel.noise.propensities import popularity_propensity

    try:
        power = float(argument.removeprefix("power=")) if argument else 0.5
    except ValueError:
        raise InputError(f"popularity:{argument} is not a power, e.g. popularity:0.5") from None
    counts = dict(zip(train.items.tolist(), train.counts().tolist(), strict=True))
    if clip == 0:  # only what occurs in the test needs a propensity
        wanted = {str(train.items[i]) for i in np.unique(rows.item)}
        none = sorted(key for key in wanted if counts[key] == 0)
        if none:
            raise InputError(
                f"{len(none):,} of {len(wanted):,} items of the test have no training event (first: {none[0]!r}), so popularity gives them "
                f"no propensity. Give a clip above 0, which they then get, or propensities of the log"
            )
    found = popularity_propensity(counts, power, clip or np.finfo(float).tiny)
    return np.array([found[str(key)] for key in train.items])[rows.item], f"popularity, power {power:g}"


def weigh(theta: np.ndarray, clip: float, source: str) -> tuple[np.ndarray, Weighing]:
    """(weights 1 / max(theta, clip), what they are like).

    >>> weights, how = weigh(np.array([1.0, 0.5, 0.001]), 0.01, "the log")
    >>> weights.tolist(), round(how.effective, 2), round(how.clipped, 2)
    ([1.0, 2.0, 100.0], 1.06, 0.33)
    """
    if not 0 <= clip <= 1:
        raise InputError(f"clip is a propensity below which none is used, in [0, 1], not {clip!r}")
    w = 1 / np.maximum(theta, clip)
    n, size, below = len(theta), effective_size(w), float((theta < clip).mean())
    warnings = list[str]()
    if clip > 0 and below == 1:
        warnings.append(f"The clip {clip:g} exceeds every propensity: this is a rescaled naive metric.")
    if size < 0.1 * n:
        warnings.append(f"The {n:,} test events weigh as {size:,.0f} equal ones: few with small propensities decide. Raise the clip.")
    return w, Weighing(source, clip, n, size, top_share(w), below, float(theta.min()), tuple(warnings))


class Judge:
    """Weighted metrics of ranked lists: the relevant items of each user (sorted, each once), `weight` beside `rows.item`."""

    def __init__(self, rows: Rows, weight: np.ndarray, items: int) -> None:
        owner = np.repeat(np.arange(len(rows)), rows.counts)
        self.keys = owner * items + rows.item
        if (np.diff(self.keys) <= 0).any():
            raise InputError("relevant items are sorted within each user, each once")
        self.items, self.weight, self.users = items, weight, len(rows)
        self.total = np.bincount(owner, weight, len(rows))
        heaviest = np.lexsort((-weight, owner))
        self.owner, self.rank = owner, np.arange(len(owner)) - rows.start[owner]
        self.gain = weight[heaviest] / np.log2(self.rank + 2)

    def of(self, top: np.ndarray, users: np.ndarray, ks: Sequence[int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Numerators and denominators per user, float64 [B] each, under "recall@10 ips" and so on: a metric is the ratio of their sums.

        With w the weight of a relevant item and r its rank in the list: gain = sum over r <= k of w / log2(r + 1), found = sum of w.

        ips     dcg = gain, recall = found: not divided; with exact propensities unbiased for the sums over all relevant items, seen or not
        snips   dcg = gain / sum w, recall = found / sum w, each within a user, then the mean over users (card 32-unbiased-mnar); ndcg =
                gain / the gain of the heaviest k in order (ours). A user with one test event weighs that event 1 whatever its theta
        pooled  dcg, recall: sums over all users above sums over all users, so that weights compare events of different users as well

        Denominators are 0 for users without a relevant item: they do not count.
        """
        w = self._weights(top, users)
        rank = np.arange(1, top.shape[1] + 1)
        gain, found = np.cumsum(w / np.log2(rank + 1), axis=1), np.cumsum(w, axis=1)
        total = self.total[users]
        one = (total > 0).astype(np.float64)
        safe = np.where(total > 0, total, 1.0)
        out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for k in ks:
            dcg, recall, ideal = gain[:, k - 1], found[:, k - 1], self._ideal(k)[users]
            out[f"recall@{k} ips"], out[f"dcg@{k} ips"] = (recall, one), (dcg, one)
            out[f"recall@{k} snips"], out[f"dcg@{k} snips"] = (recall / safe, one), (dcg / safe, one)
            out[f"ndcg@{k} snips"] = (np.divide(dcg, ideal, out=np.zeros_like(dcg), where=ideal > 0), one)
            out[f"recall@{k} pooled"], out[f"dcg@{k} pooled"] = (recall, total), (dcg, total)
        return out

    def _weights(self, top: np.ndarray, users: np.ndarray) -> np.ndarray:
        """Weight of each item of a list, 0 where it is not relevant, float64 [B, K]."""
        asked = np.asarray(users, np.int64)[:, None] * self.items + top
        if len(self.keys) == 0:
            return np.zeros(top.shape)
        at = np.minimum(np.searchsorted(self.keys, asked), len(self.keys) - 1)
        return np.where((self.keys[at] == asked) & (top >= 0), self.weight[at], 0.0)

    def _ideal(self, k: int) -> np.ndarray:
        """Gain of each user's k heaviest items in order, [U]."""
        first = self.rank < k
        return np.bincount(self.owner[first], self.gain[first], self.users)
