"""Times that cannot be right."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, not_applicable, percent
from cupel.audit.interactions.context import Context, found, in_seconds
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log

NAME = "implausible_times"
SCOPE: Scope = "row"
#: 1 January 1990 and 2100
FROM, UNTIL = 631_152_000, 4_102_444_800
#: share of the events on one second from which it is a stamp of an import
STAMP = 0.2


def check(log: Log, context: Context) -> Finding:
    """Events before 1990, from 2100 on, or before the release of their item; and whether a fifth of all events share one second.

    What is later than now is not told: a result would depend on the day. Severity: warning from 1 % of the events, or where there is such
    a stamp (an import, no clock: no split by time, no order of events), else info. Needs times in seconds.
    """
    if log.time is None:
        return not_applicable(NAME, SCOPE, "events have no times")
    if not in_seconds(log):
        return not_applicable(NAME, SCOPE, "times are no seconds since 1970: they give an order only", len(log))
    early, late = log.time < FROM, log.time >= UNTIL
    before = np.zeros(len(log), dtype=bool)
    if log.released is not None:
        before = (log.time < log.released[log.item]) & ~early
    stamps, counts = np.unique(log.time, return_counts=True)
    most = int(counts.max())
    stamped = most >= STAMP * len(log) and most >= 20
    rows = early | late | before
    count = int(rows.sum())
    details = {"before_1990": int(early.sum()), "from_2100": int(late.sum()), "before_release": int(before.sum()), "on_one_second": most}
    if not count and not stamped:
        return clean(
            NAME, SCOPE, len(log), "all times lie between 1990 and 2100, and after the release of the item where it is known", details
        )
    said = [f"{details[key]:,} events {words}" for key, words in _WORDS.items() if details[key]]
    if stamped:
        said.append(f"{most:,} events ({percent(most / len(log))}) share the second {int(stamps[np.argmax(counts)])}")
    return found(
        log, rows, name=NAME, scope=SCOPE, severity="warning" if stamped else by_share(count, len(log), warning=0.01),
        message="; ".join(said), remedy="mend the clock, or leave these events out of everything that orders events", details=details,
    )  # fmt: skip


_WORDS = {"before_1990": "lie before 1990", "from_2100": "lie in 2100 or later", "before_release": "lie before the release of their item"}
