"""Semantic ids: the card's numbers, the bijection, the error that never grows, files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.learners.recommenders.generative.ids import SemanticIds, quantised, residual_kmeans, resolved, standardised

BOOKS = [np.array([[0.0, 0.0], [4.0, 4.0]]), np.array([[0.0, 0.0], [1.0, -1.0]])]


def test_residual_quantisation_by_hand() -> None:
    """Card 40, oracle 1."""
    codes, left = quantised(np.array([[5.0, 3.0], [4.4, 4.1]]), BOOKS)
    assert codes.tolist() == [[1, 1], [1, 0]]
    np.testing.assert_allclose(left, [[0, 0], [0.4, 0.1]], atol=1e-12)


def test_quantised_is_the_search_by_distances() -> None:
    rng = np.random.default_rng(0)
    x, books = rng.normal(size=(30, 4)), [rng.normal(size=(5, 4)) for _ in range(3)]
    codes, left = quantised(x, books)
    for row in range(30):
        r = x[row].copy()
        for level, book in enumerate(books):
            k = min(range(5), key=lambda k: float(np.linalg.norm(r - book[k])))
            assert codes[row, level] == k
            r = r - book[k]
        np.testing.assert_allclose(left[row], r, atol=1e-12)


def test_error_does_not_grow_where_codebooks_hold_means() -> None:
    """Card 40, oracle 2; the codebooks are the means of what is assigned to them."""
    x = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    ids = residual_kmeans(x, levels=4, codes=8, last=32, seed=0)
    assert all(b <= a + 1e-9 for a, b in pairwise((1.0, *ids.residual)))
    codes, left = quantised(standardised(x), ids.codebooks)
    assert np.array_equal(codes, ids.codes[:, :-1])
    assert np.isclose((left.astype(float) ** 2).mean() / (standardised(x).astype(float) ** 2).mean(), ids.residual[-1])


def test_the_last_code_counts_those_alike_from_zero() -> None:
    """Card 40, oracle 3: the m-th item of a prefix gets m - 1; ids and items are a bijection, tokens go there and back."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 3, (60, 2))
    whole = resolved(codes, 30)
    seen: dict[tuple[int, ...], int] = {}
    for row, prefix in enumerate(map(tuple, codes.tolist())):
        assert whole[row, 2] == seen.get(prefix, 0)
        seen[prefix] = seen.get(prefix, 0) + 1
    ids = SemanticIds(whole, (3, 3, 30))
    assert len({tuple(row) for row in whole.tolist()}) == 60
    assert np.array_equal(ids.items(ids.tokens()), np.arange(60))
    missing = ids.tokens()[:1].copy()
    missing[0, 2] = ids.offsets[2] + 29
    assert ids.items(missing).tolist() == [-1]
    assert ids.facts()["collisions"] == {n: list(seen.values()).count(n) for n in sorted(set(seen.values()))}


def test_overflow_and_duplicates_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 items share the codes \(1, 1\)"):
        resolved(np.array([[1, 1], [0, 0], [1, 1], [1, 1]]), 2)
    with pytest.raises(InputError, match="items 0 and 2"):
        SemanticIds(np.array([[1, 0], [0, 0], [1, 0]]), (2, 2))
    with pytest.raises(InputError, match="outside their level"):
        SemanticIds(np.array([[2, 0]]), (2, 2))


def test_items_without_a_vector() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[[4, 7]] = 0
    with pytest.raises(InputError, match=r"2 of 20 items have no vector \(first: item 4\)"):
        residual_kmeans(x, codes=4)
    ids = residual_kmeans(x, codes=4, last=8, missing="hash")
    assert "2 items without a vector" in ids.notes[0]
    assert np.array_equal(ids.codes, residual_kmeans(x, codes=4, last=8, missing="hash").codes)
    with pytest.raises(InputError, match="at least as many items"):
        residual_kmeans(x[:4], codes=8, missing="hash")


def test_constant_components_have_a_floor() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[:, 1] = 0.25
    assert np.isfinite(standardised(x)).all()
    assert np.allclose(standardised(x)[:, 1], 0)


def test_files_hold_the_same_ids(tmp_path: Path) -> None:
    ids = residual_kmeans(np.random.default_rng(0).normal(size=(30, 3)), levels=2, codes=4, last=16)
    ids.save(tmp_path / "ids.safetensors")
    again = SemanticIds.load(tmp_path / "ids.safetensors")
    assert np.array_equal(again.codes, ids.codes)
    assert (again.sizes, again.residual) == (ids.sizes, ids.residual)
    assert all(np.array_equal(a, b) for a, b in zip(again.codebooks, ids.codebooks, strict=True))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "ids.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        SemanticIds.load(tmp_path / "other")
