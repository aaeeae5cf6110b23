"""Votes a part at a time: each part is `Votes` by itself, with only the texts that its rows use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.records.schema import Votes

#: rows of a part
ROWS = 1 << 14


def batches(votes: Votes, rows: int = ROWS) -> Iterator[Votes]:
    """The votes in their order, at most `rows` at a time; the text tables of a part hold what the part uses, in the same order.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": f"p{i}", "chosen": f"x{i}", "rejected": "y"} for i in range(5)])
    >>> [(len(part), part.prompt_texts()) for part in batches(votes, 3)]
    [(3, ['p0', 'p1', 'p2']), (2, ['p3', 'p4'])]
    """
    for low in range(0, len(votes), rows):
        yield compact(votes.take(np.arange(low, min(low + rows, len(votes)))))


def compact(votes: Votes) -> Votes:
    """The same rows with text tables that hold nothing else.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": f"p{i}", "chosen": f"x{i}", "rejected": "y"} for i in range(5)])
    >>> compact(votes.take([3])).response_texts()
    ['x3', 'y']
    """
    asked, prompt = np.unique(votes.prompt, return_inverse=True)
    used, sides = np.unique(np.concatenate([votes.first, votes.second]), return_inverse=True)
    sides = sides.reshape(-1).astype(np.int32)
    return votes.with_(
        prompts=votes.prompts.take(pa.array(asked)),
        responses=votes.responses.take(pa.array(used)),
        prompt=prompt.reshape(-1).astype(np.int32),
        first=sides[: len(votes)],
        second=sides[len(votes) :],
        spool=None,
    )


def convert_stream(votes: Votes, target: str | os.PathLike[str], to: Any = "trl", rows: int = ROWS) -> tuple[int, list[str]]:
    """Write votes in another format a part at a time; (rows written, what was lost, over all parts).

    target: .parquet or .jsonl; it appears when it is whole. to: as `records.convert.to_rows` takes it, for formats in which a row comes
    of one vote. Sentences about what is lost are
    those of the parts; where they differ in nothing but numbers, these are added up. Raises InputError as `to_rows` does, or
    where the ending is another.

    >>> import tempfile
    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "response_a": f"x{i}", "response_b": "y", "vote": "tie" if i else "a"} for i in range(4)])
    >>> convert_stream(votes, Path(tempfile.mkdtemp()) / "out.jsonl", rows=2)[1][0]
    '3 of 4 votes express no preference (3 tie); a TRL table cannot hold them'
    """
    from cupel.records.stream.writing import write_parts

    return write_parts(_parts(votes, rows), Path(os.fspath(target)), to)


def _parts(votes: Votes, rows: int) -> Iterator[Votes]:
    """Parts that have prompts where the whole has: a table of a part in which all prompts are empty keeps the column."""
    asked = any(text.as_py() for text in votes.prompts[:2])  # unique texts: at most one of two is empty
    for part in batches(votes, rows):
        if asked and part.prompts.equals(pa.array([""], part.prompts.type)):
            part = part.with_(prompts=pa.array(["", " "], part.prompts.type))
        yield part
