"""Text files and Python objects -> columns: JSON Lines, JSON, CSV. One broken line costs one line."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.schema import Quarantined

if TYPE_CHECKING:
    from cupel.records.sources import Rows

#: keys under which a JSON object may hold its rows
HOLDERS = ("data", "rows", "records", "examples", "train")
RAW = 2000
#: more different column names than this are no table
MAX_COLUMNS = 2000


def decode(data: bytes, name: str) -> str:
    """UTF-8 text (a byte-order mark is dropped). Raises RecordError with the byte offset, the line and the way out.

    >>> decode(b"\\xef\\xbb\\xbfcaf\\xc3\\xa9", "f.csv")
    'café'
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RecordError(
            f"{name} is not UTF-8: it begins with the mark of UTF-16 at offset 0. Convert it: iconv -f UTF-16 -t UTF-8 {name} > fixed"
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecordError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,} (line {line:,}) cannot be read "
            f"({error.reason}). "
            f"Convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > fixed"
        ) from error


def parse(text: str, kind: str, name: str, kinds: Mapping[str, str]) -> Rows:
    """Text of a kind ("jsonl", "json", "csv", "tsv" or "sniff") -> rows."""
    if kind == "sniff":
        kind = sniff(text)
    if kind == "json":
        return _whole(text, name, kinds)
    if kind == "jsonl":
        return _jsonl(text, name, kinds)
    return _csv(text, "\t" if kind == "tsv" else None, name, kinds)


def sniff(text: str) -> str:
    """The kind of a text without a telling name: "json", "jsonl", "csv" or "tsv".

    >>> sniff('{"a": 1}\\n{"a": 2}'), sniff("[1]"), sniff("a,b\\n1,2"), sniff("a\\tb\\n1\\t2")
    ('jsonl', 'json', 'csv', 'tsv')
    """
    start = text.lstrip()
    if start.startswith("["):
        return "json"
    if start.startswith("{"):
        first = start.split("\n", 1)[0]
        try:
            found = json.loads(first)
        except (ValueError, RecursionError):
            return "json" if "\n" in start and first.strip() in ("{", "") else "jsonl"
        return "json" if "\n" not in start.strip() and _holder(found) else "jsonl"
    head = start.split("\n", 1)[0]
    return "tsv" if "\t" in head and "," not in head else "csv"


def _holder(found: Any) -> str | None:
    if not isinstance(found, dict):
        return None
    return next((key for key in HOLDERS if isinstance(found.get(key), list)), None)


def _whole(text: str, name: str, kinds: Mapping[str, str]) -> Rows:
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise RecordError(f"{name} is nested too deeply to be read as JSON. Write one row per line (.jsonl).") from error
    except ValueError as error:
        if text.lstrip().startswith("{") and "Extra data" in str(error):
            return _jsonl(text, name, kinds)
        raise RecordError(f"{name} is not JSON: {error}. Write one row per line (.jsonl), where one bad line costs one line.") from error
    key = _holder(found)
    if key is not None:
        found = found[key]
    if isinstance(found, dict):
        values = list(found.values())
        if values and all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
            return from_columns(found, kinds, name)
        found = [found]
    if not isinstance(found, list):
        raise RecordError(f"{name} holds a {type(found).__name__}, not rows. Give an array of objects, or one object per line.")
    return from_objects(found, range(1, len(found) + 1), kinds, name)


def _jsonl(text: str, name: str, kinds: Mapping[str, str]) -> Rows:
    objects: list[Any] = []
    numbers: list[int] = []
    quarantine: list[Quarantined] = []
    loads = json.loads
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            found = loads(line)
        except RecursionError:
            quarantine.append(Quarantined(number, "invalid_json", "nested too deeply", line[:RAW]))
            continue
        except ValueError as error:
            quarantine.append(Quarantined(number, "invalid_json", str(error)[:300], line[:RAW]))
            continue
        objects.append(found)
        numbers.append(number)
    if quarantine and not objects:
        first = quarantine[0]
        raise RecordError(
            f"{name}: none of its {len(quarantine):,} lines is JSON (first: line {first.line}: {first.detail}). "
            "Name the file by its kind (.jsonl, .json, .csv, .tsv, .parquet)."
        )
    rows = from_objects(objects, numbers, kinds, name)
    rows.quarantine[:] = sorted(quarantine + rows.quarantine, key=lambda q: q.line)
    return rows


