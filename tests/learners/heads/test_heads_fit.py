"""The minibatch loop of heads: equation (1) by hand and by autograd, every objective of scores under many treatments, the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons, Gather
from cupel.learners.heads.fit import batch_order, fit
from cupel.learners.heads.model import rewards
from cupel.learners.heads.network import forward, initial
from cupel.learners.heads.options import HeadOptions, head_options
from cupel.noise.fixed import conservative, identity
from cupel.noise.names import parse
from cupel.objectives.names import available, by_name
from cupel.objectives.reward import bradley_terry

#: one treatment of each kind: fixed, learned from the state, by step, by epoch, chained, of weights only
TREATMENTS = ("identity", "conservative:flip=0.1", "em:flip=0.2,by=annotator,warmup=0", "small_loss:drop=0.25,ramp=2", "ropo",
              "conservative:flip=0.05 + trimmed:share=0.1", "selfie:share=0.25,warmup=0,buffer=64")  # fmt: skip
#: squared_score regresses 0 and 1 on the score itself: without the intercept that a linear reward lacks it learns the offset instead
SCORES = [name for name in available() if by_name(name).needs <= {"score"} and name != "squared_score"]


def planted(n=400, m=120, d=6, seed=0, wrong=0.1):
    """Features, comparisons with a planted linear reward, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, d)).astype(np.float32)
    reward = x @ rng.normal(size=d)
    first = rng.integers(0, m, n)
    second = (first + rng.integers(1, m, n)) % m
    flipped = rng.random(n) < wrong
    p = ((reward[first] > reward[second]) != flipped).astype(float)
    data = Comparisons.of(first, second, p, annotator=rng.integers(0, 4, n), annotators=tuple("abcd"), ids=[f"r{k}" for k in range(n)])
    return x, data, reward, flipped


def right(weights, x, data, reward):
    score = rewards(weights, x)
    return float(np.mean((score[data.first] > score[data.second]) == (reward[data.first] > reward[data.second])))


def test_there_are_objectives_of_scores():
    assert {"bradley_terry", "bpr", "thurstone", "reward_hinge", "focal", "rao_kupper", "davidson"} <= set(SCORES)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_any_objective_under_any_treatment_learns(name, treatment):
    x, data, reward, _ = planted()
    options = HeadOptions(epochs=4, batch_size=50, learning_rate=0.05)
    found = fit(x, data, by_name(name), parse(treatment), options)
    before = right(initial(6, 0, 0), x, data, reward)
    assert right(found.weights[0], x, data, reward) > max(0.8, before), (name, treatment)
    assert (found.tallies[0].seen == 4).all()
    assert found.epochs[-1]["heads"][0]["disagreement"] is None


def test_a_step_is_equation_one_by_hand():
    """One comparison of two one-dimensional sides, p = .8 smoothed by .1, w = 2, plain gradient of Adam's first step: the sign of it, and
    the loss to the last digit."""  # fmt: skip
    x = np.array([[1.0], [-0.5]], np.float32)
    data = Comparisons.of(np.array([0]), np.array([1]), np.array([0.8]), np.array([2.0]))
    options = HeadOptions(epochs=1, batch_size=1, learning_rate=0.25, schedule="constant", l2=0.0, seed=3)
    theta = float(initial(1, 0, 3)["theta"][0])
    found = fit(x, data, bradley_terry(), conservative(0.1), options)
    p = 0.9 * 0.8 + 0.1 * 0.2
    m = 1.5 * theta
    loss = 2 * (p * np.log1p(np.exp(-m)) + (1 - p) * np.log1p(np.exp(m)))
    assert found.epochs[0]["heads"][0]["loss"] == pytest.approx(loss, rel=1e-6)
    gradient = 2 * 1.5 * (1 / (1 + np.exp(-m)) - p)
    assert found.weights[0]["theta"][0] == pytest.approx(theta - 0.25 * gradient / (abs(gradient) + 1e-8), rel=1e-6)
    assert found.tallies[0].p[0] == pytest.approx(p)
    assert found.tallies[0].mean[0] == pytest.approx(m, rel=1e-6)


@pytest.mark.parametrize("hidden", [0, 5])
def test_it_is_the_plain_loop(hidden):
    """Another loop, that scores both sides of every comparison one by one and lets autograd add up, reaches the same parameters."""
    x, data, _, _ = planted(n=90, m=40)
    data = Comparisons.of(data.first, data.second, np.where(np.arange(90) % 7 == 0, 0.5, data.p), np.linspace(0.5, 2, 90))
    options = HeadOptions(hidden=hidden, epochs=3, batch_size=32, learning_rate=0.01, l2=0.1, seed=5)
    objective = bradley_terry(margin=0.3, centre=0.02)
    found = fit(x, data, objective, identity(), options).weights[0]
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in initial(6, hidden, 5).items()}
    optimiser = torch.optim.Adam(list(weights.values()))
    step = 0
    for epoch in range(3):
        order = batch_order(90, 5, epoch)
        for at in range(0, 90, 32):
            total = torch.zeros(())
            rows = order[at : at + 32]
            for row in rows:
                a, b = (forward(weights, torch.tensor(x[[side[row]]]))[0] for side in (data.first, data.second))
                keep, flip = (torch.nn.functional.softplus(0.3 - d) + 0.02 * (a + b) ** 2 for d in (a - b, b - a))
                total = total + data.w[row] * (data.p[row] * keep + (1 - data.p[row]) * flip)
            penalty = sum((value**2).sum() for name, value in weights.items() if name != "bias")
            loss = total / len(rows) + 0.05 * penalty
            optimiser.zero_grad()
            loss.backward()
            optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 9)
            optimiser.step()
            step += 1
    for name, value in weights.items():
        np.testing.assert_allclose(found[name], value.detach().numpy(), atol=2e-5)


