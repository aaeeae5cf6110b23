"""Which column of the file is which: canonical names, their aliases, `map`, and did-you-mean for what is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records import text as text_
from cupel.records.arrow import pc
from cupel.records.schema import OUTCOMES

#: canonical name -> names that are taken for it without `map`, in order of preference
ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction", "query"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "conversation_a": ("conversation_a",),
    "conversation_b": ("conversation_b",),
    "response_a": ("response_a",),
    "response_b": ("response_b",),
    "vote": ("vote", "winner", "label", "preference", "preferred", "choice"),
    "id": ("id",),
    "item_id": ("item_id",),
    "annotator": ("annotator", "annotator_id", "worker", "worker_id", "judge", "rater"),
    "group": ("group",),
    "strength": ("strength", "preference_strength"),
    "seconds": ("seconds", "work_seconds", "time_seconds"),
    "model_first": ("model_first", "model_a", "chosen_model"),
    "model_second": ("model_second", "model_b", "rejected_model"),
    "p": ("p",),
    "w": ("w",),
    "gold": ("gold",),
    "rating_first": (),  # found in pairs: RATINGS
    "rating_second": (),
    "split": (),  # only by map: a split column of the file is not believed by itself
}

#: pairs of columns that hold the two sides of a vote, in order of preference; the number is what a numeric label calls the
#: first side
SIDES: tuple[tuple[str, str, int | None], ...] = (
    ("response_a", "response_b", None),
    ("answer_a", "answer_b", None),
    ("output_a", "output_b", None),
    ("completion_a", "completion_b", None),
    ("summary_a", "summary_b", None),
    ("text_a", "text_b", None),
    ("sentence_a", "sentence_b", None),
    ("argument_a", "argument_b", None),
    ("response_0", "response_1", 0),
    ("answer_0", "answer_1", 0),
    ("completion_0", "completion_1", 0),
    ("response_1", "response_2", 1),
    ("answer_1", "answer_2", 1),
    ("output_1", "output_2", 1),
    ("completion_1", "completion_2", 1),
    ("first", "second", None),
)

#: pairs of columns that hold a rating of each side, in order of preference; chosen and rejected beside columns of those names only,
#: because elsewhere they are not the order of the sides
RATINGS: tuple[tuple[str, str], ...] = tuple(
    (form.format(first), form.format(second))
    for form in ("rating_{}", "{}_rating", "score_{}", "{}_score")
    for first, second in (("first", "second"), ("a", "b"), ("chosen", "rejected"))
)

#: keys of a message that are part of what it says beside its content
CALLS = ("tool_calls", "function_call")

#: canonical columns that hold a text or a chat list, and those that hold names
TEXTUAL = frozenset({"prompt", "chosen", "rejected", "conversation_a", "conversation_b", "response_a", "response_b"})
NAMING = frozenset({"vote", "id", "item_id", "annotator", "group", "model_first", "model_second", "gold", "split"})


def kinds(map: Mapping[str, str] | None = None) -> dict[str, str]:
    """Column of the data -> "text" or "name", for every column that may become one of cupel's.

    >>> kinds({"prompt": "ask"})["ask"]
    'text'
    """
    found = {side: "text" for pair in SIDES for side in pair[:2]}
    for name, aliases in ALIASES.items():
        kind = "text" if name in TEXTUAL else "name" if name in NAMING else ""
        found.update({column: kind for column in (*aliases, *([map[name]] if map and name in map else [])) if kind})
    return found


class Frame:
    """A table seen through canonical names; importers read columns here and mark the rows that they cannot use.

    bad: row -> (reason, detail); the first reason stays.
    """

    def __init__(self, table: pa.Table, map: Mapping[str, str] | None = None, max_field: int = 1_000_000):
        self.table = table
        self.max_field = max_field
        self.bad: dict[int, tuple[str, str]] = {}
        self.detection: list[str] = []
        self.doubts: list[str] = []
        self.values: dict[str, str] = {}
        self.mapped: dict[str, str] = {}
        self.first_number: int | None = None
        for name, column in (map or {}).items():
            self._map(str(name), str(column))
        self.names = dict(self.mapped)
        taken = set(self.mapped.values())
        for name, aliases in ALIASES.items():
            found = [alias for alias in aliases if alias in self.columns and alias not in taken]
            if name in self.names or not found:
                continue
            if name == "prompt" and found[0] != "prompt" and len(found) > 1:
                raise RecordError(
                    f"there is no column prompt, and {len(found)} that could be it ({', '.join(found)}). Say which: --map prompt={found[0]}"
                )
            self.names[name] = found[0]
            if found[0] != name:
                others = f" (also there: {', '.join(found[1:])})" if found[1:] else ""
                self.detection.append(f"{name} = column {found[0]}{others}")
        self._ratings(taken)
        if "response_a" not in self.names and "response_b" not in self.names:
            for first, second, number in SIDES:
                if first in self.columns and second in self.columns and not {first, second} & taken:
                    self.names["response_a"], self.names["response_b"], self.first_number = first, second, number
                    break

    def _ratings(self, taken: set[str]) -> None:
        """Take the first pair of columns that hold a rating of each side; what `map` names goes before all of them."""
        if self.has("rating_first") or self.has("rating_second"):
            return
        for one, two in RATINGS:
            if one in self.columns and two in self.columns and not {one, two} & taken and ("chosen" not in one or self.has("chosen")):
                self.names["rating_first"], self.names["rating_second"] = one, two
                return

    def _map(self, name: str, column: str) -> None:
        if name.startswith("vote:"):
            outcome = name.removeprefix("vote:")
            if outcome not in OUTCOMES:
                raise RecordError(f"--map {name}={column}: {outcome!r} is no outcome. Outcomes: {', '.join(OUTCOMES)}.")
            self.values[column.strip().lower()] = outcome
            return
        if name not in ALIASES:
            raise RecordError(
                f"--map {name}={column}: {name!r} is no column that cupel knows.{did_you_mean(name, ALIASES)} "
                f"The form is --map NEW=COLUMN with NEW one of {', '.join(ALIASES)}."
            )
        if column not in self.columns:
            raise RecordError(
                f"--map {name}={column}: the data has no column {column!r}.{did_you_mean(column, self.columns)} Its columns: "
                f"{', '.join(self.columns)}."
            )
        self.mapped[name] = column

    @property
    def columns(self) -> list[str]:
        """Column names of the data."""
        return self.table.column_names

    def __len__(self) -> int:
        return self.table.num_rows

    def has(self, *names: str) -> bool:
        """Whether the data has all of these canonical columns."""
        return all(name in self.names for name in names)

    def column(self, name: str) -> pa.Array:
        """The column with this canonical name, in one chunk; dictionary columns decoded."""
        values = self.table[self.names[name]].combine_chunks()
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        return values

    def shape(self, name: str) -> str:
        """What a column holds: "text", "chat" (lists of messages, also as JSON text), "transcript" (Human/Assistant), "
        ""other", "none"."""
        if name not in self.names:
            return "none"
        values = self.column(name)
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            return "chat" if pa.types.is_struct(values.type.value_type) else "other"
        if not is_text(values.type):
            return "other"
        sample = [text for text in values.slice(0, 200).to_pylist() if text]
        if not sample:
            return "text"
        if sum(text_.messages(text.strip()) is not None for text in sample) > len(sample) / 2:
            return "chat"
        starts = sum(text.lstrip().startswith("Human:") and "\n\nAssistant:" in text for text in sample)
        return "transcript" if starts > len(sample) / 2 else "text"

    def mark(self, rows: Any, reason: str, detail: str = "") -> None:
        """Set rows aside (a boolean mask, Arrow or numpy, or row numbers)."""
        if isinstance(rows, pa.Array | pa.ChunkedArray):
            rows = rows.fill_null(False).to_numpy(zero_copy_only=False)
        rows = np.asarray(rows)
        for row in np.flatnonzero(rows) if rows.dtype == bool else rows:
            self.bad.setdefault(int(row), (reason, detail))

    def chats(self, name: str) -> list[list[dict[str, Any]] | None]:
        """The messages of a column per row; rows that hold none are marked."""
        values = self.column(name)
        found: list[list[dict[str, Any]] | None] = []
        as_text = is_text(values.type)
        for row, value in enumerate(values.to_pylist()):
            chat = text_.messages(value.strip()) if as_text and value is not None else value
            if isinstance(chat, list) and not as_text:
                chat = present(chat)
            elif isinstance(chat, list):
                chat = [{k: v for k, v in m.items() if v is not None or k == "content"} if isinstance(m, dict) else m for m in chat]
            if not text_.is_chat(chat):
                reason = "missing_text" if value is None else "empty_side" if value in ("", []) else "not_a_chat"
                self.bad.setdefault(row, (reason, f"column {self.names[name]} holds no list of messages with role and content"))
                chat = None
            found.append(chat)
        return found

    def texts(self, name: str, *, prompt: bool = False) -> pa.Array:
        """large_string: the texts of a column. Missing, blank and over-long ones are marked (a prompt may be missing: "").

        Chat lists become canonical JSON, a lone assistant message becomes its content.
        """
        values = self.column(name)
        label = self.names[name]
        if pa.types.is_null(values.type):
            values = values.cast(pa.large_string())
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            out = [None if chat is None else side_text(chat, prompt) for chat in self.chats(name)]
            values = pa.array(out, pa.large_string())
        elif not is_text(values.type):
            self.mark(np.ones(len(self), bool), "not_text", f"column {label} holds {values.type}, not text")
            values = pa.nulls(len(self), pa.large_string())
        else:
            values = self._json_chats(values.cast(pa.large_string()), prompt)
        if prompt:
            values = pc.fill_null(values, "")
        else:
            self.mark(pc.is_null(values), "missing_text", f"column {label} has no value")
            values = pc.fill_null(values, "")
            self.mark(pc.or_(pc.equal(values, ""), pc.utf8_is_space(values)), "empty_side", f"column {label} is blank")
        self.limit(values, f"column {label}")
        return values

    def limit(self, values: pa.Array, label: str) -> None:
        """Mark texts that are longer than `max_field` characters."""
        if (pc.max(pc.binary_length(values)).as_py() or 0) <= self.max_field:  # no text has more characters than bytes
            return
        long = pc.greater(pc.utf8_length(values), self.max_field)
        self.mark(long, "field_too_long", f"{label} is longer than {self.max_field:,} characters (--max-field)")

    def _json_chats(self, values: pa.Array, prompt: bool) -> pa.Array:
        """Chat lists written as JSON text -> their canonical text; other texts stay as they are."""
        rows = np.flatnonzero(pc.starts_with(values, "[").fill_null(False).to_numpy(zero_copy_only=False))
        rows = rows[pc.match_substring(values.take(pa.array(rows)), '"role"').to_numpy(zero_copy_only=False)] if len(rows) else rows
        if not len(rows):
            return values
        unique = pc.dictionary_encode(values.take(pa.array(rows)))
        texts = []
        for text in unique.dictionary.to_pylist():
            chat = text_.messages(text)
            texts.append(text if chat is None else side_text(chat, prompt))
        replaced = pa.array(texts, pa.large_string()).take(unique.indices)
        mask = np.zeros(len(values), bool)
        mask[rows] = True
        return pc.replace_with_mask(values, pa.array(mask), replaced)

    def numbers(self, name: str) -> np.ndarray:
        """float64: a numeric column (numbers written as text are read); NaN where missing or no number."""
        if name not in self.names:
            return np.full(len(self), np.nan)
        values = self.column(name)
        if is_text(values.type):
            out = np.full(len(self), np.nan)
            for row, value in enumerate(values.to_pylist()):
                try:
                    out[row] = float(value) if value and value.strip() else np.nan
                except ValueError:
                    self.bad.setdefault(row, ("not_a_number", f"column {self.names[name]} holds {value[:80]!r}"))
            return out
        try:
            return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        except pa.ArrowException:
            raise RecordError(
                f"column {self.names[name]} holds {values.type}; {name} must be a number. Map another one: --map {name}=COLUMN"
            ) from None

    def codes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """(int32 codes, names): a column of names (annotators, models, groups); -1 where missing. Names are sorted."""
        if name not in self.names:
            return np.full(len(self), -1, dtype=np.int32), ()
        values = as_strings(self.column(name), self.names[name])
        encoded = values.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        order = sorted(range(len(names)), key=lambda i: names[i])
        rank = np.empty(len(names) + 1, dtype=np.int32)
        for position, i in enumerate(order):
            rank[i] = position
        rank[-1] = -1
        return rank[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)], tuple(names[i] for i in order)


