"""Weights over several rewards: the card's numbers, exact fits against finite differences, baselines, what they are measured by."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.models import simplex
from cupel.learners.models.scalarise import (
    best_fixed,
    front,
    grid,
    hypervolume,
    modpo_rating,
    morlhf,
    objective_wins,
    pareto,
    reward_matrix,
    ric_text,
    scalarised,
    soup,
    utility_regret,
)
from cupel.objectives.margin import modpo
from cupel.objectives.types import Side

SCORES = np.array([0.8, 0.55, 0.7])


def test_targets_of_the_card():  # oracle 1
    target = simplex.target_weights(SCORES)
    assert target == pytest.approx([0.689672, 0.056612, 0.253716], abs=5e-7)
    assert simplex.target_weights(SCORES, temperature=1.0) == pytest.approx([0.372628, 0.290203, 0.337168], abs=5e-7)
    f = np.array([0.5, 0.2, 0.3])
    assert simplex.divergence(target, f) == pytest.approx(0.107840, abs=5e-7)
    assert simplex.divergence(f, target) == pytest.approx(0.141886, abs=5e-7)
    logits = torch.tensor(np.log(f), requires_grad=True)
    goal = torch.tensor(target)
    (goal * (goal.log() - torch.log_softmax(logits, 0))).sum().backward()
    assert logits.grad is not None
    assert logits.grad.numpy() == pytest.approx([-0.189672, 0.143388, 0.046284], abs=5e-7)
    assert f - target == pytest.approx(logits.grad.numpy(), abs=1e-12)


def test_limits_of_the_temperature_and_constants():  # oracle 2
    assert simplex.target_weights(SCORES, temperature=1e9) == pytest.approx([1 / 3] * 3, abs=1e-8)
    assert simplex.target_weights(SCORES, temperature=1e-4) == pytest.approx([1, 0, 0], abs=1e-12)
    assert simplex.target_weights(SCORES + 7) == pytest.approx(simplex.target_weights(SCORES), abs=1e-12)
    assert simplex.target_weights(SCORES, SCORES - 0.3, target="difference") == pytest.approx([1 / 3] * 3)
    assert simplex.target_weights(SCORES * [10, 1, 1])[0] > 0.999  # without normalisation one scale takes over


def test_modpo_of_the_card():  # oracle 3
    rating, weight = modpo_rating(np.array([[5.0, 0.3], [-5.0, 0.9]]), [0.6, 0.4])
    zero = torch.tensor([0.0])
    first, second = (
        Side(logp=torch.tensor([x]), reference_logp=zero, rating=torch.tensor([float(r)]))
        for x, r in zip((1.5, -0.5), rating, strict=True)
    )  # fmt: skip
    objective = modpo(beta=0.1, weight=weight)
    assert objective.margin(first, second, {}).item() == pytest.approx(0.733333, abs=5e-7)
    assert objective.loss(first, second, {}).item() == pytest.approx(0.392248, abs=5e-7)
    rating, weight = modpo_rating(np.array([[5.0, 0.3], [-5.0, 0.9]]), [1.0, 0.0])
    plain = [
        Side(logp=torch.tensor([x]), reference_logp=zero, rating=torch.tensor([float(r)])) for x, r in ((1.5, rating[0]), (-0.5, rating[1]))
    ]
    assert modpo(beta=0.1, weight=weight).margin(*plain, {}).item() == pytest.approx(0.2, abs=1e-7)
    with pytest.raises(InputError, match="that of objective 0 is 0"):
        modpo_rating(np.ones((2, 2)), [0.0, 1.0])


def test_equal_rewards_make_weights_idle():  # oracle 4
    same = np.repeat(np.random.default_rng(0).normal(size=(7, 1)), 3, axis=1)
    for w in grid(3, 4):
        assert scalarised(same, w) == pytest.approx(same[:, 0], abs=1e-12)


def test_soups_are_optimal_for_quadratic_rewards():  # oracle 5
    ends = np.array([[1.0, 0.0], [0.0, 1.0]])
    mixed = soup([{"theta": end} for end in ends], [0.3, 0.7])["theta"]
    assert mixed.tolist() == [0.3, 0.7]

    def value(theta):
        return -0.3 * ((theta - ends[0]) ** 2).sum() - 0.7 * ((theta - ends[1]) ** 2).sum()

    moves = np.random.default_rng(0).normal(size=(200, 2)) * 0.1
    assert all(value(mixed + move) < value(mixed) for move in moves)
    tensors = soup([{"w": torch.ones(2)}, {"w": torch.zeros(2)}], [0.25, 0.75])
    assert tensors["w"].tolist() == [0.25, 0.25]


def test_tabular_optimum_and_zero_regret_under_true_weights():  # oracle 6
    rng = np.random.default_rng(1)
    reference, rewards, w = rng.dirichlet(np.ones(5), 4), rng.normal(size=(4, 5, 3)), rng.dirichlet(np.ones(3), 4)
    best = morlhf(reference, rewards, w, beta=0.5)
    assert best.sum(axis=1) == pytest.approx(1)

    def value(policy, k):
        return policy @ (rewards[k] @ w[k]) - 0.5 * simplex.divergence(policy, reference[k])

    for k in range(4):
        total = reference[k] * np.exp(rewards[k] @ w[k] / 0.5)
        assert best[k] == pytest.approx(total / total.sum(), abs=1e-12)
        assert value(best[k], k) == pytest.approx(0.5 * np.log(total.sum()), abs=1e-12)
        assert all(value(other, k) < value(best[k], k) for other in rng.dirichlet(np.ones(5), 100))
    utility = np.einsum("nck,nk->nc", rewards, w)
    assert utility_regret(utility, scalarised(rewards, w[:, None])).tolist() == [0.0] * 4
    cold = morlhf(reference, rewards, w, beta=1e-3)
    assert utility_regret(utility, cold).tolist() == [0.0] * 4


def test_an_adapter_on_targets_that_ignore_the_prompt_learns_their_mean():  # oracle 7
    rng = np.random.default_rng(2)
    goal, x = rng.dirichlet([3.0, 1.0, 0.5], 20_000), rng.normal(size=(20_000, 2))
    found = simplex.fit_softmax(x, goal)
    assert np.abs(found(np.zeros((1, 2)))[0] - goal.mean(axis=0)).max() < 1e-3
    assert np.abs(simplex.fit_softmax(x[:, :0], goal)(x[:1, :0])[0] - goal.mean(axis=0)).max() < 1e-6


@pytest.mark.parametrize("collapse", [0.0, 0.3])
def test_exact_fits_have_no_slope_left(collapse):
    """The slow twin: numerical derivatives of the loss as it is written, at what the fit returned."""
    rng = np.random.default_rng(3)
    x, goal, w = rng.normal(size=(40, 2)), rng.dirichlet(np.ones(3), 40), rng.random(40)
    d, p = rng.normal(size=(40, 3)), rng.random(40)

    def first(flat):
        f = simplex.softmax(x @ flat[:6].reshape(2, 3) + flat[6:])
        each = simplex.divergence(goal, f) - collapse * simplex.entropy(f)
        return (w @ each) / w.sum() + 0.05 * (flat[:6] ** 2).sum()

    def second(flat):
        f = simplex.softmax(x @ flat[:6].reshape(2, 3) + flat[6:9])
        m = np.exp(flat[9]) * (f * d).sum(axis=1)
        return (w @ (p * np.log1p(np.exp(-m)) + (1 - p) * np.log1p(np.exp(m)))) / w.sum() + 0.05 * (flat[:6] ** 2).sum()

    one = simplex.fit_softmax(x, goal, weight=w, l2=0.1, collapse=collapse)
    two = simplex.fit_preferences(x, d, p, weight=w, l2=0.1)
    for value, at in ((first, [*one.matrix.ravel(), *one.bias]), (second, [*two.matrix.ravel(), *two.bias, np.log(two.scale)])):
        flat = np.array(at)
        for k in range(len(flat)):
            step = np.eye(len(flat))[k] * 1e-5
            assert abs(value(flat + step) - value(flat - step)) / 2e-5 < 2e-5, k


def test_best_fixed_weights_find_the_planted_ones():
    rng = np.random.default_rng(4)
    d = rng.normal(size=(6000, 3))
    p = (rng.random(6000) < 1 / (1 + np.exp(-4 * d @ [0.6, 0.3, 0.1]))).astype(float)
    assert best_fixed(d, p) == pytest.approx([0.6, 0.3, 0.1], abs=0.04)


def test_hypervolume_and_front_by_counting():
    """A slow twin: the share of random points below the front."""
    rng = np.random.default_rng(5)
    for k in (1, 2, 3, 4):
        points = rng.random((6, k))
        thrown = rng.random((60_000, k))
        below = (thrown[:, None] <= points[None]).all(axis=2).any(axis=1).mean()
        assert hypervolume(points, np.zeros(k)) == pytest.approx(below, abs=0.01)
        assert hypervolume(points[pareto(points)], np.zeros(k)) == pytest.approx(hypervolume(points, np.zeros(k)), abs=1e-12)
        slow = [not any((b >= a).all() and (b > a).any() for b in points) for a in points]
        assert pareto(points).tolist() == slow
    assert hypervolume(np.array([[-1.0, 5.0]]), [0.0, 0.0]) == 0.0
    with pytest.raises(InputError, match="finite"):
        hypervolume(np.array([[np.nan, 1.0]]), [0.0, 0.0])
    with pytest.raises(InputError, match=r"\[1, 2\] and \[3\]"):
        hypervolume(np.array([[1.0, 1.0]]), [0.0, 0.0, 0.0])


def test_grid_wins_front_and_texts():
    points = grid(3, 4)
    assert len(points) == 15
    assert points.sum(axis=1) == pytest.approx(1)
    assert len({tuple(row) for row in points.tolist()}) == 15
    assert objective_wins(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0]])).tolist() == [1.0, 0.5]
    rewards = np.random.default_rng(0).random((3, 4, 2))
    policy = np.full((3, 4), 0.25)
    assert front([policy], rewards)[0] == pytest.approx(rewards.mean(axis=(0, 1)))
    assert ric_text("Q", [0.04, -0.01], "A") == "Q <rm1_score> 0.0 <rm2_score> 0.0 A"
    with pytest.raises(InputError, match="finite"):
        ric_text("Q", [float("nan")])


def test_correlation_with_the_level_by_hand():
    rng = np.random.default_rng(6)
    level = rng.normal(size=(300, 2))
    w = np.stack([0.5 + 0.1 * level[:, 0], 0.5 - 0.1 * level[:, 0]], axis=1) + rng.normal(size=(300, 2)) * 0.05
    found = simplex.level_correlation(w, np.stack([level[:, 0], np.ones(300)], axis=1))
    assert found[0, 0] == pytest.approx(np.corrcoef(w[:, 0], level[:, 0])[0, 1])
    assert found[0, 1] < found[0, 0] < found[0, 2]
    assert np.isnan(found[1]).all()


def test_long_tables_name_what_is_missing():
    rows = [(record, response, objective, 1.0) for record, response, objective in itertools.product(("q1", "q2"), "ab", ("good", "short"))]
    keys = [(record, response) for record in ("q1", "q2") for response in "ab"]
    assert reward_matrix(rows, keys, ("good", "short")).shape == (4, 2)
    with pytest.raises(InputError, match=r"1 of 8 scores are missing \(first: record q2, response b, objective short\)"):
        reward_matrix(rows[:-1], keys, ("good", "short"))
    with pytest.raises(InputError, match="record q1, response a: good has two scores"):
        reward_matrix([*rows, rows[0]], keys, ("good", "short"))


def test_bad_input():
    for call, match in (
        (lambda: simplex.target_weights(SCORES, temperature=0.0), "temperature is a positive number, not 0.0"),
        (lambda: simplex.target_weights(SCORES, target="difference"), "needs the scores of the rejected response"),
        (lambda: simplex.target_weights(SCORES, target="loser"), "winner or difference, not 'loser'"),
        (lambda: simplex.target_weights([[1.0, float("nan")]]), r"1 of 2 scores are missing \(first: row 0, objective 1\)"),
        (lambda: scalarised(np.ones((2, 2)), [0.7, 0.7]), "sum to 1"),
        (lambda: scalarised(np.ones((2, 2)), [[1.0, 0.0], [1.5, -0.5]]), r"1 of 2 rows, first: 1"),
        (lambda: scalarised(np.ones((2, 2)), [1.0]), "there are 2 objectives, and weights for 1"),
        (lambda: morlhf(np.ones(2) / 2, np.ones((2, 2)), [0.5, 0.5], 0.0), "beta is a positive number"),
        (lambda: soup([{"a": np.ones(2)}, {"b": np.ones(2)}], [0.5, 0.5]), "other parameters"),
        (lambda: soup([{"a": np.ones(2)}, {"a": np.ones(3)}], [0.5, 0.5]), "another shape"),
    ):
        with pytest.raises(InputError, match=match):
            call()
