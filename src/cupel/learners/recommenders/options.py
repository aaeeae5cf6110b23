"""What a recommender is asked for. The command line's `--set NAME=VALUE` and Python say the same names; this file loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cupel.errors import InputError
from cupel.learners.options import options_from


@dataclass(frozen=True)
class RecommenderOptions:
    """Every choice of a run. Raises InputError for values that make no sense.

    model        text of a recommender, `name:argument=value,...` (mf, ease, lightgcn, sasrec ...)
    objective    text of any objective of scores; bradley_terry on pairs is BPR, bpo judges each item alone
    treatment    text of any treatment; in its terms the user is the annotator and the item the group. One that goes by a peer trains two
                 models beside each other, of seed and seed + 1
    records      pairs: (user, taken, not taken); single: every item a record of its own, p = 1 taken and 0 not; all: every cell of users
                 and items; "" is pairs, or single where the objective takes responses one by one (bpo, squared scores ...)
    negatives    items not taken, drawn for each event (pairs, single); 0 for objectives that need none: models that generate items, by sft
    positive     weight of a taken item as a record of its own; None: that of its negatives together
    sampler      uniform, popularity (chance ~ events^power), or hard: of `candidates` drawn evenly the one the model scores highest
    epochs, batch_size, learning_rate, decay    passes, events of a step (users, for models of sequences and for `all`), the rate, and the
                 factor it takes with each pass
    optimiser    adam, adamw, adagrad, sgd: over all parameters; rows_adagrad, rows_sgd: on the rows of the tables a step touches (mf),
                 whose cost does not grow with the number of users and items
    l2           times the squared size of what a step touches (mean over its records)
    weight_decay added to the gradient as so many times the parameter, at every step and in every row; adamw takes the rate times so many
                 times the parameter off the parameter itself, past the gradient and its moments
    reduction    mean over the records of a step, or their sum
    clip         largest norm of a gradient; 0: none
    select       what a held-out log decides: a metric ("ndcg@20"), or loss: the same objective and treatment on held-out records; the best
                 state is kept. Without a held-out log the last one is
    every, patience   passes between two looks at it, and how many looks without a better one end the run (0: none)
    seed, device
    """

    model: str = "mf"
    objective: str = "bradley_terry"
    treatment: str = "identity"
    records: Literal["", "pairs", "single", "all"] = ""
    negatives: int = 1
    positive: float | None = None
    sampler: Literal["uniform", "popularity", "hard"] = "uniform"
    power: float = 0.75
    candidates: int = 5
    epochs: int = 100
    batch_size: int = 2048
    learning_rate: float = 5e-3
    decay: float = 1.0
    optimiser: Literal["adam", "adamw", "adagrad", "sgd", "rows_adagrad", "rows_sgd"] = "adam"
    l2: float = 0.0
    weight_decay: float = 0.0
    reduction: Literal["mean", "sum"] = "mean"
    clip: float = 0.0
    select: str = "ndcg@20"
    every: int = 5
    patience: int = 4
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("candidates", "epochs", "batch_size", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is a whole number of at least 1, not {getattr(self, name)!r}")
        for name in ("negatives", "l2", "weight_decay", "clip", "patience", "seed", "power"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise InputError(f"{name} is at least 0, not {getattr(self, name)!r}")
        for name in ("learning_rate", "decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} is a positive number, not {getattr(self, name)!r}")
        if self.positive is not None and not (math.isfinite(self.positive) and self.positive > 0):
            raise InputError(f"positive is the weight of a taken item, a positive number, not {self.positive!r}")
        if self.sampler == "hard" and self.candidates < 2:
            raise InputError("the hardest of 1 candidate is a uniform draw: give candidates=2 or more, or sampler=uniform")
        metric_of(self.select)

    def recorded(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        return asdict(self)


def metric_of(select: str) -> tuple[str, int]:
    """("ndcg", 20) of "ndcg@20", ("loss", 0) of "loss"; InputError for anything else.

    >>> metric_of("recall@10")
    ('recall', 10)
    """
    from cupel.interactions.metrics import METRICS

    if select == "loss":
        return "loss", 0
    name, at, k = select.partition("@")
    if name not in METRICS or not at or not k.isdigit() or int(k) < 1:
        raise InputError(f"select is loss, or a metric at k as ndcg@20 (of {', '.join(METRICS)}), not {select!r}")
    return name, int(k)


def recommender_options(values: Mapping[str, Any]) -> RecommenderOptions:
    """Options from plain values, as the command line holds them; None is left out. InputError for unknown names and wrong kinds.

    >>> recommender_options({"epochs": "3", "model": "ease"}).epochs
    3
    >>> recommender_options({"epoch": 3})
    Traceback (most recent call last):
    cupel.errors.InputError: a recommender has no option 'epoch'; did you mean epochs?
    """
    return options_from(RecommenderOptions, values, "a recommender")
