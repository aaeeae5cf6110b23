"""Options of a run read by name from plain values, as the command line, YAML and JSON hold them. Loads no torch."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from cupel.errors import InputError

T = typing.TypeVar("T")


def options_from(kind: type[T], values: Mapping[str, Any], noun: str) -> T:
    """The options (a dataclass) that plain values say; None is left out. InputError for unknown names and wrong kinds, `noun` in front.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Kite:
    ...     length: float = 1.0
    >>> options_from(Kite, {"length": "2.5"}, "a kite").length
    2.5
    >>> options_from(Kite, {"lenght": 2}, "a kite")
    Traceback (most recent call last):
    cupel.errors.InputError: a kite has no option 'lenght'; did you mean length?
    """
    kinds = typing.get_type_hints(kind)
    given = {name: value for name, value in values.items() if value is not None}
    refuse_unknown(given, [field.name for field in fields(typing.cast("Any", kind))], f"{noun} has no option")
    return kind(**{name: fitting(name, value, kinds[name]) for name, value in given.items()})


def refuse_unknown(given: Iterable[Any], known: Iterable[str], said: str) -> None:
    """InputError at the first name that is not known, with the nearest known one; said: how the sentence begins."""
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise InputError(f"{said} {unknown[0]!r}; {hint}")


def fitting(name: str, value: Any, kind: Any) -> Any:
    """`value` in the kind an option is declared with; texts of the command line and YAML's `1e-6` (a text there) are read.

    InputError where the value is of no such kind.

    >>> fitting("rate", "1e-3", float | None), fitting("rate", "none", float | None), fitting("names", "a, b", tuple[str, ...])
    (0.001, None, ('a', 'b'))
    """
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if choices:
        if value in choices:
            return value
        if value is False and "no" in choices:  # YAML reads a bare `no` as false
            return "no"
        raise InputError(f"{name} is one of {', '.join(map(str, choices))}, not {value!r}")
    if isinstance(kind, types.UnionType):
        parts = typing.get_args(kind)
        if types.NoneType in parts and (value is None or value == "none"):
            return None
        errors = []
        for part in parts:
            if part is not types.NoneType:
                try:
                    return fitting(name, value, part)
                except InputError as error:
                    errors.append(error)
        raise errors[-1]
    origin = typing.get_origin(kind)
    if origin is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, Sequence) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif origin is not None:  # a mapping
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        words = {"true": True, "false": False, "yes": True, "no": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isnan(number) and (kind is float or number == int(number)):
            return kind(number)
    elif kind is str and isinstance(value, str | Path | int | float) and not isinstance(value, bool):
        return str(value)
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "a list of texts or a mapping")
    raise InputError(f"{name} is {wanted}, not {value!r}")
