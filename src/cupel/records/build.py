"""Columns -> Votes: unique texts, ids, groups, targets; the rows that cannot be used, set aside with line and reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.arrow import pc
from cupel.records.columns import Frame, as_strings
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import NO_COMPARISON
from cupel.records.groups import connected
from cupel.records.schema import BOTH_BAD, HELDOUT, SKIP, TIE, TRAIN, A, B, Quarantined, Votes
from cupel.records.sources import Rows

SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    **dict.fromkeys(["test", "heldout", "held_out", "validation", "valid", "dev", "eval"], HELDOUT),
}


def build(rows: Rows, frame: Frame, parsed: Parsed, *, name: str, order_known: bool, max_bad: float) -> Votes:
    """Votes of the rows that can be used. Raises RecordError where more than the share `max_bad` cannot."""
    identical = pc.equal(parsed.first, parsed.second).to_numpy(zero_copy_only=False)
    indifferent = np.isin(parsed.outcome, (TIE, BOTH_BAD, SKIP))
    frame.mark(identical & ~indifferent, "identical_sides", "both sides are the same text, and one of them is preferred")
    extra = extra_columns(frame)
    ids = _given_ids(frame)
    keep = np.ones(len(frame), dtype=bool)
    keep[list(frame.bad)] = False
    aside = set_aside(rows, frame)
    total, losses = len(frame) + len(rows.quarantine), []
    if rows.unfolded is not None:
        total = rows.unfolded.n_rows
        aside, losses = _whole_rows(rows, keep, aside)
    quarantine = sorted([*rows.quarantine, *aside], key=lambda q: q.line)
    refuse_bad(quarantine, total, max_bad, rows.name)

    index = pa.array(np.flatnonzero(keep))
    whole = bool(keep.all())

    def kept(values: Any) -> Any:
        if isinstance(values, np.ndarray):
            return values if whole else values[keep]
        return values if whole else values.take(index)

    prompts, prompt = _encode(kept(parsed.prompt))
    n = int(keep.sum())
    responses, both = _encode(pa.concat_arrays([kept(parsed.first), kept(parsed.second)]))
    first, second = both[:n], both[n:]
    outcome = kept(parsed.outcome)
    annotator, annotators = _codes(frame, "annotator", keep)
    columns: dict[str, Any] = {key: kept(values) for key, values in extra.items()}
    model_first, model_second, models = _models(frame, keep)
    names = row_ids(kept(ids), prompts, responses, prompt, first, second, outcome, annotator, annotators)
    if frame.has("group"):
        group = frame.codes("group")[0][keep]
        alone = group < 0
        group = np.where(alone, group.max(initial=-1) + 1 + np.cumsum(alone) - 1, group)
        group = np.unique(group, return_inverse=True)[1].reshape(-1).astype(np.int32)
    else:
        group = connected(prompts, responses, prompt, first, second)
    p = np.where(outcome == A, 1.0, np.where(outcome == B, 0.0, 0.5))
    w = np.where((outcome == SKIP) | (outcome == BOTH_BAD), 0.0, 1.0)
    p = np.where(np.isnan(columns["p"]), p, columns["p"])
    w = np.where(np.isnan(columns["w"]), w, columns["w"])
    meta: Mapping[str, Any] = {
        "source": rows.name,
        "detection": "; ".join([*frame.detection, *(f"in doubt: {doubt}" for doubt in frame.doubts)]),
        "doubts": tuple(frame.doubts),
        "notes": tuple(rows.notes),
        "columns": dict(sorted(frame.names.items())),
        "groups": f"column {frame.names['group']}" if frame.has("group") else "connected prompts and responses",
        "n_rows": total,
        "n_rows_kept": total - len(quarantine),
        "losses": (*(rows.unfolded.losses if rows.unfolded is not None else ()), *losses),
    }
    return Votes(
        prompts=prompts,
        responses=responses,
        ids=names,
        prompt=prompt,
        first=first,
        second=second,
        outcome=outcome.astype(np.int8),
        annotator=annotator,
        group=group,
        p=p,
        w=w,
        strength=columns["strength"],
        seconds=columns["seconds"],
        model_first=model_first,
        model_second=model_second,
        split=columns["split"],
        line=kept(rows.line),
        annotators=annotators,
        models=models,
        order_known=order_known,
        source=rows.table if whole else rows.table.take(index),
        source_format=name,
        quarantine=tuple(quarantine),
        meta=meta,
    )


def extra_columns(frame: Frame) -> dict[str, np.ndarray]:
    """The numeric columns and the split (only where it was mapped), checked; bad rows are marked."""
    out = {name: frame.numbers(name) for name in ("strength", "seconds", "p", "w")}
    frame.mark((out["p"] < 0) | (out["p"] > 1), "bad_probability", "column p must lie in [0, 1]")
    frame.mark((out["w"] < 0) | np.isinf(out["w"]), "bad_weight", "column w must be a finite number, at least 0")
    split = np.full(len(frame), -1, dtype=np.int8)
    if "split" in frame.mapped:
        codes, names = frame.codes("split")
        unknown = [name for name in names if name.lower() not in SPLITS]
        table = np.array([SPLITS.get(name.lower(), -1) for name in names] + [-1], dtype=np.int8)
        split = table[codes]
        if unknown:
            detail = f"column {frame.names['split']} is none of {', '.join(SPLITS)}"
            frame.mark(np.isin(codes, [i for i, name in enumerate(names) if name in unknown]), "unknown_split", detail)
    out["split"] = split
    return out


def _given_ids(frame: Frame) -> pa.Array:
    """large_string: ids of the file, null where there are none; every repetition of an id is marked."""
    if not frame.has("id"):
        return pa.nulls(len(frame), pa.large_string())
    ids = as_strings(frame.column("id"), frame.names["id"])
    usable = [row for row in range(len(frame)) if row not in frame.bad] if frame.bad else range(len(frame))
    if len(usable) != len(ids) or pc.count_distinct(ids, mode="only_valid").as_py() != len(ids) - ids.null_count:
        seen: dict[str, int] = {}
        values = ids.to_pylist()
        for row in usable:
            if values[row] is not None and seen.setdefault(values[row], row) != row:
                at = f"id {values[row][:80]!r} is taken by row {seen[values[row]] + 1}"
                detail = f"{at}; if it names the pair, not the vote: --map item_id={frame.names['id']}"
                frame.bad.setdefault(row, ("duplicate_id", detail))
    return ids


def _codes(frame: Frame, name: str, keep: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    codes, names = frame.codes(name)
    return _compact(codes[keep], names)


def _compact(codes: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and names without the names that no row uses."""
    used = np.unique(codes[codes >= 0])
    if len(used) == len(names):
        return codes.astype(np.int32), names
    table = np.full(len(names) + 1, -1, dtype=np.int32)
    table[used] = np.arange(len(used))
    return table[codes], tuple(names[i] for i in used)


