"""Users that are simulated: a memory and an exposure in, a distribution over the options out; how well that predicts recorded choices.

Anything with `simulate(memory, exposure)` is a simulator: here any scoring model of users and items, and a language model in
`cupel.annotate.language_simulator`. Evaluation as in method card 20-usersim: a label is drawn from the distribution, accuracy is the mean
over draws, then over scenes. Its expectation needs no draws and stands first; intervals resample whole users, whose scenes are not
independent.

A recommender must not be evaluated with a simulator that was trained on the same users' test interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cupel.annotate.scenes import Memory, Scenes
from cupel.curate.rationales import padded
from cupel.errors import InputError
from cupel.votes.intervals import Interval, cluster_bootstrap


class Simulator(Protocol):
    """Whatever turns a memory and an exposure (items by index) into a distribution over the exposure, float [n], that sums to 1."""

    def simulate(self, memory: Memory, exposure: np.ndarray) -> np.ndarray:
        """P of each option."""
        ...


@dataclass(frozen=True)
class ScoringSimulator:
    """A simulator by any scoring model: softmax of score(memory, items) / temperature.

    score: float [n] of the items of an exposure for what is known of a person, e.g. a recommender's scores of memory.user, or the utilities
    of a `cupel.learners.choice.ChoiceModel`. InputError for a temperature that is not positive and scores that are not finite.

    >>> popular = ScoringSimulator(lambda memory, items: np.log([8.0, 1.0, 1.0])[items])
    >>> popular.simulate(Memory(0, np.array([2])), np.array([1, 0])).round(3).tolist()
    [0.111, 0.889]
    """

    score: Callable[[Memory, np.ndarray], np.ndarray]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"a temperature is positive, not {self.temperature!r}")

    def simulate(self, memory: Memory, exposure: np.ndarray) -> np.ndarray:
        """float64 [n]."""
        scores = np.asarray(self.score(memory, exposure), np.float64)
        if scores.shape != (len(exposure),) or not np.isfinite(scores).all():
            raise InputError(f"user {memory.user}: the model gives {scores.shape} scores for {len(exposure)} items, or some are not finite")
        e = np.exp((scores - scores.max()) / self.temperature)
        return e / e.sum()


def distributions(simulator: Simulator, scenes: Scenes) -> np.ndarray:
    """The simulator's distribution of every scene, float64 [S, widest], 0 beyond a scene's options.

    A simulator with `simulate_scenes(scenes)`, which takes many at once, is asked through it. InputError for what is no distribution.
    """
    at_once: Any = getattr(simulator, "simulate_scenes", None)
    if at_once is not None:
        rows: Sequence[np.ndarray] = at_once(scenes)
    else:
        rows = [simulator.simulate(scenes.memory(s), scenes.options(s)) for s in range(len(scenes))]
    wrong = [s for s, row in enumerate(rows) if np.shape(row) != (int(scenes.sizes[s]),)]
    if wrong:
        raise InputError(f"{len(wrong):,} of {len(scenes):,} distributions are not one number per option (first: scene {wrong[0]})")
    found = padded([np.asarray(row, np.float64)[None] for row in rows], name="the simulator").p[:, 0]
    out = np.zeros(scenes.exposure.shape)
    out[:, : found.shape[1]] = found
    return out


@dataclass(frozen=True)
class Accuracy:
    """How well a simulator predicts recorded choices; intervals are 95 % over users.

    expected  mean p[a]: the accuracy of a drawn label; top: of the most likely label; drawn: mean over `repeats` draws, as the papers do
    chance    mean of 1 / options; guessed: scenes that were not read and count as uniform guesses; scenes, users: how many
    log_loss  mean of -log2 p[a]
    by_place  expected accuracy by the position of the recorded choice, first to last: a simulator that reads the options has no favourite
    """

    expected: Interval
    top: Interval
    drawn: float
    log_loss: Interval
    chance: float
    guessed: int
    scenes: int
    users: int
    by_place: tuple[float, ...]


def evaluate_simulator(
    simulator: Simulator | np.ndarray, scenes: Scenes, *, repeats: int = 3, seed: int = 0, draws: int = 1000
) -> Accuracy:  # fmt: skip
    """`Accuracy` of a simulator, or of its distributions [S, widest] (of `distributions`).

    A simulator that cannot read a scene (a context that is too long) names it in `guessed`, bool [S], and gives a uniform distribution.
    InputError for no scene.
    """
    if not len(scenes):
        raise InputError("no scene: there is nothing to predict")
    p = simulator if isinstance(simulator, np.ndarray) else distributions(simulator, scenes)
    if p.shape != scenes.exposure.shape:
        raise InputError(f"distributions {p.shape} for scenes {scenes.exposure.shape}: one row per scene, one column per option")
    a, rows = scenes.chosen, np.arange(len(scenes))
    hit = p[rows, a]
    best = p.max(axis=1)
    ties = (p == best[:, None]).sum(axis=1)
    top = (hit == best) / ties  # a uniform guess is right as often as chance
    uniform = np.random.default_rng([seed, 25]).random((len(scenes), repeats))
    label = (p.cumsum(axis=1)[:, :, None] <= uniform[:, None, :]).sum(axis=1)
    label = np.minimum(label, scenes.sizes[:, None] - 1)
    told: Any = getattr(simulator, "guessed", None)
    of: dict[str, Any] = {"seed": seed, "draws": draws}
    users = scenes.user
    return Accuracy(
        cluster_bootstrap(hit, users, clip=(0, 1), **of), cluster_bootstrap(top, users, clip=(0, 1), **of),
        float((label == a[:, None]).mean()), cluster_bootstrap(-np.log2(np.maximum(hit, 1e-10)), users, **of),
        float((1 / scenes.sizes).mean()), 0 if told is None else int(np.sum(told)), len(scenes), len(np.unique(users)),
        tuple(float(hit[a == k].mean()) if (a == k).any() else float("nan") for k in range(p.shape[1])),
    )  # fmt: skip


def compare_simulators(one: np.ndarray, other: np.ndarray, scenes: Scenes, *, seed: int = 0, draws: int = 1000) -> Interval:
    """Expected accuracy of `one` minus that of `other` (distributions of the same scenes), with its 95 % interval over users."""
    rows = np.arange(len(scenes))
    return cluster_bootstrap(one[rows, scenes.chosen] - other[rows, scenes.chosen], scenes.user, seed=seed, draws=draws)
