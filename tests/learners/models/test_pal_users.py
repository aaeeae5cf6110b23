"""New people of PAL, the convex fits beneath them against slow twins, exported rewards, the number of prototypes, and free vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.pal import PAL
from cupel.learners.models.pal_users import balanced, choose_k, exemplars, export, fit_new_users, mixed_margins
from cupel.learners.models.people import cross_entropy, item_shares, padded, ridge_logistic, simplex_logistic
from cupel.learners.models.person_vectors import PersonVectors, fit_new_vectors
from cupel.learners.models.types import Given, Shape
from cupel.noise.fixed import identity
from cupel.objectives.reward import bradley_terry


def planted(people=6, n=40, k=2, seed=0, items=60, d=3, spread=1.0):
    """A model whose prototypes are known, new people with mixtures of their own, and their comparisons drawn from its probabilities."""
    rng = np.random.default_rng(seed)
    model = PAL(Shape(width=d, people=k), prototypes=k, dim=0, seed=seed).requires_grad_(False)
    model.prototypes.copy_(torch.from_numpy(rng.normal(size=(k, d)) * spread))
    x = rng.normal(size=(items, d)).astype(np.float32)
    w = rng.dirichlet(np.full(k, 2.0), people)
    who = np.repeat(np.arange(people), n)
    first = rng.integers(0, items, len(who))
    second = (first + rng.integers(1, items, len(who))) % items
    data = Comparisons.of(first, second, annotator=who, annotators=[f"u{j}" for j in range(people)])
    p = rng.random(len(who)) < 1 / (1 + np.exp(-mixed_margins(model, x, data, w)))
    return model, x, Comparisons.of(first, second, p.astype(float), annotator=who, annotators=data.annotators), w


@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_oracle_9_the_fit_is_the_best_of_a_grid(prior):
    model, x, data, _ = planted()
    found = fit_new_users(model, x, data, prior=prior, towards="uniform")
    grid = np.linspace(0, 1, 1001)
    prototypes = model.prototypes.double().numpy()
    inside = 0
    for u in range(6):
        rows = np.flatnonzero(data.annotator == u)
        one, two = x[data.first[rows]].astype(float), x[data.second[rows]].astype(float)
        losses = []
        for w in grid:
            a = w * prototypes[0] + (1 - w) * prototypes[1]
            m = ((two - a) ** 2).sum(1) - ((one - a) ** 2).sum(1)
            with np.errstate(divide="ignore"):
                pull = prior / 2 * (np.log(w) + np.log(1 - w)) if prior else 0.0
            losses.append(np.logaddexp(0, np.where(data.p[rows] > 0.5, -m, m)).sum() - pull)
        assert (np.diff(losses, 2)[1:-1] > -1e-9).all(), "convex along the simplex"
        best = grid[int(np.argmin(losses))]
        inside += 0 < best < 1
        assert found.weights[u, 0] == pytest.approx(best, abs=1e-3)
        a = found.weights[u] @ prototypes
        m = ((two - a) ** 2).sum(1) - ((one - a) ** 2).sum(1)
        assert found.loss[u] == pytest.approx(np.logaddexp(0, np.where(data.p[rows] > 0.5, -m, m)).mean(), abs=1e-9)
    assert inside >= 4, "the optima to be compared with are interior"
    assert found.warnings == ()


def test_many_comparisons_recover_the_mixture():
    model, x, data, w = planted(people=4, n=3000, k=3, spread=1.5)
    found = fit_new_users(model, x, data)
    assert np.abs(found.weights - w).sum(1).max() / 2 < 0.1
    np.testing.assert_allclose(found.weights.sum(1), 1)
    assert found.comparisons.tolist() == [3000] * 4


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.0, 0.3, 3.0]))
@settings(max_examples=10, deadline=None)
def test_newton_on_the_simplex_is_a_slow_twins_minimum(seed, k, prior):
    """Every person's minimum against exponentiated gradients with a small step, person by person; weights of records count."""
    rng = np.random.default_rng(seed)
    people, n = 3, 24
    matrix, who = rng.normal(size=(n, k)) * 2, rng.integers(0, people, n)
    p, w, mean = rng.choice([0.0, 0.5, 0.9, 1.0], n), rng.random(n), rng.dirichlet(np.full(k, 5.0))
    found = simplex_logistic(matrix, p, w, who, people, prior=prior, mean=mean)
    assert (found.values >= 0).all()
    np.testing.assert_allclose(found.values.sum(1), 1)
    for u in range(people):
        rows = who == u

        def value(v, rows=rows):
            return cross_entropy(matrix[rows] @ v, p[rows], w[rows]).sum() - (max(prior, 1e-8) * mean * np.log(v)).sum()

        v = mean.copy()
        for _ in range(1500):
            s = 1 / (1 + np.exp(-matrix[rows] @ v))
            slope = matrix[rows].T @ (w[rows] * (s - p[rows])) - prior * mean / v
            v = v * np.exp(-0.03 * np.clip(slope - slope @ v, -20, 20))
            v = np.maximum(v / v.sum(), 1e-12)
        assert value(found.values[u]) <= value(v / v.sum()) + 1e-6
        assert found.loss[u] == pytest.approx(cross_entropy(matrix[rows] @ found.values[u], p[rows], w[rows]).sum(), abs=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_regressions_of_all_people_at_once_are_those_of_each(seed, d):
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    people, n, ridge = 3, 15, float(rng.choice([0.1, 1.0, 10.0]))
    x, who = rng.normal(size=(n, d)), rng.integers(0, people, n)
    p, w, offset = rng.choice([0.0, 0.3, 1.0], n), rng.random(n) * 2, rng.normal(size=n)
    found = ridge_logistic(x, p, w, who, people, ridge=ridge, offset=offset)
    assert found.settled.all()
    for u in range(people):
        rows = who == u

        def value(b, rows=rows):
            return cross_entropy(offset[rows] + x[rows] @ b, p[rows], w[rows]).sum() + ridge / 2 * b @ b

        slow = minimize(value, np.zeros(d), method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(found.values[u], slow.x, atol=1e-4)
        assert value(found.values[u]) <= slow.fun + 1e-9


def test_margins_that_are_not_linear_are_fitted_too():
    """Adam on a linear model comes to Newton's answer; unsquared distances come near the best of a grid, cosines near a local one."""
    model, x, data, _ = planted()
    exact = fit_new_users(model, x, data).weights
    model.is_linear = False
    np.testing.assert_allclose(fit_new_users(model, x, data).weights, exact, atol=1e-3)
    rng = np.random.default_rng(3)
    prompts = rng.normal(size=(len(data), 4)).astype(np.float32)
    for more in ({"distance": "l2"}, {"where": "f(Pw)", "layers": 1, "dim": 4}, {"kind": "B", "dim": 4}, {"kind": "B", "partition": True}):
        other = PAL(Shape(width=3, people=2, prompt=4), prototypes=2, **{"dim": 0, **more}).requires_grad_(False)
        asked = Comparisons.of(data.first, data.second, data.p, annotator=data.annotator, prompt=np.arange(len(data)), prompts=prompts)
        before = {name: value.clone() for name, value in other.state_dict().items()}
        found = fit_new_users(other, x, asked, prior=0.5, towards="uniform")
        assert all(torch.equal(before[name], value) for name, value in other.state_dict().items()), "all that is shared is frozen"
        assert other.partition == bool(more.get("partition"))
        other.partition = False
        grid = np.linspace(0.01, 0.99, 50)
        for u in range(3):
            mine = asked.take(np.flatnonzero(data.annotator == u))
            mine = Comparisons.of(mine.first, mine.second, mine.p, annotator=np.zeros(len(mine), int), prompt=mine.prompt, prompts=prompts)

            def value(w, mine=mine, other=other):
                m = mixed_margins(other, x, mine, np.array([[w, 1 - w]]))
                return cross_entropy(m, mine.p).sum() - 0.25 * (np.log(w) + np.log(1 - w))

            at = found.weights[u, 0]
            near = grid if other.kind == "A" else [w for w in (at - 0.004, at - 0.001, at + 0.001, at + 0.004) if 0 < w < 1]
            assert value(at) <= min(map(value, near)) + 0.01, (more, u)


def test_who_says_little_is_reported():
    model, x, _, _ = planted(k=3)
    model.seen[:] = True
    who = np.array([0, 0, 1, 2, 2, 2])
    p = np.array([0.5, 0.5, 1.0, 1.0, 0.0, 0.5])
    data = Comparisons.of(np.arange(6), np.arange(6, 12), p, annotator=who, annotators=("ties", "one", "some", "none"))
    found = fit_new_users(model, x, data)
    population = model.population().numpy()
    np.testing.assert_allclose(found.weights[[0, 3]], np.stack([population] * 2), atol=1e-6)
    assert found.at_prior.tolist() == [True, False, False, True]
    assert found.comparisons.tolist() == [0, 1, 2, 0]
    assert np.isnan(found.loss[[0, 3]]).all()
    assert found.warnings == (
        "2 of 4 new people have no comparison that is not a tie and stay at the prior's mean (first: ties, none)",
        "1 of 4 new people have one comparison only (first: one)",
    )
    assert np.abs(found.weights[1] - population).max() > 1e-3, "one comparison is a fit all the same"
    strong = fit_new_users(model, x, data, prior=1e4).weights
    np.testing.assert_allclose(strong, np.tile(population, (4, 1)), atol=1e-2)
    np.testing.assert_allclose(fit_new_users(model, x, data, towards="uniform").weights[0], 1 / 3)
    ties = Comparisons.of([0], [1], np.array([0.5]), annotator=np.array([0]))
    assert fit_new_users(model, x, ties).at_prior.tolist() == [True]


def test_bad_input_of_new_people():
    model, x, data, _ = planted()
    some = Comparisons.of(data.first, data.second, data.p, annotator=np.where(np.arange(len(data)) == 5, -1, data.annotator))
    with pytest.raises(InputError, match=r"1 of 240 comparisons name none of the 6 people \(first: row 5\).*annotators"):
        fit_new_users(model, x, some)
    with pytest.raises(InputError, match="none of the"):
        fit_new_users(model, x, Comparisons.of(data.first, data.second))
    with pytest.raises(InputError, match="prior=-1"):
        fit_new_users(model, x, data, prior=-1)
    with pytest.raises(InputError, match="not 'mean'"):
        fit_new_users(model, x, data, towards="mean")
    with pytest.raises(InputError, match="sum 1"):
        simplex_logistic(np.zeros((1, 2)), np.ones(1), np.ones(1), np.zeros(1, int), 1, prior=1.0, mean=np.array([0.5, 0.4]))
    with pytest.raises(InputError, match="ridge"):
        ridge_logistic(np.zeros((1, 2)), np.ones(1), np.ones(1), np.zeros(1, int), 1, ridge=0)
    x[9] = np.inf
    for call in (lambda: fit_new_users(model, x, data), lambda: exemplars(model, x), lambda: export(model).score(x)):
        with pytest.raises(InputError, match=r"1 of 60 vectors are not finite \(first: row 9\)"):
            call()


def test_rewards_of_mixtures_people_and_prototypes():
    model, x, data, w = planted(k=3)
    model.omega.copy_(torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])))
    given_ = export(model, w[0])
    m = mixed_margins(model, x, data.take(np.arange(40)), w)
    reward = given_.score(x)
    np.testing.assert_allclose(reward[data.first[:40]] - reward[data.second[:40]], m, atol=1e-9)
    np.testing.assert_allclose(export(model, person=1).mixture, [0.1, 0.1, 0.8], atol=1e-6)
    np.testing.assert_allclose(export(model, prototype=2).score(x), -((x - model.prototypes[2].numpy()) ** 2).sum(1), atol=1e-6)
    np.testing.assert_allclose(export(model).mixture, [0.8 / 3, 1 / 3, 0.4], atol=1e-6)
    assert export(model).whose == "the population's mean"
    for bad, why in ((([0.5, 0.4, 0.2],), "sum 1.1"), (([1.5, -0.5, 0],), "at least 0"), (([0.5, 0.5],), "3 weights")):
        with pytest.raises(InputError, match=why):
            export(model, *bad)
    with pytest.raises(InputError, match="one of the three"):
        export(model, w[0], person=1)
    with pytest.raises(InputError, match="no prototype 3"):
        export(model, prototype=3)
    with pytest.raises(InputError, match="fit_new_users"):
        export(model, person=3)


