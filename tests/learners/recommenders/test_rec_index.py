"""Serving: the blocked search against the full ranking, ties, what is left out, folders, and engines."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.interactions.log import Log, by_user
from cupel.interactions.metrics import best, tie_order
from cupel.learners.recommenders.index import Index, ranked_with_scores, recommend
from cupel.learners.recommenders.models.mf import MatrixFactorisation
from cupel.learners.recommenders.names import build
from cupel.learners.recommenders.saved import save
from cupel.learners.recommenders.types import Known, top


def made(users: int = 17, items: int = 53, seed: int = 0, whole: bool = False) -> tuple[MatrixFactorisation, Log]:
    """A model with random vectors (small whole numbers: many equal scores, sums exact) and a random log."""
    rng = np.random.default_rng(seed)
    model = MatrixFactorisation(users, items, dim=4, std=1.0, seed=seed)
    if whole:
        for x in (model.user, model.item, model.bias):
            assert x is not None
            x.data = torch.from_numpy(rng.integers(-1, 2, tuple(x.shape)).astype(np.float32))
    log = Log(
        np.array([f"u{k:03}" for k in range(users)]), np.array([f"i{k:03}" for k in range(items)]),
        rng.integers(0, users, 60).astype(np.int32), rng.integers(0, items, 60).astype(np.int32),
    )  # fmt: skip
    return model, log


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([1, 3, 8, 53, 64]), st.sampled_from([2, 5, 64]), st.booleans())
def test_blocks_give_the_full_ranking(seed: int, k: int, block: int, batch: int, masked: bool) -> None:
    """Equal scores included: the twin sorts all scores at once."""
    model, log = made(seed=seed, whole=True)
    seen = by_user(log, order="item") if masked else None
    users = np.random.default_rng(seed).permutation(17)[:9]
    items, scores = Index.of(model, log).search(users, k, seen=seen, batch=batch, block=block)
    exact = model.scores(torch.from_numpy(users)).detach().numpy()
    hidden = exact.copy()
    if seen is not None:
        for row, u in enumerate(users):
            hidden[row, seen.of(int(u))] = -np.inf
    twin = best(hidden, k, tie_order(53))
    np.testing.assert_array_equal(items[:, : twin.shape[1]], twin)
    assert (items[:, twin.shape[1] :] == -1).all()
    full = (twin >= 0).all(axis=1)
    np.testing.assert_array_equal(twin[full], top(model, users, k, seen=seen)[full])
    for row in range(len(users)):
        got = items[row] >= 0
        np.testing.assert_array_equal(scores[row][got], exact[row, items[row][got]])
        assert (scores[row][~got] == -np.inf).all()


def test_real_scores() -> None:
    model, log = made(seed=3)
    items, scores = Index.of(model, log).search(np.arange(17), 10, block=7, batch=4)
    np.testing.assert_array_equal(items, top(model, np.arange(17), 10))
    twin, same = ranked_with_scores(model, np.arange(17), 10)
    np.testing.assert_array_equal(items, twin)
    np.testing.assert_allclose(scores, same, rtol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_user_who_had_everything_gets_nothing() -> None:
    model, _ = made(users=2, items=5)
    log = Log(np.array(["a", "b"]), np.arange(5).astype(str), np.zeros(5, np.int32), np.arange(5, dtype=np.int32))
    items, scores = Index.of(model, log).search([0, 1], 3, seen=by_user(log, order="item"), block=2)
    assert items[0].tolist() == [-1, -1, -1]
    assert (scores[0] == -np.inf).all()
    assert (items[1] >= 0).all()
    got, ends = ranked_with_scores(model, np.array([0]), 3, by_user(log))
    assert got.tolist() == [[-1, -1, -1]]
    assert (ends == -np.inf).all()


def test_an_index_goes_round(tmp_path: Path) -> None:
    model, log = made()
    index = Index.of(model, log)
    path = index.save(tmp_path / "a")
    index.save(tmp_path / "b")
    assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    again = Index.load(tmp_path / "a")
    np.testing.assert_array_equal(again.search([1, 2], 5)[0], index.search([1, 2], 5)[0])
    assert again.users.tolist() == log.users.tolist()
    served = recommend(tmp_path / "a", ["u003"], k=4).to_pylist()
    assert [row["rank"] for row in served] == [1, 2, 3, 4]
    had = {str(log.items[i]) for u, i in zip(log.user, log.item, strict=True) if log.users[u] == "u003"}
    assert not had & {row["item"] for row in served}
    assert {row["item"] for row in recommend(tmp_path / "a", ["u003"], k=53, exclude_seen=False).to_pylist()} >= had


@pytest.mark.parametrize("text", ["mf:dim=4", "popularity", "ease"])
def test_every_folder_is_served(text: str, tmp_path: Path) -> None:
    _, log = made()
    known = Known(log)
    model = build(text, *log.shape, 0)
    model.prepare(known)
    if model.kind == "solved":
        model.solve(known)
    save(tmp_path, model, known, text=text, seed=0)
    rows = recommend(tmp_path, k=3)
    best = top(model, np.arange(17), 3, seen=by_user(log))
    assert rows.column("item").to_pylist() == log.items[best].reshape(-1).tolist()
    assert rows.column("user").to_pylist() == np.repeat(log.users, 3).tolist()
    if text.startswith("mf"):
        Index.of(model, log).save(tmp_path)
        assert recommend(tmp_path, k=3).column("item").to_pylist() == rows.column("item").to_pylist()
    else:
        with pytest.raises(InputError, match="no vectors of users and items"):
            Index.of(model, log)


def test_bad_input(tmp_path: Path) -> None:
    model, log = made()
    index = Index.of(model, log)
    for wrong, words in (({"k": 0}, "at least 1"), ({"block": 0}, "at least 1")):
        with pytest.raises(InputError, match=words):
            index.search([0], **{"k": 3, **wrong})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="user 17 is outside the 17"):
        index.search([17], 3)
    with pytest.raises(InputError, match="holds no index"):
        Index.load(tmp_path)
    index.save(tmp_path)
    with pytest.raises(InputError, match=r"2 of 3 users are not known to the recommender \(first: 'x'\)"):
        recommend(tmp_path, ["u001", "x", "y"])
    with pytest.raises(InputError, match="vectors of one width"):
        Index(index.user, index.item[:, :2], index.bias, index.users, index.items, index.seen)
    broken = index.item.clone()
    broken[4, 0] = torch.nan
    with pytest.raises(InputError, match=r"1 vectors \(item\) are not finite \(first: 4\)"):
        Index(index.user, broken, index.bias, index.users, index.items, index.seen)


def test_faiss_agrees_where_it_is_installed() -> None:
    model, log = made(seed=5)
    index, seen = Index.of(model, log), by_user(log, order="item")
    if find_spec("faiss") is None:
        with pytest.raises(InputError, match="engine faiss needs faiss"):
            index.search([0], 3, engine="faiss")
        return
    for left_out in (None, seen):
        ours, theirs = (index.search(np.arange(17), 6, seen=left_out, engine=engine) for engine in ("torch", "faiss"))
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4)
