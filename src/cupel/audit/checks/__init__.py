"""The named checks of `cupel audit`, one file each: add a file with NAME, SCOPE, COST and `check`, and it takes part.

A check is a function `check(votes, context) -> Finding`. SCOPE says whether it speaks of the data set or of rows. COST orders a
run: 0 reads only integers, 1 reads each text once, 2 compares texts with each other or needs the option of a user. Files whose
names begin with an underscore are tools of the checks.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

from cupel.audit.checks.context import Context, pseudonyms
from cupel.audit.types import Finding
from cupel.errors import InputError
from cupel.records.schema import Votes

__all__ = ["Context", "all_checks", "pseudonyms", "run_checks"]


def all_checks() -> dict[str, ModuleType]:
    """The checks by name, cheap ones first and by name within a cost.

    >>> all_checks()["cycles"].SCOPE
    'row'
    """
    modules = []
    for info in pkgutil.iter_modules(__path__):
        if info.name.startswith("_") or info.name == "context":
            continue
        modules.append(importlib.import_module(f"{__name__}.{info.name}"))
    return {m.NAME: m for m in sorted(modules, key=lambda m: (m.COST, m.NAME))}


def resolve(names: str | Iterable[str]) -> list[str]:
    """Names of checks as the user may write them (`identical-sides` or `identical_sides`, also comma-separated), made exact.

    Raises InputError for a name that is no check, with the nearest names.

    >>> resolve("identical-sides,cycles")
    ['identical_sides', 'cycles']
    """
    known = all_checks()
    given = [names] if isinstance(names, str) else list(names)
    wanted = [part.strip().lower().replace("-", "_") for name in given for part in name.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"{len(unknown):,} of {len(wanted):,} names are no checks (first: {unknown[0]!r}).{hint} The checks "
            f"are: {', '.join(sorted(known))}."
        )
    return wanted


def iter_checks(votes: Votes, context: Context | None = None, only: str | Iterable[str] | None = None) -> Iterator[Finding]:
    """The findings one by one, cheap checks first, so that a caller can show them while dear ones run."""
    context = Context() if context is None else context
    wanted = None if only is None else set(resolve(only))
    for name, module in all_checks().items():
        if wanted is None or name in wanted:
            yield module.check(votes, context)


def run_checks(
    votes: Votes,
    context: Context | None = None,
    only: str | Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """The findings of all checks, or of those in `only`, cheap checks first.

    progress: called with (checks done, checks in all) after each. Raises InputError for an unknown name in `only`.
    """
    total = len(all_checks()) if only is None else len(set(resolve(only)))
    findings = []
    for finding in iter_checks(votes, context, only):
        findings.append(finding)
        if progress is not None:
            progress(len(findings), total)
    return findings
