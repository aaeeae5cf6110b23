"""Scorers: inputs to sides. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "Groups": "groups",
    "Scorer": "scorer",
    "Scores": "scores",
    "ScorerError": "anatomy",
    "LayoutWarning": "check",
    "token_logp": "head",
}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
