"""Checks of a log, one file each: add a file with NAME, SCOPE and `check(log, context) -> Finding`, and it takes part."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import cache
from types import ModuleType

from cupel.audit.interactions.context import Context
from cupel.audit.types import Finding
from cupel.errors import InputError
from cupel.interactions.log import Log


@cache
def all_checks() -> dict[str, ModuleType]:
    """The checks by name.

    >>> all_checks()["duplicate_events"].SCOPE
    'row'
    """
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__) if info.name[0] != "_"]
    return {module.NAME: module for module in sorted(modules, key=lambda module: module.NAME)}


def resolve(names: Iterable[str]) -> list[str]:
    """Names as the user may write them (`bot-like-users`, also comma-separated), made exact. InputError for a name that is no check.

    >>> resolve(["bot-like-users,leakage"])
    ['bot_like_users', 'leakage']
    """
    known = all_checks()
    wanted = [part.strip().lower().replace("-", "_") for name in names for part in name.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        from cupel.records.columns import did_you_mean

        raise InputError(
            f"{len(unknown)} of {len(wanted)} names are no checks of interactions (first: {unknown[0]!r})."
            f"{did_you_mean(unknown[0], known)} The checks are: {', '.join(known)}."
        )
    return wanted


def run_checks(
    log: Log, context: Context | None = None, only: Iterable[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """The findings of all checks, or of those in `only`. progress: called with (checks done, checks in all) after each."""
    names = list(all_checks()) if only is None else sorted(set(resolve(only)))
    context = Context() if context is None else context
    findings: list[Finding] = []
    for name in names:
        findings.append(all_checks()[name].check(log, context))
        if progress is not None:
            progress(len(findings), len(names))
    return findings
