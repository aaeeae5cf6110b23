"""The normalised store: unique prompts, unique responses, and one comparison per vote.

Responses are scored once however often they recur, so texts are kept apart from the comparisons that point at them. A label is
a claim: inside cupel a comparison has a `first` and a `second` side and an `outcome`; `chosen` and `rejected` exist only at the
borders. Several votes on a pair stay several rows, to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.keys import dense

Outcome = Literal["a", "b", "tie", "both_bad", "skip"]
OUTCOMES: tuple[Outcome, ...] = ("a", "b", "tie", "both_bad", "skip")
A, B, TIE, BOTH_BAD, SKIP = range(5)

#: split codes; -1 is "not assigned yet"
TRAIN, HELDOUT = 0, 1


@dataclass(frozen=True)
class Quarantined:
    """A row that could not become a comparison: where it was, why, and what it said (at most 2,000 characters)."""

    line: int
    reason: str
    detail: str
    raw: str


@dataclass(frozen=True)
class Votes:
    """Comparisons in memory. All arrays of length n = number of votes unless stated; integers index the text tables.

    prompts       large_string, the unique prompts as they were (chat lists as canonical JSON); may contain "" (no prompt)
    responses     large_string, the unique response texts
    ids           string, unique per vote, stable under re-reading
    prompt        int32 index into `prompts` (of both sides)
    first, second int32 indices into `responses`
    outcome       int8 index into `OUTCOMES`: which side the annotator preferred
    annotator     int32 index into `annotators`, -1 where unknown
    group         int32: rows that must not be separated by a split (given column, else rows connected by a prompt or a response)
    p             float64, probability that `first` is better as training should see it (a vote is 1 or 0, a tie 1/2)
    w             float64, weight, >= 0
    strength      float64, the stated strength of preference, NaN where absent
    seconds       float64, time the annotator took, NaN where absent
    order_known   whether `first` is known to be the side that was shown first (or left); where False nothing is said about position
    model_first, model_second   int32 index into `models`, -1 where unknown
    split         int8, TRAIN, HELDOUT or -1
    line          int64, line (or row) of the source, from 1
    source        the rows as they came, same order and length, so that extra columns survive every conversion
    source_format name of the importer that read them
    quarantine    rows that were set aside, never in silence
    spool         where the parts of streamed votes lie on disk (`records.stream`); None for votes in memory
    """

    prompts: pa.Array
    responses: pa.Array
    ids: pa.Array
    prompt: np.ndarray
    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    annotator: np.ndarray
    group: np.ndarray
    p: np.ndarray
    w: np.ndarray
    strength: np.ndarray
    seconds: np.ndarray
    model_first: np.ndarray
    model_second: np.ndarray
    split: np.ndarray
    line: np.ndarray
    annotators: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    order_known: bool = False
    source: pa.Table | None = None
    source_format: str = "votes"
    quarantine: tuple[Quarantined, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    spool: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name in _COLUMNS:
            if len(getattr(self, name)) != n:
                raise RecordError(f"column {name} has {len(getattr(self, name)):,} values for {n:,} comparisons")

    def __len__(self) -> int:
        return len(self.ids)

    # ---- what the statistics need -------------------------------------------------------------------------------------------

    @cached_property
    def sign(self) -> np.ndarray:
        """int8 [n]: +1 the first side was preferred, -1 the second, 0 no preference (tie, both bad, skipped)."""
        table = np.array([1, -1, 0, 0, 0], dtype=np.int8)
        return table[self.outcome]

    @cached_property
    def pair(self) -> np.ndarray:
        """int64 [n]: dense index of the unordered pair (prompt, {first, second}); repeats share it, whoever voted."""
        return dense(self.prompt, np.minimum(self.first, self.second), np.maximum(self.first, self.second))

    @cached_property
    def pair_sign(self) -> np.ndarray:
        """int8 [n]: `sign` in the orientation of the pair (+1: the response with the smaller index was preferred)."""
        return np.where(self.first <= self.second, self.sign, -self.sign).astype(np.int8)

    @cached_property
    def node(self) -> tuple[np.ndarray, np.ndarray]:
        """(first, second) int64 [n]: dense index of the (prompt, response) that each side is; a side belongs to both."""
        found = dense(np.concatenate([self.prompt, self.prompt]), np.concatenate([self.first, self.second]))
        return found[: len(self)], found[len(self) :]

    def prompt_texts(self) -> list[str]:
        """The unique prompts as Python strings."""
        return self.prompts.to_pylist()

    def response_texts(self) -> list[str]:
        """The unique responses as Python strings."""
        return self.responses.to_pylist()

    # ---- views --------------------------------------------------------------------------------------------------------------

    def take(self, rows: np.ndarray) -> Votes:
        """The given rows (int indices or a mask), in the given order; text tables, annotators and models are shared."""
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        columns: dict[str, Any] = {name: getattr(self, name)[index] for name in _COLUMNS if name != "ids"}
        columns["ids"] = self.ids.take(pa.array(index))
        columns["source"] = None if self.source is None else self.source.take(pa.array(index))
        return replace(self, **columns)

    def with_(self, **columns: Any) -> Votes:
        """A copy with some columns replaced."""
        return replace(self, **columns)

    @property
    def train(self) -> Votes:
        """The rows of the training split."""
        return self.take(self.split == TRAIN)

    @property
    def heldout(self) -> Votes:
        """The rows of the frozen held-out split."""
        return self.take(self.split == HELDOUT)


_COLUMNS = (
    "ids", "prompt", "first", "second", "outcome", "annotator", "group", "p", "w", "strength", "seconds", "model_first",
    "model_second", "split", "line",
)  # fmt: skip
