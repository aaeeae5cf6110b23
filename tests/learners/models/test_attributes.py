"""Attributes and goodness: the card's oracles, ridge against minibatches and against scikit-learn, goal weights, strengths, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.attributes import GOAL, HELPSTEER, AttributeReward, goodness
from cupel.learners.models.names import build
from cupel.learners.models.ratings import MISSING, fit_goal, fit_ratings, masked_mse, ridge
from cupel.learners.models.types import Given, Shape
from cupel.noise.loss import weigh
from cupel.noise.names import parse
from cupel.noise.types import Target
from cupel.objectives import by_name
from cupel.objectives.reward import bradley_terry
from cupel.objectives.types import Side


def rated(m=300, d=6, seed=0, missing=0.3, noise=0.5):
    """Vectors, ratings of two attributes with holes, and the weights that made them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, d))
    true = rng.normal(size=(2, d)) / 2
    y = np.clip(np.rint(2 + x @ true.T + noise * rng.normal(size=(m, 2))), 0, 4)
    return x, np.where(rng.random(y.shape) < missing, np.nan, y), true


def head_of(model) -> np.ndarray:
    return np.concatenate([model.head.weight.detach().numpy(), model.head.bias.detach().numpy()[:, None]], axis=1)


def test_goodness():
    assert goodness(np.array([[4, 4, 4, 0, 4], [3.2, 3.5, 3.9, 2, 2]])) == pytest.approx([7.6, 6.635])
    with pytest.raises(InputError, match="3 attributes, 5 weights"):
        goodness(np.ones(3))


def test_masked_mse():
    said = torch.tensor([[1.0, 2, 3], [0, 4, 1]])
    for missing in (MISSING, float("nan")):
        assert masked_mse(said, torch.tensor([[2.0, missing, 3], [1, 3, missing]])).item() == pytest.approx(0.75)
    weighted = masked_mse(said, torch.tensor([[2.0, MISSING, 3], [1, 3, MISSING]]), torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx((1 + 0 + 3 + 3) / 8)
    gradient = torch.autograd.grad(masked_mse(said.requires_grad_(), torch.tensor([[2.0, float("nan"), 3], [1, 3, float("nan")]])), said)[0]
    assert gradient.tolist() == [[-0.5, 0, 0], [-0.5, 0.5, 0]]
    with pytest.raises(InputError, match="all 6 ratings are missing"):
        masked_mse(said, torch.full((2, 3), MISSING))


def test_strengths():
    """Strength k as margin (`rated` on a stated gap of k) and as weight: the three losses of the published code at d = .7."""
    first, second = Side(score=torch.tensor([0.7] * 3)), Side(score=torch.zeros(3))
    k = torch.tensor([1.0, 2.0, 3.0])
    regular = bradley_terry().loss(first, second, {})
    assert regular.tolist() == pytest.approx([0.403186] * 3, abs=1e-6)
    one, two = Side(score=first.score, rating=k), Side(score=second.score, rating=torch.zeros(3))
    assert bradley_terry(rated=1.0).loss(one, two, {}).tolist() == pytest.approx([0.854355, 1.541008, 2.395546], abs=1e-6)
    scaled = weigh(bradley_terry(), Target(torch.ones(3), k), regular, torch.zeros(3))
    assert scaled.tolist() == pytest.approx([0.403186, 0.806372, 1.209558], abs=1e-6)


def test_strengths_in_the_loop():
    """One step of one comparison of strength 2: the loss with its margin, whichever side is stated."""
    x = np.array([[1.0], [-0.5]], np.float32)
    options = HeadOptions(epochs=1, batch_size=1, l2=0.0)
    start = 1.5 * build("scalar", Shape(1), 0).theta.detach().item()  # type: ignore[union-attr, operator]
    for p in (1.0, 0.0):
        data = Comparisons.of(np.array([0]), np.array([1]), np.array([p]), strength=np.array([2.0]))
        found = fit(x, data, bradley_terry(rated=1.0), parse("identity"), options)
        loss = found.epochs[0]["heads"][0]["loss"]
        assert loss == pytest.approx(np.logaddexp(0, 2 - (start if p else -start)), rel=1e-6)
    with pytest.raises(InputError, match="needs rating"):
        fit(x, Comparisons.of(np.array([0]), np.array([1])), bradley_terry(rated=1.0), parse("identity"), options)
    with pytest.raises(InputError, match="strength of preference"):
        Comparisons.of(np.array([0]), np.array([1]), strength=np.array([-1.0]))
    assert data.take(np.array([0, 0])).strength.tolist() == [2, 2]


def test_ridge_is_sklearns_on_the_rows_that_are_there():
    from sklearn.linear_model import Ridge

    x, y, _ = rated()
    w = np.random.default_rng(1).uniform(0, 2, len(x))
    found = ridge(x, y, w, 3.0)
    for a in range(2):
        rows = ~np.isnan(y[:, a])
        twin = Ridge(alpha=3.0).fit(x[rows], y[rows, a], sample_weight=w[rows])
        assert found[a] == pytest.approx([*twin.coef_, twin.intercept_], abs=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_minibatches_agree_with_the_closed_form(weighted):
    x, y, _ = rated()
    w = np.random.default_rng(1).uniform(0, 2, len(x)) if weighted else None
    one, two = (
        fit_ratings(x, y, names=("use", "tone"), weight=w, l2=5.0, method=method, batch_size=50, epochs=40)
        for method in ("ridge", "minibatch")
    )
    assert head_of(two) == pytest.approx(head_of(one), abs=0.02)
    assert torch.equal(one.r2, two.r2)


def test_missing_codes_are_the_same_and_weights_count_rows():
    x, y, _ = rated(m=80)
    coded = np.where(np.isnan(y), MISSING, y)
    one, two = (head_of(fit_ratings(x, v, names=("use", "tone"))) for v in (y, coded))
    assert (one == two).all()
    twice = fit_ratings(np.concatenate([x, x[:20]]), np.concatenate([y, y[:20]]), names=("use", "tone"))
    weighted = fit_ratings(x, y, names=("use", "tone"), weight=np.where(np.arange(80) < 20, 2.0, 1.0))
    assert head_of(twice) == pytest.approx(head_of(weighted), abs=1e-5)


def test_r2_is_of_responses_that_were_not_seen():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)), rng.integers(0, 5, (60, 1))
    assert fit_ratings(x, y, names=("chance",), l2=0.01).r2.item() < 0
    x, y, _ = rated(m=600, missing=0)
    found = fit_ratings(x, y, names=("use", "tone")).r2
    assert (found > 0.4).all()
    doubled = fit_ratings(np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0), names=("use", "tone"), group=np.repeat(np.arange(600), 2)).r2
    assert doubled.numpy() == pytest.approx(found.numpy(), abs=0.03)