def test_exemplars_are_the_nearest():
    model, x, _, _ = planted(k=3)
    slow = [np.argsort(((x - point) ** 2).sum(1))[:4].tolist() for point in model.prototypes.numpy()]
    assert exemplars(model, x, 4).tolist() == slow


def test_balanced_weights_make_people_count_alike():
    who = np.array([3, 3, 3, 7, 9, 9])
    w = balanced(who)
    assert w.mean() == pytest.approx(1)
    assert {round(w[who == u].sum(), 9) for u in (3, 7, 9)} == {2.0}


@pytest.mark.parametrize("by", ["item", "comparison"])
def test_two_camps_need_two_prototypes_and_one_camp_does_not(by):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    who = np.repeat(np.arange(10), 60)
    first = rng.integers(0, 60, 600)
    second = (first + rng.integers(1, 60, 600)) % 60
    taste = {"camps": np.where(who % 2, -1.0, 1.0), "one": np.ones(600)}

    def train(features, data, k):
        options = HeadOptions(head=f"pal:prototypes={k},dim=2", epochs=15, batch_size=100, learning_rate=0.03)
        return fit(features, data, bradley_terry(), identity(), options)

    for name, side in taste.items():
        p = (rng.random(600) < 1 / (1 + np.exp(-3 * side * (x[first, 0] - x[second, 0])))).astype(float)
        found = choose_k(x, Comparisons.of(first, second, p, annotator=who), train, (1, 2), by=by, seed=1)
        gap, error = found.behind[1]
        assert found.behind[found.k] == (0.0, 0.0)
        assert all(u < 600 and t > 20 for u, t in zip(found.used, found.tested, strict=True))
        if name == "camps":
            assert found.k == 2
            assert gap > 3 * error > 0
            assert found.accuracy[1] < 0.6 < 0.8 < found.accuracy[2]
        else:
            assert abs(found.loss[1] - found.loss[2]) < 0.06
    with pytest.raises(InputError, match="change heldout"):
        choose_k(x, Comparisons.of([0, 1], [1, 2], annotator=np.array([0, 1])), train, (1,), heldout=0.01)
    with pytest.raises(InputError, match="splits >= 1"):
        choose_k(x, Comparisons.of([0], [1]), train, ())


