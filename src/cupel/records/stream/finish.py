"""What is known only when all rows are: second sides, ranks of names, ids of repeated rows, groups, the split."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.arrow import pc
from cupel.records.groups import connected
from cupel.records.schema import Votes
from cupel.records.stream.sink import Sink, first_words, row_heads
from cupel.records.stream.spool import KINDS, STEP, Column, mapped, open_spool, read_texts, votes_at, write_facts
from cupel.records.stream.unique import encode

#: files that only the making of a spool needs
_SCRATCH = ("*.raw", "late.*", "ids.key", "ids.mask", "ids.given.*", "groups.*", "prompts.sha256", "responses.sha256")


def finish(sink: Sink, facts: Mapping[str, Any], *, grouped: bool, split: str | None, heldout: float, seed: int) -> Votes:
    """The votes of a pass that is over.

    facts: what `Votes` holds beside its columns (source_format, order_known, meta, source: whether rows were kept).
    grouped: the file has a column of groups. split: the column of a split that came with the data. heldout: 0 assigns none.
    """
    place = sink.place
    _second(sink)
    sink.close()
    annotators, rank = sink.annotators.ranks()
    _mapped_column(place, "annotator", rank)
    models, rank = sink.models.ranks()
    for name in ("model_first", "model_second"):
        _mapped_column(place, name, rank)
    _ids(sink, annotators)
    (place / "split.raw").replace(place / "split")
    everything = {
        **facts,
        "n": sink.rows,
        "texts": {"prompts": len(sink.prompts), "responses": len(sink.responses)},
        "annotators": list(annotators),
        "models": list(models),
    }
    if grouped:
        _given_groups(sink)
    else:
        _write(place, "group", np.zeros(sink.rows, dtype=np.int32))  # until the texts can be opened
        votes = votes_at(place, everything)
        _write(place, "group", connected(votes.prompts, votes.responses, votes.prompt, votes.first, votes.second))
    votes = replace(votes_at(place, everything), spool=None)
    if split is not None or heldout > 0:
        from cupel.records.splits import assign, given

        known = (sink.prompts.digests.again(), sink.responses.digests.again())
        votes = given(votes, split) if split is not None else assign(votes, heldout=heldout, seed=seed, digests=known)
        _write(place, "split", votes.split)
        everything["meta"] = _meta(votes)
    for pattern in _SCRATCH:
        for file in place.glob(pattern):
            file.unlink()
    write_facts(place, everything)
    return open_spool(place)


def _meta(votes: Votes) -> Any:
    from cupel.records.store import pack

    return pack(dict(votes.meta))


def _write(place: Path, name: str, values: np.ndarray) -> None:
    temporary = place / f"{name}.new"
    np.ascontiguousarray(values, dtype=KINDS[name]).tofile(temporary)
    temporary.replace(place / name)


def _mapped_column(place: Path, name: str, table: np.ndarray) -> None:
    """A column of numbers by first appearance -> ranks of sorted names; -1 stays."""
    raw = mapped(place / f"{name}.raw", KINDS[name])
    out = Column(place / name, KINDS[name])
    for low in range(0, len(raw), STEP):
        out.append(table[raw[low : low + STEP]])
    out.close()


def _second(sink: Sink) -> None:
    """Number the second sides that no first side had shown before."""
    texts, digest = sink.late.read(), sink.late_digests.read()
    number = np.zeros(len(texts), dtype=np.int32)
    step = 1 << 14
    for low in range(0, len(texts), step):
        some, code = encode(texts.slice(low, step))
        first = np.unique(code, return_index=True)[1]
        number[low : low + step] = sink.responses.add(some, digest[low + first])[code]
    raw = sink.columns["second"].read()
    out = Column(sink.place / "second", KINDS["second"])
    for low in range(0, len(raw), STEP):
        part = raw[low : low + STEP].copy()
        late = part < -1
        part[late] = number[-2 - part[late]]
        out.append(part)
    out.close()


def _given_groups(sink: Sink) -> None:
    """Groups of a column, numbered as their names sort; rows without one follow, each by itself."""
    count = len(sink.groups)
    order = pc.sort_indices(read_texts(sink.place, "groups", count)).to_numpy(zero_copy_only=False)
    rank = np.empty(count + 1, dtype=np.int32)
    rank[order] = np.arange(count, dtype=np.int32)
    group = mapped(sink.place / "group.raw", KINDS["group"])
    alone = group < 0
    _write(sink.place, "group", np.where(alone, count + np.cumsum(alone) - 1, rank[group]))


def _ids(sink: Sink, annotators: tuple[str, ...]) -> None:
    """The ids: those of the file, else 16 hexadecimal digits of the row's hash, a later occurrence of a row counted in it."""
    place, n = sink.place, sink.rows
    keys = np.array(mapped(place / "ids.key", "<u8"))
    is_given = mapped(place / "ids.mask", "<i1").astype(bool)
    given = read_texts(place, "ids.given", sink.given.count)
    made = np.flatnonzero(~is_given)
    again = _repeated(sink, keys, made)
    if len(again):
        keys[again[:, 0]] = _later(sink, again, annotators)
    clash = len(np.unique(keys[made])) < len(made) if len(again) else False
    if sink.given.count and len(made):
        as_given = pa.array(_hexadecimal(keys[made]).tolist(), pa.large_string())
        clash = clash or len(np.intersect1d(np.array(as_given.to_pylist()), np.array(given.to_pylist()))) > 0
    size = sink.given.size + 16 * len(made)
    if size >= 1 << 31:
        raise RecordError(f"the ids of {n:,} rows take {size:,} characters, more than 2 GiB. Leave the id column out, or split the file.")
    if clash:  # two rows of 64 equal bits: number them one after another, as reading at once does
        from cupel.records.build import row_ids as one_by_one

        values = given.take(pa.array(np.where(is_given, np.cumsum(is_given) - 1, -1), mask=~is_given))
        prompts, responses = read_texts(place, "prompts", len(sink.prompts)), read_texts(place, "responses", len(sink.responses))
        prompt, first, second, outcome, annotator = (
            mapped(place / name, KINDS[name]) for name in ("prompt", "first", "second", "outcome", "annotator")
        )
        ids = one_by_one(values, prompts, responses, prompt, first, second, outcome, annotator, annotators)
    elif not sink.given.count:
        (place / "ids.bytes").write_bytes(binascii.hexlify(keys.tobytes()))
        (np.arange(n + 1, dtype=np.int32) * np.int32(16)).tofile(place / "ids.offsets")
        return
    elif not len(made):
        ids = given.cast(pa.string())
    else:
        hexes = pa.array(_hexadecimal(keys[made]).tolist(), pa.large_string())
        at = np.where(is_given, np.cumsum(is_given) - 1, len(given) + np.cumsum(~is_given) - 1)
        ids = pa.concat_arrays([given, hexes]).take(pa.array(at)).cast(pa.string())
    _, offsets, data = ids.buffers()
    (place / "ids.offsets").write_bytes(memoryview(offsets)[4 * ids.offset : 4 * (ids.offset + n + 1)])
    (place / "ids.bytes").write_bytes(memoryview(data) if data is not None else b"")


