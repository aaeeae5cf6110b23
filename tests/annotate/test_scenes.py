"""Scenes from logs: the card's oracle on exposures, guards against leakage, interleaving and the collaborative list against slow twins."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cupel.annotate.exposure import Collaborative, Content, Occasion, Random, check_exposure, interleave, shuffled_top, top_list
from cupel.annotate.scenes import Scenes, build_scenes, first_seen, misclicks
from cupel.errors import InputError
from cupel.interactions.log import Log


def some_log(seed: int = 0, users: int = 60, items: int = 120, n: int = 2400, *, timed: bool = True) -> Log:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, n), np.minimum(rng.geometric(0.03, n) - 1, items - 1)
    time = np.sort(rng.integers(0, 10**6, n)) if timed else None
    return Log(
        np.array([f"u{u}" for u in range(users)]), np.array([f"i{i}" for i in range(items)]), user.astype(np.int32),
        item.astype(np.int32), value=rng.integers(1, 6, n).astype(np.float32), time=time,
    )  # fmt: skip


def test_exposures_of_five_thousand_scenes() -> None:
    """Oracle 7: the choice is there once, its position uniform over all slots, and no distractor is in the user's full log."""
    from scipy.stats import chisquare

    log = some_log(n=7000, users=900, items=300)
    scenes = build_scenes(log, [Random(300)], choices=5, least=2, seed=1)
    assert len(scenes) > 5000
    met: dict[int, set[int]] = {u: set() for u in range(900)}
    for u, i in zip(log.user.tolist(), log.item.tolist(), strict=True):
        met[u].add(i)
    for s in range(len(scenes)):
        options, item = scenes.options(s).tolist(), int(log.item[scenes.event[s]])
        assert options.count(item) == 1
        assert options[scenes.chosen[s]] == item
        assert not (set(options) - {item}) & met[int(scenes.user[s])]
    counts = np.bincount(scenes.chosen, minlength=5)
    assert chisquare(counts).pvalue > 1e-3
    assert counts[4] > 0  # the authors' builder never puts it last


def test_position_is_uniform_where_sizes_differ() -> None:
    from scipy.stats import chisquare

    scenes = build_scenes(some_log(n=3000), [Random(120)], choices=(2, 6), seed=2)
    assert set(scenes.sizes.tolist()) == {2, 3, 4, 5, 6}
    assert chisquare(np.bincount(scenes.sizes, minlength=7)[2:]).pvalue > 1e-3
    for size in range(2, 7):
        assert chisquare(np.bincount(scenes.chosen[scenes.sizes == size], minlength=size)).pvalue > 1e-4


