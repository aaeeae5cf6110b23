"""Weighted metrics against an obvious loop over users, the worked example of the card, and what a constant or a scale of theta does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.evaluate.recommending.weighing import WEIGHTED, Judge, propensities, weigh
from cupel.interactions.log import Log, Rows, by_user
from cupel.interactions.metrics import ranked
from cupel.noise.exposure import ranking


def rows_of(lists: list[list[int]]) -> Rows:
    counts = [len(one) for one in lists]
    item = np.array([i for one in lists for i in sorted(one)], dtype=np.int32)
    return Rows(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), item, np.arange(len(item)))


def slow(top: np.ndarray, rows: Rows, weight: np.ndarray, users: np.ndarray, k: int) -> dict[str, tuple[list[float], list[float]]]:
    """The same numbers, user by user and place by place."""
    out: dict[str, tuple[list[float], list[float]]] = {f"{m}@{k} {f}": ([], []) for f, names in WEIGHTED.items() for m in names}
    for line, u in zip(top, users, strict=True):
        own = dict(zip(rows.of(int(u)).tolist(), weight[rows.start[u] : rows.start[u + 1]].tolist(), strict=True))
        gain = found = 0.0
        for place, item in enumerate(line[:k]):
            w = own.get(int(item), 0.0) if item >= 0 else 0.0
            gain += w / np.log2(place + 2)
            found += w
        total = sum(own.values())
        ideal = sum(w / np.log2(place + 2) for place, w in enumerate(sorted(own.values(), reverse=True)[:k]))
        counts = float(bool(own))
        for name, above, below in [
            ("recall ips", found, counts), ("dcg ips", gain, counts),
            ("recall snips", found / total if own else 0.0, counts), ("dcg snips", gain / total if own else 0.0, counts),
            ("ndcg snips", gain / ideal if own else 0.0, counts), ("recall pooled", found, total), ("dcg pooled", gain, total),
        ]:  # fmt: skip
            metric, form = name.split()
            out[f"{metric}@{k} {form}"][0].append(above)
            out[f"{metric}@{k} {form}"][1].append(below)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_loop_agrees(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    items = 9
    rows = rows_of([rng.choice(items, rng.integers(0, 5), replace=False).tolist() for _ in range(7)])
    weight = rng.uniform(1, 50, len(rows.item))
    users = rng.permutation(7)[:5]
    top = np.stack([rng.permutation(items)[:6] for _ in users])
    top[0, 4:] = -1
    found, twin = Judge(rows, weight, items).of(top, users, [k]), slow(top, rows, weight, users, k)
    assert found.keys() == twin.keys()
    for key in twin:
        np.testing.assert_allclose(found[key], twin[key], atol=1e-12)


def test_the_worked_example_of_the_card() -> None:
    """Card 32, oracle 5: clicks on items 0, 2, 5 of six, in the order of their scores, k = 3."""
    theta = np.array([0.5, 0.1, 0.25])
    rows = rows_of([[0, 2, 5]])
    found = Judge(rows, 1 / theta, 6).of(np.array([[0, 1, 2, 3, 4, 5]]), np.array([0]), [3])
    assert found["dcg@3 snips"][0][0] == pytest.approx(0.4375)
    assert found["recall@3 snips"][0][0] == pytest.approx(0.75)
    assert found["recall@3 ips"][0][0] == pytest.approx(12.0)
    assert found["dcg@3 ips"][0][0] == pytest.approx(7.0)  # standard discount: 2 + 10 / 2
    same = ranking([1, 0, 1, 0, 0, 1], [0.5, 0.4, 0.1, 1, 0.2, 0.25], [6, 5, 4, 3, 2, 1], k=3)
    assert found["dcg@3 snips"][0][0] == pytest.approx(same["dcg"])
    assert found["recall@3 snips"][0][0] == pytest.approx(same["recall"])


def test_constant_and_scaled_propensities() -> None:
    """Card 32, oracle 7."""
    rng = np.random.default_rng(1)
    rows = rows_of([rng.choice(30, n, replace=False).tolist() for n in (1, 2, 5, 9)])
    users, top = np.arange(4), np.stack([rng.permutation(30)[:10] for _ in range(4)])
    level = Judge(rows, np.full(len(rows.item), 4.0), 30).of(top, users, [3, 10])
    plain = ranked(top, rows, users, [3, 10])
    for k in (3, 10):
        np.testing.assert_allclose(level[f"recall@{k} snips"][0], plain[f"recall@{k}"])
        np.testing.assert_allclose(level[f"ndcg@{k} snips"][0], plain[f"ndcg@{k}"])
    theta = rng.uniform(0.2, 1, len(rows.item))
    one, other = (Judge(rows, 1 / t, 30).of(top, users, [10]) for t in (theta, theta / 4))
    for key, (above, below) in one.items():
        scale = 4.0 if key.endswith(("ips", "pooled")) and "snips" not in key else 1.0
        np.testing.assert_allclose(other[key][0], scale * above)
        np.testing.assert_allclose(other[key][1], (4.0 if "pooled" in key else 1.0) * below)


def test_within_a_user_with_one_event_weights_do_nothing() -> None:
    """What leave-one-out splits do to the self-normalised form; the pooled one compares users."""
    rows = rows_of([[0], [1]])
    found = Judge(rows, np.array([1.0, 9.0]), 3).of(np.array([[0, 2], [0, 2]]), np.array([0, 1]), [2])
    assert found["recall@2 snips"][0].mean() == 0.5
    above, below = found["recall@2 pooled"]
    assert above.sum() / below.sum() == pytest.approx(0.1)


def test_ips_is_unbiased_over_draws_of_what_is_seen() -> None:
    """Every set of events that could have been seen, weighed by its chance, gives the sum over all relevant items."""
    theta, top = np.array([0.8, 0.3, 0.1]), np.array([[2, 5, 0, 1]])
    mean = 0.0
    for seen in range(8):
        at = np.array([bool(seen >> j & 1) for j in range(3)])
        chance = float(np.prod(np.where(at, theta, 1 - theta)))
        rows = rows_of([np.flatnonzero(at).tolist()])
        mean += chance * float(Judge(rows, 1 / theta[at], 6).of(top, np.array([0]), [3])["dcg@3 ips"][0][0])
    assert mean == pytest.approx(1 / np.log2(2) + 1 / np.log2(4))  # item 2 at place 1, item 0 at place 3; item 1 is below


def test_propensities_by_popularity_are_found_by_id() -> None:
    """Card 32, oracle 4, with an item that training does not know in between."""
    train = Log(
        np.array(["u"]),
        np.array(["a", "none", "b", "c", "d"]),
        np.zeros(130, np.int32),
        np.repeat([0, 2, 3, 4], [100, 25, 4, 1]).astype(np.int32),
    )
    test = Log(train.users, train.items, np.zeros(4, np.int32), np.array([0, 2, 3, 4], np.int32))
    theta, words = propensities("popularity", test, train, by_user(test, order="item"), 0.0)
    np.testing.assert_allclose(theta, [1, 0.5, 0.2, 0.1])
    assert words == "popularity, power 0.5"
    np.testing.assert_allclose(propensities("popularity:1", test, train, by_user(test, order="item"), 0.0)[0], [1, 0.25, 0.04, 0.01])
    unknown = Log(train.users, train.items, np.zeros(1, np.int32), np.ones(1, np.int32))
    with pytest.raises(InputError, match=r"1 of 1 items of the test have no training event \(first: 'none'\)"):
        propensities("popularity", unknown, train, by_user(unknown), 0.0)
    assert propensities("popularity", unknown, train, by_user(unknown), 0.05)[0].tolist() == [0.05]


def test_bad_propensities() -> None:
    log = Log.of(["a", "a"], ["x", "y"])
    rows = by_user(log, order="item")
    for source, words in [
        ("log", "has no propensities"), ("random", "not 'random'"), ("popularity:much", "is not a power"),
        (np.ones(3), r"shape \(3,\)"), (np.array([0.5, 0.0]), r"1 of 2 test events have no propensity .*row 1"),
        (np.array([np.nan, 1.5]), "2 of 2"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=words):
            propensities(source, log, log, rows, 0.01)
    with pytest.raises(InputError, match="clip"):
        weigh(np.array([0.5]), 1.5, "x")
    assert "rescaled naive" in weigh(np.array([0.1, 0.2]), 0.5, "x")[1].warnings[0]
    assert "weigh as 1 equal" in weigh(np.array([1e-6] + [1.0] * 99), 0.0, "x")[1].warnings[0]
