"""The learned quantiser: its sums, its gradients, its ids, and what collapse looks like."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.recommenders.generative.ids import quantised, standardised
from cupel.learners.recommenders.generative.rqvae import Quantiser, train_rqvae
from cupel.objectives.quantisation import residual_quantisation

SMALL = {"levels": 2, "codes": 6, "last": 40, "hidden": (16,), "latent": 4, "every": 10}


def vectors(n: int = 90, seed: int = 0) -> np.ndarray:
    """Six groups of items."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 8))[np.arange(n) % 6] * 2 + 0.2 * rng.normal(size=(n, 8))


def model_of() -> tuple[Quantiser, torch.Tensor]:
    torch.manual_seed(0)
    model = Quantiser(8, (16,), 4, 2, 6, 0.0)
    x = torch.from_numpy(standardised(vectors()))
    model.begin(x, 0)
    return model.eval(), x


def test_codes_are_the_residual_search() -> None:
    model, x = model_of()
    _, left, taken, codes = model(x)
    expected, rest = quantised(left[0].detach().numpy(), list(model.books.detach().numpy()))
    assert np.array_equal(codes.numpy(), expected)
    np.testing.assert_allclose((left[0] - taken.sum(0)).detach().numpy(), rest, atol=1e-5)
    back = model(x)[0]
    torch.testing.assert_close(back, model.decoder(taken.sum(0)), atol=1e-5, rtol=1e-5)


def test_gradients_go_where_they_should() -> None:
    """Reconstruction moves the encoder straight through and no codebook; the codebook term moves codebooks and no encoder."""
    model, x = model_of()
    back, left, taken, _ = model(x)
    (back - x).square().mean().backward(retain_graph=True)
    assert model.books.grad is None
    weight = next(model.encoder.parameters())
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0
    model.zero_grad()
    residual_quantisation(x, x, left, taken, beta=0.0).backward(retain_graph=True)
    assert model.books.grad is not None
    assert float(model.books.grad.abs().sum()) > 0
    assert weight.grad is None or float(weight.grad.abs().sum()) == 0
    model.zero_grad()
    residual_quantisation(x, x, left, taken.detach(), beta=1.0).backward()
    assert model.books.grad is None or float(model.books.grad.abs().sum()) == 0


def test_the_loss_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    x, back = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    left, chosen = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 4))
    expected = ((x - back) ** 2).mean() + 1.25 * ((left - chosen) ** 2).mean()
    found = residual_quantisation(*(torch.from_numpy(a) for a in (x, back, left, chosen)), beta=0.25)
    assert float(found) == pytest.approx(expected)
    with pytest.raises(ValueError, match="beta"):
        residual_quantisation(*(torch.from_numpy(a) for a in (x, back, left, chosen)), beta=-1.0)


def test_groups_of_items_share_their_first_codes() -> None:
    found = train_rqvae(vectors(), **SMALL, epochs=60, learning_rate=5e-3, seed=1)  # pyright: ignore[reportArgumentType]
    assert found.epochs[-1]["loss"] < found.epochs[0]["loss"]
    assert found.epochs[-1]["reconstruction"] < 0.3
    groups = np.arange(90) % 6
    first = [np.bincount(found.ids.codes[groups == g, 0]).max() for g in range(6)]
    assert np.mean(first) >= 13
    assert len(np.unique(found.ids.codes, axis=0)) == 90
    assert found.ids.residual[1] <= found.ids.residual[0]
    again = train_rqvae(vectors(), **SMALL, epochs=60, learning_rate=5e-3, seed=1)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(found.ids.codes, again.ids.codes)
    assert found.epochs == again.epochs


def test_collapse_and_overflow_are_told() -> None:
    two = np.random.default_rng(0).normal(size=(2, 8))[np.arange(40) % 2]
    found = train_rqvae(two, **{**SMALL, "codes": 5}, epochs=2)  # pyright: ignore[reportArgumentType]
    assert "collapsed: level 0 uses 2 of 5 codes" in found.ids.notes[-1]
    assert found.epochs[-1]["used"][0] == 2
    with pytest.raises(InputError, match="20 items share the codes"):
        train_rqvae(two, **{**SMALL, "codes": 5, "last": 10}, epochs=2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="at least 1"):
        train_rqvae(two, epochs=0)
