"""What a comparison is asked for: objectives, treatments and corruptions as texts, and the cases they give. Loads no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cupel.compare.corruptions import KINDS
from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.noise.types import Treatment
    from cupel.objectives.types import Objective

#: eight objectives that a scalar head can be trained with; their units are measured (`cupel.compare.unit`), so beta matters little
OBJECTIVES = (
    "sigmoid:beta=1", "hinge:beta=1", "ipo_sum:beta=1", "exo:beta=1,smoothing=0.1", "simpo", "apo_zero:beta=1", "thurstone",
    "noise_tolerant:beta=1",
)  # fmt: skip
#: plain training first, then seven treatments of other kinds
TREATMENTS = (
    "identity", "conservative:flip=0.2", "unbiased:flip=0.2", "em:flip=0.2,share=0.5,warmup=0", "distributionally_robust:temperature=1",
    "tempered:power=0.7", "trimmed:share=0.2", "peer_review:drop=0.2,ramp=0",
)  # fmt: skip
#: where annotators are known or planted
BY_ANNOTATOR = "em:flip=0.2,by=annotator,schedule=full,warmup=0"
RATES = (0.0, 0.2, 0.4)
CORRUPTIONS = ("symmetric",)
#: ridges of the grid, in units of the objective (`cupel.compare.unit`); the default ridge of untuned training is 1 / rows
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
PLAIN = "identity"


@dataclass(frozen=True)
class Case:
    """One way in which labels were made wrong: a corruption with its settings and, where it has one, its rate."""

    corruption: str
    rate: float | None
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """The case in words, unique within a comparison.

        >>> Case("symmetric", 0.2).label, Case("annotators", None, (("random", 0.2), ("adversarial", 0.1))).label
        ('symmetric 20 %', 'annotators random=0.2 adversarial=0.1')
        """
        more = "".join(f" {key}={value}" for key, value in self.settings)
        return self.corruption + ("" if self.rate is None else f" {100 * self.rate:g} %") + more


#: the clean reference: no label is planted, and the truth is used where the data has one
CLEAN = Case("clean", None)


@dataclass(frozen=True)
class CompareOptions:
    """The grid and how it is trained; every field changes results.

    objectives, treatments   texts `name` or `name:argument=value,...`; treatments may be chains joined by " + "
    cases                    corruptions with their rates
    seeds                    training seeds; seed s holds out part s mod `parts` of the groups, so `parts` seeds test every row once
    validation               share of the remaining groups that tunes the ridge, labels corrupted like the training labels
    folds                    of the cross-fitting inside the training rows, for treatments that correct p
    steps, warm, refresh     optimiser steps, those before treatments begin, and how many share a target
    """

    objectives: tuple[str, ...] = OBJECTIVES
    treatments: tuple[str, ...] = TREATMENTS
    cases: tuple[Case, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    parts: int = 5
    validation: float = 0.25
    folds: int = 2
    ridges: tuple[float, ...] = RIDGES
    steps: int = 30
    warm: int = 9
    refresh: int = 3
    draws: int = 2000

    def recorded(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        values = asdict(self)
        return {**{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}, "cases": [case.label for case in self.cases]}


def cases_of(corruptions: Sequence[str], rates: Sequence[float]) -> tuple[Case, ...]:
    """Every corruption at every rate; those that have shares of their own (annotators) once. InputError for unknown names or arguments.

    >>> [case.label for case in cases_of(["symmetric", "annotators:random=0.25,adversarial=0.3"], [0.0, 0.4])]
    ['symmetric 0 %', 'symmetric 40 %', 'annotators n=20 random=0.25 adversarial=0.3']
    """
    found: list[Case] = []
    for text in corruptions:
        name, settings = split_text(text)
        if name not in KINDS:
            raise InputError(f"there is no corruption {name!r}; choose one of {', '.join(KINDS)}")
        rated, defaults = KINDS[name].rated, KINDS[name].settings
        unknown = sorted(set(settings) - set(defaults))
        if unknown:
            raise InputError(f"corruption {name} takes no {', '.join(unknown)}; it takes {', '.join(defaults) or 'nothing but --rate'}")
        merged = tuple((key, value) for key, value in {**defaults, **settings}.items() if value is not False)
        for rate in rates if rated else [None]:
            if rate is not None and not 0 <= rate < 0.5:
                raise InputError(f"--rate {rate} is not in [0, 0.5): beyond one half labels are mostly the reverse")
            case = Case(name, rate, merged)
            if case not in found:
                found.append(case)
    if not found:
        raise InputError("there is nothing to compare: give at least one --corruption, and a --rate where it takes one")
    return tuple(found)


def split_text(text: str) -> tuple[str, dict[str, Any]]:
    """(name, arguments) of `name:argument=value,...` (`objectives.names`). InputError for anything else."""
    from cupel.objectives.names import split_text as split

    try:
        return split(text)
    except ValueError as error:
        raise InputError(str(error)) from error


def need_torch() -> None:
    """InputError (exit 2) with the command to run where the extra that trains is not installed."""
    missing = [name for name in ("torch", "jaxtyping") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"compare needs {' and '.join(missing)}. Run: python -m pip install 'cupel[train]'")


def objective_of(text: str) -> Objective:
    """The objective a text names, if a head can be trained with it. InputError with the reason otherwise."""
    from cupel.compare.unit import refusal
    from cupel.objectives.names import by_name

    name, settings = split_text(text)
    try:
        objective = by_name(name, **settings)
    except (ValueError, TypeError) as error:
        raise InputError(f"--objective {text}: {error}") from error
    reason = refusal(objective)
    if reason:
        raise InputError(f"--objective {text}: {reason}")
    return objective


def treatment_of(text: str) -> Treatment:
    """The treatment a text names. InputError with the reason where it cannot be made."""
    from cupel.noise.names import parse

    try:
        return parse(text)
    except (ValueError, TypeError) as error:
        raise InputError(f"--treatment {text}: {error}") from error


def check(options: CompareOptions) -> list[dict[str, str]]:
    """The (objective, treatment) pairs that are refused, each with its reason. InputError where the grid as a whole makes no sense."""
    from cupel.noise.loss import check as check_pair

    for name, values in (("objective", options.objectives), ("treatment", options.treatments), ("seed", options.seeds)):
        twice = sorted({str(v) for v in values if values.count(v) > 1})  # type: ignore[arg-type]
        if not values or twice:
            raise InputError(f"give at least one {name}, each once" + (f" ({twice[0]} stands twice)" if twice else ""))
    if options.treatments[0] != PLAIN:
        raise InputError(f"the first treatment is what the others are compared with: it has to be {PLAIN}, not {options.treatments[0]}")
    if not (options.parts >= 2 and 0 < options.validation < 1 and options.folds >= 2):
        raise InputError("parts and folds are at least 2, and validation is a share in (0, 1)")
    if not (0 <= options.warm <= options.steps and options.refresh >= 1 and options.ridges and min(options.ridges) > 0):
        raise InputError("ridges are positive, warm lies between 0 and steps, and refresh is at least 1")
    refused = []
    treatments = {text: treatment_of(text) for text in options.treatments}
    for objective_text in options.objectives:
        objective = objective_of(objective_text)
        for text, treatment in treatments.items():
            try:
                check_pair(objective, treatment)
            except ValueError as error:
                refused.append({"objective": objective_text, "treatment": text, "reason": str(error)})
    return refused


def as_json(case: Case) -> Mapping[str, Any]:
    """A case as JSON holds it."""
    return {"label": case.label, "corruption": case.corruption, "rate": case.rate, "settings": dict(case.settings)}
