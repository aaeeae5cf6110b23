"""Packages that can be called: a verb's package and its function share one name without shadowing each other.

`import cupel.audit.run` binds the attribute `audit` of `cupel` to the package, whatever function stood there. A package whose class has
`__call__` keeps `cupel.audit(votes)` working in every order of imports.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from cupel import api

        return getattr(api, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(package: str) -> None:
    """Let the imported package `cupel.NAME` be called as `cupel.api.NAME`."""
    sys.modules[package].__class__ = _Verb
