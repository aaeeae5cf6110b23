"""Which objective and treatment a trainer is given, and what is refused before a model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from cupel.errors import InputError
from cupel.noise.loss import check
from cupel.noise.names import parse as parse_treatment
from cupel.noise.state import axes_of
from cupel.noise.types import DataSpec, State, Treatment
from cupel.objectives.names import parse
from cupel.objectives.types import Objective


def objective_of(objective: str | Objective) -> Objective:
    """The objective itself, or the one a text names, `sigmoid:beta=0.1`. InputError where it cannot be made.

    >>> objective_of("ipo:beta=0.5").settings["beta"]
    0.5
    """
    if not isinstance(objective, str):
        return objective
    try:
        return parse(objective)
    except (TypeError, ValueError) as error:
        raise InputError(f"objective={objective!r}: {error}") from error


def treatment_of(treatment: str | Treatment | None) -> Treatment:
    """The treatment itself, or the one a text names; plain training for None. InputError where it cannot be made."""
    if treatment is not None and not isinstance(treatment, str):
        return treatment
    try:
        return parse_treatment(treatment or "identity")
    except (TypeError, ValueError) as error:
        raise InputError(f"treatment={treatment!r}: {error}") from error


def setting(args: Any, config: type, name: str) -> Any:
    """A setting of TRL's arguments, or its default where none are given."""
    if args is not None:
        return getattr(args, name)
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    return field.default_factory() if field.default is dataclasses.MISSING else field.default  # type: ignore[misc]


def check_choice(
    objective: Objective, treatment: Treatment, gives: Iterable[str], spec: DataSpec, *, soft: bool, parts: int, why: Mapping[str, str]
) -> State:
    """The treatment's state before the first step, once nothing stands against the choice.

    gives: the needs of objectives that TRL can serve here; why: for those it cannot, what would help; soft: whether the data's p is
    anything but 1; parts: micro-batches and processes among which a step is divided. InputError, naming what stands against it.
    """
    try:
        check(objective, treatment)
    except ValueError as error:
        raise InputError(str(error)) from error
    lacking = sorted(set(objective.needs) - set(gives))
    if lacking:
        hints = "".join(f" {why[need]}." for need in lacking if need in why)
        raise InputError(
            f"the objective {objective.name} needs {', '.join(lacking)}, which TRL does not give here (it gives "
            f"{', '.join(sorted(gives))}).{hints} Choose another objective, or a learner of cupel itself"
        )
    if treatment.reads_peer:
        raise InputError(f"{treatment.name} goes by the losses of a second model, and TRL trains one. Choose one that needs no peer")
    if objective.swap == "none" and parts > 1:
        raise InputError(
            f"{objective.name} ranks the comparisons of a step among each other, and the step is divided into {parts} micro-batches. Set "
            f"gradient_accumulation_steps=1 on one process, with as large a per_device_train_batch_size as is wanted"
        )
    if objective.swap != "comparison" and soft:
        raise InputError(
            f"the data has probabilities other than 1 in its column 'p', but the sides of {objective.name} cannot be swapped, so p would "
            f"mean nothing. Choose an objective with a swap, or remove the column"
        )
    try:
        state = treatment.init(spec)
    except ValueError as error:
        raise InputError(f"treatment {treatment.name}: {error}") from error
    for name in state:
        for axis in axes_of(name):
            if axis != "record" and not (spec.annotators if axis == "annotator" else spec.groups):
                raise InputError(
                    f"{treatment.name} keeps a number for each {axis}, but the data has none: add a column {axis!r}, or choose by=all"
                )
    return state
