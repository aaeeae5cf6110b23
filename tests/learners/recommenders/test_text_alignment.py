"""RLMRec: card 34's oracles, and what is refused or left out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows, Split, by_user
from cupel.interactions.metrics import ranked
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.models.lightgcn import LightGCN
from cupel.learners.recommenders.models.rlmrec import RLMRec
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.saved import load, save
from cupel.learners.recommenders.text_alignment import TextAlignment, shuffled
from cupel.learners.recommenders.types import Known, Recommender, top
from cupel.noise.fixed import identity
from cupel.objectives.contrastive import info_nce, masked_info_nce
from cupel.objectives.reward import bradley_terry

WIDE = 12


@pytest.fixture(scope="module")
def text(tastes: Split) -> Known:
    """Vectors of text that know the user's and the item's half, with noise."""
    rng = np.random.default_rng(5)
    half = rng.normal(size=(2, WIDE))
    users = half[np.arange(60) % 2] + 0.3 * rng.normal(size=(60, WIDE))
    items = half[(np.arange(40) >= 20).astype(int)] + 0.3 * rng.normal(size=(40, WIDE))
    return Known(tastes.train, items.astype(np.float32), users.astype(np.float32))


def trained(model: str, known: Known, **options: object) -> Recommender:
    o = RecommenderOptions(**{"epochs": 6, "batch_size": 128, "learning_rate": 0.02, "model": model, **options})  # pyright: ignore[reportArgumentType]: a test's own words
    return fit(known, bradley_terry(), identity(), o).model


def prepared(known: Known, **settings: object) -> tuple[RLMRec, TextAlignment]:
    model = RLMRec(60, 40, **settings)  # pyright: ignore[reportArgumentType]: a test's own words
    model.prepare(known)
    assert model.text is not None
    return model, model.text


def alignment(users: np.ndarray, items: np.ndarray, dim: int = 4, **settings: object) -> TextAlignment:
    return TextAlignment(users.astype(np.float32), items.astype(np.float32), dim, **settings)  # pyright: ignore[reportArgumentType]: a test's own words


def test_infonce_on_the_card() -> None:
    """Oracles 1 and 2."""
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.2], [0.1, 1.0], [-1.0, 1.0]])
    found = info_nce(a.double(), b.double(), b.double(), 0.2)
    assert found.tolist() == pytest.approx([0.012351204, 0.227474102, 4.727562919], abs=1e-6)
    assert float(found.mean()) == pytest.approx(1.655796075, abs=1e-6)
    eye, same = torch.eye(4).double(), torch.ones(3, 4).double()
    assert info_nce(eye, eye, eye, 0.2).tolist() == pytest.approx([0.020012253] * 4, abs=1e-7)
    assert info_nce(same, same, same, 0.2).tolist() == pytest.approx([math.log(3)] * 3, abs=1e-9)
    assert info_nce(a.double(), b.double(), b.double(), 1e9).tolist() == pytest.approx([math.log(3)] * 3, abs=1e-8)
    assert masked_info_nce(eye, eye, 0.2).tolist() == pytest.approx([0.020012253] * 4, abs=1e-6)


def test_the_term_is_blind_to_scale_and_to_rotation() -> None:
    """Oracle 3, of the sum that the model minimises."""
    draw = torch.Generator().manual_seed(0)
    e, s = torch.randn(6, 5, generator=draw).double(), torch.randn(6, 5, generator=draw).double()
    turn = torch.linalg.qr(torch.randn(5, 5, generator=draw).double()).Q
    plain = info_nce(e, s, s, 0.3).sum()
    torch.testing.assert_close(info_nce(7 * e, 0.5 * s, 0.5 * s, 0.3).sum(), plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(info_nce(e @ turn, s @ turn, s @ turn, 0.3).sum(), plain)


@pytest.mark.parametrize("backbone", ["lightgcn:dim=4", "sgl:dim=4;keep=0.7", "mf:dim=4"])
@pytest.mark.parametrize("kind", ["con", "gen"])
def test_weight_0_is_the_backbone_bit_for_bit(text: Known, backbone: str, kind: str) -> None:
    """Oracle 4."""
    plain = trained(backbone.replace(";", ","), text)
    none = trained(f"rlmrec:backbone={backbone},weight=0,kind={kind}", text)
    assert torch.equal(plain.scores(torch.arange(60)), none.scores(torch.arange(60)))


def test_a_small_weight_draws_the_same_edges_and_negatives(text: Known) -> None:
    """Masks and the map have a generator of their own: with a weight of 1e-12 training stays where it was."""
    plain = trained("lightgcn:dim=4", text).scores(torch.arange(60))
    some = trained("rlmrec:backbone=lightgcn:dim=4,weight=1e-12", text).scores(torch.arange(60))
    torch.testing.assert_close(some, plain, rtol=1e-3, atol=1e-3)


def test_contrast_is_the_official_sum(text: Known) -> None:
    """Users against all users, items against the batch's with duplicates; written out with exponentials."""
    model, made = prepared(text, weight=0.3, temperature=0.4, backbone="lightgcn:dim=4")
    u, v = (x.detach() for x in model.tables())
    user, items = torch.tensor([3, 8, 3]), torch.tensor([[5, 9], [5, 30], [2, 9]])
    s_u, s_i = made.map(made.text_user).detach(), made.map(made.text_item).detach()

    def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
        return float(x @ y / (1e-8 + x @ x).sqrt() / (1e-8 + y @ y).sqrt())

    total = 0.0
    for b in range(3):
        a = int(user[b])
        total += -cosine(u[a], s_u[a]) / 0.4 + math.log(sum(math.exp(cosine(u[a], q) / 0.4) for q in s_u))
        for k in range(2):
            i = int(items[b, k])
            pool = [math.exp(cosine(v[i], s_i[int(j)]) / 0.4) for j in items[:, k]]
            total += -cosine(v[i], s_i[i]) / 0.4 + math.log(sum(pool))
    assert made.contrast(u, v, user, items).item() == pytest.approx(0.3 * total / 3, rel=1e-4)


