"""Planted events never were, dropped ones were, and both are as many as was asked."""

from __future__ import annotations

import numpy as np
import pytest

import cupel.interactions.planted as planted
from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.interactions.planted import drop, inject
from cupel.interactions.splits import random_split


def grid(users: int = 30, items: int = 40, seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(rng.random(users * items) < 0.2)
    return Log.of(cells // items, cells % items, time=rng.integers(0, 99, len(cells)) + 1000 * (cells // items))


@pytest.mark.parametrize("listed", [10_000_000, 10])
def test_planted_pairs_are_new_and_avoid_what_is_held_out(listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "LISTED", listed)
    split = random_split(grid())
    n = len(split.train)
    noisy = inject(split.train, 0.5, seed=3, avoid=(split.validation, split.test))
    new = noisy.pairs()[n:]
    assert len(new) == round(0.5 * n) == len(np.unique(new))
    for part in (split.train, split.validation, split.test):
        assert not np.isin(new, part.pairs()).any()
    assert noisy.pairs()[:n].tolist() == split.train.pairs().tolist()
    assert inject(split.train, 0.5, seed=3, avoid=(split.validation, split.test)).pairs().tolist() == noisy.pairs().tolist()
    assert inject(split.train, 0.5, seed=4).pairs()[n:].tolist() != new.tolist()


def test_planted_events_take_the_time_of_the_users_own() -> None:
    noisy = inject(grid(), 0.5)
    assert noisy.time is not None
    assert (noisy.time // 1000 == noisy.user).all()


def test_planted_pairs_are_uniform_over_the_free_cells() -> None:
    log = Log.of([0, 1], [0, 1])
    seen = np.zeros(4)
    for seed in range(400):
        seen[inject(log, 0.5, seed=seed).pairs()[-1]] += 1
    assert seen[[0, 3]].tolist() == [0, 0]
    assert abs(seen[1] - 200) < 50


def test_what_cannot_be_planted_is_refused() -> None:
    log = Log.of([0, 0, 1], [0, 1, 0])
    assert len(inject(log, 1 / 3)) == 4
    assert inject(log, 0) is log
    with pytest.raises(InputError, match="only 1 of 4 are free"):
        inject(log, 1)
    with pytest.raises(InputError, match="at least 0"):
        inject(log, -1)
    with pytest.raises(InputError, match="parts of one split"):
        inject(log, 0.1, avoid=[Log.of([0], [0])])


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_as_many_are_dropped_as_was_asked(by: str) -> None:
    log = grid()
    less = drop(log, 0.3, seed=1, by=by)  # pyright: ignore[reportArgumentType]
    assert len(less) == len(log) - round(0.3 * len(log))
    assert np.isin(less.pairs(), log.pairs()).all()
    assert less.pairs().tolist() == drop(log, 0.3, seed=1, by=by).pairs().tolist()  # pyright: ignore[reportArgumentType]


def test_by_popularity_rare_items_are_missed_more() -> None:
    items = np.r_[np.zeros(900, int), np.arange(1, 101)]
    log = Log.of(np.arange(1000), items)
    kept = [np.mean(drop(log, 0.2, seed=s, by="popularity").item > 0) for s in range(20)]
    alike = [np.mean(drop(log, 0.2, seed=s).item > 0) for s in range(20)]
    assert np.mean(kept) < 0.05 < np.mean(alike)


def test_bad_rates_and_emptied_users() -> None:
    log = Log.of([0, 1, 2], [0, 1, 2])
    assert drop(log, 0.34).notes[-1].endswith("1 users have none left.")
    assert drop(log, 0) is log
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        drop(log, 1)
    with pytest.raises(InputError, match="'rare'"):
        drop(log, 0.5, by="rare")  # pyright: ignore[reportArgumentType]