def pairs(x, true, weights, n=400, seed=3):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(x), n), rng.integers(0, len(x), n)
    margin = (x[first] - x[second]) @ true.T @ weights
    return Comparisons.of(first, second, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float), group=rng.integers(0, 80, n))


def test_goal_weights_are_the_likelihoods():
    from scipy.optimize import minimize

    x, y, true = rated(m=800, noise=0.3)
    data = pairs(x, true, np.array([2.0, -1.0]))
    model = fit_ratings(x, y, names=("use", "verbosity"))
    before = head_of(model)
    found = fit_goal(model, x, data, l2=0.5)
    a = x @ before[:, :-1].T.astype(float) + before[:, -1]
    d = a[data.first] - a[data.second]

    def value(g):
        return np.sum(np.logaddexp(0, d @ g) - data.p * (d @ g)) + 0.25 * g @ g

    assert found.weights.value == pytest.approx(minimize(value, np.zeros(2), tol=1e-10).x, abs=1e-4)
    assert (head_of(model) == before).all()
    assert model.goal.tolist() == pytest.approx(found.weights.value)
    assert found.weights.groups == len(np.unique(data.group))
    assert (found.weights.low < found.weights.value).all()
    assert (found.weights.low[0] > 0, found.weights.high[1] < 0) == (True, True)
    assert model.share.sum().item() == pytest.approx(1, abs=1e-5)
    said = model.explain()
    assert said.tables["attributes"]["attribute"] == ["use", "verbosity"]
    assert said.tables["attributes"]["goal"] == pytest.approx(found.weights.value.tolist(), abs=1e-6)
    assert any("verbosity carries" in line for line in said.words)
    again = fit_goal(model, x, data, l2=0.5)
    assert again.weights.low.tolist() == found.weights.low.tolist()