def test_distinct_pools_hold_an_item_once(text: Known) -> None:
    _, official = prepared(text, backbone="mf:dim=4")
    model, distinct = prepared(text, backbone="mf:dim=4", distinct=True)
    u, v = model.tables()
    user, same, other = torch.tensor([0, 1]), torch.tensor([[5], [5]]), torch.tensor([[5], [6]])
    assert bool(distinct.contrast(u, v, user, same) < official.contrast(u, v, user, same))
    torch.testing.assert_close(distinct.contrast(u, v, user, other), official.contrast(u, v, user, other))


def test_a_sampled_pool_holds_the_batch(text: Known) -> None:
    model, made = prepared(text, backbone="mf:dim=4", pool=5)
    at, inside = made._pool_of(torch.tensor([7, 50, 7]))
    assert {7, 50} <= set(at.tolist())
    assert len(at) <= 7
    assert bool(inside.all())
    assert bool(torch.isfinite(made.contrast(*model.tables(), torch.tensor([7, 50]), torch.tensor([[1], [2]]))))


def test_gradients_of_contrast(text: Known) -> None:
    """Oracle 6: text gets none, the map and the model do."""
    model, made = prepared(text, backbone="lightgcn:dim=4")
    term = model.extra(torch.tensor([0, 1]), torch.tensor([[1, 2], [3, 4]]), torch.Generator())
    assert term is not None
    term.backward()
    assert not made.text_user.requires_grad
    assert not made.text_item.requires_grad
    assert all(x.grad is not None and float(x.grad.abs().sum()) > 0 for x in [*made.map.parameters(), model.user, model.item])


def test_gradients_of_masked_rows(text: Known) -> None:
    """Oracle 6: masked rows get none, from the objective neither; the [MASK] vector and the map do."""
    model, made = prepared(text, backbone="lightgcn:dim=4", kind="gen", mask_ratio=0.2)
    model.begin_step(torch.Generator().manual_seed(0))
    assert model.drawn is not None
    assert len(model.drawn[0]) + len(model.drawn[1]) == 20
    user, items = torch.arange(60), torch.stack([torch.arange(60) % 40, (torch.arange(60) + 7) % 40], dim=1)
    term = model.extra(user, items, torch.Generator())
    assert term is not None
    (model.score(user, items, user).sum() + term).backward()
    for table, rows in zip((model.user, model.item), model.drawn, strict=True):
        assert table.grad is not None
        hidden = torch.zeros(len(table), dtype=torch.bool)
        hidden[rows] = True
        assert float(table.grad[hidden].abs().sum()) == 0
        assert bool((table.grad[~hidden].abs().sum(1) > 0).any())
    assert made.token.grad is not None
    assert bool(made.token.grad.any())
    assert all(x.grad is not None and float(x.grad.abs().sum()) > 0 for x in made.map.parameters())


