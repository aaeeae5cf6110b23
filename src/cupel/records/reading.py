"""`read`: any file or table of preferences -> Votes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from cupel.errors import RecordError
from cupel.records import sources
from cupel.records.build import build
from cupel.records.columns import Frame, did_you_mean, kinds
from cupel.records.formats import choose
from cupel.records.formats.unfolding import unfold
from cupel.records.schema import Votes


def read(
    source: Any, *, map: Mapping[str, str] | None = None, format: str | None = None, max_bad: float = 0.01, seed: int = 0,
    heldout: float = 0.2, max_field: int = 1_000_000, stream: bool | None = None, spool: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Votes:  # fmt: skip
    """The comparisons of a file or table, one per vote, split by group into training and held-out rows.

    source: a path (JSONL, JSON, CSV, TSV, also .gz; Parquet, Arrow, or a directory of these), "-" (standard input), DataFrame,
    Arrow
        table, `datasets.Dataset`, or list of dicts.
    map: canonical name -> column of the data, e.g. {"prompt": "question"}; {"vote:a": "1"} says what a label means.
    format: an importer's name; None detects it and says why in `meta["detection"]`.
    max_bad: share of rows that may be set aside (in `quarantine`, with line and reason) before reading is refused.
    seed, heldout: the held-out split (`splits.assign`); heldout=0 leaves it unassigned, and a split that was mapped is kept.
    max_field: longest text in characters.
    stream: whether the file is read in batches, its texts kept on disk (`records.stream`): the same votes in bounded memory. None does so
        above 256 MiB where the file and its format can be read so; True raises RecordError where they cannot.
    spool: the directory for what streaming keeps on disk, left alone where the file is read at once; None makes one that vanishes with
        the votes.
    progress: called with (bytes read, bytes of the file) while it streams.
    Raises RecordError, which says what is wrong, in how many rows, where first, and the ways out.

    >>> votes = read([{"prompt": "Why?", "response_a": "So.", "response_b": "Because.", "vote": "b"}], heldout=0)
    >>> len(votes), votes.sign.tolist(), votes.source_format
    (1, [-1], 'votes')
    """
    if not 0 <= max_bad <= 1:
        raise RecordError(f"max_bad is {max_bad}; it is a share of rows in [0, 1]. Write 0.01 for one per cent.")
    if stream is not False:
        from cupel.records.stream import CannotStream, read_stream, worth_streaming

        if stream or worth_streaming(source):
            try:
                return read_stream(
                    source, map=map, format=format, max_bad=max_bad, seed=seed, heldout=heldout, max_field=max_field, spool=spool,
                    progress=progress,
                )  # fmt: skip
            except CannotStream:
                if stream:
                    raise  # otherwise the file is read at once
    rows = sources.load(source, kinds(map))
    frame = Frame(rows.table, map, max_field)
    importer = choose(frame, format)
    require_columns(frame, importer.NAME, importer.NEEDS)
    parsed = importer.parse(frame)
    if parsed.origin is not None:
        rows, frame, parsed = unfold(rows, frame, parsed)
    votes = build(rows, frame, parsed, name=importer.NAME, order_known=importer.ORDER_KNOWN, max_bad=max_bad)
    if "split" in frame.mapped:
        from cupel.records.splits import given

        votes = given(votes, frame.mapped["split"])
    elif heldout > 0:
        from cupel.records.splits import assign

        votes = assign(votes, heldout=heldout, seed=seed)
    return votes


def require_columns(frame: Frame, name: str, needs: tuple[str, ...]) -> None:
    """A format that was asked for must have its columns."""
    missing = [column for column in needs if not frame.has(column) and column not in frame.columns]
    if missing:
        hint = did_you_mean(missing[0], frame.columns)
        raise RecordError(
            f"format {name} needs {', '.join(missing)}, which the data does not have.{hint} Its columns: "
            f"{', '.join(frame.columns)}. "
            f"Name yours: --map {missing[0]}=COLUMN"
        )
