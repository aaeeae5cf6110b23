"""cupel: learn from preference data that nobody can fully trust.

The verbs are functions here and commands on the command line: `read`, `audit`, `curate`, `train_reward`, `evaluate`, `refine`. Importing
this module loads nothing else; each name is imported when it is first used. `cupel.audit`, `cupel.curate` and `cupel.evaluate` are
packages that can be called (see `cupel._verbs`), so that `cupel.audit(votes)` and `from cupel.audit.types import Finding` both work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cupel.api import audit, curate, evaluate, read, refine, train_reward
    from cupel.errors import CupelError
    from cupel.records.schema import Votes

__version__ = "0.1.0"
__all__ = ["CupelError", "Votes", "__version__", "audit", "curate", "evaluate", "read", "refine", "train_reward"]

_WHERE = {
    "read": "cupel.api",
    "train_reward": "cupel.api",
    "refine": "cupel.api",
    "CupelError": "cupel.errors",
    "Votes": "cupel.records.schema",
}
_PACKAGES = ("audit", "curate", "evaluate")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"cupel.{name}")
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'cupel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
