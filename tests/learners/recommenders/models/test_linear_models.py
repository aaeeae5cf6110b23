"""Recommenders in closed form against slow twins and worked numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log, Split, by_user
from cupel.learners.recommenders import linear
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.linear import without_self
from cupel.learners.recommenders.models.ease import Ease
from cupel.learners.recommenders.models.ease_side import EaseSide, neighbours
from cupel.learners.recommenders.models.item_knn import ItemKNN
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.saved import load, save
from cupel.learners.recommenders.types import Known, Recommender
from cupel.noise.fixed import identity
from cupel.objectives.reward import bradley_terry


def solved(text: str, log: Log, vectors: np.ndarray | None = None) -> Recommender:
    return fit(Known(log, vectors), bradley_terry(), identity(), RecommenderOptions(model=text)).model


def matrix(log: Log) -> np.ndarray:
    x = np.zeros(log.shape)
    x[log.user, log.item] = 1
    return x


def scores(model: Recommender) -> np.ndarray:
    return model.scores(torch.arange(model.n_users)).numpy()


def test_ease_is_a_ridge_of_each_item_on_the_others(tastes: Split) -> None:
    x = matrix(tastes.train)
    expected = np.zeros((40, 40))
    for j in range(40):
        others = np.delete(np.arange(40), j)
        a = x[:, others]
        expected[others, j] = np.linalg.solve(a.T @ a + 3.0 * np.eye(39), a.T @ x[:, j])
    model = solved("ease:l2=3", tastes.train)
    assert isinstance(model, Ease)
    np.testing.assert_allclose(model.weights.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(scores(model), x @ expected, atol=1e-5)


def test_side_information_is_rows_that_are_fitted_too(tastes: Split) -> None:
    """V V^T in the Gram matrix is what ridge regression on X stacked with V^T has."""
    v = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    x = np.concatenate([matrix(tastes.train), np.sqrt(2.0) * v.T])
    expected = without_self(x.T @ x + 4.0 * np.eye(40))
    model = solved("ease_side:l2=4,content=2,near=0", tastes.train, v)
    assert isinstance(model, EaseSide)
    np.testing.assert_allclose(model.weights.numpy(), expected, atol=1e-6)


def test_side_information_of_weight_0_is_ease_bit_for_bit(tastes: Split) -> None:
    plain, side = solved("ease:l2=5", tastes.train), solved("ease_side:l2=5,content=0,near=0", tastes.train)
    assert np.array_equal(scores(plain), scores(side))


def test_neighbours_against_all_pairs(tastes: Split) -> None:
    rows = by_user(tastes.train)
    expected = np.zeros((40, 40))
    for u in range(60):
        for a, i in enumerate(rows.of(u)):
            for b, j in enumerate(rows.of(u)):
                expected[i, j] += np.exp(-abs(a - b) / 2.5)
    found = neighbours(rows, 40, 2.5)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.linalg.eigvalsh(found).min() > -1e-3


def test_windows_as_long_as_the_lists_are_the_gram_matrix(tastes: Split) -> None:
    np.testing.assert_allclose(neighbours(by_user(tastes.train), 40, 1e9), matrix(tastes.train).T @ matrix(tastes.train), atol=1e-5)


@pytest.mark.parametrize(("k", "shrink"), [(0, 0.0), (3, 0.0), (0, 4.0)])
def test_item_knn_pair_by_pair(tastes: Split, k: int, shrink: float) -> None:
    x = matrix(tastes.train)
    alike = np.zeros((40, 40))
    for i in range(40):
        for j in range(40):
            if i != j:
                alike[i, j] = (x[:, i] @ x[:, j]) / (np.sqrt(x[:, i].sum() * x[:, j].sum()) + shrink)
    if k:
        for j in range(40):
            alike[np.argsort(-alike[:, j], kind="stable")[k:], j] = 0
    model = solved(f"item_knn:k={k},shrink={shrink}", tastes.train)
    assert isinstance(model, ItemKNN)
    np.testing.assert_allclose(scores(model), x @ alike, atol=1e-5)


def test_a_user_without_events_scores_everything_0_and_doubles_count_once() -> None:
    log = Log(np.array(["a", "b", "c"]), np.array(["x", "y"]), np.array([0, 0, 2, 2], np.int32), np.array([0, 0, 0, 1], np.int32))
    model = solved("ease:l2=1", log)
    assert scores(model)[1].tolist() == [0.0, 0.0]
    once = log.take(np.array([0, 2, 3]))
    assert np.array_equal(scores(model), scores(solved("ease:l2=1", once)))


def test_folders_bring_linear_models_back(tastes: Split, tmp_path: Path) -> None:
    known = Known(tastes.train)
    for text in ("ease:l2=5", "item_knn:k=4", "ease_side:near=0.5"):
        model = solved(text, tastes.train)
        place = save(tmp_path / text.partition(":")[0], model, known, text=text, seed=0)
        assert np.array_equal(scores(load(place).model), scores(model))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ease:l2=0", "l2 is a positive number"), ("item_knn:k=-1", "at least 0"), ("ease_side:near=2", "near in"),
        ("ease_side:content=1,near=0", "vectors of items"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(tastes: Split, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        solved(text, tastes.train)


def test_logs_and_vectors_that_cannot_be_used(tastes: Split) -> None:
    with pytest.raises(InputError, match="no times"):
        solved("ease_side:near=0.5", Log.of([0, 1], [0, 1]))
    with pytest.raises(InputError, match="40 items need as many vectors"):
        solved("ease_side:content=1", tastes.train, np.ones((39, 2), np.float32))
    with pytest.raises(InputError, match="no events"):
        solved("ease", tastes.train.take(np.arange(0)))
    with pytest.raises(InputError, match="not positive definite"):
        without_self(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_too_many_items_are_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"100,000 x 100,000 pairs of items, 37\.3 GiB"):
        Ease(10, 100_000)
    monkeypatch.setattr(linear, "MOST", 100)
    with pytest.raises(InputError, match="leave out rare items"):
        ItemKNN(10, 6)