def _models(frame: Frame, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Both sides' models in one table of names."""
    (first, a), (second, b) = frame.codes("model_first"), frame.codes("model_second")
    names = sorted({*a, *b})
    position = {name: i for i, name in enumerate(names)}
    first = np.array([position[x] for x in a] + [-1], dtype=np.int32)[first][keep]
    second = np.array([position[x] for x in b] + [-1], dtype=np.int32)[second][keep]
    both, models = _compact(np.concatenate([first, second]), tuple(names))
    return both[: len(first)], both[len(first) :], models


def _encode(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Unique texts in order of first appearance, and the index of each value."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = values.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)


def row_ids(
    given: pa.Array, prompts: pa.Array, responses: pa.Array, prompt: np.ndarray, first: np.ndarray, second: np.ndarray, outcome:
    np.ndarray,
    annotator: np.ndarray, annotators: tuple[str, ...],
) -> pa.Array:  # fmt: skip
    """string: the given id, else 16 hexadecimal digits of the SHA-256 of the row's content and its occurrence among equal rows."""
    if given.null_count == 0:
        return given.cast(pa.string())
    texts = {"prompt": _digests(prompts), "response": _digests(responses)}
    people = [name.encode() for name in annotators] + [b""]
    values = given.to_pylist()
    taken = {value for value in values if value is not None}
    seen: Counter[bytes] = Counter()
    for row, value in enumerate(values):
        if value is not None:
            continue
        key = b"\0".join(
            (
                texts["prompt"][prompt[row]],
                texts["response"][first[row]],
                texts["response"][second[row]],
                bytes([outcome[row]]),
                people[annotator[row]],
            )
        )
        while True:
            name = hashlib.sha256(key + b"\0" + str(seen[key]).encode()).hexdigest()[:16]
            seen[key] += 1
            if name not in taken:
                break
        taken.add(name)
        values[row] = name
    return pa.array(values, pa.string())


def _digests(texts: pa.Array) -> list[bytes]:
    return [hashlib.sha256(text.encode()).digest() for text in texts.to_pylist()]


def set_aside(rows: Rows, frame: Frame) -> list[Quarantined]:
    """The rows that a frame marked as bad, with line, reason and the row as text, in the order of the file."""
    from cupel.records.textual import row_text

    order = sorted(frame.bad)
    if not order:
        return []
    raw = rows.table.take(pa.array(order)).to_pylist()
    return [Quarantined(int(rows.line[row]), *frame.bad[row], row_text(found)) for row, found in zip(order, raw, strict=True)]


def _whole_rows(rows: Rows, keep: np.ndarray, aside: list[Quarantined]) -> tuple[list[Quarantined], list[str]]:
    """Comparisons that were set aside -> source rows of which nothing is left, and a sentence for those of which something is."""
    unfolded = rows.unfolded
    assert unfolded is not None
    kept = {*unfolded.first[keep].tolist(), *unfolded.second[keep].tolist()}
    gone: dict[int, Quarantined] = {}
    partly: Counter[str] = Counter()
    lost = np.flatnonzero(~keep)
    for found, row in zip(aside, lost, strict=True):
        lines = {int(unfolded.first[row]), int(unfolded.second[row])} - kept
        for line in lines:
            gone.setdefault(line, Quarantined(line, found.reason, found.detail, found.raw))
        if not lines:
            partly[f"{found.reason}: {found.detail}"] += 1
    said = [f"{count:,} comparisons of rows that hold others are left out ({reason})" for reason, count in sorted(partly.items())]
    return [gone[line] for line in sorted(gone)], said


def refuse_bad(quarantine: list[Quarantined], total: int, max_bad: float, name: str) -> None:
    """Stop before any work where too many rows are unusable. A sound row that holds no comparison is set aside, but is no fault."""
    faults = sum(q.reason != NO_COMPARISON for q in quarantine)
    if not quarantine or (faults <= max_bad * total and len(quarantine) < total):
        return
    counts = Counter(q.reason for q in quarantine)
    parts = []
    for reason, count in counts.most_common():
        at = next(q for q in quarantine if q.reason == reason)
        parts.append(f"{count:,} {reason} (first: line {at.line}: {at.detail})")
    none = "no row is left; " if len(quarantine) == total else ""
    raise RecordError(
        f"{len(quarantine):,} of {total:,} rows of {name} cannot be used ({none}allowed: {max_bad:.2%}): {'; '.join(parts)}. "
        f"Correct them, name the columns with --map NEW=COLUMN, or allow more with --max-bad "
        f"{min(1.0, faults / total + 0.005):.2f}."
    )
