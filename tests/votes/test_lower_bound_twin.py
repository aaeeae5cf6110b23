"""Triangles packed at once agree with packing them one edge at a time, and rows are numbered as numpy numbers them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.records.keys import dense
from cupel.votes import lower_bound as module
from cupel.votes.lower_bound import _pack_triangles, _triangles


def packed_slowly(edges: dict[tuple[int, int], int]) -> int:
    """The same greedy rule on sets: edges in few triangles first, then the third node whose edges lie in the fewest."""
    nodes = {node for edge in edges for node in edge}
    load = {(u, v): sum((v, w) in edges and (w, u) in edges for w in nodes) for u, v in edges}
    left = dict(edges)
    packed = 0
    for u, v in sorted(edges, key=lambda edge: (load[edge], edge)):
        while left[u, v]:
            thirds = [w for w in nodes if left.get((v, w), 0) and left.get((w, u), 0)]
            if not thirds:
                break
            w = min(thirds, key=lambda x: (load[v, x] + load[x, u], x))
            used = min(left[u, v], left[v, w], left[w, u])
            packed += used
            for edge in ((u, v), (v, w), (w, u)):
                left[edge] -= used
    return packed


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 7), st.integers(0, 7)), st.tuples(st.integers(1, 3), st.booleans()), max_size=28))
def test_packing_agrees_with_sets(drawn):
    edges = {}
    for (a, b), (capacity, turned) in drawn.items():
        if a < b:
            edges[(b, a) if turned else (a, b)] = capacity
    source, target = (np.array([edge[k] for edge in edges], dtype=np.int64) for k in (0, 1))
    assert _pack_triangles(source, target, np.array(list(edges.values()), dtype=np.int64)) == packed_slowly(edges)


@pytest.mark.parametrize("paths", [1, 7, 1 << 20])
def test_triangles_are_counted_in_parts_of_any_size(monkeypatch, paths):
    monkeypatch.setattr(module, "_PATHS", paths)
    rng = np.random.default_rng(0)
    i, j = np.triu_indices(12, 1)
    turned = rng.random(len(i)) < 0.5
    source, target = np.where(turned, j, i), np.where(turned, i, j)
    order = np.lexsort((target, source))
    source, target = source[order], target[order]
    wins = np.zeros((12, 12), dtype=int)
    wins[source, target] = 1
    load, other = _triangles(source, target)
    assert load.tolist() == (wins @ wins)[target, source].tolist()
    for e in np.flatnonzero(load):
        ends = {(int(source[k]), int(target[k])) for k in (e, *other[e])}
        assert len(ends) == 3
        assert len({node for edge in ends for node in edge}) == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 10**9), st.integers(-(2**40), 2**40)), max_size=30))
def test_rows_are_numbered_as_numpy_numbers_them(rows):
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    found = dense(*table.T)
    expected = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1) if len(table) else np.zeros(0)
    assert found.tolist() == expected.tolist()