def side_text(chat: list[dict[str, Any]], prompt: bool) -> str:
    """A chat list as the text of a prompt or of a response (a single assistant message that says nothing else is its content).

    >>> side_text([{"role": "assistant", "content": "So."}], False)
    'So.'
    >>> side_text([{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], False)
    '[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]'
    """
    if (
        not prompt
        and len(chat) == 1
        and chat[0]["role"] == "assistant"
        and (chat[0]["content"] is None or isinstance(chat[0]["content"], str))
        and not any(chat[0].get(key) for key in CALLS)
    ):
        return chat[0]["content"] or ""
    return text_.canonical(chat)


def present(value: Any) -> Any:
    """A nested value without the keys that have no value: Arrow gives every object of a column the keys of all of them.

    `content` stays, because a message must have one. An explicit null inside a message cannot be told from an absent key.

    >>> present([{"role": "tool", "content": None, "name": None, "tool_calls": [{"id": "1", "type": None}]}])
    [{'role': 'tool', 'content': None, 'tool_calls': [{'id': '1'}]}]
    """
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None or key == "content"}
    return [present(item) for item in value] if isinstance(value, list) else value


def is_text(kind: pa.DataType) -> bool:
    """Whether a column type holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def as_strings(values: pa.Array, label: str) -> pa.Array:
    """A column of names as large_string: whole numbers without a decimal point, blanks as null."""
    if pa.types.is_floating(values.type):
        whole = pc.all(pc.equal(values, pc.floor(values))).as_py()
        values = values.cast(pa.int64(), safe=False) if whole else values
    try:
        out = values.cast(pa.large_string())
    except pa.ArrowException:
        raise RecordError(f"column {label} holds {values.type}, which cannot be read as names. Map another column with --map.") from None
    out = pc.utf8_trim_whitespace(out)
    return pc.if_else(pc.equal(out, ""), pa.scalar(None, pa.large_string()), out)


def did_you_mean(name: str, known: Any) -> str:
    """A sentence that names the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
