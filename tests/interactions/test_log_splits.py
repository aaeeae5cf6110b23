"""Cuts of a log: the rule written out, leakage, ties, users with too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.interactions.log import Log, Split
from cupel.interactions.raw import LONG_AGO
from cupel.interactions.splits import checked, leave_one_out, random_split, temporal, uniform_test


def made_up(users: int = 12, items: int = 40, seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    pairs = [(u, int(i)) for u in range(users) for i in rng.permutation(items)[: 3 + 2 * u]]
    turn = rng.permutation(len(pairs))
    u, i = np.array(pairs)[turn].T
    return Log.of(u, i, time=rng.integers(0, 20, len(pairs)), value=np.ones(len(pairs), np.float32))


def names(log: Log) -> list[tuple[str, str]]:
    return list(zip(log.users[log.user].tolist(), log.items[log.item].tolist(), strict=True))


def test_the_random_split_is_the_rule_written_out() -> None:
    log = made_up()
    assert log.time is not None
    rows = sorted(range(len(log)), key=lambda r: (log.user[r], log.time[r], log.item[r]))  # pyright: ignore[reportOptionalSubscript]
    rng, parts = np.random.default_rng(7), {"test": [], "validation": [], "train": []}
    for u in range(len(log.users)):
        own = np.array([k for k, r in enumerate(rows) if log.user[r] == u])
        p = rng.permutation(own)
        n = max(1, round(0.1 * len(own)))
        parts["test"] += p[:n].tolist()
        parts["validation"] += p[n : 2 * n].tolist()
        parts["train"] += p[2 * n :].tolist()
    split = random_split(log, seed=7)
    for name, expected in parts.items():
        assert names(getattr(split, name)) == names(log.take(np.array([rows[k] for k in sorted(expected)])))
    assert names(random_split(log.take(np.arange(len(log))[::-1]), seed=7).test) == names(split.test)  # not the order of the file
    assert names(random_split(log, seed=8).test) != names(split.test)


def test_users_of_two_events_stay_in_training() -> None:
    split = random_split(Log.of([1, 1, 2, 2, 2], [1, 2, 1, 2, 3]))
    assert [len(x) for x in (split.train, split.validation, split.test)] == [3, 1, 1]
    assert "1 users have fewer than 3 events: all of theirs are in training." in split.train.notes


def test_pairs_on_both_sides_are_refused_left_out_or_kept() -> None:
    log = Log.of(["a"] * 20, [1] * 20)
    with pytest.raises(InputError, match=r"events are of pairs that also occur in training \(first: user a, item 1\)"):
        random_split(log)
    assert len(random_split(log, overlap="drop").test) == 0
    kept = random_split(log, overlap="keep").test
    assert len(kept) == 2
    assert "kept." in kept.notes[-1]
    with pytest.raises(InputError, match="'leave'"):
        random_split(log, overlap="leave")  # pyright: ignore[reportArgumentType]


def test_users_with_everything_and_users_without_events_are_counted() -> None:
    log = Log.of(["a", "a", "a", "a", "b"], [1, 2, 3, 4, 1])
    empty = Log(np.array(["a", "b", "c"]), log.items, log.user, log.item)
    split = random_split(empty, test=0, validation=0)
    assert "1 of 3 users have no event: they are in no part." in split.train.notes
    assert "1 users have all 4 items in training: there is none that they did not take." in split.train.notes
    assert split.train.shape == (3, 4)


def test_the_last_events_are_held_out_and_ties_do_not_depend_on_the_file() -> None:
    log = Log.of(["a"] * 4 + ["b"] * 2 + ["c"] * 3, [4, 3, 2, 1, 1, 2, 1, 2, 3], time=np.array([9, 9, 1, 2, 1, 2, 3, 2, 1]))
    for rows in (np.arange(9), np.arange(9)[::-1]):
        split = leave_one_out(log.take(rows))
        assert names(split.test) == [("a", "4"), ("c", "1")]
        assert names(split.validation) == [("a", "3"), ("c", "2")]
        assert names(split.train) == [("a", "2"), ("a", "1"), ("c", "3")] or names(split.train) == [("a", "1"), ("a", "2"), ("c", "3")]
        assert "1 of 3 users have fewer than 3 events: left out." in split.test.notes
        assert "The last two events of 1 users have one time: the larger item index counts as later." in split.test.notes
    two = leave_one_out(log, validation=False, shortest=2)
    assert len(two.validation) == 0
    assert len(two.test) == 3


def test_leaving_one_out_needs_times_and_long_enough_users() -> None:
    with pytest.raises(InputError, match="no time"):
        leave_one_out(Log.of(["a"] * 3, [1, 2, 3]))
    with pytest.raises(InputError, match="none of the 1 users has 9 events"):
        leave_one_out(Log.of(["a"] * 3, [1, 2, 3], time=np.arange(3)), shortest=9)
    with pytest.raises(InputError, match="needs 3 events"):
        leave_one_out(Log.of(["a"] * 3, [1, 2, 3], time=np.arange(3)), shortest=2)


def test_a_date_parts_all_users_alike_and_one_time_is_never_parted() -> None:
    log = made_up()
    split = temporal(log, test=0.2, validation=0.2)
    parts = [np.asarray(x.time) for x in (split.train, split.validation, split.test)]
    assert parts[0].max() < parts[1].min()
    assert parts[1].max() < parts[2].min()
    assert sum(map(len, parts)) == len(log)
    at = temporal(log, at=(5, 10))
    assert at.train.time is not None
    assert at.train.time.max() < 5
    assert at.test.time is not None
    assert at.test.time.min() >= 10


def test_a_date_counts_new_users_and_refuses_empty_parts() -> None:
    log = Log.of(["a", "a", "b", "c"], [1, 2, 1, 3], time=np.array([0, 1, 2, 3]))
    split = temporal(log, at=(1, 2))
    assert "2 of 2 test events are of users without an event in training." in split.test.notes
    assert "1 of 2 test events are of items without an event in training." in split.test.notes
    with pytest.raises(InputError, match="no event is left for test"):
        temporal(log, at=(1, 9))
    with pytest.raises(InputError, match="shares"):
        temporal(log, test=0.6, validation=0.5)
    with pytest.raises(InputError, match="no time"):
        temporal(Log.of(["a"], [1]))


def test_a_test_of_its_own_is_matched_by_name() -> None:
    chosen = Log.of(["a"] * 5 + ["b"] * 5, [1, 2, 3, 4, 5] * 2, texts=("1", "2", "3", "4", "5"))
    asked = Log.of(["b", "z", "a"], [7, 3, 8], value=np.array([1.0, 2.0, 3.0]), texts=("three", "seven", "eight"))
    split = uniform_test(chosen, asked, validation=0.2)
    assert names(split.test) == [("b", "7"), ("z", "3"), ("a", "8")]
    assert split.train.users.tolist() == ["a", "b", "z"] == split.test.users.tolist()
    assert split.train.texts == ("1", "2", "3", "4", "5", "seven", "eight")
    assert len(split.validation) == 2
    assert len(split.train) == 8
    dated = uniform_test(replace(chosen, released=np.arange(5)), asked, validation=0.2)
    assert np.asarray(dated.test.released).tolist() == [0, 1, 2, 3, 4, LONG_AGO, LONG_AGO]
    with pytest.raises(InputError, match="1 of 1 test events"):
        uniform_test(chosen, Log.of(["a"], [1]), validation=0)
    assert len(uniform_test(chosen, Log.of(["a"], [1]), validation=0, overlap="drop").test) == 0


def test_an_empty_log_cannot_be_split() -> None:
    log = Log.of(["a"], [1]).take(np.zeros(0, np.int64))
    with pytest.raises(InputError, match="without events"):
        random_split(log)
    assert checked(Split(log, log, log, "")).how == ""