def test_the_masked_term_against_its_formula(text: Known) -> None:
    model, made = prepared(text, backbone="lightgcn:dim=4;keep=1", kind="gen", weight=0.5, temperature=0.3)
    model.begin_step(torch.Generator())
    assert model.drawn is not None
    user, item = model.user.detach().clone(), model.item.detach().clone()
    user[model.drawn[0]], item[model.drawn[1]] = 0.0, 0.0
    assert isinstance(model.backbone, LightGCN)
    u, v = model.backbone.spread(user, item, model.backbone.known_graph().whole())
    nodes = torch.cat([u[model.drawn[0]], v[model.drawn[1]]])
    said = torch.cat([made.text_user[model.drawn[0]], made.text_item[model.drawn[1]]])
    z, y = (torch.nn.functional.normalize(x, dim=1).detach().numpy() for x in (made.map(nodes), said))
    against = np.exp(z @ y.T / 0.3)
    expected = 0.5 * np.mean([-math.log(against[b, b] / (against[b].sum() + 1e-8) + 1e-8) for b in range(len(z))])
    found = model.extra(torch.tensor([0]), torch.tensor([[0, 1]]), torch.Generator())
    assert found is not None
    assert found.item() == pytest.approx(expected, rel=1e-4)
    model.eval()
    torch.testing.assert_close(model.tables(), model.backbone.tables())


def test_masks_are_distinct_nodes_and_at_least_one() -> None:
    made = alignment(np.ones((5, 3)), np.ones((6, 3)), kind="gen", mask_ratio=0.0)
    for _ in range(20):
        users, items = made.mask()
        assert len(users) + len(items) == 1
    made.mask_ratio = 0.99
    users, items = made.mask()
    assert len(torch.unique(users)) + len(torch.unique(items)) == 10


@pytest.mark.parametrize("kind", ["con", "gen"])
def test_shuffling_does_not_move_the_term_at_the_start(text: Known, kind: str) -> None:
    """Oracle 7: 20 seeds, a two-sample t below 3."""
    user, items = torch.arange(40), torch.stack([torch.arange(40), (torch.arange(40) + 11) % 40], dim=1)
    values: dict[bool, list[float]] = {False: [], True: []}
    for shuffle, found in values.items():
        for seed in range(20):
            model, _ = prepared(text, backbone="lightgcn:dim=8", kind=kind, seed=seed + 100 * shuffle, shuffle=shuffle)
            model.begin_step(torch.Generator().manual_seed(seed))
            term = model.extra(user, items, torch.Generator())
            assert term is not None
            found.append(float(term.detach()))
    one, other = np.array(values[False]), np.array(values[True])
    t = (one.mean() - other.mean()) / np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 20)
    assert abs(t) < 3


def test_shuffled_vectors_are_the_same_vectors(text: Known) -> None:
    assert text.user_vectors is not None
    x = text.user_vectors.copy()
    x[[4, 9]] = 0
    found = shuffled(x, 1)
    assert np.array_equal(np.sort(found, axis=0), np.sort(x, axis=0))
    assert not found[[4, 9]].any()
    assert not np.array_equal(found, x)


def test_metrics_on_the_card() -> None:
    """Oracle 8."""
    one = Rows(np.array([0, 1]), np.array([7]), np.array([0]))
    found = ranked(np.array([[1, 2, 7, 3]]), one, np.array([0]), [4])
    assert found["ndcg@4"].tolist() == [0.5]
    assert found["recall@4"].tolist() == [1.0]


@pytest.mark.parametrize(
    "model", ["backbone=lightgcn:dim=8", "backbone=lightgcn:dim=8,kind=gen", "backbone=sgl:dim=8", "backbone=mf:dim=8"]
)
def test_alignment_learns_and_comes_back_from_its_folder(text: Known, model: str, tmp_path: Path) -> None:
    whole = f"rlmrec:{model},weight=0.1"
    made = trained(whole, text)
    found = top(made, np.arange(60), 5, seen=by_user(text.log))
    assert ((found >= 20) == (np.arange(60) % 2 == 1)[:, None]).mean() > 0.75
    save(tmp_path, made, text, text=whole, seed=0)
    assert torch.equal(load(tmp_path).model.scores(torch.arange(60)), made.scores(torch.arange(60)))


