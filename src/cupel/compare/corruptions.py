"""The ways in which a comparison makes labels wrong, in one table: a new one is an entry here, a line in docs/compare.md and its test.

Every way is one of `cupel.records.corrupt` on the decided rows of a data set. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.records import corrupt

if TYPE_CHECKING:
    from cupel.compare.data import Data
    from cupel.compare.spec import Case


@dataclass(frozen=True)
class Planted:
    """Labels of a case: winner +1 or -1 of every row [n], annotator int [n] (-1 unknown) with their names, and the share of rows
    whose label was exchanged."""  # fmt: skip

    sign: np.ndarray
    annotator: np.ndarray
    annotators: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Asked:
    """What a way of planting is given: the rate (nan where the kind has none), its settings, the seed, and how hard each row is."""

    rate: float
    settings: Mapping[str, Any]
    seed: int
    difficulty: np.ndarray


@dataclass(frozen=True)
class Kind:
    """One way: its function, whether it takes a rate, its settings with their defaults, and whether it reads `difficulties`."""

    plant: Callable[[Data, Asked], Planted]
    rated: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    hard: bool = False


def plant(data: Data, case: Case, seed: int, difficulty: np.ndarray | None = None) -> Planted:
    """The labels that a case gives all rows (training, validation and test; test labels are not used), by the seed.

    difficulty float [n], of `difficulties`: for the kinds that say they need it. The case "clean" plants nothing, and the truth stands
    where it is known. InputError where the data does not have what the kind needs.
    """
    if case.corruption == "clean":
        return Planted(data.reference, data.votes.annotator, data.votes.annotators, 0.0)
    kind = KINDS[case.corruption]
    if kind.hard and difficulty is None:
        raise ValueError(f"{case.corruption} needs difficulties")
    hard = np.zeros(len(data.votes)) if difficulty is None else difficulty
    return kind.plant(data, Asked(float("nan") if case.rate is None else case.rate, dict(case.settings), seed, hard))


def _flipped(data: Data, mask: np.ndarray) -> Planted:
    """The recorded labels with those of the mask exchanged, annotators as they are."""
    sign = np.where(mask, -data.votes.sign, data.votes.sign).astype(np.int8)
    return Planted(sign, data.votes.annotator, data.votes.annotators, float(mask.mean()))


def _none(data: Data, asked: Asked) -> Planted:
    return _flipped(data, np.zeros(len(data.votes), dtype=bool))


def _symmetric(data: Data, asked: Asked) -> Planted:
    return _flipped(data, np.random.default_rng([asked.seed, 977]).random(len(data.votes)) < asked.rate)


def _length(data: Data, asked: Asked) -> Planted:
    return _flipped(data, corrupt.flip_length_biased(data.votes, asked.rate, 7000 + asked.seed)[1])


def _position(data: Data, asked: Asked) -> Planted:
    side = asked.settings["side"]
    if side not in ("first", "second"):
        raise InputError(f"corruption position: side is first or second, not {side!r}")
    return _flipped(data, corrupt.flip_position_biased(data.votes, asked.rate, 7000 + asked.seed, side=side)[1])


def _topics(data: Data, asked: Asked) -> Planted:
    share = asked.settings["share"]
    return _flipped(data, corrupt.flip_some_groups(data.votes, asked.rate, 7000 + asked.seed, groups=data.group, share=share)[1])


def _difficulty(data: Data, asked: Asked) -> Planted:
    draw = np.random.default_rng([asked.seed, 978]).random(len(data.votes))
    return _flipped(data, draw < flip_chance(asked.difficulty, asked.rate))


def _close_calls(data: Data, asked: Asked) -> Planted:
    return _flipped(data, corrupt.flip_hard_pairs(data.votes, -asked.difficulty, asked.rate, 7000 + asked.seed)[1])


def _annotators(data: Data, asked: Asked) -> Planted:
    shares = {key: asked.settings[key] for key in ("random", "adversarial")}
    bad, mask = corrupt.corrupt_annotators(data.votes, asked.settings["n"], **shares, seed=7000 + asked.seed)
    return Planted(bad.sign, _names(bad.annotator, asked), bad.annotators, float(mask.mean()))


def _pool(kind: corrupt.Pool) -> Kind:
    def dealt(data: Data, asked: Asked) -> Planted:
        rates = corrupt.annotator_rates(kind, asked.rate, asked.settings["n"], 7000 + asked.seed)
        bad, mask = corrupt.flip_by_annotator(data.votes, rates, 8000 + asked.seed)
        return Planted(bad.sign, _names(bad.annotator, asked), bad.annotators, float(mask.mean()))

    return Kind(dealt, settings={"n": 20, "shuffled": False})


def _names(who: np.ndarray, asked: Asked) -> np.ndarray:
    """Annotators of rows; shuffled: dealt anew, so that a treatment gets from names only what names alone give."""
    return np.random.default_rng([asked.seed, 42]).permutation(who) if asked.settings.get("shuffled") else who


def _judge(data: Data, asked: Asked) -> Planted:
    """The truth, answered as one annotator of this data answers it: with the confusion of that one's votes, ties left out."""
    name, votes = str(asked.settings["annotator"]), data.votes
    if data.truth is None:
        raise InputError("corruption judge: the data has no truth (a gold column), so nobody's confusion can be read off it")
    if name not in votes.annotators:
        known = ", ".join(sorted(votes.annotators)[:5]) or "none"
        raise InputError(f"corruption judge: nobody is called {name!r}; write judge:annotator=NAME with one of the annotators ({known})")
    cast = (votes.annotator == votes.annotators.index(name)) & (data.truth != 0)
    if int(cast.sum()) < 30:
        raise InputError(f"corruption judge: {name} has {int(cast.sum())} votes on rows whose truth is known; 30 say what errors they make")
    truth, said = data.truth[cast].astype(int), votes.sign[cast].astype(int)
    if not votes.order_known:  # `first` may be "the chosen one": no habit of naming a side can be told, only how often it is right
        truth, said = np.concatenate([truth, -truth]), np.concatenate([said, -said])
    confusion = corrupt.judge_confusion(truth, said)
    if not all((truth == side).any() for side in (-1, 1)):
        raise InputError(f"corruption judge: all votes of {name} are on rows where the same side is right: half of the habit is unknown")
    confusion[1] = [0.0, 1.0, 0.0]
    right = votes.with_(outcome=np.where(data.reference > 0, 0, 1).astype(votes.outcome.dtype), p=(data.reference > 0).astype(float))
    sign = corrupt.answer_like_judge(right, confusion, 7000 + asked.seed)[0].sign
    return Planted(sign, votes.annotator, votes.annotators, float((sign != data.reference).mean()))


