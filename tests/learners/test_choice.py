"""The model of choices: planted utilities are found, gradients and losses against a slow twin, saving, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cupel.errors import InputError  # noqa: E402
from cupel.learners.choice import ChoiceModel, fit_choice, softmax  # noqa: E402


def planted(seed: int = 0, scenes: int = 1500, n: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(scenes, n, 3)) * [1, 5, 0.2] + [0, 3, 1]
    p = softmax(x @ np.array([1.0, -0.3, 4.0]))
    chosen = (p.cumsum(axis=1) <= rng.random((scenes, 1))).sum(axis=1).clip(0, n - 1)
    return x, chosen, p


def test_planted_utilities_are_found() -> None:
    x, chosen, truth = planted()
    model = fit_choice(x, chosen, hidden=0, epochs=150, learning_rate=0.1, decay=0.0)
    theta = model.weights["theta"] / model.spread
    assert theta == pytest.approx([1.0, -0.3, 4.0], rel=0.15)
    other, _, p = planted(1)
    assert model.probabilities(other) == pytest.approx(p, abs=0.06)
    assert np.abs(model.probabilities(x) - truth).mean() < 0.02


def test_the_linear_fit_is_the_maximum_of_the_likelihood() -> None:
    """The twin: the conditional logit's log-likelihood in numpy, by scipy."""
    from scipy.optimize import minimize

    x, chosen, _ = planted(2, 200)
    rows = np.arange(200)

    def loss(theta: np.ndarray) -> float:
        return -float(np.log(softmax(x @ theta)[rows, chosen]).mean())

    best = minimize(loss, np.zeros(3), method="BFGS")
    model = fit_choice(x, chosen, hidden=0, epochs=400, learning_rate=0.1, decay=0.0)
    assert loss(model.weights["theta"] / model.spread) == pytest.approx(best.fun, abs=1e-5)


def test_what_a_record_is_believed_to_say() -> None:
    """(p, w): with one parameter the optimum has a closed form, P(first) = sum w p over all weights."""
    x = np.tile([[[1.0], [0.0]]], (10, 1, 1))
    p, w = np.full(10, 0.8), np.array([1.0] * 8 + [4.0] * 2)
    chosen = np.array([0] * 8 + [1] * 2)
    model = fit_choice(x, chosen, p=p, w=w, hidden=0, epochs=400, learning_rate=0.05, decay=0.0, standardise=False)
    wanted = (8 * 0.8 + 8 * 0.2) / 16
    assert model.probabilities(x[:1])[0, 0] == pytest.approx(wanted, abs=1e-3)


def test_padding_and_order_change_nothing() -> None:
    x, chosen, _ = planted(3, 100)
    turn = np.random.default_rng(0).permutation(4)
    one = fit_choice(x, chosen, epochs=20)
    other = fit_choice(x[:, turn], np.argsort(turn)[chosen], epochs=20)
    assert other.utilities(x) == pytest.approx(one.utilities(x), abs=1e-4)
    wide = np.concatenate([x, np.full((100, 2, 3), 77.0)], axis=1)
    mask = np.tile([True] * 4 + [False] * 2, (100, 1))
    padded = fit_choice(wide, chosen, mask=mask, epochs=20)
    assert padded.utilities(x) == pytest.approx(one.utilities(x), abs=1e-4)
    assert (padded.probabilities(wide, mask)[:, 4:] == 0).all()


def test_a_hidden_layer_learns_what_a_line_cannot() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(800, 3, 1))
    chosen = np.abs(x[:, :, 0]).argmax(axis=1)
    deep, flat = (fit_choice(x, chosen, hidden=h, epochs=200, learning_rate=0.02) for h in (16, 0))
    assert (deep.probabilities(x).argmax(axis=1) == chosen).mean() > 0.9
    assert (flat.probabilities(x).argmax(axis=1) == chosen).mean() < 0.6


def test_another_objective_and_the_seed() -> None:
    from cupel.objectives.listwise import plackett_luce

    x, chosen, _ = planted(5, 100, 2)
    one, same, other = (fit_choice(x, chosen, epochs=5, seed=s).utilities(x) for s in (0, 0, 1))
    assert (one == same).all()
    assert not np.allclose(one, other)
    pairs = fit_choice(x, chosen, epochs=5, objective=plackett_luce()).utilities(x)  # of two options it is the same loss
    assert pairs == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("hidden", [0, 8])
def test_saved_and_loaded(tmp_path: Path, hidden: int) -> None:
    x, chosen, _ = planted(6, 50)
    model = fit_choice(x, chosen, hidden=hidden, epochs=3)
    model.save(tmp_path / "one")
    model.save(tmp_path / "two")
    assert (ChoiceModel.load(tmp_path / "one").utilities(x) == model.utilities(x)).all()
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    (tmp_path / "two/config.json").write_text('{"format": "other"}')
    for place in ("two", "none"):
        with pytest.raises(InputError, match="holds no choice model"):
            ChoiceModel.load(tmp_path / place)


def test_bad_input() -> None:
    x, chosen, _ = planted(7, 20)
    spoilt = x.copy()
    spoilt[3, 1, 0] = np.nan
    with pytest.raises(InputError, match=r"not finite .first: scene 3"):
        fit_choice(spoilt, chosen)
    with pytest.raises(InputError, match=r"no option of their scene .first: scene 0"):
        fit_choice(x, np.full(20, 9))
    with pytest.raises(InputError, match="fewer than 2 options"):
        fit_choice(x, np.zeros(20, int), mask=np.tile([True, False, False, False], (20, 1)))
    with pytest.raises(InputError, match="p is one number per scene, between 0 and 1"):
        fit_choice(x, chosen, p=np.full(20, 1.5))
    with pytest.raises(InputError, match="all weights are 0"):
        fit_choice(x, chosen, w=np.zeros(20))
    with pytest.raises(InputError, match="no scene"):
        fit_choice(x[:0], chosen[:0])
    with pytest.raises(InputError, match="reads 3 features"):
        fit_choice(x, chosen, epochs=1).utilities(x[:, :, :2])
    with pytest.raises(InputError, match="go with them"):
        fit_choice(x, chosen[:5])
