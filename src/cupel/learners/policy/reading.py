"""Files to what a policy is trained on: comparisons, or single responses that somebody called good or bad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import RecordError
from cupel.learners.policy.images import COLUMNS, Images, rows_with_images
from cupel.learners.policy.list_rows import read_lists
from cupel.learners.policy.lists import is_list
from cupel.learners.policy.options import PolicyOptions, Source
from cupel.records.ratings import rating_columns
from cupel.records.reading import read
from cupel.records.schema import A, B, Votes
from cupel.records.sources import Rows, load
from cupel.records.splits import assign
from cupel.records.stream import CannotStream
from cupel.records.stream.opening import size_of

_GOOD = {"true", "1", "1.0", "desirable", "good", "yes"}
_BAD = {"false", "0", "0.0", "undesirable", "bad", "no", "-1"}


#: files of more bytes are read in batches, their texts kept on disk, where their kind and format allow it
STREAM_ABOVE = 4 << 20
#: columns of the rows as they came that training reads
_READ = ("tools",)


def read_source(
    source: Source, options: PolicyOptions, *, heldout: float, images: Images | None = None, spool: Path | None = None
) -> Votes:
    """The comparisons of a data set; with `unpaired`, rows of single responses as they are; under an objective
    of lists, rows of lists (`list_rows`; their prompts hold no images). Raises RecordError as `cupel.read`.

    A train.parquet of `cupel curate` keeps its p and w; its held-out rows were taken out before, so nothing more is held out where the
    file says so itself. With `images`, prompts name the images of their rows by hash. Files above 4 MiB are read in batches into `spool`
    (None: where temporary files go): the same votes.
    """
    if options.kind == "policy" and is_list(options.objective):
        return read_lists(source, options, heldout)
    rows = rows_with_images(source.file, images, source.map) if images is not None else None
    if options.unpaired and source.format in (None, "kto"):
        return _unpaired(source, options, heldout, rows)
    if rows is not None:
        return _lean(_with_images(rows, source, options, heldout))
    return _lean(_comparisons(source, options, heldout, spool))


def _comparisons(source: Source, options: PolicyOptions, heldout: float, spool: Path | None) -> Votes:
    settings: dict[str, Any] = {
        "map": source.map, "format": source.format, "max_bad": options.max_bad, "heldout": heldout, "seed": options.seed,
    }  # fmt: skip
    path = Path(source.file)
    if path.exists() and size_of(path) > STREAM_ABOVE:
        try:
            return read(source.file, **settings, stream=True, spool=spool)
        except CannotStream:  # a kind or format that is read at once
            pass
    return read(source.file, **settings, stream=False)


def _lean(votes: Votes) -> Votes:
    """Without the columns of the source that nobody reads here."""
    read_here = (*_READ, *rating_columns(votes))
    kept = [] if votes.source is None else [name for name in read_here if name in votes.source.column_names]
    return votes.with_(source=votes.source.select(kept) if votes.source is not None and kept else None)


def _with_images(rows: Rows, source: Source, options: PolicyOptions, heldout: float) -> Votes:
    """Comparisons of rows that are in memory, with the lines of their file."""
    aside = rows.quarantine
    if len(aside) > options.max_bad * (len(aside) + len(rows.table)):
        raise RecordError(
            f"{len(aside):,} rows of {rows.name} cannot be read (first: line {aside[0].line}, {aside[0].reason}). Repair them, or allow "
            f"more with max_bad"
        )
    names = {key: value for key, value in (source.map or {}).items() if key not in COLUMNS}
    votes = read(rows.table, map=names, format=source.format, max_bad=options.max_bad, heldout=heldout, seed=options.seed)
    found = tuple(replace(one, line=int(rows.line[one.line - 1])) for one in votes.quarantine)
    return votes.with_(line=rows.line[votes.line - 1], quarantine=(*aside, *found))


def _unpaired(source: Source, options: PolicyOptions, heldout: float, rows: Rows | None = None) -> Votes:
    """Rows of prompt, completion and label as comparisons of one side: `second` is -1, and p is 1 for a good response, 0 for a bad one."""
    import pyarrow as pa

    from cupel.records.text import canonical, is_chat

    rows = rows or load(source.file)
    renamed = {column: name for name, column in (source.map or {}).items() if name not in COLUMNS}
    table = rows.table.rename_columns([renamed.get(name, name) for name in rows.table.column_names])
    missing = [name for name in ("completion", "label") if name not in table.column_names]
    if missing:
        raise RecordError(
            f"{source.file} has no column {missing[0]}: unpaired rows are prompt, completion and label (true or false). Its columns are "
            f"{', '.join(table.column_names)}; name others with map, or leave out unpaired"
        )

    def text(value: Any) -> str:
        return canonical(value) if is_chat(value) else "" if value is None else str(value)

    prompts = [text(value) for value in (table["prompt"].to_pylist() if "prompt" in table.column_names else [""] * len(table))]
    responses = [text(value) for value in table["completion"].to_pylist()]
    labels = ["" if value is None else str(value).strip().lower() for value in table["label"].to_pylist()]
    bad = [n for n, label in enumerate(labels) if label not in _GOOD | _BAD]
    if len(bad) > options.max_bad * max(len(labels), 1):
        raise RecordError(
            f"{len(bad):,} of {len(labels):,} rows of {Path(source.file).name} have a label that is neither true nor false (first: line "
            f"{int(rows.line[bad[0]])}, {labels[bad[0]]!r}). Repair them, or allow more with max_bad"
        )
    keep = np.setdiff1d(np.arange(len(labels)), bad)
    unique_prompts, prompt = np.unique(np.array([prompts[n] for n in keep], dtype=object), return_inverse=True)
    unique_responses, first = np.unique(np.array([responses[n] for n in keep], dtype=object), return_inverse=True)
    good = np.array([labels[n] in _GOOD for n in keep])
    n = len(keep)
    weight = table["weight"].to_numpy(zero_copy_only=False)[keep].astype(float) if "weight" in table.column_names else np.ones(n)
    names = table["annotator"].to_pylist() if "annotator" in table.column_names else None
    annotators = tuple(dict.fromkeys(str(names[k]) for k in keep if names[k] is not None)) if names else ()
    place = {name: k for k, name in enumerate(annotators)}
    ids = table["id"].cast(pa.string()).take(pa.array(keep)) if "id" in table.column_names else pa.array([f"{k}" for k in rows.line[keep]])
    votes = Votes(
        prompts=pa.array(unique_prompts.tolist(), pa.large_string()), responses=pa.array(unique_responses.tolist(), pa.large_string()),
        ids=ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids, prompt=prompt.astype(np.int32), first=first.astype(np.int32),
        second=first.astype(np.int32), outcome=np.where(good, A, B).astype(np.int8),
        annotator=np.array([place.get(str(names[k]), -1) if names else -1 for k in keep], np.int32), group=prompt.astype(np.int32),
        p=good.astype(float), w=weight, strength=np.full(n, np.nan), seconds=np.full(n, np.nan), model_first=np.full(n, -1, np.int32),
        model_second=np.full(n, -1, np.int32), split=np.full(n, -1, np.int8), line=rows.line[keep], annotators=annotators,
        source_format="kto",
    )  # fmt: skip
    votes = assign(votes, heldout=heldout, seed=options.seed) if heldout else votes
    return votes.with_(second=np.full(n, -1, np.int32))
