"""Things found by name in a package, and the text that recipes and the command line say: `name:argument=value,...`."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any

from cupel.errors import InputError


def found_in(package: ModuleType) -> MappingProxyType[str, type[Any]]:
    """What every module of a package that sets `MODEL` offers, by its name, sorted."""
    found: dict[str, type[Any]] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        made = getattr(import_module(f"{package.__name__}.{entry.name}"), "MODEL", None)
        if made is not None:
            found[made.name] = made
    return MappingProxyType(dict(sorted(found.items())))


def settings_in(text: str, known: Mapping[str, type[Any]], noun: str) -> tuple[type[Any], dict[str, Any]]:
    """The class that a text names, and its settings. InputError for unknown names and arguments, and for values of another kind.

    Settings are the keyword-only arguments of the constructor, but for `seed`.
    """
    name, _, rest = text.strip().partition(":")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no {noun} is called {name!r}; {hint}there are {', '.join(known)}")
    arguments = {key: p for key, p in inspect.signature(known[name].__init__).parameters.items() if p.kind is p.KEYWORD_ONLY}
    arguments.pop("seed", None)
    settings: dict[str, Any] = {}
    for item in filter(None, (item.strip() for item in rest.split(","))):
        key, equals, value = (word.strip() for word in item.partition("="))
        if not equals or key in settings:
            raise InputError(f"{text}: {item!r} is not one argument=value of its own")
        if key not in arguments:
            raise InputError(f"the model {name} takes no argument {key}: its arguments are {', '.join(arguments) or 'none'}")
        settings[key] = _value(value, arguments[key].default, f"{name}:{key}")
    return known[name], settings


def _value(text: str, default: Any, where: str) -> Any:
    """The text as the kind of the argument's default; a default of None takes numbers and words."""
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"{where} is true or false, not {text!r}")
    if text.lower() == "none":
        return None
    for kind in _kinds(default):
        try:
            return kind(text)
        except ValueError:
            continue
    if isinstance(default, int | float):
        raise InputError(f"{where} is a number, not {text!r}")
    return text


def _kinds(default: Any) -> tuple[type[int] | type[float], ...]:
    """Kinds of number that an argument takes, by its default; none where it is a word."""
    if isinstance(default, str):
        return ()
    return (type(default),) if isinstance(default, int | float) else (int, float)
