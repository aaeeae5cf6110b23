"""Events as a format holds them, made into a log: ids become indices, rows that cannot be used are set aside and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cupel.errors import RecordError
from cupel.interactions.log import PER_EVENT, Log
from cupel.interactions.values import numbers, seconds

compute: Any = pc
#: `released` of an item of which nothing is known: before everything
LONG_AGO = int(np.iinfo(np.int64).min)


@dataclass
class Raw:
    """Columns of equal length, of any type, as they were read; what is not there is None.

    user, item: ids. texts, released: by item id as a string (seconds since 1970). skipped: rows that had not as many fields as the
    header; their line numbers (None where unknown). first_line: the line of the first row (2 behind a header); 0 where rows have no
    lines.
    """

    user: Any
    item: Any
    value: Any = None
    time: Any = None
    propensity: Any = None
    event: Any = None
    texts: Mapping[str, str] | None = None
    released: Mapping[str, int] | None = None
    skipped: tuple[int | None, ...] = ()
    first_line: int = 0
    notes: tuple[str, ...] = ()


def build(raw: Raw, *, what: str, max_bad: float = 0.01) -> Log:
    """The log of raw events; at most `max_bad` of the rows may be set aside. RecordError names what is wrong, in how many, where first."""
    n = len(raw.user)
    if n + len(raw.skipped) == 0:
        raise RecordError(f"{what} has no events: give a file with at least one row")
    _refuse_nested(raw, what)
    problems: dict[str, np.ndarray] = {}
    user, users = _ids(raw.user, "user", problems)
    item, items = _ids(raw.item, "item", problems)
    value = time = None
    notes = list(raw.notes)
    if raw.value is not None:
        value, bad = numbers(raw.value)
        problems["no number as its value"] = bad
        value = value.astype(np.float32)
    if raw.time is not None:
        time, bad, unit = seconds(raw.time)
        problems["a time that cannot be read"] = bad
        notes += [unit] if unit else []
    propensity = None
    if raw.propensity is not None:
        propensity, bad = numbers(raw.propensity)
        _refuse_propensities(propensity, bad, what, raw)
    event = None if raw.event is None else _names(raw.event)
    good = np.ones(n, dtype=bool)
    for bad in problems.values():
        good &= ~bad
    notes += _set_aside(problems, good, raw, what, max_bad)
    columns = {"value": value, "time": time, "propensity": propensity, "event": event}
    if not good.all():
        user, item = user[good], item[good]
        columns = {name: None if x is None else x[good] for name, x in columns.items()}
    user, users = _closed(user, users)
    item, items = _closed(item, items)
    texts, released = _facts(raw, items, notes)
    return Log(users, items, user, item, **columns, texts=texts, released=released, notes=tuple(notes))


def _ids(column: Any, kind: str, problems: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Index of each row's id among the ids in sorted order (numbers as numbers), -1 where it has none, and the ids."""
    array = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([pa.array(column)])
    if pa.types.is_floating(array.type):
        missing = compute.or_kleene(compute.is_null(array, nan_is_null=True), compute.is_inf(array))
        whole = compute.equal(compute.floor(array), array)
        if compute.all(compute.or_kleene(missing, whole)).as_py() is not False:  # 12.0 is the id 12, as in a column with gaps
            array = compute.if_else(missing, pa.scalar(None, array.type), array).cast(pa.int64())
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    array = array.unify_dictionaries()
    chunks = array.chunks
    names = chunks[0].dictionary if chunks else pa.array([], pa.string())
    text = names.cast(pa.string()).to_numpy(zero_copy_only=False) if len(names) else np.zeros(0, dtype=object)
    index = np.concatenate([_indices(chunk) for chunk in chunks]) if chunks else np.zeros(0, np.int32)
    blank = np.array([name is None or not name.strip() or name.strip().lower() in ("nan", "null", "none") for name in text], dtype=bool)
    bad = (index < 0) | (blank[index] if len(blank) else False)
    problems[f"no {kind} id"] = bad
    order = sorted_ids(text, blank)
    place = np.full(len(text) + 1, -1, np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[index], np.array([text[k] for k in order], dtype=str) if len(order) else np.zeros(0, dtype="U1")


def sorted_ids(text: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Positions of the ids in sorted order, blank ones left out: as numbers where each is written as a whole number, else as words.

    >>> sorted_ids(np.array(["10", "9"], dtype=object), np.zeros(2, bool)).tolist()
    [1, 0]
    """
    kept = np.flatnonzero(~blank)
    words = [str(text[k]) for k in kept]
    if all(_whole(word) for word in words):
        return kept[np.argsort(np.array([int(word) for word in words], dtype=object), kind="stable")] if words else kept
    return kept[np.argsort(np.array(words), kind="stable")]


def _whole(word: str) -> bool:
    """Whether a word is a whole number in its only spelling ("7", "-7", not "07")."""
    digits = word[1:] if word[:1] == "-" else word
    return digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0") and word != "-0"


def _indices(chunk: Any) -> np.ndarray:
    filled = compute.fill_null(chunk.indices, pa.scalar(-1, chunk.indices.type))
    return filled.to_numpy(zero_copy_only=False).astype(np.int32)


def _names(column: Any) -> np.ndarray:
    """Words of few kinds, as objects that share their strings."""
    array = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([pa.array(column)])
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    array = array.unify_dictionaries()
    if not array.chunks:
        return np.zeros(0, dtype=object)
    words = np.array([*array.chunks[0].dictionary.cast(pa.string()).to_pylist(), ""], dtype=object)
    return words[np.concatenate([_indices(chunk) for chunk in array.chunks])]


def _closed(index: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices and ids without those that no row names any more."""
    there = np.bincount(index, minlength=len(ids)) > 0
    if there.all():
        return index.astype(np.int32), ids
    return (np.cumsum(there) - 1)[index].astype(np.int32), ids[there]


def _facts(raw: Raw, items: np.ndarray, notes: list[str]) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    texts = released = None
    if raw.texts is not None:
        texts = tuple(raw.texts.get(name, "") for name in items.tolist())
        without = sum(not text for text in texts)
        unused = len(raw.texts) - (len(items) - without)
        notes += [f"{without:,} of {len(items):,} items have no text."] if without else []
        notes += [f"{unused:,} items of the catalogue have no event: left out."] if unused > 0 else []
    if raw.released:
        released = np.array([raw.released.get(name, LONG_AGO) for name in items.tolist()], dtype=np.int64)
        unknown = int((released == LONG_AGO).sum())
        notes += [f"{unknown:,} of {len(items):,} items have no release date: taken to be older than all events."] if unknown else []
    return texts, released


def _set_aside(problems: dict[str, np.ndarray], good: np.ndarray, raw: Raw, what: str, max_bad: float) -> list[str]:
    """Notes on the rows that cannot be used; RecordError where they are more than `max_bad` of all."""
    n, lost = len(good), int((~good).sum()) + len(raw.skipped)
    if not lost:
        return []
    said = []
    if raw.skipped:
        first = raw.skipped[0]
        said.append(f"{len(raw.skipped):,} with another number of fields than the header" + (f" (first: line {first})" if first else ""))
    for name, bad in problems.items():
        if bad.any():
            said.append(f"{int(bad.sum()):,} with {name} (first: {_where(bad, raw)})")
    words = f"{lost:,} of {n + len(raw.skipped):,} rows cannot be used: {'; '.join(said)}"
    if lost > max_bad * (n + len(raw.skipped)) or not good.any():
        raise RecordError(
            f"{what}: {words}. At most {max_bad:.3g} of the rows may be set aside: mend them, name other columns with map (--map), or "
            "raise max_bad (--max-bad)"
        )
    return [f"{words}: set aside."]


def _refuse_propensities(propensity: np.ndarray, unread: np.ndarray, what: str, raw: Raw) -> None:
    with np.errstate(invalid="ignore"):
        bad = unread | ~((propensity > 0) & (propensity <= 1))
    if bad.any():
        first = int(np.argmax(bad))
        shown = "no number" if unread[first] else f"{propensity[first]:g}"
        raise RecordError(
            f"{what}: {int(bad.sum()):,} of {len(bad):,} propensities are not in (0, 1] (first: {_where(bad, raw)}, {shown}). A row "
            "that could not be seen cannot be corrected for: mend them, or leave the column out: "
            "map={'propensity': ''}"
        )


def _refuse_nested(raw: Raw, what: str) -> None:
    for name in PER_EVENT:
        kind = getattr(getattr(raw, name), "type", None)
        if isinstance(kind, pa.DataType) and pa.types.is_nested(kind) and not pa.types.is_dictionary(kind):
            raise RecordError(f"{what}: the {name} of an event is one word or number, not {kind}: name another column with map (--map)")


def _where(bad: np.ndarray, raw: Raw) -> str:
    """The first bad row as the line of the file, rows that were skipped before it counted."""
    first = int(np.argmax(bad))
    if not raw.first_line:
        return f"row {first}"
    line = first + raw.first_line
    for gone in sorted(x for x in raw.skipped if x):
        line += gone <= line
    return f"line {line}"
