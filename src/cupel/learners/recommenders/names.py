"""Recommenders by name: the text that recipes and the command line say, `name:argument=value,...`."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any

from cupel.learners.named import found_in, settings_in
from cupel.learners.recommenders import models
from cupel.learners.recommenders.types import Recommender


@cache
def available() -> MappingProxyType[str, type[Recommender]]:
    """Recommenders by name, sorted: every module of `models` that sets `MODEL`.

    >>> {"mf", "popularity"} <= set(available())
    True
    """
    return found_in(models)


def settings_of(text: str) -> tuple[type[Recommender], dict[str, Any]]:
    """The class that a text names, and its settings. InputError for unknown names and arguments, and for values of another kind.

    >>> settings_of("mf:dim=8")[1]
    {'dim': 8}
    """
    return settings_in(text, available(), "recommender")


def build(text: str, users: int, items: int, seed: int) -> Recommender:
    """The recommender that a text names, for so many users and items, with the parameters of the seed. InputError as `settings_of`.

    >>> build("mf:dim=8", 3, 4, seed=0).name
    'mf'
    """
    made, settings = settings_of(text)
    return made(users, items, seed=seed, **settings)  # pyright: ignore[reportCallIssue]: every model takes a seed, the base has no use for it
