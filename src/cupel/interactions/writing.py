"""`write_log`: a log as one Parquet file, whole or not at all, read back exactly by `read_log`."""

from __future__ import annotations

import os

from cupel.interactions.formats.cupel import table_of
from cupel.interactions.log import Log
from cupel.records.files import write_parquet


def write_log(log: Log, path: str | os.PathLike[str]) -> None:
    """Write a log as Parquet: columns user, item (ids), value, time, propensity, event; ids without events, texts and notes beside.

    The same log gives the same bytes. InputError where the place cannot be written.

    >>> import tempfile
    >>> from cupel.interactions.reading import read_log
    >>> place = f"{tempfile.mkdtemp()}/log.parquet"
    >>> write_log(Log.of(["b", "a"], [2, 10], texts=("two", "ten")), place)
    >>> log = read_log(place)
    >>> log.users.tolist(), log.items.tolist(), log.user.tolist(), log.texts
    (['a', 'b'], ['2', '10'], [1, 0], ('two', 'ten'))
    """
    write_parquet(path, table_of(log))