def _csv(text: str, delimiter: str | None, name: str, kinds: Mapping[str, str]) -> Rows:
    """Every value stays text (007 stays 007); a ragged or badly quoted record costs that record."""
    from cupel.records.sources import Rows

    if delimiter is None:
        head = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=head.count)
    previous = csv.field_size_limit(2**31 - 1)
    quarantine: list[Quarantined] = []
    records: list[list[str]] = []
    lines: list[int] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header: list[str] = []
        while True:
            start = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if not header:
                    raise RecordError(f"{name}: its first line cannot be read as CSV column names: {error}.") from error
                quarantine.append(Quarantined(start, "invalid_csv", str(error), _slice(text, start)))
                continue
            if not record:
                continue
            if not header:
                header = [column.strip() for column in record]
                continue
            if len(record) != len(header):
                detail = f"{len(record)} fields, {len(header)} columns"
                quarantine.append(Quarantined(start, "ragged_row", detail, delimiter.join(record)[:RAW]))
                continue
            records.append(record)
            lines.append(start)
    finally:
        csv.field_size_limit(previous)
    if len(set(header)) != len(header):
        twice = sorted({column for column in header if header.count(column) > 1})
        raise RecordError(f"{name} has {len(twice)} column name(s) twice (first: {twice[0]!r}). Rename one of them.")
    columns = list(zip(*records, strict=True)) if records else [()] * len(header)
    table = pa.table({column: pa.array(values, pa.large_string()) for column, values in zip(header, columns, strict=True)})
    return Rows(table, np.array(lines, dtype=np.int64), quarantine, name)


def _slice(text: str, line: int) -> str:
    return "\n".join(text.split("\n")[line - 1 : line + 1])[:RAW]


def from_columns(found: Mapping[str, Any], kinds: Mapping[str, str], name: str) -> Rows:
    """Rows of a dict of equally long lists."""
    columns = {str(key): list(values) for key, values in found.items()}
    if len({len(values) for values in columns.values()}) > 1:
        sizes = ", ".join(f"{key}: {len(values)}" for key, values in columns.items())
        raise RecordError(f"the columns of {name} are not equally long ({sizes}).")
    size = len(next(iter(columns.values()), []))
    return from_objects([{key: values[i] for key, values in columns.items()} for i in range(size)], range(1, size + 1), kinds, name)


def from_objects(objects: list[Any], numbers: Iterable[int], kinds: Mapping[str, str], name: str) -> Rows:
    """Rows of Python dicts; what is no dict, or no text that can be written, is set aside."""
    from cupel.records.sources import Rows

    lines = np.fromiter(numbers, dtype=np.int64, count=len(objects))
    bad: dict[int, tuple[str, str]] = {}
    names: dict[str, None] = {}
    plain: list[dict[Any, Any]] = []
    for row, found in enumerate(objects):
        if not isinstance(found, dict):
            if not isinstance(found, Mapping):
                bad[row] = ("not_an_object", f"a {type(found).__name__} where a row with column names belongs")
            found = dict(found) if isinstance(found, Mapping) else {}
        plain.append(found)
        for key in found:
            if key not in names:
                names[key] = None
            if isinstance(key, str) and not key.isascii() and has_surrogates(key):
                bad[row] = ("lone_surrogate", "the name of a column holds half of a surrogate pair, which is no character")
    keys = [key for key in names if not has_surrogates(key)]
    if len(keys) > MAX_COLUMNS:
        raise RecordError(
            f"{name} has {len(keys):,} different column names (first: {keys[0]!r}), more than {MAX_COLUMNS:,}: these are no rows of one "
            "table. Put what differs from row to row into one column."
        )
    notes: list[str] = []
    columns: dict[str, tuple[list[Any], pa.Array | None]] = {}
    for key in keys:
        values = [found.get(key) for found in plain]
        columns[str(key)] = (values, _convert(values, kinds.get(str(key), ""), bad, str(key), notes))
    keep = np.array([row not in bad for row in range(len(objects))], dtype=bool)
    index = pa.array(np.flatnonzero(keep))
    arrays = {}
    for key, (values, array) in columns.items():
        if array is None:  # held bad rows or mixed types: the rows that are left are converted again
            held = [value for value, ok in zip(values, keep, strict=True) if ok]
            array = as_array(held)
            arrays[key] = text_column(held, kinds.get(key) == "name") if array is None else array
        else:
            arrays[key] = array if bool(keep.all()) else array.take(index)
    quarantine = [Quarantined(int(lines[row]), reason, detail, row_text(objects[row])) for row, (reason, detail) in sorted(bad.items())]
    return Rows(pa.table(arrays), lines[keep], quarantine, name, notes)


