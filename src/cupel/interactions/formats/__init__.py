"""Readers of logs, one file each: `NAME`, `DESCRIPTION`, `detect(place)`, `read(place)`; `MAPS` where columns can be
named. A new file is a new format.

`detect` gives a score in [0, 1] (0: not this) and its reason; `read` gives `Raw` events, or a `Log` that is done. Both look at nothing but
the place.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from cupel.errors import RecordError
from cupel.interactions.places import Place


@cache
def readers() -> dict[str, ModuleType]:
    """Every reader of this package by name.

    >>> "movielens" in readers()
    True
    """
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "NAME"):
            found[module.NAME] = module
    return found


def choose(place: Place, name: str | None = None) -> tuple[ModuleType, str]:
    """The reader that was asked for, or the one that fits best, and why. RecordError where none fits, with what there is."""
    known = readers()
    if name is not None:
        if name not in known:
            from cupel.records.columns import did_you_mean

            raise RecordError(
                f"there is no format {name!r} of interactions.{did_you_mean(name, known)} Formats: {', '.join(sorted(known))}."
            )
        return known[name], "as asked"
    scored = sorted(((*module.detect(place), module.NAME) for module in known.values()), key=lambda found: (-found[0], found[2]))
    if not scored or scored[0][0] <= 0:
        kinds = "; ".join(f"{module.NAME} ({module.DESCRIPTION})" for _, module in sorted(known.items()))
        raise RecordError(
            f"{place.path} is not a log of interactions in a known format. {place.described()} Known: {kinds}. Name its columns with "
            "map={'user': 'COLUMN', 'item': 'COLUMN'} (--map user=COLUMN), or the format with format=NAME"
        )
    return known[scored[0][2]], scored[0][1]
