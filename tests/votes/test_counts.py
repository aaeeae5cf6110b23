"""Counting is exact, whatever the chunks, the number of items, and the road (table, sorting), and refuses what cannot be counted."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.records.schema import OUTCOMES
from cupel.votes import counts as module
from cupel.votes.counts import N_OUTCOMES, PairCounts, VoteCounter, count_votes


def votes(n_items: int, n: int, seed: int = 0, dtype=np.int32):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, n_items, n), rng.integers(0, n_items - 1, n)
    return first.astype(dtype), (second + (second >= first)).astype(dtype), rng.integers(0, N_OUTCOMES, n).astype(np.int8)


def by_hand(first, second, outcome, weight=None, *keys):
    total: Counter = Counter()
    for row in range(len(first)):
        key = (*(k[row] for k in keys), first[row], second[row])
        total[(*map(int, key), int(outcome[row]))] += 1 if weight is None else weight[row]
    return total


def as_dict(counts: PairCounts, values=None):
    values = counts.votes if values is None else values
    tags = [] if counts.cluster is None else list(counts.cluster.T)
    return {
        (*(int(k[c]) for k in (*tags, counts.first, counts.second)), o): values[c, o]
        for c, o in zip(*np.nonzero(values), strict=True)
    }  # fmt: skip


def same(a: PairCounts, b: PairCounts):
    assert a.n_votes == b.n_votes
    for name in ("first", "second", "votes", "squares", "cluster", "controls"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_outcomes_are_those_of_the_store():
    assert OUTCOMES == ("a", "b", "tie", "both_bad", "skip")
    assert len(OUTCOMES) == N_OUTCOMES


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(0, 60),
    st.integers(0, 10_000),
    st.booleans(),
    st.booleans(),
    st.sampled_from([np.int8, np.int16, np.uint8, np.int64]),
)
def test_counts_equal_counting_by_hand(n_items, n, seed, weighted, dense, dtype):
    columns = votes(n_items, n, seed, dtype)
    weight = np.random.default_rng(seed).integers(0, 4, n) / 2 if weighted else None
    before = module.DENSE_CELLS
    try:
        module.DENSE_CELLS = before if dense else 0
        found = count_votes(*columns, n_items, weight=weight)
    finally:
        module.DENSE_CELLS = before
    assert as_dict(found) == {k: v for k, v in by_hand(*columns, weight).items() if v}
    squared = None if weight is None else weight**2
    assert as_dict(found, found.squares) == {k: v for k, v in by_hand(*columns, squared).items() if v}
    assert found.n_votes == n


@pytest.mark.parametrize("n_items", [5, 3000])  # table, sorting
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clusters", [0, 1, 2])
def test_chunks_and_merged_counters_equal_the_whole(n_items, weighted, clusters, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    n, rng = 1000, np.random.default_rng(1)
    columns = votes(n_items, n)
    weight = rng.integers(1, 9, n) / 4 if weighted else None  # sums of quarters are exact in any order
    cluster = rng.integers(0, 30, (n, clusters)) if clusters else None
    whole = count_votes(*columns, n_items, weight=weight, cluster=cluster)
    left, right = VoteCounter(n_items), VoteCounter(n_items)
    for k, cut in enumerate(np.array_split(np.arange(n), 13)):
        tags = None if cluster is None else cluster[cut]
        (left, right)[k % 2].add(*(c[cut] for c in columns), None if weight is None else weight[cut], tags)
    left.add(*(c[:0] for c in columns), None if weight is None else weight[:0], None if cluster is None else cluster[:0])
    left.merge(right)
    same(left.counts(), whole)
    order = rng.permutation(n)
    same(
        count_votes(
            *(c[order] for c in columns),
            n_items,
            weight=None if weight is None else weight[order],
            cluster=None if cluster is None else cluster[order],
        ),
        whole,
    )
    keys = [] if cluster is None else list(cluster.T)
    assert as_dict(whole) == {k: v for k, v in by_hand(*columns, weight, *keys).items() if v}


def test_the_table_and_sorting_agree(monkeypatch):
    columns = votes(40, 5000)
    table = count_votes(*columns, 40)
    monkeypatch.setattr(module, "DENSE_CELLS", 0)
    same(count_votes(*columns, 40), table)


def test_arrow_columns_are_read_as_they_are():
    columns = votes(6, 100)
    same(count_votes(*(pa.array(c) for c in columns), 6), count_votes(*columns, 6))
    chunked = [pa.chunked_array([c[:30], c[30:]]) for c in columns]
    same(count_votes(*chunked, 6), count_votes(*columns, 6))


def test_memory_is_bounded_by_cells_not_by_votes(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1000)
    counter = VoteCounter(3000)  # sorted: 5 * 3000^2 cells are no table
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 3000, (50, 2))
    pairs[:, 1] = (pairs[:, 0] + 1) % 3000
    for _ in range(40):
        pick = rng.integers(0, 50, 1000)
        counter.add(pairs[pick, 0], pairs[pick, 1], np.zeros(1000, dtype=int))
        assert sum(len(key) for key, _ in counter._runs) <= 2 * 50
    assert counter.counts().votes.sum() == 40_000


def test_unordered_pooled_and_per_item():
    columns = votes(6, 500)
    counts = count_votes(*columns, 6, cluster=np.arange(500) % 7)
    plain = count_votes(*columns, 6)
    same(counts.pooled(), plain)
    first, second, outcome = (c.astype(int) for c in columns)
    turned = first > second
    swap = np.array([1, 0, 2, 3, 4])
    expected = count_votes(np.where(turned, second, first), np.where(turned, first, second), np.where(turned, swap[outcome], outcome), 6)
    same(counts.unordered(), expected)
    won = [((first == k) & (outcome == 0)).sum() + ((second == k) & (outcome == 1)).sum() for k in range(6)]
    assert counts.per_item()[:, 0].tolist() == won
    assert counts.per_item()[:, 2].tolist() == [(((first == k) | (second == k)) & (outcome == 2)).sum() for k in range(6)]


def test_pair_weights_count_both_orders_and_keep_the_floor():
    counts = count_votes([0] * 60 + [1] * 40 + [1] * 10, [1] * 60 + [0] * 40 + [2] * 10, [0] * 110, 3)
    found = counts.pair_weighted(50)
    np.testing.assert_allclose(found.votes[:, 0], [0.6, 0.4, 0.2])
    np.testing.assert_allclose(found.squares[:, 0], [60 / 100**2, 40 / 100**2, 10 / 50**2])
    with pytest.raises(InputError, match="floor"):
        counts.pair_weighted(0)


def test_equal_controls_are_counted_together():
    x = np.array([[0.5, 1.0], [0.5, 1.0], [0.5, -1.0], [0.25, 1.0]])
    found = count_votes([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], 2, controls=x, control_names=("length", "lists"))
    assert found.votes[:, 0].tolist() == [1, 1, 2]
    assert found.controls is not None
    assert sorted(map(tuple, found.controls.tolist())) == [(0.25, 1.0), (0.5, -1.0), (0.5, 1.0)]
    assert found.control_names == ("length", "lists")
    tagged = count_votes([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], 2, controls=x, cluster=[3, 4, 3, 3])
    assert tagged.cluster is not None
    assert tagged.controls is not None
    rows = zip(tagged.cluster[:, 0].tolist(), map(tuple, tagged.controls.tolist()), strict=True)
    assert sorted(rows) == [(3, (0.25, 1.0)), (3, (0.5, -1.0)), (3, (0.5, 1.0)), (4, (0.5, 1.0))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": [0, 9, 1]}, r"1 of 3 votes have an item outside 0 ... 3 \(first: row 1\)"),
        ({"second": [1, -1, -2]}, r"2 of 3 votes have an item outside"),
        ({"outcome": [0, 0, 5]}, r"an outcome outside 0 ... 4 \(first: row 2\)"),
        ({"second": [1, 2, 2]}, "compare an item with itself"),
        ({"weight": [1, -1, np.nan]}, "2 of 3 votes have a weight that is negative or not finite"),
        ({"cluster": [-1, 0, 0]}, "a cluster outside"),
        ({"cluster": [1 << 60, 0, 0]}, "number clusters from 0"),
        ({"cluster": np.zeros((3, 3), dtype=int)}, "one or two cluster columns"),
        ({"first": [0.0, 1.0, 2.0]}, "not integers"),
        ({"outcome": [0, 0]}, "one length"),
        ({"n_items": 0}, "number of items"),
        ({"controls": [np.nan, 1, 2]}, "control that is not finite"),
        ({"controls": [0, 0, 0]}, "controls for nothing"),
        ({"controls": [0, 1]}, "do not fit"),
    ],
)
def test_what_cannot_be_counted_is_named(change, words):
    options = {"first": [0, 1, 2], "second": [1, 2, 3], "outcome": [0, 0, 0], "n_items": 4} | change
    with pytest.raises(InputError, match=words):
        count_votes(options.pop("first"), options.pop("second"), options.pop("outcome"), options.pop("n_items"), **options)


def test_a_refused_chunk_leaves_the_counter_as_it_was():
    counter = VoteCounter(3)
    counter.add([0], [1], [0])
    for bad in (([0, 0], [1, 0], [0, 0]), ([0, 3], [1, 1], [0, 0])):
        with pytest.raises(InputError):
            counter.add(*bad)
    with pytest.raises(InputError, match="either all chunks"):
        counter.add([0], [1], [0], [0.5])
    with pytest.raises(InputError, match="same items"):
        counter.merge(VoteCounter(4))
    same(counter.counts(), count_votes([0], [1], [0], 3))


def test_no_votes_are_no_cells():
    assert len(VoteCounter(4).counts().first) == 0
    assert len(count_votes([], [], [], 4).first) == 0
    assert count_votes([], [], [], 10_000).votes.shape == (0, N_OUTCOMES)
