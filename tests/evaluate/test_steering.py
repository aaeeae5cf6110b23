"""The five axes: who owns which history, which wish fits what, controls, and the two metrics."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.evaluate.steering import (
    Axis,
    at_random,
    consolidation,
    followed,
    judge,
    recommendation,
    sentiment,
    sequences,
    share,
    shuffled,
    steering,
    swapped,
    unasked,
)
from cupel.interactions.log import Log

ITEMS, USERS, DIM = 30, 25, 6


def made(seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Histories, their owners, targets, item vectors, and a pool with three wishes about each item, each closest to it."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(ITEMS, DIM))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    pool = np.concatenate([items + 0.01 * rng.normal(size=items.shape) for _ in range(3)])
    histories = [rng.integers(0, ITEMS, rng.integers(1, 6)) for _ in range(USERS)]
    return histories, np.arange(100, 100 + USERS), rng.integers(0, ITEMS, USERS), items, pool


@pytest.mark.parametrize("kind", ["fine", "coarse"])
@pytest.mark.parametrize("ranks", [(0, 0), (1, 2)])
def test_steering_pairs(kind: str, ranks: tuple[int, int]) -> None:
    """Card 40, oracle 6."""
    histories, owner, target, items, pool = made()
    axis = steering(kind, histories, owner, target, items, pool, ranks=ranks)  # pyright: ignore[reportArgumentType]
    assert len(axis) == 2 * len(np.unique(target))
    for n in range(len(axis)):
        row = int(axis.owner[n]) - 100
        assert target[row] != axis.target[n]  # the history is of somebody who took another item
        assert np.array_equal(axis.history[n], histories[row])
        assert int(np.argmax(items @ pool[axis.wish[n, 0]])) == axis.target[n]
    again = swapped(swapped(axis))
    assert np.array_equal(again.owner, axis.owner)
    assert all(np.array_equal(a, b) for a, b in zip(again.history, axis.history, strict=True))
    back = swapped(axis)
    assert all(target[int(u) - 100] == t for u, t in zip(back.owner, back.target, strict=True))


def test_coarse_is_less_similar_than_fine() -> None:
    """Card 40, oracle 6, and the slow search for the neighbour."""
    histories, owner, target, items, pool = made(1)
    both = [steering(kind, histories, owner, target, items, pool) for kind in ("fine", "coarse")]
    distinct = np.unique(target)
    for n, i in enumerate(distinct):
        others = [j for j in distinct if j != i]
        fine, coarse = (int(axis.target[2 * n + 1]) for axis in both)
        assert fine == max(others, key=lambda j: items[i] @ items[j])
        assert coarse == min(others, key=lambda j: items[i] @ items[j])
        assert items[i] @ items[coarse] <= items[i] @ items[fine]


def test_metrics_by_hand() -> None:
    """Card 40, oracle 5."""
    axis = recommendation([np.array([0])], np.array([0]), np.array([7]), np.array([2]))
    found = judge(axis, np.array([[3, 4, 7, 5, 6]]), [5])
    assert (found["recall@5"][0], found["ndcg@5"][0], found["mrr@5"][0]) == (1.0, 0.5, pytest.approx(1 / 3))
    item = np.array([9, 9, 9, 9])
    hit, miss = [9, 1], [1, 2]
    positive, negative = np.array([hit, hit, miss, miss]), np.array([miss, hit, miss, hit])
    assert followed(positive, negative, item, 2).tolist() == [1, 0, 0, 0]
    assert followed(positive, positive, item, 2).sum() == 0
    with pytest.raises(InputError, match="length of the lists, 2"):
        followed(positive, negative, item, 3)
    with pytest.raises(InputError, match="2 lists for the 1 samples"):
        judge(axis, positive[:2])


def test_controls_change_the_wish_alone() -> None:
    histories, owner, target, _, _ = made()
    axis = recommendation(histories, owner, target, np.arange(USERS))
    for other in (unasked(axis), at_random(axis, np.arange(40, 50), seed=1), shuffled(axis)):
        assert other.history == axis.history
        assert np.array_equal(other.target, axis.target)
        assert not other.uses_target
    assert axis.uses_target
    assert (unasked(axis).wish == -1).all()
    assert np.isin(at_random(axis, np.arange(40, 50)).wish, np.arange(40, 50)).all()
    assert (shuffled(axis).wish != axis.wish).all()
    assert sorted(shuffled(axis).wish[:, 0]) == list(range(USERS))
    assert consolidation(histories, owner, target, np.zeros((USERS, 5), int)).wish.shape == (USERS, 5)
    with pytest.raises(InputError, match="not in pairs"):
        swapped(axis)


def test_sentiment_has_no_history() -> None:
    good, bad = sentiment(np.array([4, 5]), np.array([0, 1]), np.array([2, 3]))
    assert [len(h) for h in (*good.history, *bad.history)] == [0, 0, 0, 0]
    assert np.array_equal(good.target, bad.target)
    assert (good.wish[:, 0].tolist(), bad.wish[:, 0].tolist()) == ([2, 3], [0, 1])


def test_share_of_an_attribute() -> None:
    has = np.array([[True, False, True], [False, False, True]])
    assert share(np.array([[0, 2, 1], [0, 2, 1]]), has, 2).tolist() == [1.0, 0.5]


def test_sequences_are_the_last_in_time() -> None:
    rng = np.random.default_rng(0)
    user = rng.integers(0, 12, 90)
    log = Log(
        np.arange(14).astype(str), np.arange(ITEMS).astype(str), user.astype(np.int32), rng.integers(0, ITEMS, 90).astype(np.int32),
        time=rng.integers(0, 20, 90),
    )  # fmt: skip
    found = sequences(log, longest=5)
    assert log.time is not None
    for n, u in enumerate(found.user.tolist()):
        rows = sorted(np.flatnonzero(log.user == u).tolist(), key=lambda r: (log.time[r], log.item[r]))[-5:]  # pyright: ignore[reportOptionalSubscript]
        assert found.items[n].tolist() == log.item[rows].tolist()
        assert sorted(found.event[n].tolist()) == sorted(rows)
        assert found.histories()[n].tolist() == log.item[rows][:-1].tolist()
        assert found.targets(2)[n] == log.item[rows][-2]
    short = Log.of([0, 0, 1, 1, 1], [0, 1, 0, 1, 2])
    assert sequences(short).notes == ("1 users with fewer than 3 events are left out",)
    assert sequences(short).user.tolist() == [1]
    with pytest.raises(InputError, match="at least 3"):
        sequences(short, longest=2)


def test_what_makes_no_sense_is_refused() -> None:
    histories, owner, target, items, pool = made()
    with pytest.raises(InputError, match="different numbers"):
        Axis("a", (), owner, owner[:, None], target, target, False)
    with pytest.raises(InputError, match="two targets and 3 wishes"):
        steering("fine", histories, owner, np.zeros(USERS, int), items, pool)
    with pytest.raises(InputError, match="fine or coarse"):
        steering("medium", histories, owner, target, items, pool)  # pyright: ignore[reportArgumentType]