def _hexadecimal(keys: np.ndarray) -> np.ndarray:
    return np.frombuffer(binascii.hexlify(np.ascontiguousarray(keys).tobytes()), dtype="S16").astype("U16")


def _repeated(sink: Sink, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """int64 [m, 2]: rows whose content an earlier row has, and how many earlier rows."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    same = keys[order][1:] == keys[order][:-1]
    if not same.any():
        return np.zeros((0, 2), dtype=np.int64)
    member = np.zeros(len(order), dtype=bool)
    member[1:] |= same
    member[:-1] |= same
    found = np.sort(order[member])
    names = ("prompt", "first", "second", "outcome")
    content = [mapped(sink.place / name, KINDS[name])[found].astype(np.int64) for name in names]
    content.append(mapped(sink.place / "annotator", KINDS["annotator"])[found].astype(np.int64))
    label = np.unique(np.stack(content, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    by_label = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[by_label], label[by_label], side="left")
    occurrence = np.empty(len(found), dtype=np.int64)
    occurrence[by_label] = np.arange(len(found)) - starts
    later = occurrence > 0
    return np.stack([found[later], occurrence[later]], axis=1)


def _later(sink: Sink, again: np.ndarray, annotators: tuple[str, ...]) -> np.ndarray:
    """uint64: the keys of rows that repeat earlier ones."""
    people = [name.encode() + b"\0" for name in (*annotators, "")]
    digests = {"prompts": sink.prompts.digests.again(), "responses": sink.responses.digests.again()}
    column = {name: mapped(sink.place / name, KINDS[name]) for name in ("prompt", "first", "second", "outcome", "annotator")}
    out = np.empty(len(again), dtype=np.uint64)
    for low in range(0, len(again), 1 << 16):
        rows, occurrence = again[low : low + (1 << 16)].T
        tables = (("prompts", "prompt"), ("responses", "first"), ("responses", "second"))
        sides = np.concatenate([digests[table][column[name][rows]] for table, name in tables], axis=1)
        heads = row_heads(sides, column["outcome"][rows])
        codes = column["annotator"][rows].tolist()
        tails = [people[code] + str(k).encode() for code, k in zip(codes, occurrence.tolist(), strict=True)]
        out[low : low + (1 << 16)] = first_words([head + tail for head, tail in zip(heads, tails, strict=True)])
    return out
