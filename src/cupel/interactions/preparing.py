"""From a log as it was read to what is trained on and what is held out: likes, repeats, core, split."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cupel.errors import InputError
from cupel.interactions.filters import Keep, deduplicated, k_core, positives
from cupel.interactions.log import Log, Split
from cupel.interactions.splits import leave_one_out, random_split, temporal, uniform_test

How = Literal["random", "leave_one_out", "temporal", "none"]


@dataclass(frozen=True)
class LogOptions:
    """What is done with a log before anything is learned from it.

    at_least   events of a value below it are no likes and are left out (a rating of 4 on a scale of 5); None keeps all that happened
    duplicates which event of a (user, item) stays: first, last, or that of the highest value
    core       users and items of fewer events are left out, until none is left; 0 keeps all
    split      random (a share of each user's events), leave_one_out (their last), temporal (all events after a moment), none
    test, validation   shares that are held out; with a test log of its own `test` is not read
    seed       of the random split
    """

    at_least: float | None = None
    duplicates: Keep = "first"
    core: int = 0
    split: How = "random"
    test: float = 0.1
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.core < 0:
            raise InputError(f"core is a number of events of at least 0, not {self.core!r}")

    def recorded(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        return asdict(self)


def prepared(log: Log, options: LogOptions, *, test: Log | None = None) -> Split:
    """The split of a log under the options; `test`, a log of its own, takes the place of a share (uniform-random exposure, say).

    Every step counts what it leaves out in the notes of the parts. InputError where nothing is left.

    >>> split = prepared(Log.of(["a"] * 10, list(range(10))), LogOptions())
    >>> len(split.train), len(split.validation), len(split.test)
    (8, 1, 1)
    """
    whole = len(log)
    log = positives(log, options.at_least)
    if whole and not len(log):
        raise InputError(f"none of {whole:,} events is a like: all have a value below {options.at_least}; lower at_least")
    log = deduplicated(log, options.duplicates)
    if options.core:
        log = k_core(log, options.core, options.core)
    if test is not None:
        return uniform_test(
            log, deduplicated(positives(test, options.at_least)), validation=options.validation, seed=options.seed, overlap="drop"
        )
    if options.split == "none":
        empty = log.take(log.user < 0)
        return Split(log, empty, empty, "nothing is held out")
    if options.split == "leave_one_out":
        return leave_one_out(log, validation=options.validation > 0)
    if options.split == "temporal":
        return temporal(log, test=options.test, validation=options.validation, overlap="drop")
    if options.split != "random":
        raise InputError(f"there is no split {options.split!r}; there are random, leave_one_out, temporal and none")
    return random_split(log, test=options.test, validation=options.validation, seed=options.seed)


def parted(values: Mapping[str, Any], others: typing.Collection[str]) -> tuple[LogOptions, dict[str, Any]]:
    """Options of the log among plain values, and the rest, whose names have to be among `others`; `seed` is of both.

    >>> parted({"core": 5, "epochs": 3, "seed": 2}, ["epochs", "seed"])[1]
    {'epochs': 3, 'seed': 2}
    >>> parted({"cores": 5}, ["epochs"])
    Traceback (most recent call last):
    cupel.errors.InputError: there is no option 'cores'; did you mean core?
    """
    mine = [field.name for field in fields(LogOptions)]
    given = {name: value for name, value in values.items() if value is not None}
    unknown = [name for name in given if name not in mine and name not in others]
    if unknown:
        names = [*mine, *others]
        close = difflib.get_close_matches(unknown[0], names, n=1)
        raise InputError(
            f"there is no option {unknown[0]!r}; " + (f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}")
        )
    kinds = typing.get_type_hints(LogOptions)
    made = LogOptions(**{name: _fitting(name, given[name], kinds[name]) for name in mine if name in given})
    return made, {name: value for name, value in given.items() if name in others}


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """A word as the kind that an option has. InputError where it is not of it."""
    if not isinstance(value, str):
        return value
    words = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if words:
        if value not in words:
            raise InputError(f"{name} is one of {', '.join(words)}, not {value!r}")
        return value
    try:
        return int(value) if kind is int else float(value)
    except ValueError as error:
        raise InputError(f"{name} is a number, not {value!r}") from error