def test_shares_of_variance_by_hand():
    """Two attributes that do not correlate: g_a^2 var_a over the sum."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True)).T)
    model = fit_ratings(x, np.clip(2 + 0.3 * x, 0, 4), names=("use", "verbosity"), goal=(2.0, 1.0), whole=False, l2=0.0)
    assert model.share.tolist() == pytest.approx([0.8, 0.2], abs=0.02)


def test_bias_cancels_and_the_scale_is_free():
    x, y, _ = rated()
    model = fit_ratings(x, y, names=("use", "tone"))
    data = Comparisons.of(np.arange(0, 300, 2), np.arange(1, 300, 2))
    before = margins([model], x.astype(np.float32), data)
    model.head.bias.data += 5
    assert margins([model], x.astype(np.float32), data) == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("treatment", ["identity", "em:flip=0.1", "unbiased:flip=0.1"])
@pytest.mark.parametrize("learn", ["head", "both"])
def test_learns_from_comparisons_under_flips(treatment, learn):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    reward = x @ rng.normal(size=6)
    right = (reward[:200] > reward[200:]).astype(float)
    p = np.where(rng.random(200) < 0.1, 1 - right, right)
    data = Comparisons.of(np.arange(200), np.arange(200, 400), p)
    options = HeadOptions(head=f"attributes:learn={learn}", epochs=30, batch_size=50, learning_rate=0.03)
    model = fit(x, data, bradley_terry(), parse(treatment), options).models[0]
    assert isinstance(model, AttributeReward)
    assert ((margins([model], x, data)[0] > 0) == (right > 0.5)).mean() > 0.88
    assert (model.goal.tolist() == pytest.approx(GOAL)) == (learn == "head")
    assert "not fitted to ratings" in model.explain().words[0]


def test_learning_only_the_goal_leaves_the_attributes():
    x, _, true = rated(m=400)
    data = pairs(x, true, np.array([2.0, -1.0]))
    options = HeadOptions(head="attributes:attributes=use/tone,goal=,learn=goal", epochs=2, batch_size=50)
    model = fit(x.astype(np.float32), data, bradley_terry(), parse("identity"), options).models[0]
    assert isinstance(model, AttributeReward)
    fresh = build("attributes:attributes=use/tone,goal=,learn=goal", Shape(6), 0)
    assert torch.equal(model.head.weight, fresh.head.weight)  # type: ignore[union-attr]
    assert fresh.goal.tolist() == [0.5, 0.5]  # type: ignore[union-attr]
    assert not torch.equal(model.goal, fresh.goal)  # type: ignore[arg-type]


def test_settings_and_state_make_the_model_again():
    x, y, _ = rated()
    model = fit_ratings(x, y, names=("use", "tone"), goal=(0.1234567890123, 2.0))
    again = AttributeReward(Shape(6), attributes="use/tone", goal="", seed=5)
    again.load_state_dict(model.state_dict())
    z = torch.from_numpy(x[:20].astype(np.float32))
    assert torch.equal(again.score(again.represent(z), Given()), model.score(model.represent(z), Given()))
    assert again.explain() == model.explain()


def test_any_objective_of_scores():
    x, _, true = rated()
    data = pairs(x, true, np.array([2.0, -1.0]))
    for name in ("thurstone", "reward_hinge", "davidson"):
        options = HeadOptions(head="attributes", epochs=20, learning_rate=0.03)
        found = fit(x.astype(np.float32), data, by_name(name), parse("identity"), options)
        first, last = (line["heads"][0]["loss"] for line in (found.epochs[0], found.epochs[-1]))
        assert last < 0.9 * first


def test_ratings_that_say_nothing():
    x, y, _ = rated()
    flat = y.copy()
    flat[:, 1] = np.where(np.isnan(flat[:, 1]), np.nan, 3)
    with pytest.warns(UserWarning, match="ratings of tone are all the same"):
        model = fit_ratings(x, flat, names=("use", "tone"))
    assert np.isnan(model.r2[1].item())
    assert model.explain().tables["attributes"]["r2"][1] is None


def test_refusals():
    x, y, _ = rated(m=20, missing=0)
    for wrong in (5, -1, 2.5):
        bad = y.copy()
        bad[4, 1] = wrong
        with pytest.raises(InputError, match=r"1 of 40 ratings are no whole number from 0 to 4 \(first: row 4, tone"):
            fit_ratings(x, bad, names=("use", "tone"))
    assert fit_ratings(x, np.where(y == 4, 2.5, y), names=("use", "tone"), whole=False)
    for values, message in ((np.full_like(y, np.nan), "no response has a rating of use, tone"), (y[:, :1], "matrix")):
        with pytest.raises(InputError, match=message):
            fit_ratings(x, values, names=("use", "tone"))
    with pytest.raises(InputError, match="of one length"):
        fit_ratings(x[:10], y, names=("use", "tone"))
    with pytest.raises(InputError, match="ridge or minibatch"):
        fit_ratings(x, y, names=("use", "tone"), method="sgd")  # type: ignore[arg-type]
    for text, message in (
        ("attributes:goal=1/2", "5 numbers between slashes"), ("attributes:goal=1/2/a/4/5", "5 numbers"),
        ("attributes:attributes=a/a", "different names"), ("attributes:learn=all", "head, goal or both"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            build(text, Shape(3), 0)
    assert build("attributes", Shape(3), 0).attributes == HELPSTEER  # type: ignore[union-attr]
