"""A batch of rows seen through the canonical names of the whole file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from cupel.records import labels
from cupel.records.arrow import pc
from cupel.records.columns import NAMING, Frame, is_text
from cupel.records.stream.kinds import Kinds

#: numbers that may stand for a side
_NUMBERS = ("0", "1", "2")
#: a word that no file holds: with it the meaning of numbers is settled, and a batch does not look for one of its own
_SETTLED = {"\0": "skip"}


@dataclass(frozen=True)
class Facts:
    """What a pass over the file assumes of all of it.

    kinds    of the columns
    whole    columns of names that hold fractions: whether all are whole numbers (then they are read without a decimal point)
    numbers  which of 0, 1, 2 occur among the votes
    """

    kinds: Kinds
    whole: Mapping[str, bool] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()

    def with_batch(self, frame: Frame) -> Facts:
        """The facts with those that this batch adds."""
        whole = dict(self.whole)
        for name in sorted(NAMING - {"vote"}):
            if name in frame.names and pa.types.is_floating(frame.table[frame.names[name]].type):
                values = frame.table[frame.names[name]]
                found = pc.all(pc.equal(values, pc.floor(values))).as_py()
                if found is not None:
                    whole[name] = whole.get(name, True) and found
        return replace(self, whole=whole, numbers=self.numbers | _numbers(frame))


def _numbers(frame: Frame) -> frozenset[str]:
    """Which of 0, 1, 2 occur among the votes, as `labels.outcomes` reads them."""
    if not frame.has("vote"):
        return frozenset()
    values = frame.column("vote")
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        words = {f"{value:g}" for value in pc.unique(values).to_pylist() if value is not None}
    elif is_text(values.type):
        unique = pc.unique(values).cast(pa.large_string())
        words = set(pc.utf8_lower(pc.utf8_trim_whitespace(unique)).to_pylist())
    else:
        words = set()
    return frozenset(words & set(_NUMBERS))


def settle_votes(head: Frame, facts: Facts) -> None:
    """Decide once what the numbers among the votes mean; the head's doubts say so."""
    if head.has("vote") and not head.values:
        head.values = {**labels._numbers(head, set(facts.numbers))} or dict(_SETTLED)


class BatchFrame(Frame):
    """A batch whose columns, meanings and shapes are those of the head of the file."""

    def __init__(self, table: pa.Table, head: Frame, facts: Facts) -> None:
        super().__init__(pa.table({}), None, head.max_field)
        self.table, self.head, self.facts = table, head, facts
        self.names, self.mapped, self.values, self.first_number = head.names, head.mapped, head.values, head.first_number

    def shape(self, name: str) -> str:
        """What the column holds in the first rows of the file."""
        return self.head.shape(name)

    def column(self, name: str) -> pa.Array:
        """The column of the batch; fractions that name something as the whole file has them."""
        values = super().column(name)
        if name in self.facts.whole and pa.types.is_floating(values.type):
            return values.cast(pa.int64() if self.facts.whole[name] else pa.large_string(), safe=False)
        return values
