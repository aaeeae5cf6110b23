"""Where rows are not comparisons: one row that holds many, or many rows that hold one; every comparison keeps its source rows.

An importer of such a format collects comparisons in `Comparisons` and returns a `Parsed` with an `Origin`. `unfold` then makes rows of
one comparison each, so that all later steps are the same for every format. A source row is kept where at least one comparison comes
from it, and set aside otherwise: rows in = rows kept + rows set aside, counted in source rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cupel.records import text as text_
from cupel.records.columns import Frame, is_text, present, side_text
from cupel.records.formats import Origin, Parsed
from cupel.records.schema import TIE, A, B, Quarantined
from cupel.records.sources import Rows, Unfolded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: rows that detection looks at
SAMPLE = 200

#: a sound row that holds no comparison; it is set aside and counted, but it is no fault
NO_COMPARISON = "no_comparison"

#: columns that importers make -> cupel's name for them
CANONICAL = {
    "model_a": "model_first", "model_b": "model_second", "annotator": "annotator", "strength": "strength", "seconds": "seconds",
    "group": "group", "id": "id", "p": "p", "w": "w", "score_a": "rating_first", "score_b": "rating_second",
}  # fmt: skip

#: canonical columns of a source row that hold for each of its comparisons; those of the second line only where there is just one
SHARED = ("annotator", "group", "seconds", "gold", "item_id", "split", "w")
SINGLE = ("id", "strength", "p", "model_first", "model_second", "rating_first", "rating_second")


@dataclass(frozen=True)
class Candidate:
    """One of several responses to a prompt. value: larger is better; columns: what is known of it, written as NAME_a and NAME_b."""

    text: str
    value: float = 0.0
    model: str | None = None
    row: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


class Comparisons:
    """Comparisons of a frame as they are found, each with its source row (or two).

    consumed: columns of the source whose content is in the comparisons, and which are not repeated beside each of them; the column
    that is taken for the prompt is one of them.
    """

    def __init__(self, frame: Frame, consumed: Iterable[str] = ()) -> None:
        self.frame = frame
        self.consumed = (*consumed, *([frame.names["prompt"]] if frame.has("prompt") else []))
        self.rows: list[int] = []
        self.others: list[int] = []
        self.texts: tuple[list[str], list[str], list[str]] = ([], [], [])
        self.codes: list[int] = []
        self.columns: dict[str, list[Any]] = {}
        self.identical: Counter[int] = Counter()
        self.why: dict[int, str] = {}

    @property
    def n(self) -> int:
        """Comparisons so far whose rows were not set aside."""
        bad = self.frame.bad
        return sum(row not in bad and other not in bad for row, other in zip(self.rows, self.others, strict=True))

    def refuse(self, row: int, reason: str, detail: str) -> None:
        """Set a source row aside; the first reason stays."""
        self.frame.bad.setdefault(row, (reason, detail))

    def text(self, row: int, value: Any, what: str) -> str | None:
        """A response as text (a chat list as canonical JSON); None, and the row set aside, where there is none."""
        if isinstance(value, dict) and isinstance(value.get("role"), str):
            value = [value]
        if isinstance(value, list) and text_.is_chat(value):
            value = side_text(value, False)
        if value is None:
            return self.refuse(row, "missing_text", f"{what} has no value")
        if not isinstance(value, str):
            return self.refuse(row, "not_text", f"{what} holds a {type(value).__name__}, not text")
        if not value.strip():
            return self.refuse(row, "empty_side", f"{what} is blank")
        chat = text_.messages(value.strip())
        return self._limited(row, value if chat is None else side_text(chat, False), what)

    def prompt(self, row: int, value: Any, what: str = "the prompt") -> str | None:
        """A prompt as text ("" where there is none); None, and the row set aside, where it is neither text nor a list of messages."""
        if value is None:
            return ""
        if isinstance(value, list) and text_.is_chat(value):
            return self._limited(row, text_.canonical(value), what)
        if not isinstance(value, str):
            return self.refuse(row, "not_text", f"{what} is neither text nor a list of messages")
        chat = text_.messages(value.strip())
        return self._limited(row, value if chat is None else text_.canonical(chat), what)

    def _limited(self, row: int, value: str, what: str) -> str | None:
        if len(value) > self.frame.max_field:
            return self.refuse(row, "field_too_long", f"{what} is longer than {self.frame.max_field:,} characters (--max-field)")
        return value

    def add(self, row: int, prompt: str, first: str, second: str, outcome: int, *, other: int | None = None, **columns: Any) -> None:
        """One comparison of source row `row` (and `other`). Equal texts with a preference are counted and left out."""
        if first == second and outcome in (A, B):
            self.identical[row] += 1
            self.why.setdefault(row, "every decided comparison has the same text on both sides")
            return
        for name, value in columns.items():
            values = self.columns.setdefault(name, [])
            values.extend([None] * (len(self.codes) - len(values)))
            values.append(value)
        self.rows.append(row)
        self.others.append(row if other is None else other)
        self.codes.append(outcome)
        for values, value in zip(self.texts, (prompt, first, second), strict=True):
            values.append(value)

    def pairs(self, row: int, prompt: str, candidates: Sequence[Candidate], **columns: Any) -> None:
        """Every pair of the candidates, in their order: the larger value is preferred, equal values are a tie."""
        for one, two in combinations(candidates, 2):
            outcome = TIE if one.value == two.value else A if one.value > two.value else B
            self.add(
                row if one.row is None else one.row, prompt, one.text, two.text, outcome, other=two.row,
                **sides_of(one, two), **{"strength": abs(one.value - two.value), **columns},
            )  # fmt: skip

    def parsed(self, losses: Iterable[str] = ()) -> Parsed:
        """The comparisons; source rows without one are set aside with the reason that is known."""
        frame, n = self.frame, len(self.codes)
        used = {*self.rows, *self.others}
        for row in range(len(frame)):
            if row not in used and row not in frame.bad:
                if self.identical[row]:
                    self.refuse(row, "identical_sides", self.why[row])
                else:
                    self.refuse(row, NO_COMPARISON, self.why.get(row, "the row holds no two responses that can be compared"))
        said = list(losses)
        left_out = {row: count for row, count in self.identical.items() if row in used}
        if left_out:
            said.append(
                f"{sum(left_out.values()):,} comparisons of {len(left_out):,} rows have the same text on both sides; they are left out"
            )
        columns = {name: _column([*values, *([None] * (n - len(values)))]) for name, values in self.columns.items()}
        rows, others = np.array(self.rows, dtype=np.int64), np.array(self.others, dtype=np.int64)
        prompt, first, second = (pa.array(values, pa.large_string()) for values in self.texts)
        return Parsed(prompt, first, second, np.array(self.codes, dtype=np.int8), Origin(rows, others, columns, self.consumed, tuple(said)))


def sides_of(one: Candidate, two: Candidate) -> dict[str, Any]:
    """What is known of two candidates, as columns NAME_a and NAME_b.

    >>> sides_of(Candidate("x", model="m", columns={"score": 1}), Candidate("y", columns={"score": 2}))
    {'model_a': 'm', 'model_b': None, 'score_a': 1, 'score_b': 2}
    """
    out: dict[str, Any] = {}
    if one.model is not None or two.model is not None:
        out |= {"model_a": one.model, "model_b": two.model}
    for name in dict.fromkeys([*one.columns, *two.columns]):
        out |= {f"{name}_a": one.columns.get(name), f"{name}_b": two.columns.get(name)}
    return out


def objects(frame: Frame, column: str) -> list[Any]:
    """The values of a column of the data (not a canonical name) as Python objects; JSON text of lists and objects is read.

    >>> objects(Frame(pa.table({"a": ['["x"]', "y", None]})), "a")
    [['x'], 'y', None]
    """
    return _objects(frame.table[column])


def mostly(frame: Frame, column: str, test: Callable[[Any], bool]) -> bool:
    """Whether more than half of the values that say anything, among the first 200 rows of a column, pass a test.

    >>> frame = Frame(pa.table({"a": ["7", '["x"]', '["y"]', None]}))
    >>> mostly(frame, "a", lambda value: isinstance(value, list))
    True
    """
    if column not in frame.columns:
        return False
    found = [value for value in _objects(frame.table[column].slice(0, SAMPLE)) if value not in (None, "", [], {})]
    return 2 * sum(test(value) for value in found) > len(found)


def _objects(values: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    found = values.to_pylist()
    return [read_json(value) for value in found] if is_text(values.type) else [present(value) for value in found]


def read_json(value: str | None) -> Any:
    """A list or an object written as JSON text; any other text as it is."""
    if value is None or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; nothing where the value is no list.

    >>> dicts([{"a": 1}, 3, None]), dicts(3.5)
    ([{'a': 1}], [])
    """
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A finite number, also written as text; None for anything else ("N/A", a truth value, nothing).

    >>> number("4"), number(2.5), number("N/A"), number(True), number(float("nan"))
    (4.0, 2.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def unfold(rows: Rows, frame: Frame, parsed: Parsed) -> tuple[Rows, Frame, Parsed]:
    """Rows of one comparison each. Every column of the source that was not consumed is repeated beside each of its comparisons.

    Where rows and comparisons are not one to one, a column `source_line` says which row (of the first side) each came from, and the `id`
    of a row becomes its `item_id`. A comparison of a row that was set aside is left out.
    """
    origin = parsed.origin
    assert origin is not None
    bad = np.zeros(max(len(frame), 1), dtype=bool)
    bad[list(frame.bad)] = True
    keep = ~(bad[origin.first] | bad[origin.second]) if len(origin.first) else np.zeros(0, dtype=bool)
    first, second = origin.first[keep], origin.second[keep]
    index = pa.array(np.flatnonzero(keep))
    single = len(np.unique(np.concatenate([first, second]))) == len(first) and np.array_equal(first, second)
    columns = {name: values.take(index) for name, values in origin.columns.items()}
    rest = [name for name in rows.table.column_names if name not in origin.consumed]
    if not single or not (rest or columns):
        columns["source_line"] = pa.array(rows.line[first])
    given = "" if single else frame.names.get("id", "")
    shown = {name: "item_id" if name == given and "item_id" not in rows.table.column_names else name for name in rest}
    held: dict[str, Any] = {shown[name]: rows.table[name].take(pa.array(first)) for name in rest}
    table = pa.table({**held, **columns})
    names: dict[str, str] = {}
    for name in columns:
        if name in CANONICAL:
            names[CANONICAL[name]] = name
    for name in (*SHARED, *(SINGLE if single else ())):
        if frame.names.get(name) in table.column_names:
            names.setdefault(name, frame.names[name])
    if shown.get(given) in table.column_names:
        names.setdefault("item_id", shown[given])
    view = Frame(pa.table({}), None, frame.max_field)
    view.table, view.names, view.detection, view.doubts = table, names, frame.detection, frame.doubts
    view.mapped = {name: column for name, column in frame.mapped.items() if names.get(name) == column}
    aside = sorted(frame.bad)
    raw = rows.table.take(pa.array(aside, pa.int64())).to_pylist() if aside else []
    from cupel.records.textual import row_text

    quarantine = [Quarantined(int(rows.line[row]), *frame.bad[row], row_text(found)) for row, found in zip(aside, raw, strict=True)]
    unfolded = Unfolded(rows.line[first], rows.line[second], len(frame) + len(rows.quarantine), origin.losses)
    out = Rows(table, rows.line[first], [*rows.quarantine, *quarantine], rows.name, rows.notes, unfolded)
    texts = (parsed.prompt.take(index), parsed.first.take(index), parsed.second.take(index))
    return out, view, Parsed(*texts, parsed.outcome[keep])


def _column(values: list[Any]) -> pa.Array:
    from cupel.records.textual import as_array, text_column

    array = as_array(values)
    return text_column(values, False) if array is None else array
