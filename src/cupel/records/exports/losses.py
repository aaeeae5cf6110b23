"""What a format cannot hold, counted so that the counts of parts add up to those of the whole; and what parts must know of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

Say = Callable[[Counter[str]], list[str]]


class Losses:
    """Counts under names, each with the sentences that they become.

    >>> one, two = Losses(), Losses()
    >>> for losses, n in ((one, 2), (two, 3)):
    ...     losses.count("gone", {"rows": n}, lambda counts: [f"{counts['rows']} rows are gone"])
    >>> one.add(two)
    >>> one.lines()
    ['5 rows are gone']
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Counter[str], Say]] = {}

    def count(self, name: str, counts: Mapping[str, int], say: Say) -> None:
        """Add counts under a name. `say` gets the sum over all parts, and says nothing ([]) where there is nothing to say.

        Every part counts the same names in the same order, also what it has none of, so that sentences come in one order.
        """
        self._found.setdefault(name, (Counter(), say))[0].update(counts)

    def some(self, name: str, n: int, say: Callable[[int], str]) -> None:
        """One count, said where it is not zero."""
        self.count(name, {"": n}, lambda counts: [say(counts[""])] if counts[""] else [])

    def add(self, other: Losses) -> None:
        """Take in the counts of another part."""
        for name, (counts, say) in other._found.items():
            self.count(name, counts, say)

    def lines(self) -> list[str]:
        """One sentence for each thing that is lost."""
        return [line for counts, say in self._found.values() for line in say(counts)]


class Again(Exception):
    """A part does not fit the plan after all; the plan has changed, and every part is written again."""


@dataclass
class Plan:
    """What holds for all rows, where a part alone could not tell.

    facts    what the format wants to know of the texts before anything is written (its `facts(votes)`)
    flags    whether something occurs in any row (a column is there only then)
    types    of columns of messages; None where no Arrow type holds them as they are, and they are JSON text

    Until it is settled, a plan gathers flags and types from every part that it sees; with one part, that is the whole.
    """

    facts: Mapping[str, bool] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    types: dict[str, pa.DataType | None] = field(default_factory=dict)
    settled: bool = False

    def flag(self, name: str, found: bool) -> bool:
        """Whether something occurs: here, or, once settled, anywhere."""
        if not self.settled:
            self.flags[name] = self.flags.get(name, False) or found
            return found
        return self.flags[name]

    @property
    def gathers(self) -> bool:
        """Whether something was asked that needs all parts."""
        return bool(self.flags or self.types)
