"""Shapes and types of the algebra are checked while testing, and only then: jaxtyping's import hook with beartype.

Nothing heavy is imported here: the hook only marks which modules to instrument should a test import them. A whole number passes for a
`float`, as it does for every type checker. Functions made inside functions are checked where their annotations state a shape: factories
make them on each call, and instrumenting all of them would cost more than the tests.

Disks are not waited for: no test can cut the power. Tests of full disks put their own `os.fsync` in the place of this one.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

CHECKER = "cupel_test_checker"


def install() -> None:
    from beartype import BeartypeConf, beartype
    from jaxtyping import install_import_hook

    strict = beartype(conf=BeartypeConf(is_pep484_tower=True))

    def check(thing: Any) -> Any:
        if not isinstance(thing, type) and "<locals>" in getattr(thing, "__qualname__", ""):
            notes = [str(note) for note in getattr(thing, "__annotations__", {}).values()]
            if not any(word in note for note in notes for word in ("Float[", "Int[", "Bool[")):
                return thing
        return strict(thing)

    module = ModuleType(CHECKER)
    checker: Callable[[Any], Any] = check
    module.check = checker  # type: ignore[attr-defined]
    sys.modules[CHECKER] = module
    install_import_hook(["cupel.objectives", "cupel.noise"], f"{CHECKER}.check")


def not_waiting(handle: int) -> None:
    """`os.fsync` as far as a test can see: an error where the file is not open."""
    os.fstat(handle)


os.fsync = not_waiting

if importlib.util.find_spec("jaxtyping") is not None and importlib.util.find_spec("beartype") is not None:
    install()
