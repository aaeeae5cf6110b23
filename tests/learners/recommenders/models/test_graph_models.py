"""Recommenders on the graph of users and items: card 34's worked numbers, dense twins, and terms that vanish with their weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log, Split, by_user
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.graph import Graph
from cupel.learners.recommenders.models.lightgcn import LightGCN
from cupel.learners.recommenders.models.sgl import SGL
from cupel.learners.recommenders.models.simgcl import SimGCL
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.saved import load, save
from cupel.learners.recommenders.types import Known, top
from cupel.noise.fixed import identity
from cupel.objectives.contrastive import info_nce
from cupel.objectives.reward import bradley_terry

QUICK = {"epochs": 8, "batch_size": 128, "learning_rate": 0.02}


def trained(text: str, split: Split, **options: object) -> LightGCN:
    o = RecommenderOptions(**{**QUICK, "model": text, **options})  # pyright: ignore[reportArgumentType]: a test's own words
    model = fit(Known(split.train), bradley_terry(), identity(), o).model
    assert isinstance(model, LightGCN)
    return model


def prepared(split: Split, made: type[LightGCN] = LightGCN, **settings: object) -> LightGCN:
    model = made(60, 40, **settings)  # pyright: ignore[reportArgumentType]: a test's own words
    model.prepare(Known(split.train))
    return model


def dense(split: Split) -> torch.Tensor:
    """The normalised adjacency of all 100 nodes."""
    a = torch.zeros(100, 100)
    a[split.train.user, 60 + split.train.item.astype(np.int64)] = 1
    a = a + a.T
    d = a.sum(1).clamp(min=1) ** -0.5
    return d[:, None] * a * d


@pytest.mark.parametrize(("combine", "share"), [("sum", 1.0), ("mean", 0.25)])
def test_propagation_on_the_card(combine: str, share: float) -> None:
    """Oracle 5: two users, three items, scalar vectors, three layers."""
    log = Log.of([0, 0, 1, 1], [0, 1, 1, 2])
    model = LightGCN(2, 3, dim=1, layers=3, combine=combine).eval()
    model.prepare(Known(log))
    with torch.no_grad():
        model.user.copy_(torch.tensor([[1.0], [2.0]]))
        model.item.copy_(torch.tensor([[0.5], [-1.0], [3.0]]))
    found = torch.cat(model.tables()).squeeze(1).tolist()
    expected = [2.399048519, 6.550698949, 1.987436867, 2.737436867, 6.798097039]
    assert found == pytest.approx([share * x for x in expected], rel=1e-6)


def test_sum_and_mean_rank_alike(tastes: Split) -> None:
    one, other = prepared(tastes), prepared(tastes, combine="mean")
    seen = by_user(tastes.train)
    assert np.array_equal(top(one, np.arange(60), 10, seen=seen), top(other, np.arange(60), 10, seen=seen))


def test_layers_and_gradients_against_a_dense_matrix(tastes: Split) -> None:
    model = prepared(tastes, dim=5, layers=2, keep=1.0)
    weight = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    (torch.cat(model.tables()) * weight).sum().backward()
    e = torch.cat([model.user, model.item]).detach().requires_grad_()
    a = dense(tastes)
    total = e + a @ e + a @ (a @ e)
    (total * weight).sum().backward()
    torch.testing.assert_close(torch.cat(model.tables()), total)
    assert e.grad is not None
    assert model.user.grad is not None
    assert model.item.grad is not None
    torch.testing.assert_close(torch.cat([model.user.grad, model.item.grad]), e.grad)


def test_left_out_edges_are_a_smaller_matrix_without_scaling(tastes: Split) -> None:
    """Both directions are drawn on their own, and the gradient goes back along the edges that were kept."""
    model = prepared(tastes, dim=3, layers=1, keep=0.5)
    model.begin_step(torch.Generator().manual_seed(4))
    assert model.edges is not None
    pairs = np.unique(tastes.train.pairs())
    forth, back = torch.zeros(60, 40), torch.zeros(60, 40)
    forth[pairs // 40, pairs % 40], back[pairs // 40, pairs % 40] = model.edges.to_user, model.edges.to_item
    full = dense(tastes)[:60, 60:]
    assert set(torch.unique((forth / full.where(full > 0, torch.ones(()))).round(decimals=5)).tolist()) == {0.0, 1.0}
    assert not torch.equal(forth > 0, back > 0)
    u, v = model.tables()
    torch.testing.assert_close(u, model.user + forth @ model.item)
    torch.testing.assert_close(v, model.item + back.T @ model.user)
    u.sum().backward()
    assert model.item.grad is not None
    torch.testing.assert_close(model.item.grad, forth.sum(0)[:, None].expand(-1, 3))


def test_share_of_edges_kept() -> None:
    rng = np.random.default_rng(0)
    graph = Graph(Log.of(rng.integers(0, 300, 20_000), rng.integers(0, 300, 20_000)))
    kept = graph.dropped(0.8, torch.Generator().manual_seed(0))
    for found in kept:
        assert float((found > 0).float().mean()) == pytest.approx(0.8, abs=0.015)


def test_evaluation_reads_all_edges_and_moved_vectors(tastes: Split) -> None:
    model = prepared(tastes, keep=0.5)
    before = model.eval().tables()[0].clone()
    model.train()
    model.begin_step(torch.Generator().manual_seed(0))
    assert not torch.equal(model.tables()[0], before)
    model.eval()
    assert torch.equal(model.tables()[0], before)
    with torch.no_grad():
        model.user += 1
    assert not torch.equal(model.tables()[0], before)


@pytest.mark.parametrize("text", ["lightgcn:dim=8", "sgl:dim=8", "simgcl:dim=8", "lightgcn:dim=8,keep=1,bias=true"])
def test_graph_models_learn_the_two_tastes(tastes: Split, text: str) -> None:
    found = top(trained(text, tastes), np.arange(60), 5, seen=by_user(tastes.train))
    assert ((found >= 20) == (np.arange(60) % 2 == 1)[:, None]).mean() > 0.8


@pytest.mark.parametrize("name", ["sgl", "simgcl"])
def test_a_term_of_weight_0_is_lightgcn_bit_for_bit(tastes: Split, name: str) -> None:
    """Oracle 4, and a weight above 0 moves the vectors while no other draw changes."""
    plain, none = trained("lightgcn:dim=4", tastes), trained(f"{name}:dim=4,keep=0.8,weight=0", tastes)
    assert torch.equal(plain.user, none.user)
    assert torch.equal(plain.item, none.item)
    assert not torch.equal(trained(f"{name}:dim=4,keep=0.8,weight=0.5", tastes).user, plain.user)


@pytest.mark.parametrize("pool", ["batch", "all"])
def test_views_are_told_apart_over_distinct_nodes(tastes: Split, pool: str) -> None:
    model = prepared(tastes, SGL, weight=0.3, temperature=0.4, pool=pool)
    user, items = torch.tensor([3, 1, 3]), torch.tensor([[5, 9], [5, 7], [2, 9]])
    found = model.extra(user, items, torch.Generator().manual_seed(1))
    again = torch.Generator().manual_seed(1)
    (u1, v1), (u2, v2) = model.view(again), model.view(again)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    at_user, at_item = [1, 3], [2, 5, 7, 9]
    pools = (u2[at_user], v2[at_item]) if pool == "batch" else (u2, v2)
    expected = 0.3 * (info_nce(u1[at_user], u2[at_user], pools[0], 0.4).mean() + info_nce(v1[at_item], v2[at_item], pools[1], 0.4).mean())
    torch.testing.assert_close(found, expected)


def test_noise_has_its_length_and_the_sign_of_the_vector(tastes: Split) -> None:
    model = prepared(tastes, SimGCL, eps=0.7)
    assert isinstance(model, SimGCL)
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(2))
    moved = model._noisy(x, torch.Generator().manual_seed(3)) - x
    torch.testing.assert_close(moved.norm(dim=1), torch.full((50,), 0.7))
    assert bool((moved * x.sign() >= -1e-6).all())
    model.eps = 0.0
    u, v = model.view(torch.Generator())
    torch.testing.assert_close((u, v), model.eval().tables())


def test_same_seed_same_bytes_and_folders(tastes: Split, tmp_path: Path) -> None:
    one, two = trained("sgl:dim=4", tastes), trained("sgl:dim=4", tastes)
    assert torch.equal(one.user, two.user)
    assert sorted(one.state_dict()) == ["item", "user"]
    save(tmp_path, one, Known(tastes.train), text="sgl:dim=4", seed=0)
    assert torch.equal(load(tmp_path).model.scores(torch.arange(60)), one.scores(torch.arange(60)))


@pytest.mark.parametrize(
    "text",
    [
        "lightgcn:layers=0", "lightgcn:keep=0", "lightgcn:combine=max", "sgl:view_keep=0", "sgl:pool=some", "simgcl:eps=-1",
        "simgcl:temperature=0",
    ],
)  # fmt: skip
def test_settings_that_graphs_refuse(tastes: Split, text: str) -> None:
    with pytest.raises(InputError):
        trained(text, tastes)


def test_a_graph_needs_events(tastes: Split) -> None:
    with pytest.raises(InputError, match="the log has none"):
        Graph(tastes.train.take(np.arange(0)))
    with pytest.raises(InputError, match="call prepare first"):
        LightGCN(3, 3).tables()
