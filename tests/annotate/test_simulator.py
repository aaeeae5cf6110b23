"""Simulators by scores, their evaluation by hand, scenes in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cupel.annotate.exposure import Random
from cupel.annotate.scene_text import SceneText, ago
from cupel.annotate.scenes import Memory, Scenes, build_scenes
from cupel.annotate.simulator import ScoringSimulator, compare_simulators, distributions, evaluate_simulator
from cupel.errors import InputError
from cupel.interactions.log import Log


def scenes(choices: int | tuple[int, int] = 5, n: int = 1500) -> Scenes:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 50, n), rng.integers(0, 80, n)
    log = Log.of(user, item, time=np.arange(n) * 3600, value=np.full(n, 4.5, np.float32), texts=tuple(f"Film {i}" for i in range(80)))
    return build_scenes(log, [Random(80)], choices=choices, seed=1, released="none")


def test_evaluation_by_hand() -> None:
    found = scenes((2, 5)).take(np.arange(40))
    rng = np.random.default_rng(1)
    p = np.zeros(found.exposure.shape)
    for s in range(40):
        p[s, : found.sizes[s]] = rng.dirichlet(np.ones(found.sizes[s]))
    told = evaluate_simulator(p, found, repeats=4000)
    hits = [p[s, found.chosen[s]] for s in range(40)]
    assert told.expected.estimate == pytest.approx(np.mean(hits))
    assert told.top.estimate == pytest.approx(np.mean([p[s].argmax() == found.chosen[s] for s in range(40)]))
    assert told.log_loss.estimate == pytest.approx(np.mean([-np.log2(h) for h in hits]))
    assert told.drawn == pytest.approx(told.expected.estimate, abs=0.01)
    assert told.chance == pytest.approx(np.mean([1 / n for n in found.sizes]))
    assert told.by_place[1] == pytest.approx(np.mean([h for h, a in zip(hits, found.chosen, strict=True) if a == 1]))
    assert (told.scenes, told.users, told.guessed) == (40, len(set(found.user.tolist())), 0)
    assert told.expected.groups == told.users


def test_intervals_are_over_users() -> None:
    """Scenes of one user that are all alike are one observation."""
    found = scenes()
    p = np.where(found.user[:, None] % 2 == 0, np.eye(5)[found.chosen], np.full((1, 5), 0.2))
    told = evaluate_simulator(p, found)
    naive = 1.96 * p[np.arange(len(found)), found.chosen].std() / np.sqrt(len(found))
    assert told.expected.width / 2 > 3 * naive


def test_a_uniform_guess_is_right_by_chance() -> None:
    found = scenes((2, 6))
    told = evaluate_simulator(ScoringSimulator(lambda memory, items: np.zeros(len(items))), found)
    assert told.expected.estimate == pytest.approx(told.chance)
    assert told.top.estimate == pytest.approx(told.chance)


def test_scoring_models_and_their_comparison() -> None:
    found = scenes()
    truth = {(int(u), int(i)) for u, i in zip(found.user, found.log.item[found.event], strict=True)}

    def knows(memory: Memory, items: np.ndarray) -> np.ndarray:
        return np.array([3.0 if (memory.user, int(i)) in truth else 0.0 for i in items])

    one, other = (distributions(ScoringSimulator(knows, temperature=t), found) for t in (1.0, 3.0))
    assert one[0, found.chosen[0]] == pytest.approx(np.exp(3) / (np.exp(3) + 4), abs=1e-6)
    gain = compare_simulators(one, other, found)
    assert gain.estimate == pytest.approx(np.exp(3) / (np.exp(3) + 4) - np.e / (np.e + 4), abs=1e-6)
    assert gain.low > 0
    assert evaluate_simulator(one, found).top.estimate == 1


def test_bad_simulators() -> None:
    found = scenes().take(np.arange(5))

    class Wrong:
        def simulate(self, memory: Memory, exposure: np.ndarray) -> np.ndarray:
            return np.full(3, 1 / 3)

    with pytest.raises(InputError, match="5 of 5 distributions"):
        distributions(Wrong(), found)
    with pytest.raises(InputError, match="temperature"):
        ScoringSimulator(lambda memory, items: items, temperature=0)
    with pytest.raises(InputError, match="not finite"):
        ScoringSimulator(lambda memory, items: np.full(len(items), np.nan)).simulate(found.memory(0), found.options(0))
    with pytest.raises(InputError, match="no scene"):
        evaluate_simulator(np.zeros((0, 5)), found.take(np.zeros(0, int)))
    with pytest.raises(InputError, match="one row per scene"):
        evaluate_simulator(np.zeros((2, 5)), found)


def test_scenes_in_words(tmp_path: Path) -> None:
    found = scenes(3)
    text = SceneText(found.log.texts or ())
    said = text.prompts(found)[7]
    memory = found.memory(7)
    for n, item in enumerate(memory.items.tolist()):
        assert memory.time is not None
        assert memory.now is not None
        assert f"- Film {item}, rated 4.5, viewed {ago(memory.now - int(memory.time[n]))}" in said
    for letter, item in zip("ABC", found.options(7).tolist(), strict=True):
        assert f"{letter}. Film {item}\n" in said
    assert "Stimulus" in said
    assert "Stimulus" not in text.prompts(found, "direct")[7]
    ended = SceneText(["A film. Drama."] * 80).scene(memory, found.options(7))
    assert "- A film. Drama, rated 4.5" in ended
    odd = SceneText(["costs $9 {x} $options\nnew line"] * 80)
    assert "A. costs $9 {x} $options new line" in odd.scene(memory, found.options(7))
    mine = tmp_path / "scene.txt"
    mine.write_text("$history / $options / $$")
    assert SceneText(("x", "y"), {"scene": mine}).scene(Memory(0, np.array([1])), np.array([0, 1])) == "- y / A. x\nB. y / $"
    for bad in ("$history", "$history $options $price", "$history $options $"):
        mine.write_text(bad)
        with pytest.raises(InputError, match="may name"):
            SceneText(("x",), {"scene": mine})
    with pytest.raises(InputError, match="cannot be read"):
        SceneText(("x",), {"scene": tmp_path / "none.txt"})
    with pytest.raises(InputError, match="no template 'story'"):
        SceneText(("x",), {"story": mine})
