"""L(n, N) = c + a n^-b + d N^-e: planted numbers come back, intervals hold them, and what the data do not tell has no number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from cupel.errors import InputError
from cupel.evaluate.joint_scaling import NAMES, _design, _fits, _polished, _solve, fit_joint

PLANTED = (0.3, 4.0, 0.35, 10.0, 0.25)
SIZED = ("floor", "data_exponent", "model_exponent")


def grid(data=4, model=4):
    n, size = np.meshgrid(np.geomspace(1e3, 1e6, data), np.geomspace(1e6, 1e9, model))
    return n.reshape(-1), size.reshape(-1)


def law(n, size, planted=PLANTED):
    c, a, b, d, e = planted
    return c + a * n**-b + d * size**-e


def noisy(n, size, planted=PLANTED, spread=0.003, rows=6, seed=0):
    return law(n, size, planted) + spread * np.random.default_rng(seed).normal(size=(rows, len(n)))


@pytest.mark.parametrize("planted", [PLANTED, (0.0, 3.0, 0.1, 5.0, 0.4), (0.5, 200.0, 1.0, 3e4, 0.8)])
def test_planted_numbers_come_back(planted):
    n, size = grid()
    found = fit_joint(n, size, law(n, size, planted))
    for name, value in zip(NAMES, planted, strict=True):
        assert found.estimate[name] == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert found.rms < 1e-9
    assert abs(found.heldout["error"]) < 1e-6
    np.testing.assert_allclose(found.at(n, size), law(n, size, planted), atol=1e-8)


def test_points_need_not_fill_the_grid():
    n, size = grid(5, 4)
    kept = (np.arange(len(n)) % 5) + np.arange(len(n)) // 5 < 6  # large models were not trained on much
    found = fit_joint(n[kept], size[kept], law(n, size)[kept])
    assert [found.estimate[name] for name in NAMES] == pytest.approx(PLANTED, rel=1e-3)


def test_least_squares_are_those_of_nnls():
    rng = np.random.default_rng(0)
    design = _design(*grid(), rng.uniform(0.05, 1, 30), rng.uniform(0.05, 1, 30))
    losses = rng.uniform(0.2, 1, (16, 4))
    found, square = _solve(design, losses)
    for g in range(30):
        for q in range(4):
            slow, norm = nnls(design[g], losses[:, q])
            np.testing.assert_allclose(found[g, q], slow, atol=1e-8)
            assert square[g, q] == pytest.approx(norm**2, abs=1e-10)
    without, _ = _solve(design, losses, {1, 2})
    assert (without[..., 0] == 0).all()
    np.testing.assert_allclose(without[3, 2, 1:], nnls(design[3][:, 1:], losses[:, 2])[0], atol=1e-8)


def test_fast_fits_agree_with_the_polished_ones():
    n, size = grid()
    losses = noisy(n, size, spread=0.01, rows=5)
    for row, fast in zip(losses, _fits(n, size, losses), strict=True):
        squares = [float(((law(n, size, one) - row) ** 2).sum()) for one in (fast, _polished(n, size, row))]
        assert squares[1] <= squares[0] <= squares[1] * (1 + 1e-4)


def test_intervals_hold_the_planted_numbers():
    """`benchmarks/worldpm.py` counts over many more."""
    n, size = grid()
    inside = []
    for seed in range(4):
        found = fit_joint(n, size, noisy(n, size, seed=seed), seed=seed, draws=60)
        truth = dict(zip(NAMES, PLANTED, strict=True))
        inside += [found.low[name] <= truth[name] <= found.high[name] for name in SIZED]
        assert all(found.estimate[name] is not None for name in NAMES)
    assert sum(inside) >= 10
    assert found.replicates == 6
    json.dumps(found.to_json(), allow_nan=False)


def test_one_curve_has_the_intervals_of_its_residuals():
    n, size = grid(5, 5)
    found = fit_joint(n, size, noisy(n, size, rows=1)[0])
    for name, value in zip(NAMES, PLANTED, strict=True):
        if name in SIZED:
            assert found.low[name] <= value <= found.high[name]
            assert found.high[name] - found.low[name] < 0.3


@pytest.mark.parametrize(("term", "name", "words"), [(3, "model", "size of the model"), (1, "data", "comparisons")])
def test_a_term_that_is_not_there_has_no_number(term, name, words):
    n, size = grid(5, 5)
    planted = [*PLANTED]
    planted[term] = 0.0
    other = "data" if name == "model" else "model"
    found = fit_joint(n, size, noisy(n, size, planted, seed=1), draws=60)
    assert found.estimate[f"{name}_exponent"] is None
    assert found.estimate[f"{name}_scale"] is None
    assert any(f"The exponent of the {words} is not identified" in line for line in found.words)
    assert found.estimate[f"{other}_exponent"] == pytest.approx(PLANTED[2 if other == "data" else 4], abs=0.05)


def test_a_floor_that_may_be_anywhere_has_no_number():
    """One decade of data, small exponents: nearly any floor fits."""
    n, size = (x.reshape(-1) for x in np.meshgrid(np.geomspace(1e3, 1e4, 4), np.geomspace(1e6, 1e7, 4)))
    found = fit_joint(n, size, noisy(n, size, (0.1, 0.6, 0.08, 0.8, 0.06), 0.03), draws=60)
    assert found.estimate["floor"] is None
    assert any("floor is not identified" in line for line in found.words)
    assert found.low["floor"] <= 0.1 <= found.high["floor"]


def test_order_of_points_means_nothing():
    n, size = grid()
    losses = noisy(n, size)
    order = np.random.default_rng(0).permutation(len(n))
    one, two = (fit_joint(n[k], size[k], losses[:, k], draws=50).to_json() for k in (np.arange(len(n)), order))
    assert one == two


@pytest.mark.parametrize(
    ("n", "size", "losses", "said"),
    [
        ([1, 2, 3, 4, 5, 6], [7] * 6, [1] * 6, "1 different model size: .*power of the model size cannot be told"),
        ([1, 2] * 3, [1, 1, 2, 2, 3, 3], [1] * 6, "2 different data sizes"),
        ([1, 2, 3, 1, 1], [1, 1, 1, 2, 3], [1] * 5, "5 points for five unknowns"),
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [1] * 6, "move together"),
        ([1, 2, 1, 2, 5, 6, 5, 6], [1, 1, 2, 2, 5, 5, 6, 6], [1] * 8, "move together"),  # two squares that do not touch
        ([1, 2, 3, 1, 2, 1, 1], [1, 1, 1, 2, 2, 3, 3], [1] * 7, "1 points are given twice"),
        ([1, 2, 3, 1, 2, 0], [1, 1, 1, 2, 2, 3], [1] * 6, "above 0"),
        ([1, 2, 3, 1, 2, 3], [1, 1, 1, 2, 2, 3], [1, 1, 1, 1, 1, np.nan], "above 0"),
        ([1, 2, 3], [1, 2], [1, 2, 3], "all three for each point"),
    ],
)  # fmt: skip
def test_bad_input(n, size, losses, said):
    with pytest.raises(InputError, match=said):
        fit_joint(np.array(n, float), np.array(size, float), np.array(losses, float))


def test_the_sample_of_the_docs_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "trust.md").read_text("utf-8")
    samples = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    (sample,) = [sample for sample in samples if "fit_joint" in sample]
    exec(sample, {})
    said = capsys.readouterr().out
    assert "Exponent of the comparisons: 0.3" in said