def _convert(values: list[Any], kind: str, bad: dict[int, tuple[str, str]], key: str, notes: list[str]) -> pa.Array | None:
    """The column as Arrow; None where it has to be converted again without the rows now in `bad`, or as text."""
    array = as_array(values)
    if array is not None:
        return array
    found = [value_kind(value) for value in values]
    before = len(bad)
    for row, value in enumerate(values):
        if found[row] != "null" and has_surrogates(value):
            bad.setdefault(row, ("lone_surrogate", f"column {key} holds half of a surrogate pair, which is no character"))
    counts = Counter(name for row, name in enumerate(found) if name != "null" and row not in bad)
    if kind == "text" and len(counts) > 1:
        usual = max(sorted(counts), key=lambda name: counts[name])
        for row, name in enumerate(found):
            if name not in ("null", usual) and row not in bad:
                bad[row] = ("mixed_types", f"column {key} holds a {name} here and a {usual} in most rows")
    elif not kind and len(bad) == before and len(counts) > 1:
        notes.append(f"column {key} holds values of mixed types and is kept as JSON text")
    return None


def as_array(values: list[Any]) -> pa.Array | None:
    """The values as Arrow (texts as large_string), or None where they are of mixed types or cannot be held."""
    try:
        array = pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError):
        return None
    if has_empty_struct(array.type):
        return None
    return array.cast(pa.large_string()) if pa.types.is_string(array.type) else array


def has_empty_struct(kind: pa.DataType) -> bool:
    """Whether a type holds a struct without fields, in lists too: Arrow keeps none of what Python has there.

    >>> has_empty_struct(pa.list_(pa.struct([]))), has_empty_struct(pa.list_(pa.int64()))
    (True, False)
    """
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(has_empty_struct(kind.field(i).type) for i in range(kind.num_fields))
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and has_empty_struct(kind.value_type)


def text_column(values: list[Any], names: bool) -> pa.Array:
    """Values as text: strings as they are where all are strings (or the column holds names), JSON otherwise; NaN is null."""
    values = [None if value_kind(value) == "null" else value for value in values]
    if names or all(value is None or isinstance(value, str) for value in values):
        texts = [value if value is None or isinstance(value, str) else json_text(value) for value in values]
    else:
        texts = [None if value is None else json_text(value) for value in values]
    return pa.array(texts, pa.large_string())


def json_text(value: Any) -> str:
    """The value as JSON, other types by their `str`; the type's name in parentheses where it cannot be written.

    >>> json_text({"a": 1}), json_text({(1, 2): 3})
    ('{"a": 1}', '(dict)')
    """
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return f"({type(value).__name__})"


def value_kind(value: Any) -> str:
    """null (None, NaN), boolean, number, string, object, list (arrays too), or the name of the type.

    >>> [value_kind(value) for value in (None, float("nan"), True, 1, "a", {}, ())]
    ['null', 'null', 'boolean', 'number', 'string', 'object', 'list']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Mapping):
        return "object"
    return "list" if isinstance(value, list | tuple) or hasattr(value, "tolist") else type(value).__name__


def has_surrogates(value: Any) -> bool:
    """Whether any text inside the value cannot be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return True
        return False
    if isinstance(value, Mapping):
        return any(has_surrogates(key) or has_surrogates(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(has_surrogates(item) for item in value)
    return False


def row_text(found: Any) -> str:
    """A row as text for the quarantine, at most 2,000 characters and always writable."""
    try:
        text = json.dumps(found, ensure_ascii=True, default=str)
    except (ValueError, TypeError, RecursionError):
        text = repr(type(found))
    return text[:RAW]