def test_history_is_strictly_before_and_items_are_not_from_the_future() -> None:
    log = some_log(3)
    assert log.time is not None
    tied = Log(log.users, log.items, log.user, log.item, time=log.time // 50000)  # many events at one time
    first = first_seen(tied)
    scenes = build_scenes(tied, [Random(120), Content(np.eye(120))], choices=4, history=6, events=np.arange(600, 1400), seed=0)
    assert tied.time is not None
    ties = 0
    for s in range(len(scenes)):
        now, rows = tied.time[scenes.event[s]], scenes.history[s]
        before = np.flatnonzero((tied.user == scenes.user[s]) & (tied.time < now)).tolist()
        assert len(before) >= 3
        assert rows.tolist() == sorted(before, key=lambda n: (tied.time[n], n))[-6:]  # type: ignore[index]
        ties += int(((tied.user == scenes.user[s]) & (tied.time == now)).sum() > 1)
        assert (first[scenes.options(s)] <= now).all()
    assert ties > 50
    memory = scenes.memory(5)
    assert memory.items.tolist() == tied.item[scenes.history[5]].tolist()
    assert memory.now == tied.time[scenes.event[5]]


def test_known_release_dates_and_none() -> None:
    log = some_log(4)
    dates = np.where(np.arange(120) < 60, 0, 10**9)
    for scenes in (build_scenes(log, [Random(120)], choices=3, released=dates, events=np.arange(1500, 1600)),):
        for s in range(len(scenes)):
            others = np.delete(scenes.options(s), scenes.chosen[s])
            assert (others < 60).all()
    free = build_scenes(log, [Random(120)], choices=3, released="none")
    assert "younger" in free.notes[1]
    assert len(free) >= len(build_scenes(log, [Random(120)], choices=3))
    without = build_scenes(some_log(4, timed=False), [Random(120)], choices=3)
    assert without.memory(0).now is None
    assert (np.array([rows.max() for rows in without.history]) < without.event).all()


def test_scenes_of_some_events_are_those_of_all() -> None:
    """Draws belong to events: what is asked for beside them changes nothing; the same seed gives the same scenes."""
    log = some_log(5)
    whole, part = (build_scenes(log, [Random(120)], events=e, seed=3) for e in (None, np.arange(500, 900)))
    at = {e: s for s, e in enumerate(whole.event.tolist())}
    for s, e in enumerate(part.event.tolist()):
        assert part.options(s).tolist() == whole.options(at[e]).tolist()
    assert (build_scenes(log, [Random(120)], seed=4).chosen[:200] != whole.chosen[:200]).any()
    mask = np.zeros(len(log), bool)
    mask[500:900] = True
    assert build_scenes(log, [Random(120)], events=mask, seed=3).exposure.tolist() == part.exposure.tolist()


def test_cap_per_user() -> None:
    scenes = build_scenes(some_log(6), [Random(120)], per_user=2)
    assert max(Counter(scenes.user.tolist()).values()) == 2
    assert "beyond 2 of one user" in scenes.notes[0]


def test_interleaving_keeps_orders_and_draws_turns() -> None:
    lists = [np.array([1, 2, 3]), np.array([11, 12, 13]), np.array([2, 21])]
    seen = Counter()
    for seed in range(3000):
        out = interleave(lists, np.random.default_rng(seed)).tolist()
        assert sorted(out) == [1, 2, 3, 11, 12, 13, 21]
        assert [x for x in out if x in (11, 12, 13)] == [11, 12, 13]
        assert out.index(1) < out.index(3)
        seen[out[0]] += 1
    assert seen[11] / 3000 == pytest.approx(3 / 8, abs=0.03)  # each list in proportion to what it still has
    assert seen[2] / 3000 == pytest.approx(2 / 8, abs=0.03)


@pytest.mark.parametrize("n", [10, 500])
def test_top_lists_against_a_full_sort(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(30):
        scores, allowed = rng.integers(0, 9, n).astype(float), rng.random(n) < 0.5
        scores[rng.random(n) < 0.1] = -np.inf
        slow = sorted((i for i in range(n) if allowed[i] and scores[i] > -np.inf), key=lambda i: (-scores[i], i))[:20]
        assert top_list(scores, allowed, 20).tolist() == slow
    few = shuffled_top(np.arange(10.0), 3, rng)
    assert np.flatnonzero(np.isfinite(few)).tolist() == [7, 8, 9]


def test_collaborative_against_the_dense_formula() -> None:
    log = some_log(7, users=30, items=25, n=300)
    r = np.zeros((30, 25))
    r[log.user, log.item] = 1
    du, di = r.sum(axis=1), r.sum(axis=0)
    normal = r / np.sqrt(np.maximum(du, 1))[:, None] / np.sqrt(np.maximum(di, 1))
    v = np.linalg.svd(normal)[2][:8].T * np.sqrt(di)[:, None]
    earlier = np.array([3, 5, 5, 9])
    row = np.bincount(earlier, minlength=25)
    found = Collaborative(log, dims=8)(Occasion(0, 1, earlier, np.random.default_rng(0)))
    assert found == pytest.approx(row @ v @ v.T, abs=1e-8)
    assert Collaborative(log, dims=500).vectors.shape == (25, 24)


def test_content_and_its_nearest() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    occasion = Occasion(0, 4, np.array([1]), np.random.default_rng(1))
    assert Content(vectors)(occasion) == pytest.approx(vectors @ vectors[4])
    near = np.flatnonzero(np.isfinite(Content(vectors, nearest=6)(occasion)))
    slow = sorted((j for j in range(40) if j != 4), key=lambda j: -float(vectors[j] @ vectors[4]))[:6]
    assert near.tolist() == sorted(slow)


def test_misclicks() -> None:
    scenes = build_scenes(some_log(8, n=6000, users=200), [Random(120)], choices=(2, 6), least=0)
    chosen = misclicks(scenes, 0.3, seed=0)
    wrong = chosen != scenes.chosen
    assert wrong.mean() == pytest.approx(0.3, abs=0.025)
    assert (chosen < scenes.sizes).all()
    moved = (chosen - scenes.chosen)[wrong & (scenes.sizes == 4)] % 4
    assert np.bincount(moved, minlength=4)[1:] / len(moved) == pytest.approx([1 / 3] * 3, abs=0.08)
    noisy = scenes.recorded_as(chosen)
    assert noisy.event.tolist() == scenes.event.tolist()
    assert (misclicks(scenes, 0.0, seed=0) == scenes.chosen).all()
    with pytest.raises(InputError, match="share of misclicks"):
        misclicks(scenes, 1.5, seed=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [([4], "1 options"), (list(range(27)), "27 options"), ([4, 5, 4], "more than once .first: item 4"), ([1, 2], "does not hold")],
)
def test_exposures_that_are_refused(options: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_exposure(np.array(options), 4)


def test_bad_input() -> None:
    log = some_log(9)
    with pytest.raises(InputError, match="1 to 5 options"):
        build_scenes(log, [Random(120)], choices=(1, 5))
    with pytest.raises(InputError, match="27 to 27 options"):
        build_scenes(log, [Random(120)], choices=27)
    with pytest.raises(InputError, match="no scorer"):
        build_scenes(log, [])
    with pytest.raises(InputError, match=r"\(7,\) items of \(120,\)"):
        build_scenes(log, [Random(7)])
    with pytest.raises(InputError, match="no rows of a log"):
        build_scenes(log, [Random(120)], events=np.array([5, 10**6]))
    with pytest.raises(InputError, match="none of 5 events makes a scene: 5 have fewer than 3"):
        build_scenes(log, [Random(120)], events=np.arange(5))
    with pytest.raises(InputError, match="without times"):
        build_scenes(some_log(9, timed=False), [Random(120)], released=np.zeros(120))
    with pytest.raises(InputError, match="one each"):
        build_scenes(log, [Random(120)], released=np.zeros(7))
    with pytest.raises(InputError, match="no times"):
        first_seen(some_log(9, timed=False))
    with pytest.raises(InputError, match="per_user=0"):
        build_scenes(log, [Random(120)], per_user=0)
    scenes = build_scenes(log, [Random(120)], choices=3, events=np.arange(1000, 1100))
    with pytest.raises(InputError, match="scene 0"):
        Scenes(log, scenes.event, scenes.exposure[:, [0, 0, 1]], scenes.chosen, scenes.history)
