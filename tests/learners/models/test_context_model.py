"""The context-aware reward: plain Bradley-Terry under one context, reversal learned, blind models at one half, what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.context import ContextReward, NoContextError, gap
from cupel.learners.models.scalar import Scalar
from cupel.learners.models.types import Given, Shape
from cupel.noise.fixed import identity
from cupel.noise.names import parse
from cupel.objectives.reward import bradley_terry

OPTIONS = HeadOptions(head="context:dim=8", epochs=20, batch_size=64, learning_rate=0.02, l2=1e-3)
FORMS = [{"mode": "bilinear"}, {"mode": "bilinear", "dim": 0}, {"mode": "film"}, {"mode": "cosine"}, {"mode": "bilinear", "residual": True},
         {"mode": "film", "residual": True}]  # fmt: skip


def reversals(n=300, d=6, seed=0, empty=0.0, wrong=0.0):
    """Each row of two responses twice, under two one-hot contexts that prefer opposite ones; some have none, judged by column 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * n, d)).astype(np.float32)
    first, second, row = np.repeat(np.arange(0, 2 * n, 2), 2), np.repeat(np.arange(1, 2 * n, 2), 2), np.repeat(np.arange(n), 2)
    context = np.tile([0, 1], n)
    p = ((x[first, 0] > x[second, 0]) == (context == 0)).astype(float)
    alone = np.repeat(rng.random(n) < empty, 2)
    context[alone] = 2
    p[alone] = (x[first, 1] > x[second, 1])[alone]
    flip = rng.random(2 * n) < wrong
    table = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    data = Comparisons.of(
        first, second, np.where(flip, 1 - p, p), group=row, groups=[str(k) for k in range(n)], context=context, contexts=table
    )  # fmt: skip
    return x, data, row


def both(model, x, z):
    """Scores of responses under contexts, by the public path."""
    return model.score(model.represent(x), Given(context=z))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_scores_are_the_written_formula(form):
    """A slow twin, response by response."""
    model = ContextReward(Shape(width=4, context=4), seed=3, **{"dim": 3, **form} if form.get("mode") != "cosine" else form).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape))))
    w = {key: value.detach().numpy() for key, value in model.named_parameters()}
    x, z = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    z[0] = 0
    found = both(model, torch.from_numpy(x), torch.from_numpy(z)).detach()
    for k in range(5):
        unit = x[k] / math.sqrt(x[k] @ x[k])
        length = math.sqrt(z[k] @ z[k])
        near = unit @ z[k] / length if length else 0.0
        inner = w["inner.weight"] @ x[k] + w["inner.bias"] if "inner.weight" in w else x[k]
        if form["mode"] == "bilinear":
            h = np.tanh(inner) if "inner.weight" in w else inner
            r = h @ (w["theta"] + z[k] @ w["turn"])
        elif form["mode"] == "film":
            r = np.tanh((1 + z[k] @ w["gain"]) * inner + z[k] @ w["shift"]) @ w["theta"]
        else:
            r = unit @ w["theta"]
        if "log_scale" in w:
            r += math.exp(w["log_scale"]) * near
        assert float(found[k]) == pytest.approx(r, abs=1e-10)


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_without_context_it_is_the_general_reward(form):
    """The part that reads the context has no say where there is none."""
    model = ContextReward(Shape(width=4, context=3), **form)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    before = both(model, x, torch.zeros(6, 3))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in ("turn", "gain", "shift"):
                parameter.mul_(7)
    assert torch.equal(both(model, x, torch.zeros(6, 3)), before)
    assert float(before.detach().std()) > 0


@pytest.mark.parametrize("form", FORMS[3:], ids=str)
def test_untrained_cosines_are_zero_shot(form):
    model = ContextReward(Shape(width=5, context=5), **form)
    draw = torch.Generator().manual_seed(2)
    x, z = torch.randn(7, 5, generator=draw), torch.randn(7, 5, generator=draw)
    assert both(model, x, z).detach() == pytest.approx(torch.cosine_similarity(x, z).numpy(), abs=1e-6)