def test_padding_and_the_majority():
    rng = np.random.default_rng(0)
    who = rng.integers(0, 5, 30)
    at, there = padded(who, 6)
    for u in range(6):
        assert at[u][there[u]].tolist() == np.flatnonzero(who == u).tolist()
    first, second, p = rng.integers(0, 4, 30), rng.integers(0, 4, 30), rng.choice([0, 0.5, 1], 30)
    share = item_shares(first, second, p, np.ones(30), 5)
    for j in range(5):
        won = p[first == j].sum() + (1 - p[second == j]).sum()
        assert share[j] == pytest.approx((won + 1) / ((first == j).sum() + (second == j).sum() + 2))


def test_free_vectors_learn_seen_people_and_new_ones():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 4)).astype(np.float32)
    taste = rng.normal(size=(20, 4)) * 3
    who = np.repeat(np.arange(20), 60)
    first = rng.integers(0, 80, len(who))
    second = (first + rng.integers(1, 80, len(who))) % 80
    p = (((x[first] - x[second]) * taste[who]).sum(1) > 0).astype(float)
    old = who < 15
    data = Comparisons.of(first[old], second[old], p[old], annotator=who[old])
    options = HeadOptions(head="person_vectors:dim=4", epochs=40, batch_size=150, learning_rate=0.01, l2=1e-4)
    model = fit(x, data, bradley_terry(), identity(), options).models[0]
    assert isinstance(model, PersonVectors)
    assert ((margins([model], x, data)[0] > 0) == (data.p > 0.5)).mean() > 0.9
    table = model.explain(["ann"]).tables["people"]
    assert table["person"][:2] == ["ann", "1"]
    assert table["distance"] == pytest.approx(model.vectors.norm(dim=1).tolist())
    new = who >= 15
    half = rng.random(new.sum()) < 0.7
    later = Comparisons.of(first[new], second[new], p[new], annotator=who[new] - 15)
    some, rest = later.take(np.flatnonzero(half)), later.take(np.flatnonzero(~half))
    found = fit_new_vectors(model, x, some, ridge=0.3)
    assert found.values.shape == (5, 4)
    z = model.represent(torch.from_numpy(x)).detach().numpy()
    a = (model.centre.detach().numpy() + found.values)[rest.annotator]
    m = ((z[rest.second] - a) ** 2).sum(1) - ((z[rest.first] - a) ** 2).sum(1)
    assert ((m > 0) == (rest.p > 0.5)).mean() > 0.8
    twin = PersonVectors(Shape(width=4, people=5), dim=4)
    twin.load_state_dict({**model.state_dict(), "vectors": torch.from_numpy(found.values).float()})
    np.testing.assert_allclose(margins([twin], x, rest)[0], m, atol=1e-3)
    assert twin.score(torch.ones(2, 4), Given(person=torch.tensor([-1, 5]))).unique().numel() == 1
    torch.testing.assert_close(twin.score(torch.ones(2, 4), Given()), twin.score(torch.ones(2, 4), Given(person=torch.tensor([-1, 5]))))
    assert not twin.decayed("centre")
    assert (twin.pace("map.weight"), twin.pace("vectors")) == (1, 10)
    with pytest.raises(InputError, match="dim >= 0"):
        PersonVectors(Shape(width=2, people=2), dim=-1)
    with pytest.raises(InputError, match="reads the person"):
        PersonVectors(Shape(width=2))
    with pytest.raises(InputError, match="name none of the"):
        fit_new_vectors(model, x, Comparisons.of([0], [1]))
