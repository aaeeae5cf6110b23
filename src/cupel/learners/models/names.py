"""Preference models by name: the text that recipes and the command line say, `name:argument=value,...`."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any

from cupel.learners import models
from cupel.learners.models.types import PreferenceModel, Reads, Shape
from cupel.learners.named import found_in, settings_in


@cache
def available() -> MappingProxyType[str, type[PreferenceModel]]:
    """Models by name, sorted: every module of this package that sets `MODEL`.

    >>> "scalar" in available()
    True
    """
    return found_in(models)


def settings_of(text: str) -> tuple[type[PreferenceModel], dict[str, Any]]:
    """The class that a text names, and its settings. InputError for unknown names and arguments, and for values of another kind.

    >>> settings_of("scalar:hidden=8")[1]
    {'hidden': 8}
    >>> settings_of("scaler")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    cupel.errors.InputError: no preference model is called 'scaler'; did you mean scalar? ...
    """
    return settings_in(text, available(), "preference model")


def build(text: str, shape: Shape, seed: int) -> PreferenceModel:
    """The model that a text names, for data of that shape, with the parameters of the seed. InputError as `settings_of` and the model.

    >>> build("scalar", Shape(width=3), seed=0).name
    'scalar'
    """
    made, settings = settings_of(text)
    return made(shape, seed=seed, **settings)  # pyright: ignore[reportCallIssue]: every model takes a seed, the base class has no use for it


def reads_of(text: str) -> frozenset[Reads]:
    """What the model that a text names looks at beside the responses. InputError as `settings_of`.

    >>> reads_of("scalar")
    frozenset()
    """
    made, settings = settings_of(text)
    return made.reading(**settings)
