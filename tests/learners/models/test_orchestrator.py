"""PRO: adapters by targets and by preferences, the normaliser that stays with the model, refusals, and the flag of failure mode B."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models import simplex
from cupel.learners.models.orchestrator import OrchestratedReward, Orchestrator, fit_targets
from cupel.learners.models.types import Given, Shape
from cupel.noise.names import parse
from cupel.objectives.reward import bradley_terry

OPTIONS = HeadOptions(head="orchestrator", epochs=40, batch_size=100, learning_rate=0.05, l2=1e-5)
NAMES = ("helpful", "harmless", "short")


def planted(n=800, seed=0, suppressed=False, wrong=0.0, scale=20.0):
    """Prompts, weights softmax(1.5 x N), two responses each with rewards U(0, 1)^3, preferences from the true utility.

    suppressed: where the true weight of objective 1 exceeds .5, its rewards are multiplied by .3 (nothing scores well on what matters).
    """
    rng = np.random.default_rng([seed, 30])
    x = rng.normal(size=(n, 8))
    w = simplex.softmax(1.5 * x @ np.random.default_rng(7).normal(size=(8, 3)))
    r = rng.random((n, 2, 3))
    if suppressed:
        r[:, :, 1] *= np.where(w[:, 1] > 0.5, 0.3, 1.0)[:, None]
    gap = ((r[:, 0] - r[:, 1]) * w).sum(axis=1)
    p = (rng.random(n) < 1 / (1 + np.exp(-scale * gap))) != (rng.random(n) < wrong)
    at = np.arange(n)
    data = Comparisons.of(2 * at, 2 * at + 1, p.astype(float), prompt=at, prompts=x.astype(np.float32), columns=NAMES)
    return r.reshape(-1, 3).astype(np.float32), data, w


@cache
def trained():
    r, data, w = planted()
    return r, data, w, fit(r, data, bradley_terry(), parse("identity"), OPTIONS).models[0]


def learned():
    """Rewards, comparisons, true weights, and a copy of the head that was trained on them."""
    r, data, w, model = trained()
    return r, data, w, copy.deepcopy(model)


def weights_of(model, data):
    return model.weights(torch.from_numpy(data.prompts[data.prompt])).numpy()


@pytest.mark.parametrize("treatment", ["identity", "em:flip=0.1", "unbiased:flip=0.1"])
def test_weights_are_recovered_from_preferences_with_planted_flips(treatment):
    r, data, w = planted(wrong=0.1)
    model = fit(r, data, bradley_terry(), parse(treatment), replace(OPTIONS, epochs=25)).models[0]
    found = weights_of(model, data)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert simplex.divergence(w, found).mean() < 0.08
    assert simplex.divergence(w, np.full_like(w, 1 / 3)).mean() > 0.4


def test_the_run_of_comparisons_and_the_exact_fit_agree():
    r, data, w, model = learned()
    z = (r - r.mean(axis=0)) / r.std(axis=0)
    exact = simplex.fit_preferences(data.prompts, z[data.first] - z[data.second], data.p, l2=1e-5)
    assert np.abs(weights_of(model, data) - exact(data.prompts)).mean() < 0.05
    both = simplex.divergence(w, exact(data.prompts)).mean(), simplex.divergence(w, weights_of(model, data)).mean()
    assert max(both) < 0.05


def test_targets_order_as_the_card_measured():
    """KL to the true weights: preferences least, then the difference target, then equation (7), then uniform."""
    r, data, w, model = learned()
    far = {
        "preference": simplex.divergence(w, weights_of(model, data)).mean(),
        "uniform": simplex.divergence(w, np.full_like(w, 1 / 3)).mean(),
    }
    for target in ("winner", "difference"):
        found = fit_targets(r, data, target=target, normalise="minmax")
        far[target] = simplex.divergence(w, weights_of(found, data)).mean()
        assert found.target == target
        assert np.isfinite(margins([found], r, data)).all()
    assert far["preference"] < far["difference"] < far["winner"] < far["uniform"]


def test_fit_targets_is_the_least_divergence_from_its_targets():
    """A twin: no nearby adapter is closer to softmax(r~ / T)."""
    r, data, _ = planted(n=200)
    model = fit_targets(r, data, normalise="raw", temperature=0.2, l2=0.0)
    ahead = np.where(data.p[:, None] > 0.5, r[data.first], r[data.second])
    goal = simplex.target_weights(ahead, temperature=0.2)

    def far(matrix, bias):
        return simplex.divergence(goal, simplex.softmax(data.prompts @ matrix + bias)).mean()

    matrix, bias = model.adapter.weight.double().numpy().T, model.adapter.bias.double().numpy()
    best, rng = far(matrix, bias), np.random.default_rng(0)
    assert all(far(matrix + rng.normal(size=matrix.shape) * 0.01, bias + rng.normal(size=3) * 0.01) > best for _ in range(50))


@pytest.mark.parametrize("normalise", ["zscore", "minmax", "rank"])
def test_normalisation_undoes_the_scale_of_an_objective(normalise):  # oracle 2
    r, data, _ = planted(n=300)
    loud = r * np.array([10, 1, 1], np.float32) + np.array([3, 0, 0], np.float32)
    one, two = (weights_of(fit_targets(x, data, normalise=normalise), data) for x in (r, loud))
    assert np.abs(one - two).max() < 1e-3
    raw = weights_of(fit_targets(loud, data, normalise="raw"), data)
    assert raw[:, 0].mean() > 0.99


def test_normalised_rewards_by_hand():
    rng = np.random.default_rng(0)
    r = np.concatenate([rng.normal(size=(40, 1)) * 3 + 1, rng.integers(0, 3, (40, 1))], axis=1).astype(np.float32)
    data = Comparisons.of(np.arange(20), np.arange(20, 40), prompt=np.arange(20), prompts=np.zeros((20, 2)))
    for normalise in ("zscore", "minmax", "rank", "raw"):
        model = Orchestrator(Shape(width=2, prompt=2), normalise=normalise)
        model.prepare(r, data)
        found = model.represent(torch.from_numpy(r)).numpy()
        if normalise == "rank":
            slow = np.array([[((r[:, k] < x).mean() + (r[:, k] <= x).mean()) / 2 for k, x in enumerate(row)] for row in r])
            assert np.abs(found - slow).max() < 0.05  # 101 knots of 40 values
            assert np.argsort(found[:, 0]).tolist() == np.argsort(r[:, 0]).tolist()
            assert 0 <= found.min() <= found.max() <= 1
            ends = model.represent(torch.tensor([[-99.0, -99.0], [99.0, 99.0]])).tolist()
            assert ends == [[0.0, 0.0], [1.0, 1.0]]
        else:
            hand = {"zscore": (r - r.mean(0)) / r.std(0), "minmax": (r - r.min(0)) / (r.max(0) - r.min(0)), "raw": r}[normalise]
            assert found == pytest.approx(hand, abs=1e-5)


def test_the_normaliser_is_stored_with_the_model_and_sees_training_alone():
    r, data, _, model = learned()
    again = Orchestrator(Shape(width=3, prompt=8, names=NAMES))
    again.load_state_dict(model.state_dict())
    other = np.concatenate([r, r * 50])
    assert margins([again], other, data) == pytest.approx(margins([model], r, data))
    assert model.get_buffer("centre").numpy() == pytest.approx(r.mean(axis=0), abs=1e-6)


def test_a_users_weights_override_the_adapter():
    r, data, _, model = learned()
    assert isinstance(model, Orchestrator)
    model.use([0.0, 1.0, 0.0])
    assert weights_of(model, data)[0].tolist() == [0.0, 1.0, 0.0]
    order = margins([model], r, data)[0]
    assert np.array_equal(order > 0, r[data.first, 1] > r[data.second, 1])
    assert model.score(torch.ones(2, 3), Given()).shape == (2,)  # no prompt is needed
    assert "override" in model.explain().words[0]
    model.use(None)
    assert len(np.unique(weights_of(model, data)[:, 0])) > 100
    for bad, match in (
        ([0.5, 0.6, 0.0], "sum to 1"),
        ([1.5, -0.5, 0.0], "at least 0"),
        ([1.0, 0.0], "3 objectives"),
        (np.eye(3), "3 numbers"),
    ):
        with pytest.raises(InputError, match=match):
            model.use(bad)


def test_failure_mode_b_is_flagged():
    """Where an objective matters most nothing scores well on it: equation (7) gives it less weight, and `explain` says so."""
    r, data, w = planted(n=1500, suppressed=True)
    heavy = w[:, 1] > 0.5
    winner = fit_targets(r, data, normalise="minmax")
    pref = fit(r, data, bradley_terry(), parse("identity"), replace(OPTIONS, epochs=15)).models[0]
    assert isinstance(pref, Orchestrator)
    assert weights_of(winner, data)[heavy, 1].mean() < 1 / 3 < 0.7 < weights_of(pref, data)[heavy, 1].mean()
    table = winner.explain().tables["weights"]
    assert dict(zip(table["objective"], table["flagged"], strict=True)) == {"helpful": False, "harmless": True, "short": False}
    assert table["level_correlation"][1] > 0.3
    assert table["preference_level_correlation"][1] < -0.3
    assert any(word.startswith("harmless: its weight rises with its scores") for word in winner.explain().words)
    pref.audit(r, data)
    assert not any(pref.explain().tables["weights"]["flagged"])
    winner.audit(r, data, reference=pref)
    assert winner.explain().tables["weights"]["flagged"][1]


def test_without_suppression_nothing_is_flagged():
    r, data, _ = planted(n=1500)
    assert not any(fit_targets(r, data, normalise="minmax").explain().tables["weights"]["flagged"])
    assert "audit(features, data)" in Orchestrator(Shape(width=2, prompt=1)).explain().words[0]


def test_the_entropy_term_spreads_weights():
    r, data, _ = planted(n=400)
    mean = []
    for entropy in (0.0, 0.3):
        model = fit(
            r, data, bradley_terry(), parse("identity"), replace(OPTIONS, epochs=15, head=f"orchestrator:entropy={entropy}")
        ).models[0]
        targets = fit_targets(r, data, entropy=entropy)
        mean.append([simplex.entropy(weights_of(x, data)).mean() for x in (model, targets)])
    assert mean[1][0] > mean[0][0] + 0.1
    assert mean[1][1] > mean[0][1] + 0.01  # targets of random winners are nearly uniform already


def test_the_penalty_is_the_mean_of_f_log_f():
    model = Orchestrator(Shape(width=3, prompt=2), entropy=0.5, seed=4)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert model.penalty() is None
    model.sides(torch.zeros(5, 3), torch.zeros(5, 3), Given(prompt=x))
    found = model.penalty()
    assert found is not None
    assert found.item() == pytest.approx(-0.5 * simplex.entropy(weights_of_tensor(model, x)).mean(), abs=1e-6)
    assert model.penalty() is None


def weights_of_tensor(model, x):
    return model.weights(x).detach().numpy()


def test_one_objective_has_weight_one():
    r, data, _ = planted(n=100)
    data = replace(data, columns=("helpful",))
    for model in (
        fit(r[:, :1].copy(), data, bradley_terry(), parse("identity"), replace(OPTIONS, epochs=2)).models[0],
        fit_targets(r[:, :1].copy(), data),
    ):
        assert weights_of(model, data) == pytest.approx(1.0)


def test_constant_objectives_have_no_weight_and_are_named():
    r, data, _ = planted(n=200)
    r[:, 2] = 0.7
    model = fit_targets(r, data)
    assert weights_of(model, data)[:, 2].max() == 0
    assert model.explain().words[0] == "weight 0, because all training scores are the same: short"
    trained = fit(r, data, bradley_terry(), parse("identity"), replace(OPTIONS, epochs=2)).models[0]
    assert weights_of(trained, data)[:, 2].max() == 0
    assert np.isfinite(margins([trained], r, data)).all()
    with pytest.raises(InputError, match="every score of every objective"):
        fit_targets(np.ones_like(r), data)


def test_missing_scores_name_record_and_objective():
    r, data, _ = planted(n=50)
    r[7, 1] = np.nan
    for run in (lambda: fit_targets(r, data), lambda: fit(r, data, bradley_terry(), parse("identity"), OPTIONS)):
        with pytest.raises(InputError, match=r"1 of 300 scores are missing \(first: record 3, response row 7, objective harmless\)"):
            run()


def test_ties_have_no_winner():
    r, data, _ = planted(n=50)
    half = replace(data, p=np.where(np.arange(50) < 10, 0.5, data.p))
    with pytest.warns(UserWarning, match="10 of 50 records are ties"):
        fit_targets(r, half)
    with pytest.raises(InputError, match="none of the 50 records has a winner"):
        fit_targets(r, replace(data, p=np.full(50, 0.5)))


def test_targets_are_not_trained_by_a_run_of_comparisons():
    r, data, _ = planted(n=50)
    with pytest.raises(InputError, match=r"target=winner is fitted to weights.*fit_targets\(features, data, target='winner'\)"):
        fit(r, data, bradley_terry(), parse("identity"), replace(OPTIONS, head="orchestrator:target=winner"))
    with pytest.raises(InputError, match="learned from comparisons"):
        fit_targets(r, data, target="preference")
    with pytest.raises(InputError, match="reads the prompt"):
        fit_targets(r, replace(data, prompt=None, prompts=None))


def test_settings_that_make_no_sense():
    shape = Shape(width=2, prompt=1)
    for settings, match in (
        ({"temperature": 0.0}, "temperature is a positive number, not 0.0"),
        ({"target": "loser"}, "preference, winner or difference"),
        ({"normalise": "log"}, "zscore, minmax, rank or raw"),
        ({"entropy": -1.0}, "entropy is at least 0"),
    ):
        with pytest.raises(InputError, match=match):
            Orchestrator(shape, **settings)
    with pytest.raises(InputError, match="reads the prompt"):
        Orchestrator(Shape(width=2))
    with pytest.raises(InputError, match="give prompt vectors"):
        Orchestrator(shape).score(torch.zeros(1, 2), Given())


def test_a_reward_function_for_trainers():
    _, data, _, model = learned()
    assert isinstance(model, Orchestrator)

    def length(prompts, completions, **columns):
        return [len(text) / 10 for text in completions]

    def blank(prompts, completions, **columns):
        return [0.5 for _ in completions]

    def encode(prompts):
        return data.prompts[: len(prompts)]

    reward = OrchestratedReward([length, blank, blank], model, encode)
    found = reward(["p", "q"], ["yes", "certainly"], extra=[1, 2])
    table = torch.tensor([[0.3, 0.5, 0.5], [0.9, 0.5, 0.5]])
    assert data.prompts is not None
    hand = model.score(model.represent(table), Given(prompt=torch.from_numpy(data.prompts[:2])))
    assert found == pytest.approx(hand.tolist(), abs=1e-5)
    assert reward.__name__ == "orchestrated"
    with pytest.raises(InputError, match="weighs 3 rewards"):
        OrchestratedReward([length], model, encode)
    with pytest.raises(InputError, match="first: row 0, objective harmless"):
        OrchestratedReward([length, lambda p, c: [None] * len(c), blank], model, encode)(["p"], ["yes"])


def test_same_seed_same_bytes():
    r, data, _ = planted(n=100)
    one, two = (fit_targets(r, data).state_dict() for _ in range(2))
    assert all(torch.equal(one[key].nan_to_num(), two[key].nan_to_num()) for key in one)
