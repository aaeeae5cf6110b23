"""PAL against the card's oracles, and the framework: kinds, people who are not known, what it explains, objectives and treatments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.names import build
from cupel.learners.models.pal import PAL, over_tokens
from cupel.learners.models.pal_users import export
from cupel.learners.models.types import Given, Shape
from cupel.noise.fixed import identity
from cupel.noise.names import parse
from cupel.objectives.reward import bradley_terry, reward_hinge
from cupel.objectives.types import Side

KINDS = [
    {}, {"distance": "l2"}, {"where": "f(Pw)"}, {"where": "f(P)w", "layers": 1}, {"where": "f(Pw)", "layers": 2, "distance": "l2"},
    {"kind": "B"}, {"kind": "B", "layers": 1, "prompt_layers": 0},
]  # fmt: skip


def made(settings=None, *, width=6, people=5, prompt=4, seed=0, **more):
    return PAL(
        Shape(width=width, people=people, prompt=prompt), seed=seed, **{"prototypes": 3, "dim": 4, **(settings or {}), **more}
    ).double()


def worked(**settings):
    """The card's worked model: two prototypes in the plane, person 0 with omega (0.2, -0.3)."""
    model = PAL(Shape(width=2, people=2), prototypes=2, dim=0, **settings).double()
    model.prototypes.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    model.omega.data = torch.tensor([[0.2, -0.3], [0.0, 0.0]]).double()
    return model


def given(people, model, rng=None, n=None):
    n = len(people) if n is None else n
    prompt = None if rng is None else torch.from_numpy(rng.normal(size=(n, 4)))
    return Given(person=torch.tensor(people), prompt=prompt if "prompt" in model.reads else None)