def test_missing_profiles_are_left_out_and_counted(text: Known) -> None:
    """As anchors and in pools: whatever the table says of them, the term stays, and they get no gradient."""
    assert text.user_vectors is not None
    assert text.item_vectors is not None
    users, items = text.user_vectors.copy(), text.item_vectors.copy()
    users[[3, 4]], items[[5]] = 0, 0
    made = alignment(users, items)
    assert made.missing == (2, 1)
    draw = torch.Generator().manual_seed(0)
    u, v = torch.randn(60, 4, generator=draw).requires_grad_(), torch.randn(40, 4, generator=draw).requires_grad_()
    user, ids = torch.tensor([3, 7, 8]), torch.tensor([[5], [6], [7]])
    term = made.contrast(u, v, user, ids)
    term.backward()
    assert u.grad is not None
    assert v.grad is not None
    assert not u.grad[3].any()
    assert not v.grad[5].any()
    assert bool(v.grad[6].any())
    keep = torch.arange(60)[made.use_user]
    pool = made.map(made.text_user[keep])
    left = info_nce(u[[7, 8]], made.map(made.text_user[[7, 8]]), pool, 0.2).sum()
    said = made.map(made.text_item[[6, 7]])
    torch.testing.assert_close(term, 0.01 * (left + info_nce(v[[6, 7]], said, said, 0.2).sum()) / 3)
    gen = alignment(users, items, kind="gen", mask_ratio=0.95)
    for _ in range(5):
        masked_users, masked_items = gen.mask()
        assert not {3, 4} & set(masked_users.tolist())
        assert 5 not in masked_items.tolist()


def test_only_items_may_be_described(tastes: Split, text: Known) -> None:
    _, made = prepared(Known(tastes.train, text.item_vectors), backbone="mf:dim=4")
    assert made.missing == (60, 0)
    assert trained("rlmrec:backbone=lightgcn:dim=4", Known(tastes.train, text.item_vectors)).n_items == 40


def test_bad_vectors(tastes: Split, text: Known) -> None:
    assert text.user_vectors is not None
    assert text.item_vectors is not None
    with pytest.raises(InputError, match="60 users need as many vectors"):
        prepared(Known(tastes.train, text.item_vectors, text.user_vectors[:59]))
    bad = text.item_vectors.copy()
    bad[[7, 31], 2] = np.nan
    with pytest.raises(InputError, match=r"2 of 40 items are not finite numbers \(first: 7, 31\)"):
        prepared(Known(tastes.train, bad, text.user_vectors))
    with pytest.raises(InputError, match="users have 12 numbers, items 3"):
        prepared(Known(tastes.train, text.item_vectors[:, :3].copy(), text.user_vectors))
    with pytest.raises(InputError, match="give item_vectors and user_vectors"):
        prepared(Known(tastes.train))
    with pytest.raises(InputError, match="nothing to align with"):
        prepared(Known(tastes.train, np.zeros((40, 3), np.float32)))


def test_a_batch_of_one_is_warned_about(text: Known) -> None:
    model, made = prepared(text, backbone="mf:dim=4")
    with pytest.warns(UserWarning, match="a step of one record"):
        made.contrast(*model.tables(), torch.tensor([0]), torch.tensor([[1]]))


def test_backbones_and_settings_that_do_not_go(text: Known) -> None:
    for settings in ({"kind": "both"}, {"weight": -1.0}, {"temperature": 0.0}, {"mask_ratio": 1.0}, {"pool": -1}):
        with pytest.raises(InputError, match="an alignment is con or gen"):
            RLMRec(3, 4, **settings)  # pyright: ignore[reportArgumentType]: a test's own words
    for backbone in ("ease", "popularity", "rlmrec", "als"):
        with pytest.raises(InputError, match="learned vectors of users and items"):
            RLMRec(3, 4, backbone=backbone)
    with pytest.raises(InputError, match="no recommender is called"):
        RLMRec(3, 4, backbone="nothing")
    with pytest.warns(UserWarning, match="gen needs a graph"):
        RLMRec(3, 4, backbone="mf", kind="gen")


def test_profiles_of_a_log_reach_the_model(text: Known) -> None:
    """`Log.of` ids are strings: an error names them as the file does."""
    log = Log.of(["ann", "bob", "ann"], ["x", "y", "y"])
    model = RLMRec(2, 2, backbone="mf:dim=2")
    vectors = np.array([[1.0, 0.0], [np.inf, 0.0]], np.float32)
    with pytest.raises(InputError, match="first: bob"):
        model.prepare(Known(log, np.ones((2, 2), np.float32), vectors))
