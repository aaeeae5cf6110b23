"""Factor models that are solved: ALS and ExpoMF against their equations written out cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Split
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.models import als as als_file
from cupel.learners.recommenders.models import expomf as expomf_file
from cupel.learners.recommenders.models.als import ALS
from cupel.learners.recommenders.models.expomf import ExpoMF
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.types import Known, Recommender
from cupel.noise.fixed import identity
from cupel.objectives.reward import bradley_terry


def solved(text: str, split: Split) -> Recommender:
    return fit(Known(split.train), bradley_terry(), identity(), RecommenderOptions(model=text)).model


def matrix(split: Split) -> np.ndarray:
    y = np.zeros((60, 40))
    y[split.train.user, split.train.item] = 1
    return y


def test_als_row_by_row(tastes: Split) -> None:
    model = solved("als:dim=4,l2=2,alpha=3,sweeps=2", tastes)
    assert isinstance(model, ALS)
    start = ALS(60, 40, dim=4)
    y, v = matrix(tastes), start.item.detach().numpy().astype(float)
    c = 1 + 3 * y
    u = np.zeros((60, 4))
    for _ in range(2):
        for row, (weight, target) in enumerate(zip(c, y, strict=True)):
            u[row] = np.linalg.solve(v.T @ np.diag(weight) @ v + 2 * np.eye(4), v.T @ (weight * target))
        for column in range(40):
            weight, target = c[:, column], y[:, column]
            v[column] = np.linalg.solve(u.T @ np.diag(weight) @ u + 2 * np.eye(4), u.T @ (weight * target))
    np.testing.assert_allclose(model.user.numpy(), u, atol=1e-5)
    np.testing.assert_allclose(model.item.numpy(), v, atol=1e-5)


def test_every_sweep_of_als_lowers_its_loss(tastes: Split) -> None:
    y = matrix(tastes)
    found = []
    for sweeps in (1, 2, 4, 8):
        model = solved(f"als:dim=4,l2=1,alpha=4,sweeps={sweeps}", tastes)
        assert isinstance(model, ALS)
        u, v = model.user.numpy().astype(float), model.item.numpy().astype(float)
        found.append((((1 + 4 * y) * (y - u @ v.T) ** 2).sum() + (u**2).sum() + (v**2).sum()).item())
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_blocks_do_not_change_als(tastes: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    one = solved("als:dim=4,scale=0.5", tastes)
    monkeypatch.setattr(als_file, "BLOCK", 16 * 11)
    many = solved("als:dim=4,scale=0.5", tastes)
    torch.testing.assert_close(one.scores(torch.arange(60)), many.scores(torch.arange(60)), rtol=1e-5, atol=1e-6)


def test_scale_0_and_equal_rows_agree(tastes: Split) -> None:
    """Every user has 8 events: scaling the penalty by them is another penalty; items differ, so tables may differ, users' step not."""
    plain, scaled = ALS(60, 40, dim=4, l2=(8 + 40 / 6) ** 0.5 * 2), ALS(60, 40, dim=4, l2=2, scale=0.5)
    row = torch.from_numpy(tastes.train.user.astype(np.int64))
    turn = torch.argsort(row, stable=True)
    column = torch.from_numpy(tastes.train.item.astype(np.int64))[turn]
    torch.testing.assert_close(plain.side(row[turn], column, 60, plain.item), scaled.side(row[turn], column, 60, plain.item))


def em(split: Split, sweeps: int, l2: float, seen: float, precision: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Card 32-unbiased-mnar, cell by cell."""
    start = ExpoMF(60, 40, dim=3)
    u, v = start.user.detach().numpy().astype(float), start.item.detach().numpy().astype(float)
    y, mu = matrix(split), np.full(40, seen)
    for _ in range(sweeps):
        n = math.sqrt(precision / (2 * math.pi)) * np.exp(-precision / 2 * (u @ v.T) ** 2)
        a = np.where(y == 1, 1.0, n / (n + (1 - mu) / mu))
        for row in range(60):
            u[row] = np.linalg.solve(precision * v.T @ np.diag(a[row]) @ v + l2 * np.eye(3), precision * v.T @ (a[row] * y[row]))
        for column in range(40):
            w = a[:, column]
            v[column] = np.linalg.solve(precision * u.T @ np.diag(w) @ u + l2 * np.eye(3), precision * u.T @ (w * y[:, column]))
        mu = np.clip(a.mean(axis=0), 1e-4, 1 - 1e-4)  # a0 = b0 = 1
    return u, v, mu


@pytest.mark.parametrize("cells", [1 << 21, 130])
def test_expomf_cell_by_cell(tastes: Split, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expomf_file, "CELLS", cells)
    model = solved("expomf:dim=3,l2=0.5,sweeps=3,seen=0.05,precision=2", tastes)
    assert isinstance(model, ExpoMF)
    u, v, mu = em(tastes, 3, 0.5, 0.05, 2.0)
    np.testing.assert_allclose(model.exposure.numpy(), mu, rtol=1e-9)
    np.testing.assert_allclose(model.user.numpy(), u, atol=1e-5)
    np.testing.assert_allclose(model.item.numpy(), v, atol=1e-5)


@pytest.mark.parametrize("text", ["als:l2=0", "als:sweeps=0", "als:alpha=-1", "expomf:seen=1", "expomf:precision=0", "expomf:l2=0"])
def test_settings_that_ridges_refuse(tastes: Split, text: str) -> None:
    with pytest.raises(InputError):
        solved(text, tastes)


def test_empty_logs_are_refused(tastes: Split) -> None:
    nothing = tastes.train.take(np.arange(0))
    for text in ("als", "expomf"):
        with pytest.raises(InputError, match="no events"):
            fit(Known(nothing), bradley_terry(), identity(), RecommenderOptions(model=text))
