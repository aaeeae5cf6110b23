"""How much of what may grow the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cupel.report import text as t


@dataclass(frozen=True)
class Limits:
    """How much of what may grow is shown."""

    pair_text: int = 1500  # characters of a prompt or response
    text: int = 600  # characters of any other text
    name: int = 120  # characters of a name, id or reason
    pairs: int = 50
    findings: int = 40
    items: int = 30  # of other lists

    def halved(self) -> Limits:
        """Half of everything except pairs."""
        return Limits(
            max(self.pair_text // 2, 1),
            max(self.text // 2, 8),
            max(self.name // 2, 8),
            self.pairs,
            max(self.findings // 2, 1),
            max(self.items // 2, 1),
        )


def texts(values: Any, limits: Limits) -> list[str]:
    """The first values of a list, each made visible and cut."""
    return [t.said(value, limits.text) for value in list(values or [])[: limits.items]]
