"""Five axes of preference discerning: recommendation, fine and coarse steering, sentiment following, consolidation; and their controls.

Card 40-mender (arXiv:2412.08604). An axis is a list of samples (history, wishes, the item that is right); a model answers each with a list
of items. What a model gains by a wish means nothing alone: `unasked` and `at_random` give the same samples without a wish and with somebody
else's, and belong beside every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows, by_user
from cupel.interactions.metrics import ranked


@dataclass(frozen=True)
class Sequences:
    """The last items of each user, in time: all but two are trained on, the second last is for validation, the last for the test.

    user int64 [S], indices of the log; items: one int64 array each; event: their rows in the log; notes: who was left out
    """

    user: np.ndarray
    items: tuple[np.ndarray, ...]
    event: tuple[np.ndarray, ...]
    notes: tuple[str, ...] = ()

    def histories(self, back: int = 1) -> tuple[np.ndarray, ...]:
        """What came before the last item (back = 1) or the second last (2)."""
        return tuple(items[:-back] for items in self.items)

    def targets(self, back: int = 1) -> np.ndarray:
        """The last items (back = 1) or the second last (2), int64 [S]."""
        return np.array([items[-back] for items in self.items], np.int64)


def sequences(log: Log, longest: int = 20) -> Sequences:
    """The most recent `longest` events of each user, ties of time by item; users with fewer than 3 are left out and counted.

    >>> sequences(Log.of([0, 0, 0, 1], [5, 6, 7, 5], time=np.array([3, 1, 2, 1]))).items[0].tolist()
    [1, 2, 0]
    """
    if longest < 3:
        raise InputError(f"a sequence has at least 3 items, to train on, to validate and to test: longest is {longest}")
    time = np.zeros(len(log), np.int64) if log.time is None else log.time
    rows = by_user(log)
    turn = np.lexsort((log.item, time, log.user))
    kept = np.flatnonzero(rows.counts >= 3)
    event = tuple(turn[rows.start[u] : rows.start[u + 1]][-longest:] for u in kept)
    short = int(((rows.counts > 0) & (rows.counts < 3)).sum())
    notes = (f"{short:,} users with fewer than 3 events are left out",) if short else ()
    return Sequences(kept, tuple(log.item[rows_].astype(np.int64) for rows_ in event), event, notes)


@dataclass(frozen=True)
class Axis:
    """Samples of one axis.

    history  what the model is shown of the past, one int64 array per sample; owner int64 [S]: whose it is (-1: nobody's, it is empty)
    wish     int64 [S, P]: wishes by their index in the pool, -1 where there is none
    target   int64 [S]: the item that is right
    pair     int64 [S]: samples that belong together have the same number, -1 for those alone
    uses_target  whether the wish was chosen in view of the target
    """

    name: str
    history: tuple[np.ndarray, ...]
    owner: np.ndarray
    wish: np.ndarray
    target: np.ndarray
    pair: np.ndarray
    uses_target: bool

    def __post_init__(self) -> None:
        sizes = {"history": len(self.history), **{name: len(getattr(self, name)) for name in ("owner", "wish", "target", "pair")}}
        if len(set(sizes.values())) > 1:
            raise InputError(f"the parts of an axis describe different numbers of samples: {sizes}")

    def __len__(self) -> int:
        return len(self.target)


def unasked(axis: Axis) -> Axis:
    """The control without a wish."""
    return replace(axis, name=f"{axis.name}, no wish", wish=np.full((len(axis), 1), -1), uses_target=False)


def at_random(axis: Axis, pool: np.ndarray, seed: int = 0) -> Axis:
    """The control with a wish of the pool (indices) drawn for each sample, whatever its target."""
    drawn = np.random.default_rng([seed, 40]).choice(np.asarray(pool), size=(len(axis), 1))
    return replace(axis, name=f"{axis.name}, random wish", wish=drawn, uses_target=False)


def shuffled(axis: Axis, seed: int = 0) -> Axis:
    """The control with the wishes of another sample: each sample gets those of the one before it in a random round."""
    turn = np.random.default_rng([seed, 41]).permutation(len(axis))
    wish = np.empty_like(axis.wish)
    wish[turn] = axis.wish[np.roll(turn, 1)]
    return replace(axis, name=f"{axis.name}, another's wish", wish=wish, uses_target=False)


def swapped(axis: Axis) -> Axis:
    """The samples of each pair with their histories exchanged; twice is the axis itself. InputError for samples without a partner."""
    order = np.argsort(axis.pair, kind="stable")
    if len(axis) % 2 or (axis.pair < 0).any() or (axis.pair[order[::2]] != axis.pair[order[1::2]]).any():
        raise InputError(f"{axis.name} has samples that are not in pairs: only fine and coarse steering are")
    partner = np.empty(len(axis), np.int64)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    return replace(axis, history=tuple(axis.history[i] for i in partner), owner=axis.owner[partner])


def recommendation(histories: Sequence[np.ndarray], owner: np.ndarray, target: np.ndarray, wish: np.ndarray) -> Axis:
    """Axis 1: the next item from the history and the matched wish (indices [S]; `cupel.annotate.preferences.matched`)."""
    return Axis("recommendation", tuple(histories), owner, np.asarray(wish)[:, None], target, np.full(len(target), -1), True)


def consolidation(histories: Sequence[np.ndarray], owner: np.ndarray, target: np.ndarray, wishes: np.ndarray) -> Axis:
    """Axis 5: the next item from the history and all wishes of that time (indices [S, P], -1 beyond), few of which matter now."""
    return Axis("history consolidation", tuple(histories), owner, np.asarray(wishes), target, np.full(len(target), -1), False)


def steering(
    kind: Literal["fine", "coarse"], histories: Sequence[np.ndarray], owner: np.ndarray, target: np.ndarray, items: np.ndarray,
    pool: np.ndarray, *, ranks: tuple[int, int] = (1, 2),
) -> Axis:  # fmt: skip
    """Axes 2 and 3: the wish fits an item, the history belongs to somebody who took another.

    For each distinct target i: i' is the most similar (fine) or least similar (coarse) of the other targets, by cosine of `items`
    float [I, d]. Two samples: (history of a user whose target is i', wish p_i -> i) and (history of a user of i, p_i' -> i'). p_i is the
    wish of `pool` float [W, d] that is `ranks[0]`-th closest to i, p_i' the `ranks[1]`-th closest to i', counted from 0: (0, 0) in
    training, (1, 2) in validation and test, as published. Of several users of an item the first is taken.

    InputError where there are fewer than two targets, or fewer wishes than the ranks ask for.
    """
    if kind not in ("fine", "coarse"):
        raise InputError(f"steering is fine or coarse, not {kind!r}")
    distinct, first = np.unique(target, return_index=True)
    if len(distinct) < 2 or len(pool) <= max(ranks):
        raise InputError(f"steering needs two targets and {max(ranks) + 1} wishes; there are {len(distinct)} and {len(pool)}")
    unit = _unit(items[distinct])
    close = unit @ unit.T
    np.fill_diagonal(close, -np.inf if kind == "fine" else np.inf)
    other = close.argmax(axis=1) if kind == "fine" else close.argmin(axis=1)
    order = np.argsort(-(unit @ _unit(pool).T), axis=1, kind="stable")
    rows: list[tuple[int, int, int]] = []  # sample the history is of, wish, target
    for n, m in enumerate(other.tolist()):
        rows += [(int(first[m]), int(order[n, ranks[0]]), int(distinct[n])), (int(first[n]), int(order[m, ranks[1]]), int(distinct[m]))]
    of, wish, aim = (np.array(column) for column in zip(*rows, strict=True))
    history = tuple(np.asarray(histories[i]) for i in of.tolist())
    return Axis(f"{kind} steering", history, np.asarray(owner)[of], wish[:, None], aim, np.repeat(np.arange(len(distinct)), 2), True)


def sentiment(item: np.ndarray, negative: np.ndarray, positive: np.ndarray) -> tuple[Axis, Axis]:
    """Axis 4: (under the positive form, under the negative wish) of items that somebody disliked; no history.

    item int64 [S]; negative, positive int64 [S]: the user's negative wish closest to the item, and its inversion.
    """
    empty, nobody, pair = tuple(np.zeros(0, np.int64) for _ in item), np.full(len(item), -1), np.arange(len(item))
    good, bad = (Axis(f"sentiment, {name}", empty, nobody, np.asarray(wish)[:, None], item, pair, True) for name, wish in (
        ("positive", positive), ("negative", negative)))  # fmt: skip
    return good, bad


def judge(axis: Axis, top: np.ndarray, ks: Sequence[int] = (5, 10)) -> dict[str, np.ndarray]:
    """Recall, NDCG, MRR and the other metrics of `ranked` per sample, float64 [S], from lists int [S, K], best first.

    >>> one = Axis("a", (np.array([0]),), np.array([0]), np.array([[-1]]), np.array([7]), np.array([-1]), False)
    >>> {name: float(x[0]) for name, x in judge(one, np.array([[3, 4, 7, 5, 6]]), [5]).items() if name in ("recall@5", "ndcg@5")}
    {'recall@5': 1.0, 'ndcg@5': 0.5}
    """
    if len(top) != len(axis):
        raise InputError(f"{len(top):,} lists for the {len(axis):,} samples of {axis.name}")
    relevant = Rows(np.arange(len(axis) + 1), axis.target, np.arange(len(axis)))
    return ranked(top, relevant, np.arange(len(axis)), ks)


def followed(positive: np.ndarray, negative: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """m@k per pair, float64 [S]: 1 where the item is in the top k under the positive wish and not under the negative one.

    positive, negative int [S, K]: the two lists. Equal lists give 0. A model that ignores everything but the sign word does well here: look
    at the share of positive hits as well. InputError where k exceeds the lists.

    >>> followed(np.array([[1, 2], [1, 2]]), np.array([[3, 4], [2, 1]]), np.array([2, 2]), 2).tolist()
    [1.0, 0.0]
    """
    if not 1 <= k <= min(positive.shape[1], negative.shape[1]):
        raise InputError(f"k lies between 1 and the length of the lists, {min(positive.shape[1], negative.shape[1])}, not {k}")
    hit, still = ((top[:, :k] == np.asarray(item)[:, None]).any(axis=1) for top in (positive, negative))
    return (hit & ~still).astype(np.float64)


def share(top: np.ndarray, has: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k items of each list that have an attribute, float64 [S]; has bool [S, I] or [I].

    >>> share(np.array([[0, 1, 2]]), np.array([True, False, True]), 2).tolist()
    [0.5]
    """
    return np.take_along_axis(np.broadcast_to(has, (len(top), has.shape[-1])), top[:, :k], axis=1).mean(axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(size > 0, size, 1)