def test_one_context_is_plain_bradley_terry_with_equal_gradients():  # oracle 8
    x = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = ContextReward(Shape(width=5, context=1), dim=0, seed=1).double()
    plain = Scalar(Shape(width=5)).double()
    turn = model.get_parameter("turn")
    with torch.no_grad():
        plain.get_parameter("theta").copy_(model.theta + turn[0])
    losses = []
    for one, given in ((model, Given(context=torch.ones(20, 1, dtype=torch.float64))), (plain, Given())):
        sides = one.sides(one.represent(x[:20]), one.represent(x[20:]), given)
        losses.append(bradley_terry().loss(*sides, {}).mean())
        losses[-1].backward()
    assert float((losses[0] - losses[1]).detach()) == pytest.approx(0, abs=1e-12)
    assert model.theta.grad is not None
    for gradient in (model.theta.grad, turn.grad[0]):  # type: ignore[index]
        assert float((gradient - plain.get_parameter("theta").grad).abs().max()) < 1e-12


def test_best_loss_of_a_blind_model_on_balanced_reversals_is_ln_2():  # oracle 3
    x, data, row = reversals()
    blind = fit(x, data, bradley_terry(), identity(), HeadOptions(head="scalar", epochs=30, batch_size=600, learning_rate=0.05, l2=0.0))
    # each row stands beside its reversal: at margin m the two lose softplus(m) + softplus(-m), least at m = 0
    assert blind.epochs[-1]["heads"][0]["loss"] == pytest.approx(math.log(2), abs=0.002)
    m = margins(blind.models, x, data)[0] * (2 * data.p - 1)
    assert np.mean((np.sign(m) + 1) / 2) == 0.5
    found = gap(blind.models[0], x, data, row=row)
    assert (found.right.estimate, found.reversal and found.reversal.estimate) == (0.5, 0.0)
    assert np.logaddexp(0, -m).mean() >= math.log(2)


@pytest.mark.parametrize("head", ["context:dim=8", "context:dim=0", "context:dim=8,mode=film"])
@pytest.mark.parametrize("treatment", ["identity", "em:flip=0.1", "unbiased:flip=0.1"])
def test_reversals_are_learned_under_planted_flips(head, treatment):
    x, data, _ = reversals(n=200, wrong=0.1, seed=1)
    found = fit(x, data, bradley_terry(), parse(treatment), replace(OPTIONS, head=head, epochs=25 if "film" in head else 15))
    test_x, test, row = reversals(n=150, seed=2)
    assert test.context is not None
    report = gap(found.models[0], test_x, test, opposed=1 - test.context, row=row)
    assert report.right.estimate > 0.85
    assert report.wrong is not None
    assert report.wrong.estimate < 0.15
    assert report.reversal is not None
    assert report.reversal.estimate > 0.8
    assert report.none is None  # it saw contexts alone, and says nothing without one


def test_mixed_training_keeps_a_general_reward():
    x, data, _ = reversals(n=300, empty=0.5)
    model = fit(x, data, bradley_terry(), identity(), OPTIONS).models[0]
    test_x, test, _ = reversals(n=200, seed=3, empty=0.5)
    right = (margins([model], test_x, test)[0] * (2 * test.p - 1)) > 0
    assert test.context is not None
    assert right[test.context == 2].mean() > 0.9
    assert right[test.context < 2].mean() > 0.9
    assert gap(model, test_x, test).none is not None


def test_no_context_after_training_with_contexts_alone_is_refused():
    x, data, _ = reversals(n=40)
    options = HeadOptions(head="context:dim=2", epochs=1)
    model = fit(x, data, bradley_terry(), identity(), options).models[0]
    none = Comparisons.of(data.first, data.second, context=np.full(len(data), 2), contexts=data.contexts)
    with pytest.raises(NoContextError, match=r"80 of 80 responses have no context.*allow_empty=true"):
        margins([model], x, none)
    again = ContextReward(Shape(width=6, context=2), dim=2)
    again.load_state_dict(model.state_dict())  # what was seen is stored with the parameters
    with pytest.raises(NoContextError):
        margins([again], x, none)
    allowed = ContextReward(Shape(width=6, context=2), dim=2, allow_empty=True)
    allowed.load_state_dict(model.state_dict())
    assert np.isfinite(margins([allowed], x, none)).all()