def camps(n=60, people=8, seed=0, items=40, d=4):
    """Two opposed camps on items of a plane: even people want the first coordinate large, odd people small."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(items, d)).astype(np.float32)
    who = np.repeat(np.arange(people), n)
    first = rng.integers(0, items, len(who))
    second = (first + rng.integers(1, items, len(who))) % items
    p = ((x[first, 0] > x[second, 0]) == (who % 2 == 0)).astype(float)
    return x, Comparisons.of(first, second, p, annotator=who, annotators=[f"p{u}" for u in range(people)])


def right(model, x, data):
    return float(((margins([model], x, data)[0] > 0) == (data.p > 0.5)).mean())


def test_oracle_1_worked_ideal_points():
    model = worked()
    z = torch.tensor([[0.5, 0.5], [1.5, -1.0]]).double()
    who = Given(person=torch.tensor([0]))
    w = model.weights(who.person)
    torch.testing.assert_close(w[0], torch.tensor([0.622459, 0.377541]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.ideal(w, None)[0], torch.tensor([0.622459, 0.755081]).double(), atol=1e-6, rtol=0)
    margin = model.margin(z[:1], z[1:], who)
    assert margin.item() == pytest.approx(3.770325, abs=2e-6)
    assert functional.softplus(-margin).item() == pytest.approx(0.0227830, abs=1e-6)
    plain = worked(distance="l2")
    one, two = plain.sides(z[:1], z[1:], who)
    assert -one.score.item() == pytest.approx(0.282954, abs=1e-6)
    assert -two.score.item() == pytest.approx(1.962241, abs=1e-6)
    assert (two.score - one.score).item() == pytest.approx(-1.679287, abs=1e-6), "the official delta is minus the margin"
    hinge = reward_hinge()
    assert hinge.loss(one, two, {}).item() == 0
    assert hinge.loss(two, one, {}).item() == pytest.approx(2.679287, abs=1e-6)


def test_oracle_2_squared_margin_is_linear_in_the_ideal_point():
    model, rng = made(), np.random.default_rng(1)
    z = torch.from_numpy(rng.normal(size=(50, 4)))
    who = torch.from_numpy(rng.integers(0, 5, 25))
    a = model.ideal(model.weights(who), None)
    one, two = z[:25], z[25:]
    expected = (two**2).sum(1) - (one**2).sum(1) + 2 * (a * (one - two)).sum(1)
    torch.testing.assert_close(model.margin(one, two, Given(person=who)), expected, atol=1e-12, rtol=0)


def test_oracle_3_worked_cosines():
    model = PAL(Shape(width=2, people=2, prompt=1), prototypes=2, dim=0, kind="B", prompt_layers=0).double()
    for g, value in zip(model.prompts, ([0.3, 0.4], [-0.1, 0.9]), strict=True):
        g[0].weight.data.zero_()
        g[0].bias.data = torch.tensor(value).double()
    model.omega.data = torch.tensor([[0.2, -0.3], [0.0, 0.0]]).double()
    who = Given(person=torch.tensor([0]), prompt=torch.ones(1, 1).double())
    torch.testing.assert_close(
        model.ideal(model.weights(who.person), who.prompt)[0], torch.tensor([0.148984, 0.588770]).double(), atol=1e-6, rtol=0
    )
    one, two = model.sides(torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[1.5, -1.0]]).double(), who)
    assert one.score.item() == pytest.approx(12.270878, abs=1e-5)
    assert two.score.item() == pytest.approx(-4.766293, abs=1e-5)
    loss = bradley_terry().loss
    assert loss(one, two, {}).item() == pytest.approx(3.98887e-08, rel=1e-4)
    assert loss(two, one, {}).item() == pytest.approx(17.037172, abs=1e-5)
    logits = torch.stack([one.score, two.score], dim=1)
    assert functional.cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(loss(two, one, {}).item())


def test_the_scale_of_the_cosine_is_capped():
    model = made({"kind": "B"})
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    model.logit_scale.data.fill_(9.0)
    z = torch.ones(1, 4).double()
    assert model.toward(z, z).item() == pytest.approx(100)


def test_oracle_4_losses_of_tokens_and_the_smooth_hinge():
    losses = torch.tensor([[0.9, 0.7, 0.4, 0.2, math.nan], [5.0, 0.9, 0.7, 0.4, 0.2]]).double()
    begin, end = torch.tensor([0, 1]), torch.tensor([3, 4])
    for how, value in (("cumulative", 0.43), ("mean", 0.55), ("only_last", 0.2)):
        torch.testing.assert_close(over_tokens(losses, begin, end, how), torch.full((2,), value).double())
    with pytest.raises(InputError, match=r"1 of 2 comparisons have no tokens .*first: row 1"):
        over_tokens(losses, torch.tensor([0, 3]), torch.tensor([3, 2]))
    with pytest.raises(InputError, match="not 'median'"):
        over_tokens(losses, begin, end, "median")
    smooth, other = reward_hinge(smooth=5), Side(score=torch.zeros(6).double())
    t = torch.tensor([2, 1, 0, -3.999, -4, -6]).double().requires_grad_()
    value = smooth.loss(Side(score=t), other, {})
    torch.testing.assert_close(value.detach(), torch.tensor([0, 0, 0.1, 2.499, 2.5, 4.5]).double(), atol=1e-6, rtol=0)
    (slope,) = torch.autograd.grad(value.sum(), t)
    assert slope[4:].tolist() == [-1, -1]


def test_oracle_5_invariances():
    model, rng = made(dim=0), np.random.default_rng(2)
    z = torch.from_numpy(rng.normal(size=(40, 6)))
    who = Given(person=torch.from_numpy(rng.integers(0, 5, 20)))
    margin = model.margin(z[:20], z[20:], who).detach()
    turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(6, 6))))[0]
    shift = torch.from_numpy(rng.normal(size=6))
    moved = made(dim=0)
    moved.prototypes.data = model.prototypes.data @ turn + shift
    y = z @ turn + shift
    torch.testing.assert_close(moved.margin(y[:20], y[20:], who), margin)
    moved.prototypes.data, moved.omega.data = model.prototypes.data[[2, 0, 1]], model.omega.data[:, [2, 0, 1]]
    torch.testing.assert_close(moved.margin(z[:20], z[20:], who), margin)
    moved.omega.data += torch.from_numpy(rng.normal(size=(5, 1)))
    torch.testing.assert_close(moved.margin(z[:20], z[20:], who), margin)


@pytest.mark.parametrize("settings", KINDS)
def test_oracle_6_one_prototype_is_one_reward_for_all(settings):
    model, rng = made(settings, prototypes=1), np.random.default_rng(3)
    z = model.represent(torch.from_numpy(rng.normal(size=(10, 6))))
    prompt = torch.from_numpy(rng.normal(size=(1, 4))).expand(5, 4)
    people = Given(person=torch.arange(5), prompt=prompt)
    first, second = (z[k : k + 1].expand(5, -1) for k in (0, 1))
    margin = model.margin(first, second, people)
    assert margin.unique().numel() == 1
    margin.square().sum().backward()
    assert model.omega.grad is not None
    assert (model.omega.grad == 0).all()


@pytest.mark.parametrize("settings", KINDS)
def test_oracle_7_a_prototype_twice_is_one(settings):
    model, rng = made(settings, prototypes=2), np.random.default_rng(4)
    if model.kind == "A":
        model.prototypes.data[1] = model.prototypes.data[0]
    else:
        model.prompts[1].load_state_dict(model.prompts[0].state_dict())
    z = model.represent(torch.from_numpy(rng.normal(size=(8, 6))))
    who = given([0, 1, 2, 3], model, rng)
    before = model.margin(z[:4], z[4:], who).detach()
    model.omega.data = torch.from_numpy(rng.normal(size=(5, 2)))
    torch.testing.assert_close(model.margin(z[:4], z[4:], who), before)


def test_oracle_8_opposed_camps_are_impossible_for_one_prototype_and_easy_for_two():
    """Every pair in both orders equally often: no homogeneous model has a loss below ln 2."""
    x, _ = camps()
    at = np.stack(np.triu_indices(20, 1))
    order = np.where(x[at[0], 0] > x[at[1], 0], at, at[::-1])
    first, second = np.concatenate([order[0], order[1]]), np.concatenate([order[1], order[0]])
    who = np.repeat([0, 1], at.shape[1])
    data = Comparisons.of(first, second, annotator=who, annotators=("up", "down"))
    losses = {}
    for k in (1, 2):
        options = HeadOptions(head=f"pal:prototypes={k},dim=2", epochs=60, batch_size=len(first), learning_rate=0.02, l2=0.0)
        found = fit(x, data, bradley_terry(), identity(), options)
        m = margins(found.models, x, data)[0]
        losses[k] = (np.logaddexp(0, -m).mean(), right(found.models[0], x, data))
    assert math.log(2) - 1e-6 < losses[1][0] < math.log(2) + 0.01
    assert losses[1][1] == pytest.approx(0.5, abs=1e-9)
    assert losses[2][0] < 0.3
    assert losses[2][1] > 0.95


@pytest.mark.parametrize("settings", KINDS)
def test_oracle_10_the_exported_reward_orders_as_the_margin(settings):
    model, rng = made(settings).float(), np.random.default_rng(5)
    x = rng.normal(size=(2000, 6)).astype(np.float32)
    prompts = rng.normal(size=(1000, 4)).astype(np.float32)
    data = Comparisons.of(np.arange(1000), np.arange(1000, 2000), annotator=np.full(1000, 3), prompt=np.arange(1000), prompts=prompts)
    margin = margins([model], x, data)[0]
    reward = export(model, person=3).score(x, np.concatenate([prompts, prompts]) if model.kind == "B" else None)
    assert (np.sign(reward[:1000] - reward[1000:]) == np.sign(margin)).all()
    np.testing.assert_allclose(reward[:1000] - reward[1000:], margin, atol=1e-4)


def test_camps_are_found_and_shuffled_people_give_nothing():
    x, data = camps()
    options = HeadOptions(head="pal:prototypes=2,dim=2", epochs=30, batch_size=120, learning_rate=0.02)
    test = camps(seed=1)[1]
    test = Comparisons.of(test.first, test.second, ((x[test.first, 0] > x[test.second, 0]) == (test.annotator % 2 == 0)).astype(float),
                          annotator=test.annotator)  # fmt: skip
    model = fit(x, data, bradley_terry(), identity(), options).models[0]
    assert right(model, x, test) > 0.95
    told = model.explain(data.annotators)
    cluster = np.array(told.tables["people"]["cluster"])
    assert (cluster[::2] == cluster[0]).all()
    assert (cluster[1::2] == 1 - cluster[0]).all()
    mixed = Comparisons.of(data.first, data.second, data.p, annotator=np.random.default_rng(0).permutation(data.annotator))
    assert abs(right(fit(x, mixed, bradley_terry(), identity(), options).models[0], x, test) - 0.5) < 0.1


@pytest.mark.parametrize("treatment", ["", "em:flip=0.1", "unbiased:flip=0.1"])
@pytest.mark.parametrize("settings", ["kind=A", "kind=A,distance=l2,where=f(Pw),layers=1", "kind=B"])
def test_trains_under_treatments(treatment, settings):
    x, data = camps()
    flip = np.random.default_rng(1).random(len(data)) < 0.1
    noisy = Comparisons.of(data.first, data.second, np.where(flip, 1 - data.p, data.p), annotator=data.annotator,
                           prompt=np.zeros(len(data), int), prompts=np.ones((1, 2), np.float32))  # fmt: skip
    options = HeadOptions(head=f"pal:prototypes=2,dim=4,{settings}", epochs=20, batch_size=120, learning_rate=0.02)
    found = fit(x, noisy, bradley_terry(), parse(treatment) if treatment else identity(), options)
    assert right(found.models[0], x, Comparisons.of(data.first, data.second, data.p, annotator=data.annotator, prompt=noisy.prompt,
                                                    prompts=noisy.prompts)) > 0.85  # fmt: skip
    again = fit(x, noisy, bradley_terry(), parse(treatment) if treatment else identity(), options)
    assert all(np.array_equal(v, again.weights[0][k]) for k, v in found.weights[0].items())


def test_unknown_people_are_the_mean_of_those_learned_from():
    x, data = camps(people=6)
    some = data.take(np.flatnonzero(data.annotator != 4))  # person 4 is named, and never learned from
    model = fit(x, some, bradley_terry(), identity(), HeadOptions(head="pal:prototypes=2,dim=2", epochs=3, learning_rate=0.02)).models[0]
    w = functional.softmax(model.omega, dim=1)
    expected = w[[0, 1, 2, 3, 5]].mean(dim=0)
    torch.testing.assert_close(model.weights(torch.tensor([-1, 99, 4, 2])), torch.stack([expected, expected, expected, w[2]]))
    torch.testing.assert_close(model.weights(None)[0], expected)
    told = model.explain(data.annotators)
    assert "5 people are mixtures of 2 prototypes; anyone else is scored as the mean mixture of these 5" in told.words[0]
    assert "p4" not in told.tables["people"]["person"]
    model.unknown = "error"
    with pytest.raises(InputError, match=r"2 of 3 people were not in training \(first: index -1 of row 1\).*fit_new_users"):
        model.weights(torch.tensor([0, -1, 4]))
    with pytest.raises(InputError, match="name the annotators"):
        model.weights(None)
    twin = build("pal:prototypes=2,dim=2", model.shape, seed=9)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.weights(torch.tensor([4]))[0], expected)


def test_explains_what_to_prune_and_what_is_not_identified():
    model = made(people=4, where="Pw")
    model.omega.data = torch.tensor([[5.0, 0, -9], [4, 0.1, -9], [0, 1.0, -9], [0, 1.0, -9]]).double()
    told = model.explain(("ann", "bob"))
    table = told.tables["people"]
    assert table["person"] == ["ann", "bob", "2", "3"]
    w = np.array([table[f"w{k}"] for k in range(3)]).T
    np.testing.assert_allclose(w, functional.softmax(model.omega, dim=1).detach())
    np.testing.assert_allclose(table["entropy"], -(w * np.log(w)).sum(1))
    assert table["cluster"] == [0, 0, 1, 1]
    assert told.tables["prototypes"]["people"] == [2, 2, 0]
    apart = torch.cdist(model.prototypes, model.prototypes)
    assert told.tables["distances"]["distance"] == pytest.approx([apart[0, 1].item(), apart[0, 2].item(), apart[1, 2].item()])
    assert "Prototypes [2] carry less" in told.words[1]
    assert "2 would do" in told.words[1]
    assert "Nobody has more than 0.8 on prototypes [1]" in told.words[2]
    assert made({"kind": "B"}).explain().tables.keys() == {"people", "prototypes"}


def test_tight_draws_prototypes_together_and_nothing_else():
    model = made(tight=0.5, where="f(P)w")
    points = model.points()
    apart = torch.cdist(points, points).square().sum() / (2 * 3 * 3)  # the mean squared distance from the centre, by pairs
    assert model.penalty().item() == pytest.approx(0.5 * apart.item())
    assert made().penalty() is None
    x, data = camps()
    tables = []
    for tight in (0.0, 0.01):
        head = f"pal:prototypes=2,dim=0,tight={tight}"
        model = fit(x, data, bradley_terry(), identity(), HeadOptions(head=head, epochs=60, batch_size=480, learning_rate=0.05)).models[0]
        assert right(model, x, data) > 0.9
        tables.append(model.explain().tables)
    assert tables[1]["distances"]["distance"][0] < tables[0]["distances"]["distance"][0]
    assert np.mean(tables[1]["people"]["largest"]) > np.mean(tables[0]["people"]["largest"])


def test_partition_is_soft_while_learning_and_hard_afterwards():
    model = made({"kind": "B", "partition": True})
    prompt = torch.ones(1, 4).double()
    w = model.weights(torch.tensor([0]))
    every = torch.stack([g(prompt) for g in model.prompts], dim=1)[0]
    torch.testing.assert_close(model.ideal(w, prompt)[0], w[0] @ every)
    with torch.no_grad():
        torch.testing.assert_close(model.ideal(w, prompt)[0], every[w[0].argmax()])


def test_parameters_start_as_the_authors_and_pace_and_decay_by_group():
    model = made()
    torch.testing.assert_close(model.prototypes.norm(dim=1), torch.ones(3).double())
    assert len(model.omega.unique()) == 15, "equal logits are a saddle"
    assert {name: model.pace(name) for name, _ in model.named_parameters()} == {"map.0.weight": 1, "omega": 10, "prototypes": 10}
    assert [name for name, _ in model.named_parameters() if model.decayed(name)] == ["map.0.weight"]
    names = [name for name, _ in made({"kind": "B", "layers": 1}).named_parameters() if not model.decayed(name)]
    assert {"omega", "logit_scale", "map.0.bias", "prompts.0.0.bias"} <= set(names)
    assert torch.equal(made(seed=3).omega, made(seed=3).omega)


@pytest.mark.parametrize(("settings", "why"), [
    ({"kind": "C"}, "kind is one of A, B"), ({"distance": "cos"}, "distance is one of"), ({"where": "P"}, "where is one of"),
    ({"unknown": "mean"}, "unknown is one of"), ({"prototypes": 6}, "6 prototypes for 5 people"), ({"prototypes": 0}, "prototypes >= 1"),
    ({"tight": -1.0}, "tight >= 0"), ({"kind": "B", "tight": 0.1}, "kind=A"), ({"temperature": 0.0}, "temperature"),
    ({"dim": 0, "layers": 1}, "layers=1 of width dim=0"), ({"partition": True}, "kind=B"),
])  # fmt: skip
def test_settings_without_sense(settings, why):
    with pytest.raises(InputError, match=why):
        made(settings)


def test_bad_input():
    with pytest.raises(InputError, match="reads the person"):
        PAL(Shape(width=2))
    with pytest.raises(InputError, match="reads the prompt"):
        PAL(Shape(width=2, people=3), kind="B")
    x, data = camps(n=5)
    some = Comparisons.of(data.first, data.second, data.p, annotator=np.where(np.arange(len(data)) == 7, -1, data.annotator))
    options = HeadOptions(head="pal:prototypes=2,dim=2", epochs=1, batch_size=len(data))
    with pytest.raises(InputError, match=r"1 of 40 comparisons to learn from name no person \(first: row 7\).*annotators"):
        fit(x, some, bradley_terry(), identity(), options)
    with pytest.raises(InputError, match="reads the person"):
        fit(x, Comparisons.of(data.first, data.second), bradley_terry(), identity(), options)
    x[3, 1] = math.nan
    with pytest.raises(InputError, match=r"1 of 40 vectors are not finite \(first: row 3\)"):
        fit(x, data, bradley_terry(), identity(), options)
    x, data = camps(n=5)
    with pytest.raises(InputError, match="3 prototypes for 2 people who compared something"):
        fit(x, data.take(np.flatnonzero(data.annotator < 2)), bradley_terry(), identity(), HeadOptions(head="pal", epochs=1))
    model = made({"kind": "B"}).requires_grad_(False)
    with pytest.raises(InputError, match="reads the prompt of each comparison"):
        model.score(torch.ones(1, 4).double(), Given(person=torch.tensor([0])))
    with pytest.raises(InputError, match="functions of the prompt"):
        model.points()