#: name -> kind; the order is that of the documentation
KINDS: dict[str, Kind] = {
    "none": Kind(_none, rated=False),
    "symmetric": Kind(_symmetric),
    "length": Kind(_length),
    "position": Kind(_position, settings={"side": "first"}),
    "topics": Kind(_topics, settings={"share": 0.25}),
    "difficulty": Kind(_difficulty, hard=True),
    "close_calls": Kind(_close_calls, hard=True),
    "annotators": Kind(_annotators, rated=False, settings={"n": 20, "random": 0.2, "adversarial": 0.1, "shuffled": False}),
    "spammers": _pool("spammers"),
    "adversaries": _pool("adversaries"),
    "few_bad": _pool("few_bad"),
    "many_mild": _pool("many_mild"),
    "judge": Kind(_judge, rated=False, settings={"annotator": ""}),
}


def flip_chance(difficulty: np.ndarray, rate: float) -> np.ndarray:
    """P(exchanged) of each row: proportional to the rank of its difficulty, cut at one half, with mean `rate` in [0, 1/2).

    >>> flip_chance(np.array([3.0, 1.0, 2.0, 4.0]), 0.25).tolist()
    [0.3, 0.1, 0.2, 0.4]
    """
    rank = np.empty(len(difficulty))
    rank[np.argsort(difficulty, kind="stable")] = np.arange(1, len(difficulty) + 1) / len(difficulty)
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * rank, 0.5).mean() < rate else (low, middle)
    return np.round(np.minimum(high * rank, 0.5), 12)


def difficulties(data: Data, seed: int) -> np.ndarray:
    """How hard each pair is to tell apart, float64 [n]: minus the size of the margin of a linear head that did not see the row's group
    (trained on the reference labels)."""  # fmt: skip
    from cupel.learners.sides import Scaling
    from cupel.votes.linear_head import out_of_fold

    table = Scaling.fit(data.sides).apply(data.sides.embedding, data.sides.facts)
    first, second = table[data.sides.first], table[data.sides.second]
    found = out_of_fold(
        first, second, (data.reference > 0).astype(float), groups=data.group, seed=seed, folds=3, ridges=(0.1 * len(first),)
    )
    return -np.abs(found.margin)
