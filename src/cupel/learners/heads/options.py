"""What a head is asked for. The command line's `--set NAME=VALUE` and Python say the same names; this file loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cupel.errors import InputError
from cupel.learners.options import options_from


@dataclass(frozen=True)
class HeadOptions:
    """Every choice of a run. Raises InputError for values that make no sense.

    objective    text `name:argument=value,...` of scores (bradley_terry, thurstone, davidson, ...)
    treatment    text of any treatment; with `peers`, "" is peer review (CRM), and any other has to go by a peer
    head         text of a preference model, `name:argument=value,...` (scalar, gpm, pal, ...); scalar is one number per response
    hidden       units of the hidden layer (ReLU) of a scalar head; 0 is a linear head
    features     numeric columns of both sides that take the embedding's place (`cupel.records.features`): names separated by /, or
                 all; "" reads embeddings, but for heads whose columns have to have names
    context      column of the votes that states the context of a comparison, for heads that read it
    context_as   text: a context is the vector of its text; id: it is known by its name alone
    members      independent heads with seeds seed, seed + 1, ...; the score is their mean
    peers        0, or 2 and more heads trained beside each other, each with the mean losses of the others as its peer's
    eta          share that peer review leaves out in the end, the flip rate, in [0, 1/2); None: estimated out of fold
    ramp         T_k of its schedule: whole epochs, or below 1 a share of all steps
    scope        batch: the selection is made within a batch; epoch: among all comparisons, by the margins of the pass before
    curriculum   with scope=epoch: what was selected is fed from easy to hard
    epochs, batch_size, learning_rate   passes, comparisons of a step, and the (largest) rate of Adam
    schedule     linear: the rate falls to 0 over the run; constant
    l2           l2 / 2 times the sum of squares of the weights is added to the mean loss of a step
    heldout      share of the comparisons kept for evaluation, whole groups; 0: none; rows that are held out already stay so
    seed         the one seed
    """

    objective: str = "bradley_terry"
    treatment: str = ""
    head: str = "scalar"
    hidden: int = 0
    features: str = ""
    context: str = "context"
    context_as: Literal["text", "id"] = "text"
    members: int = 1
    peers: int = 0
    eta: float | None = None
    ramp: int | float = 5
    scope: Literal["batch", "epoch"] = "batch"
    curriculum: bool = False
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 3e-3
    schedule: Literal["linear", "constant"] = "linear"
    l2: float = 1e-3
    heldout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("members", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is a whole number of at least 1, not {getattr(self, name)!r}")
        for name in ("hidden", "peers", "seed", "l2"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise InputError(f"{name} is at least 0, not {getattr(self, name)!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate is a positive number, not {self.learning_rate!r}")
        if self.hidden and self.head != "scalar":
            raise InputError(f"hidden={self.hidden} belongs to the head `scalar`: the arguments of {self.head} stand in its text")
        if not 0 <= self.heldout < 1:
            raise InputError(f"heldout lies in [0, 1), not {self.heldout!r}")
        if self.peers == 1:
            raise InputError("a peer needs another: give peers=2 or more, or members=1 for a head alone")
        if self.peers and self.members > 1:
            raise InputError(f"peers={self.peers} are an ensemble already: leave out members={self.members}")
        if self.eta is not None and not 0 <= self.eta < 0.5:
            raise InputError(f"eta={self.eta:g} is no flip rate below 1/2: from one half on, labels say nothing or their opposite")
        if not self.peers:
            given = [name for name in ("eta", "ramp", "scope", "curriculum") if getattr(self, name) != getattr(HeadOptions, name)]
            if given:
                raise InputError(f"{given[0]} belongs to heads that review each other: give peers=2, or leave it out")
        if self.peers and self.treatment and (self.eta is not None or self.curriculum or self.scope != "batch"):
            raise InputError(f"eta, scope and curriculum describe peer review, and treatment={self.treatment} replaces it: leave one out")
        if self.curriculum and self.scope != "epoch":
            raise InputError(
                "a curriculum over batches that are selected one by one keeps a fixed share of the hard batches, which are almost all "
                "noise: give scope=epoch, which selects first"
            )

    @property
    def model(self) -> str:
        """The text of the preference model, hidden units included."""
        return f"scalar:hidden={self.hidden}" if self.hidden else self.head

    @property
    def heads(self) -> int:
        """How many heads are trained."""
        return self.peers or self.members

    def recorded(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        return asdict(self)


def head_options(values: Mapping[str, Any]) -> HeadOptions:
    """Options from plain values, as the command line holds them; None is left out. InputError for unknown names and wrong kinds.

    >>> head_options({"hidden": "64", "eta": "0.2", "peers": 2}).eta
    0.2
    >>> head_options({"hiden": 64})
    Traceback (most recent call last):
    cupel.errors.InputError: a head on frozen vectors has no option 'hiden'; did you mean hidden?
    """
    return options_from(HeadOptions, values, "a head on frozen vectors")
