"""Numbers and times out of columns of any type: what can be read, and which rows cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

compute: Any = pc
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
DAY = r"^\d{4}-\d{2}-\d{2}"
CLOCK = r"([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)"
#: a clock whose middle time is above this counts thousandths, millionths or billionths of a second
UNITS = ((1e17, 10**9, "billionths of a second"), (1e14, 10**6, "millionths of a second"), (1e11, 10**3, "thousandths of a second"))


def numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n] and a mask of the rows that are no finite number (0 there).

    >>> numbers(pa.array(["1.5", "x", None]))[0].tolist(), numbers(pa.array(["1.5", "x", None]))[1].tolist()
    ([1.5, 0.0, 0.0], [False, True, True])
    """
    array = _plain(column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        array = array.cast(pa.string())
        fits = compute.match_substring_regex(array, NUMBER)
        array = compute.utf8_trim_whitespace(compute.if_else(fits, array, pa.scalar(None, pa.string())))
    values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    bad = ~np.isfinite(values)
    return (np.where(bad, 0.0, values), bad) if bad.any() else (values, bad)


def seconds(column: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """int64 [n] seconds, a mask of the rows that are no time (0 there), and what was made of the clock's unit, or "".

    Numbers are taken as they are (any clock orders events), those that can only be thousandths of a second or smaller parts are divided;
    dates and times as ISO 8601 ("2024-05-01", "2024-05-01 10:00:00.5+02:00"), without a zone as UTC.

    >>> seconds(pa.array(["1970-01-02", "1970-01-01T00:01:00+00:00", "soon"]))[0].tolist()
    [86400, 60, 0]
    """
    array = _plain(column)
    if pa.types.is_date(array.type) or pa.types.is_timestamp(array.type):
        return (*_moments(array), "")
    if pa.types.is_integer(array.type) and array.null_count == 0:
        values, bad = array.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False), np.zeros(len(array), dtype=bool)
        return _scaled(values, bad)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = compute.utf8_trim_whitespace(array.cast(pa.string()))
        if compute.any(compute.match_substring_regex(array, DAY)).as_py():
            return (*_dates(array), "")
    values, bad = numbers(array)
    return _scaled(values, bad)


def _scaled(values: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    middle = float(np.median(values[~bad])) if (~bad).any() else 0.0
    for above, divisor, name in UNITS:
        if middle > above:
            return np.floor_divide(values, divisor).astype(np.int64), bad, f"Times are {name}: divided by {divisor:,}."
    return np.floor(values).astype(np.int64), bad, ""


def _dates(array: Any) -> tuple[np.ndarray, np.ndarray]:
    nothing = pa.scalar(None, pa.string())
    plain = compute.if_else(compute.match_substring_regex(array, f"{DAY}{CLOCK}$"), array, nothing)
    zoned = compute.if_else(compute.match_substring_regex(array, f"{DAY}{CLOCK}{ZONE}$"), array, nothing)
    found = np.zeros(len(array), np.int64)
    good = np.zeros(len(array), dtype=bool)
    for text, kind in ((plain, pa.timestamp("ns")), (zoned, pa.timestamp("ns", "UTC"))):
        values, bad = _moments(_stamps(text, kind))
        found, good = np.where(bad, found, values), good | ~bad
    return found, ~good


def _stamps(text: Any, kind: Any) -> Any:
    """Texts as moments; where one of them is no date at all (a 31st of April), each alone, and none for those."""
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        words = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
        distinct = words.dictionary_encode()
        found = [_stamp(word, kind) for word in distinct.dictionary]
        return compute.take(pa.array(found, kind), distinct.indices)


def _stamp(word: Any, kind: Any) -> Any:
    try:
        return word.cast(kind)
    except pa.ArrowInvalid:
        return None


def _moments(array: Any) -> tuple[np.ndarray, np.ndarray]:
    bad = compute.is_null(array).to_numpy(zero_copy_only=False).astype(bool)
    zone = array.type.tz if pa.types.is_timestamp(array.type) else None
    whole = compute.floor_temporal(array.cast(pa.timestamp("ns", zone)), unit="second") if not pa.types.is_date(array.type) else array
    values = whole.cast(pa.timestamp("s", zone)).cast(pa.int64())
    return compute.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.int64), bad


def _plain(column: Any) -> Any:
    array = column if isinstance(column, (pa.Array, pa.ChunkedArray)) else pa.array(column)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    return array
