"""Votes a part at a time: each part is `Votes` by itself, with only the texts that its rows use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.arrow import pc
from cupel.records.schema import Votes
from cupel.records.text import messages

#: rows of a part
ROWS = 1 << 14
#: formats that are written part by part
STREAMED = ("trl", "votes")


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


def convert_stream(votes: Votes, target: str | os.PathLike[str], to: str = "trl", rows: int = ROWS) -> tuple[int, list[str]]:
    """Write votes in another format a part at a time; (rows written, what was lost, as `to_rows` says it of the whole).

    target: .parquet or .jsonl; it appears when it is whole. to: "trl" or "votes", in which a row comes of one vote; the other formats of
    `records.convert.to_rows` look at all rows. Raises InputError as `to_rows` does, or for another format or ending.

    >>> import tempfile
    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "response_a": f"x{i}", "response_b": "y", "vote": "tie" if i else "a"} for i in range(4)])
    >>> convert_stream(votes, Path(tempfile.mkdtemp()) / "out.jsonl", rows=2)[1][0]
    '3 of 4 votes express no preference (3 tie); a TRL table cannot hold them'
    """
    from cupel.records.convert import to_rows
    from cupel.records.stream.writing import write_parts

    place = Path(os.fspath(target))
    if to not in STREAMED:
        raise InputError(f"{to} is not written part by part: {' and '.join(STREAMED)} are. Convert at once: records.convert.to_rows.")
    losses = to_rows(outline(votes), to)[1]
    return write_parts(_parts(votes, rows), place, to), losses


def outline(votes: Votes) -> Votes:
    """The same votes with every text replaced by a short one of its kind (empty, plain, chat): what is lost can be told from it.

    >>> from cupel.records import read
    >>> outline(read([{"prompt": "a long question", "chosen": "x", "rejected": "y"}])).prompt_texts()
    ['text', '', '[{"role":"user","content":"text"}]']
    """
    kinds = pa.array(["text", "", '[{"role":"user","content":"text"}]'], pa.large_string())
    prompt, response = _kinds(votes.prompts), _kinds(votes.responses)
    return votes.with_(
        prompts=kinds if (prompt != 1).any() else pa.array(["", ""], kinds.type),
        responses=kinds,
        prompt=prompt[votes.prompt],
        first=response[votes.first],
        second=response[votes.second],
        source=None if votes.source is None else pa.table({"": pa.nulls(len(votes))}),
        spool=None,
    )


def _kinds(texts: pa.Array) -> np.ndarray:
    """int32: 0 plain, 1 empty, 2 a chat list, of each text."""
    out = np.zeros(len(texts), dtype=np.int32)
    for low in range(0, len(texts), ROWS):
        some = texts.slice(low, ROWS)
        out[low : low + ROWS][pc.equal(some, "").to_numpy(zero_copy_only=False)] = 1
        maybe = np.flatnonzero(pc.starts_with(some, "[").to_numpy(zero_copy_only=False))
        for at in maybe.tolist():
            if messages(some[at].as_py()) is not None:
                out[low + at] = 2
    return out


def _parts(votes: Votes, rows: int) -> Iterator[Votes]:
    """Parts that have prompts where the whole has: a table of a part in which all prompts are empty keeps the column."""
    asked = any(text.as_py() for text in votes.prompts[:2])  # unique texts: at most one of two is empty
    for part in batches(votes, rows):
        if asked and part.prompts.equals(pa.array([""], part.prompts.type)):
            part = part.with_(prompts=pa.array(["", " "], part.prompts.type))
        yield part
