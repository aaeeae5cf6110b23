"""The same event recorded more than once."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, percent
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log
from cupel.interactions.order import order

NAME = "duplicate_events"
SCOPE: Scope = "row"


def check(log: Log, context: Context) -> Finding:
    """Number of events equal to an earlier one in user, item and all that the log states of events (kind, value, time, propensity).

    Severity: warning from 1 % of the events, below it info. Without times two events of a pair with one value are equal although they may
    be two visits; the message says so.
    """
    codes = None if log.event is None else np.unique(log.event.astype(str), return_inverse=True)[1]
    columns = [x for x in (log.propensity, log.time, log.value, codes, log.pairs()) if x is not None]
    turn = order(*columns)
    same = np.ones(max(len(log) - 1, 0), dtype=bool)
    for column in columns:
        same &= column[turn][1:] == column[turn][:-1]
    again = np.zeros(len(log), dtype=bool)
    again[turn[1:][same]] = True
    count = int(again.sum())
    if not count:
        return clean(NAME, SCOPE, len(log), "no event is recorded twice")
    said = f"{count:,} of {len(log):,} events ({percent(count / len(log))}) repeat an earlier one in everything that the log states"
    if log.time is None:
        said += "; there are no times, so some may be further visits"
    return found(
        log, again, name=NAME, scope=SCOPE, severity=by_share(count, len(log), warning=0.01), message=said,
        remedy="keep one event per pair (`cupel.interactions.filters.deduplicated`)",
    )  # fmt: skip