def test_a_batch_holds_each_side_once():
    x, data, _, _ = planted(n=200, m=30)
    gather = Gather(x, data, 64)
    for at in (0, 64, 128):
        rows = np.arange(at, at + 64)
        block, first, second = gather(rows)
        assert len(block) == len(np.unique(np.concatenate([data.first[rows], data.second[rows]])))
        np.testing.assert_array_equal(block[first], x[data.first[rows]])
        np.testing.assert_array_equal(block[second], x[data.second[rows]])


def test_the_same_bytes_from_memory_and_from_disk(tmp_path):
    x, data, _, _ = planted()
    np.save(tmp_path / "x.npy", x)
    options = HeadOptions(hidden=4, epochs=2, members=2)
    one = fit(x, data, bradley_terry(), identity(), options)
    torch.manual_seed(99)
    threads = torch.get_num_threads()
    two = fit(np.load(tmp_path / "x.npy", mmap_mode="r"), data, bradley_terry(), identity(), options)
    assert torch.get_num_threads() == threads
    for a, b in zip(one.weights, two.weights, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert one.epochs == two.epochs


def test_members_are_the_heads_of_their_seeds():
    x, data, _, _ = planted()
    both = fit(x, data, bradley_terry(), identity(), HeadOptions(members=2, epochs=2, seed=4)).weights
    for k, seed in enumerate((4, 5)):
        alone = fit(x, data, bradley_terry(), identity(), HeadOptions(epochs=2, seed=seed)).weights[0]
        assert np.array_equal(both[k]["theta"], alone["theta"])
    assert not np.array_equal(both[0]["theta"], both[1]["theta"])


def test_order_is_a_function_of_seed_and_epoch():
    assert sorted(batch_order(50, 1, 2)) == list(range(50))
    orders = {tuple(batch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_ties_pull_scores_together():
    """Labels of one half alone: the fitted difference is 0, wherever the head began."""
    x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    data = Comparisons.of(np.zeros(64, int), np.ones(64, int), np.full(64, 0.5))
    found = fit(x, data, bradley_terry(), identity(), HeadOptions(epochs=30, batch_size=16, learning_rate=0.1, l2=0.0)).weights[0]["theta"]
    assert abs(found[0] - found[1]) < 1e-3


def test_what_cannot_be_is_refused():
    x, data, _, _ = planted(n=20)
    plain = HeadOptions(epochs=1)
    with pytest.raises(InputError, match="needs logp, reference"):
        fit(x, data, by_name("sigmoid"), identity(), plain)
    with pytest.raises(InputError, match="peers=2"):
        fit(x, data, bradley_terry(), parse("peer_review:drop=0.2"), plain)
    with pytest.raises(InputError, match="looks at no peer"):
        fit(x, data, bradley_terry(), identity(), HeadOptions(peers=2))
    with pytest.raises(InputError, match="float32 matrix"):
        fit(x.astype(float), data, bradley_terry(), identity(), plain)
    with pytest.raises(InputError, match="of 10 feature rows"):
        fit(x[:10], data, bradley_terry(), identity(), plain)
    with pytest.raises(InputError, match="first: row 1"):
        Comparisons.of(np.array([0, 1]), np.array([1, 0]), np.array([1.0, 2.0]))
    with pytest.raises(InputError, match=r"head 0 .* Lower learning_rate"):
        fit(x * np.float32("nan"), data, bradley_terry(), identity(), plain)


def test_options_are_read_as_texts():
    found = head_options({"hidden": "64", "members": "5", "curriculum": "false", "objective": None})
    assert (found.hidden, found.members, found.objective) == (64, 5, "bradley_terry")
    assert head_options({"peers": "2", "ramp": "0.5"}).ramp == 0.5
    assert head_options({"peers": "2", "ramp": "7"}).ramp == 7


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"members": 0}, "at least 1"), ({"hidden": -1}, "at least 0"), ({"learning_rate": 0}, "positive"), ({"heldout": 1}, "heldout"),
        ({"peers": 1}, "needs another"), ({"peers": 2, "members": 3}, "ensemble already"), ({"peers": 2, "eta": 0.5}, "below 1/2"),
        ({"eta": 0.2}, "peers=2"), ({"ramp": "0.5"}, "peers=2"), ({"peers": 2, "curriculum": "yes"}, "scope=epoch"),
        ({"peers": 2, "treatment": "em", "eta": 0.2}, "replaces"), ({"epochs": "two"}, "whole number"),
        ({"hiddn": 3}, "did you mean hidden"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(values, said):
    with pytest.raises(InputError, match=said):
        head_options(values)
