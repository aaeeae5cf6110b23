"""Are the texts to be scored like those that a reward model was trained on? From the summary that its folder holds, without its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cupel.evaluate.ensembles import BEYOND
from cupel.evaluate.paired import Share
from cupel.evaluate.probabilities import mean
from cupel.records.schema import Votes

if TYPE_CHECKING:
    from cupel.learners.familiar import Unlike

#: what alike sides would have beyond a 99th percentile
EXPECTED = 0.01
#: groups of new rows below which prompts are what intervals resample, and prompts below which single sides are
FEWEST_GROUPS = 10


@dataclass(frozen=True)
class Outside:
    """New sides against a model's training sides.

    beyond  share of the new (prompt, response) further from the training ones than 99 % of those; .01 if alike
    allowed the largest share that alike sides may have: .02, or more where the limit rests on few training sides
    """

    beyond: Share
    allowed: float

    @property
    def warns(self) -> bool:
        """The new sides are surely unlike: the lower end of `beyond` is above what is allowed."""
        return (self.beyond.low or 0) > self.allowed

    @property
    def words(self) -> list[str]:
        """A warning in one sentence; nothing where there is nothing to warn of."""
        if not self.warns:
            return []
        return [
            f"Out of distribution: {_percent(self.beyond.estimate)} (95 % {_percent(self.beyond.low)} to {_percent(self.beyond.high)}) of "
            f"{self.beyond.n:,} responses lie further from the training texts than 99 % of those do ({_percent(EXPECTED)} is expected). "
            "What the model scores here is extrapolated: hold it against some votes on these rows, or train on rows like them."
        ]

    def to_json(self) -> dict[str, Any]:
        """All fields, what is expected, and whether it warns."""
        return {"beyond": self.beyond.to_json(), "expected": EXPECTED, "allowed": self.allowed, "warns": self.warns}


class Part(NamedTuple):
    """The sides of a part of a file: whether each lies too far, its group, its prompt (numbered within the part); how many training sides
    the limit rests on."""

    far: np.ndarray
    group: np.ndarray
    prompt: np.ndarray
    held: int

    @classmethod
    def of(cls, found: Unlike, votes: Votes) -> Part:
        """From what a model says of some votes."""
        return cls(found.far, votes.group[found.vote], votes.prompt[found.vote], found.held)


def outside(parts: Sequence[Part], *, seed: int = 0, draws: int = 300) -> Outside | None:
    """The sides of a file, in one or more parts, against the training sides; None without a part.

    Interval over groups of the file, over prompts where there are fewer than 10 groups, over single sides where there are fewer than 10
    prompts. The limit is an order statistic of h training sides: the share of alike sides beyond it is Beta(.01 h + 1, .99 h), whose 97.5 %
    quantile is allowed, and .02 (`cupel.evaluate.ensembles.BEYOND`) at least.

    >>> rng = np.random.default_rng(0)
    >>> alike, other = (Part(rng.random(2000) < share, np.arange(2000) // 4, np.arange(2000) // 4, 4000) for share in (0.01, 0.06))
    >>> outside([alike]).words, outside([other]).words[0][:29]
    ([], 'Out of distribution: 6.2 % (9')
    """
    from scipy.stats import beta

    if not parts:
        return None
    far = np.concatenate([part.far for part in parts]).astype(np.float64)
    group = np.concatenate([part.group for part in parts])
    start = np.cumsum([0, *(int(part.prompt.max(initial=-1)) + 1 for part in parts)])
    prompt = np.concatenate([part.prompt.astype(np.int64) + at for part, at in zip(parts, start, strict=False)])
    by = next((one for one in (group, prompt) if len(np.unique(one)) >= FEWEST_GROUPS), np.arange(len(far)))
    held = parts[0].held
    allowed = max(BEYOND, float(beta.ppf(0.975, EXPECTED * held + 1, (1 - EXPECTED) * held)))
    return Outside(mean(far, by, seed, draws, (0.0, 1.0)), allowed)


def outside_of(
    models: Mapping[str, Any], votes: Votes, *, sides: dict[str, Any] | None = None, seed: int = 0, draws: int = 300
) -> dict[str, Outside]:
    """`outside` of each model whose folder says where its training texts lay; the others are left out.

    sides: what models with the same encoder read, by its hash, as `margins_of` leaves it.
    """
    sides = {} if sides is None else sides
    out = {}
    for name, model in models.items():
        if getattr(model, "familiar", None) is None:
            continue
        given = {}
        if hasattr(model, "encoder_hash"):
            if model.encoder_hash not in sides:
                sides[model.encoder_hash] = model.sides(votes)
            given["sides"] = sides[model.encoder_hash]
        told = outside([Part.of(model.unlike(votes, **given), votes)], seed=seed, draws=draws)
        if told is not None:
            out[name] = told
    return out


def not_known(names: Iterable[str]) -> list[str]:
    """A sentence for models whose folders do not say where their training texts lay; nothing without a name.

    >>> not_known(["a", "b"])[0][:74], not_known([])
    ('Whether these texts are like those that a, b were trained on is not known:', [])
    """
    who = ", ".join(names)
    return [
        f"Whether these texts are like those that {who} were trained on is not known: nothing of them is kept there (an older or another "
        "tool's folder, or fewer than 200 training responses)."
    ] * bool(who)


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.1f} %"
