"""What a check of a log may need besides the log, and what all of them say in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.audit.types import Finding, Scope, Severity
from cupel.interactions.log import Log

N_EXAMPLES = 10
#: a log whose middle time is below this (March 1973) counts something else than seconds since 1970: an order, days, steps
SECONDS_FROM = 100_000_000


@dataclass(frozen=True)
class Context:
    """against: logs that training must not share pairs with, by the name of each; clip: propensities below it are called small."""

    against: Mapping[str, Log] | None = None
    clip: float = 0.01


def found(
    log: Log, rows: np.ndarray, *, name: str, scope: Scope, severity: Severity, message: str, remedy: str, examples: tuple[str, ...] = (),
    count: int | None = None, n: int | None = None, details: Mapping[str, Any] | None = None,
) -> Finding:  # fmt: skip
    """A finding on those events (a mask or positions); the examples are what the check names, else the first "user item"."""
    at = np.flatnonzero(rows) if rows.dtype == bool else np.sort(rows)
    at = at.astype(np.int64)
    shown = examples or tuple(f"{log.users[log.user[r]]} {log.items[log.item[r]]}" for r in at[:N_EXAMPLES])
    return Finding(
        name=name, scope=scope, status="finding", severity=severity, count=len(at) if count is None else count,
        n=len(log) if n is None else n, message=message, remedy=remedy, rows=at, examples=shown[:N_EXAMPLES], details=details or {},
    )  # fmt: skip


def in_seconds(log: Log) -> bool:
    """Whether times are seconds since 1970, as far as their middle tells."""
    return log.time is not None and len(log) > 0 and float(np.median(log.time)) >= SECONDS_FROM


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts: 0 where all are equal, towards 1 where one has everything; 0 without any.

    G = sum_i (2 i - n - 1) c_(i) / (n sum c), c sorted upwards, i from 1.

    >>> gini(np.array([1, 1, 1])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    c = np.sort(np.asarray(counts, dtype=np.float64))
    n, total = len(c), float(c.sum())
    return float(((2 * np.arange(1, n + 1) - n - 1) @ c) / (n * total)) if total > 0 else 0.0
