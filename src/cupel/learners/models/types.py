"""What a preference model is: vectors of two responses in, two sides out, with what is known about the prompt, the person and the context.

A reward gives each response one number. A model here may look at more: who compares, under which criterion, or both responses at once.
Whatever it looks at, it gives two `Side`s, so that every objective and every treatment of noise applies to it unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.objectives.types import Need, Side

if TYPE_CHECKING:
    from cupel.learners.heads.data import Comparisons

#: what a model may look at beside the two responses
Reads = Literal["prompt", "person", "context"]


class Given(NamedTuple):
    """What is known about each of B comparisons (or, for scores, of B responses). A model names what it reads in `reads`.

    prompt   float [B, d]  vector of the prompt
    person   int64 [B]     index of the annotator, -1 where unknown
    context  float [B, c]  vector of the criterion or situation in which the comparison was made
    """

    prompt: Tensor | None = None
    person: Tensor | None = None
    context: Tensor | None = None

    def map(self, function: Any) -> Given:
        """The same with `function` applied to each tensor that is there (rows taken, moved, cast)."""
        return Given(*(None if x is None else function(x) for x in self))


@dataclass(frozen=True)
class Shape:
    """What a model is built for: width of a response's vector, of a prompt's and a context's (0 where there is none), number of people.

    names  of the columns of a response's vector, where they mean something (features, rewards, attributes)
    """

    width: int
    prompt: int = 0
    people: int = 0
    context: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What a model has learned: sentences, and tables by name, each a mapping of column names to equally many values (JSON's)."""

    words: tuple[str, ...] = ()
    tables: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)

    def recorded(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"words": list(self.words), "tables": {name: {k: list(v) for k, v in table.items()} for name, table in self.tables.items()}}


class PreferenceModel(nn.Module):
    """Base of the models. A file of this package that sets `MODEL` to a subclass is found by its `name`.

    name      what recipes call it; the arguments after `shape` of its constructor are its settings (numbers, words, booleans)
    summary   one line
    reads     what it looks at beside the responses; where settings decide, `reading` says it and the constructor sets it before the base's
    named     whether its columns have to mean something by name (features, rewards): it does not read embeddings
    gives     fields of a side that it fills; objectives that need others are refused
    Parameters are drawn from `torch.Generator().manual_seed(seed)`, so that the seed alone decides them.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    reads: ClassVar[frozenset[Reads]] = frozenset()
    named: ClassVar[bool] = False
    gives: ClassVar[frozenset[Need]] = frozenset({"score"})

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        for what, have in (("prompt", shape.prompt), ("person", shape.people), ("context", shape.context)):
            if what in self.reads and not have:
                raise InputError(f"the model {self.name} reads the {what} of a comparison, and these comparisons have none")

    @classmethod
    def reading(cls, **settings: Any) -> frozenset[Reads]:
        """What a model with these settings reads beside the responses, before it is built. Default: `reads`, whatever the settings."""
        return cls.reads

    def prepare(self, features: np.ndarray, data: Comparisons) -> None:
        """Called once before the first step, with what is learned from: statistics that buffers keep are taken here. Default: nothing."""

    def represent(self, x: Tensor) -> Tensor:
        """What of a response does not depend on prompt, person or context, from its vector: [m, width] -> [m, any]. Default: the vector."""
        return x

    def score(self, z: Tensor, given: Given) -> Tensor:
        """The scalar of each response, [m], from `represent` and what is given; InputError where the model has none."""
        raise InputError(f"the model {self.name} gives no score to a response alone: ask for margins of pairs, or a matrix of several")

    def sides(self, first: Tensor, second: Tensor, given: Given) -> tuple[Side, Side]:
        """The sides of B comparisons, from `represent` of both. Default: their scores. Swapping first and second swaps the sides.

        A model without scores gives +-margin/2 in `score`, so that objectives of scores see its margin.
        """
        return Side(score=self.score(first, given)), Side(score=self.score(second, given))

    def margin(self, first: Tensor, second: Tensor, given: Given) -> Tensor:
        """[B] difference of the two sides' scores: the log-odds, under a logistic objective, that the first is preferred."""
        one, two = self.sides(first, second, given)
        assert one.score is not None
        assert two.score is not None
        return one.score - two.score

    def penalty(self) -> Tensor | None:
        """A term added to the mean loss of every step, beside l2; None: nothing."""
        return None

    def decayed(self, name: str) -> bool:
        """Whether l2 applies to the parameter. Default: to all but those whose last name is `bias`."""
        return name.rpartition(".")[2] != "bias"

    def pace(self, name: str) -> float:
        """Factor of the learning rate for the parameter. Default: 1."""
        return 1.0

    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """What the model has learned, with people and contexts by name."""
        return Explanation()


def normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> nn.Parameter:
    """A parameter drawn from N(0, scale^2).

    >>> normal(torch.Generator().manual_seed(0), 2, 3).shape
    torch.Size([2, 3])
    """
    return nn.Parameter(torch.randn(*shape, generator=generator) * scale)


def linear(generator: torch.Generator, inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with entries uniform in +-1/sqrt(inputs), the bias too."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    bound = 1 / max(inputs, 1) ** 0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
    return layer