def test_explanation_names_the_contexts_that_reverse_each_other():
    x, data, _ = reversals()
    assert data.context is not None
    table = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    rng = np.random.default_rng(0)
    third = Comparisons.of(
        np.concatenate([data.first, data.first]), np.concatenate([data.second, data.second]),
        np.concatenate([data.p, (x[data.first, 2] > x[data.second, 2]).astype(float)]),
        context=np.concatenate([data.context, np.full(len(data), 2)]), contexts=table, columns=[f"f{k}" for k in range(6)],
    )  # fmt: skip
    model = fit(x, third, bradley_terry(), identity(), OPTIONS).models[0]
    found = model.explain(contexts=("brief", "complete", "polite"))
    assert found.words == (f"brief and complete reverse each other (similarity {found.tables['similarity']['similarity'][0]:.2f})",)
    table_of = found.tables["similarity"]
    near = {(a, b): x for a, b, x in zip(table_of["first"], table_of["second"], table_of["similarity"], strict=True)}
    assert near["brief", "complete"] < -0.7
    assert abs(near["brief", "polite"]) < 0.4
    top = dict(zip(found.tables["columns"]["context"][::-1], found.tables["columns"]["column"][::-1], strict=True))
    assert top == {"brief": "f0", "complete": "f0", "polite": "f2"}
    assert "compare(vectors, names)" in model.explain().words[0]
    texts = ContextReward(Shape(width=6, context=3))  # as many contexts as entries, by chance: no name has an entry of its own
    texts.prepare(x, replace(third, contexts=rng.normal(size=(3, 3)).astype(np.float32)))
    assert "compare(vectors, names)" in texts.explain(contexts=("a", "b", "c")).words[0]
    assert isinstance(model, ContextReward)
    with pytest.raises(InputError, match="3 entries, not 2"):
        model.directions(rng.normal(size=(1, 2)))
    with pytest.raises(InputError, match="1 contexts have 2 names"):
        model.compare(np.eye(3)[:1], ("a", "b"))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_directions_are_gradients(form):
    model = ContextReward(Shape(width=4, context=4), **form).double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key != "log_scale":
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))
    z = np.random.default_rng(1).normal(size=(3, 4))
    if model.near:  # the cosine has no gradient at 0; its share is the context at length 1
        blank = model.directions(np.zeros((1, 4)))
        assert model.directions(z).shape == (3, 4)
        if form["mode"] == "cosine":
            assert model.directions(z) - blank == pytest.approx(z / np.linalg.norm(z, axis=1, keepdims=True))
        return
    x = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    both(model, x, torch.from_numpy(z)).sum().backward()
    assert x.grad is not None
    assert model.directions(z) == pytest.approx(x.grad.numpy(), abs=1e-12)


def test_gap_controls():
    x, data, _ = reversals(n=80, empty=0.3)
    model = fit(x, data, bradley_terry(), identity(), OPTIONS).models[0]
    ties = Comparisons.of(data.first, data.second, np.full(len(data), 0.5), context=data.context, contexts=data.contexts)
    with pytest.raises(InputError, match="all 160 comparisons are ties"):
        gap(model, x, ties)
    with pytest.raises(InputError, match="have no context"):
        gap(model, x, Comparisons.of(data.first, data.second))
    found = gap(model, x, data, seed=1)
    assert found.shuffled is not None
    assert found.shuffled.estimate < found.right.estimate
    assert found.wrong is None
    assert found.reversal is None
    assert found.right.groups == 80


def test_settings_that_make_no_sense():
    shape = Shape(width=4, context=3)
    for settings, match in (
        ({"mode": "text"}, "bilinear, film or cosine"),
        ({"mode": "film", "dim": 0}, "at least 1 with mode=film"),
        ({"dim": -1}, "at least 0"),
        ({"mode": "cosine"}, "vectors of one encoder: responses have 4 columns, contexts 3"),
        ({"residual": True}, "vectors of one encoder"),
    ):
        with pytest.raises(InputError, match=match):
            ContextReward(shape, **settings)
    with pytest.raises(InputError, match="residual adds the cosine"):
        ContextReward(Shape(width=3, context=3), mode="cosine", residual=True)
    with pytest.raises(InputError, match="reads the context of a comparison, and these comparisons have none"):
        ContextReward(Shape(width=3))
    model = ContextReward(shape)
    with pytest.raises(InputError, match="all-zero where there is none"):
        model.score(model.represent(torch.zeros(1, 4)), Given())


def test_same_seed_same_parameters():
    one, two, three = (ContextReward(Shape(width=4, context=3), seed=k).state_dict() for k in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["theta"], three["theta"])
