"""What is kept of a log, against loops that do it slowly."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.interactions.filters import at_least, deduplicated, k_core, positives
from cupel.interactions.log import Log


def random_log(seed: int, n: int = 200, users: int = 15, items: int = 12) -> Log:
    rng = np.random.default_rng(seed)
    return Log.of(
        rng.integers(0, users, n), rng.integers(0, items, n),
        value=rng.integers(1, 6, n).astype(np.float32), time=rng.integers(0, 30, n),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep", ["first", "last", "max"])
def test_one_event_per_pair_is_the_one_that_was_asked_for(seed: int, keep: str) -> None:
    log = random_log(seed)
    assert log.value is not None
    assert log.time is not None
    best: dict[int, int] = {}
    for row, pair in enumerate(log.pairs().tolist()):
        a, b = best.get(pair), row
        if a is None:
            best[pair] = b
        elif keep == "first":
            best[pair] = b if log.time[b] < log.time[a] else a
        elif keep == "last":
            best[pair] = b if log.time[b] >= log.time[a] else a
        else:
            better = log.value[b] > log.value[a] or (log.value[b] == log.value[a] and log.time[b] < log.time[a])
            best[pair] = b if better else a
    expected = log.take(np.array(sorted(best.values())))
    found = deduplicated(log, keep)  # pyright: ignore[reportArgumentType]
    assert found.value is not None
    assert expected.value is not None
    assert found.pairs().tolist() == expected.pairs().tolist()
    assert found.value.tolist() == expected.value.tolist()
    assert found.notes == (f"{len(log) - len(found):,} of 200 events repeat a pair of user and item: " + {
        "first": "the first of each was kept.", "last": "the last of each was kept.", "max": "that of the largest value of each was kept."
    }[keep],)  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_the_core_is_the_largest_in_which_all_have_enough(seed: int) -> None:
    log = deduplicated(random_log(seed, n=90))
    alive = set(range(len(log)))
    while True:  # one id at a time, items and users in turn: the core does not depend on the order
        gone = None
        for index, least in ((log.user, 5), (log.item, 4)):
            counts = {k: sum(index[r] == k for r in alive) for k in {int(index[r]) for r in alive}}
            few = [k for k, c in counts.items() if c < least]
            if few:
                gone = {r for r in alive if index[r] == few[0]}
                break
        if gone is None:
            break
        alive -= gone
    if not alive:
        with pytest.raises(InputError, match="Ask for fewer"):
            k_core(log, users=5, items=4)
        return
    core = k_core(log, users=5, items=4)
    expected = {(str(log.users[log.user[r]]), str(log.items[log.item[r]])) for r in alive}
    assert {(str(core.users[u]), str(core.items[i])) for u, i in zip(core.user, core.item, strict=True)} == expected
    assert core.counts("user").min() >= 5
    assert core.counts().min() >= 4


def test_a_core_that_is_whole_is_the_same_log() -> None:
    log = Log.of(["a", "a", "b", "b"], [1, 2, 1, 2])
    assert k_core(log, 2, 2) is log
    with pytest.raises(InputError, match="at least 1"):
        k_core(log, 0, 1)


def test_texts_and_releases_follow_the_items() -> None:
    log = Log.of(["a", "b", "c"], [1, 1, 2], texts=("one", "two"), released=np.array([10, 20]))
    core = k_core(log, 1, 2)
    assert core.texts == ("one",)
    assert core.released is not None
    assert core.released.tolist() == [10]


def test_values_below_are_counted_and_positives_are_pairs() -> None:
    log = Log.of(["a", "a", "b", "b"], [1, 1, 2, 1], value=np.array([1.0, 4.0, 5.0, 0.0]))
    assert at_least(log, 4).notes == ("2 of 4 events have a value below 4: left out.",)
    assert at_least(log, 0) is log
    assert len(positives(log)) == 2
    assert len(positives(log, 5)) == 1
    assert len(positives(Log.of(["a", "a"], [1, 1]))) == 1
    with pytest.raises(InputError, match="no value"):
        at_least(Log.of(["a"], [1]), 3)
    with pytest.raises(InputError, match="no value"):
        deduplicated(Log.of(["a"], [1]), "max")
    with pytest.raises(InputError, match="'best'"):
        deduplicated(log, "best")  # pyright: ignore[reportArgumentType]
