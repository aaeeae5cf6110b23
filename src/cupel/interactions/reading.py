"""`read_log`: any file or folder of interactions -> Log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cupel.errors import RecordError
from cupel.interactions.formats import choose
from cupel.interactions.log import Log
from cupel.interactions.places import Place
from cupel.interactions.raw import build

#: what `map` may name
NAMES = ("user", "item", "value", "time", "propensity", "event")


def read_log(
    path: str | os.PathLike[str], *, map: Mapping[str, str] | None = None, format: str | None = None, max_bad: float = 0.01
) -> Log:
    """The interactions of a file or folder: a released data set, a file that cupel wrote, or a table whose columns are known or named.

    map: {"user": "uid", "time": ""}: the column of each of user, item, value, time, propensity and event; "" leaves it out.
    format: a reader's name (`cupel.interactions.formats`); None takes the one that fits best; the log's first note says which and why.
    max_bad: share of rows that may be set aside (no id, no number, a time that cannot be read); they are counted in the notes with the
        line of the first of each kind.
    Users and items get indices in the sorted order of their ids, numbers as numbers. Nothing is filtered, and repeats stay.

    Raises RecordError: what is wrong, in how many rows, where first, and the ways out. Propensities outside (0, 1] are always an error.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = place.write_text("uid,item,rating\\n7,a,4\\n8,b,5\\n")
    >>> log = read_log(place, map={"user": "uid"})
    >>> log.users.tolist(), log.items.tolist(), log.value.tolist()
    (['7', '8'], ['a', 'b'], [4.0, 5.0])
    """
    place = Place(Path(path), dict(map or {}))
    if not place.path.exists():
        raise RecordError(f"there is no file or folder {path}: give the path of a log of interactions")
    if not 0 <= max_bad <= 1:
        raise RecordError(f"max_bad is {max_bad}; it is a share of rows in [0, 1]. Write 0.01 for one per cent.")
    unknown = [name for name in place.map if name not in NAMES]
    if unknown:
        from cupel.records.columns import did_you_mean

        raise RecordError(f"map names {unknown[0]!r}, which no log has.{did_you_mean(unknown[0], NAMES)} Names: {', '.join(NAMES)}.")
    left_out = _left_out(place)
    reader, why = choose(place, format)
    named = [name for name, column in place.map.items() if column]
    if named and not getattr(reader, "MAPS", False):
        raise RecordError(
            f"format {reader.NAME} has columns of its own, so none can be named ({', '.join(named)}): leave map out, or format=table"
        )
    found = reader.read(place)
    if isinstance(found, Log):
        return replace(found, **dict.fromkeys(left_out, None))
    for name in left_out:
        setattr(found, name, None)
    log = build(found, what=str(path), max_bad=max_bad)
    return replace(log, notes=(f"Read as {reader.NAME}: {why}.", *log.notes))


def _left_out(place: Place) -> list[str]:
    """Columns that were named "": not to be read."""
    names = [name for name, column in place.map.items() if not column]
    needed = [name for name in names if name in ("user", "item")]
    if needed:
        raise RecordError(f"a log needs a {needed[0]} for each event: name its column, map={{'{needed[0]}': 'COLUMN'}}")
    return names
