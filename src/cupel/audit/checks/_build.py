"""Make a `Finding` from the rows that a check flagged, always in the same words and order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cupel.audit.types import Finding, Scope, Severity
from cupel.records.schema import Votes

N_EXAMPLES = 10


def percent(share: float) -> str:
    """A share in per cent, with a decimal below 10 and above 99.5, so that "100 %" means all.

    >>> percent(0.041), percent(0.4), percent(0.9996), percent(0.99999)
    ('4.1 %', '40 %', '99.9 %', '99.9 %')
    """
    value = 100 * share
    if 99.5 <= value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{value:.1f} %" if 0 < abs(value) < 9.95 else f"{value:.0f} %"


def by_share(count: int, n: int, *, warning: float, error: float = 2.0) -> Severity:
    """Severity from the share of rows: `error` or `warning` from those shares on, else `info`.

    >>> by_share(2, 100, warning=0.01)
    'warning'
    """
    share = count / n if n else 0.0
    return "error" if share >= error else "warning" if share >= warning else "info"


def found(
    votes: Votes,
    flagged: np.ndarray,
    *,
    name: str,
    scope: Scope,
    severity: Severity,
    message: str,
    remedy: str,
    count: int | None = None,
    n: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Finding:
    """A finding on the flagged rows (a mask or positions); `examples` are the first ids."""
    flagged = np.asarray(flagged)
    rows = np.flatnonzero(flagged) if flagged.dtype == bool else np.sort(flagged)
    rows = rows.astype(np.int64)
    return Finding(
        name=name,
        scope=scope,
        status="finding",
        severity=severity,
        count=len(rows) if count is None else int(count),
        n=len(votes) if n is None else int(n),
        message=message,
        remedy=remedy,
        rows=rows,
        examples=tuple(votes.ids[int(i)].as_py() for i in rows[:N_EXAMPLES]),
        details=details or {},
    )


def clean(name: str, scope: Scope, n: int, message: str, details: Mapping[str, Any] | None = None) -> Finding:
    """Looked, and found nothing worth a reader's time; the message says what was measured."""
    return Finding(name=name, scope=scope, status="clean", n=int(n), message=message, details=details or {})


def not_applicable(name: str, scope: Scope, why: str, n: int = 0) -> Finding:
    """The data (or the options) do not allow the question; the message says why."""
    return Finding(name=name, scope=scope, status="not_applicable", n=int(n), message=why)
