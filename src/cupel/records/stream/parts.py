"""Votes a part at a time: each part is `Votes` by itself, with only the texts that its rows use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

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
    if rows >= len(votes):
        yield votes
        return
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


def convert_stream(
    votes: Votes, target: str | os.PathLike[str] | None, to: str = "trl", rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[str]]:  # fmt: skip
    """Write votes in another format a part at a time; (rows written, what was lost): what `records.convert.to_rows` gives of the whole.

    target: .parquet, .jsonl, .json or .csv, which appears when it is whole; None writes nothing. to: one of `records.convert.TARGETS`.
    rows: of a part; None takes votes in memory whole, and those of a spool 16,384 at a time. Where a column depends on all rows (the Arrow
    type of messages, a column that is there only if any row has a value) the parts are gone through twice.
    progress: called with (rows done, rows to do, counting both times).
    Raises InputError as `to_rows` does, and for another ending.

    >>> import tempfile
    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "response_a": f"x{i}", "response_b": "y", "vote": "tie" if i else "a"} for i in range(4)])
    >>> convert_stream(votes, Path(tempfile.mkdtemp()) / "out.jsonl", rows=2)[1][0]
    '3 of 4 votes express no preference (3 tie); a TRL table cannot hold them'
    """
    from cupel.records.convert import check_target, nothing_left, of_whole, plan_of, write
    from cupel.records.exports.losses import Again, Losses
    from cupel.records.stream.writing import open_table

    check_target(to)
    place = None if target is None else Path(os.fspath(target))
    step = (ROWS if votes.spool is not None else max(len(votes), 1)) if rows is None else rows
    plan = plan_of(votes, to)
    done, total = 0, len(votes)
    if step < len(votes):
        for part in batches(votes, step):
            write(part, to, Losses(), plan)
            if not plan.gathers:
                break
            done, total = done + len(part), 2 * len(votes)
            if progress is not None:
                progress(done, total)
        plan.settled = True
    while True:
        losses, count, at = Losses(), 0, done
        try:
            with open_table(place, to) as out:
                for part in batches(votes, step):
                    table = write(part, to, losses, plan)
                    count, at = count + table.num_rows, at + len(part)
                    out.write(table)
                    if progress is not None:
                        progress(at, total)
                of_whole(votes, to, losses)
                if not count:
                    raise nothing_left(to, losses)
            return count, losses.lines()
        except Again:  # a column of messages is JSON text after all; each column can say so once
            continue
