"""Users who have met every item."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, not_applicable
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log
from cupel.interactions.order import distinct

NAME = "everything_observed"
SCOPE: Scope = "dataset"


def check(log: Log, context: Context) -> Finding:
    """Number of users with an event on every item that has any: there is nothing to draw that they did not take, and nothing to recommend.

    Severity: warning from 5 % of the users, else info. Needs 2 items. Where values say what was liked (ratings, clicks among displays) the
    finding speaks of all events, whatever their value.
    """
    items = int((log.counts() > 0).sum())
    if items < 2:
        return not_applicable(NAME, SCOPE, f"{items} items have events; the question needs 2")
    per_user = np.bincount((distinct(log.pairs()) // len(log.items)).astype(np.int64), minlength=len(log.users))
    users, full = int((per_user > 0).sum()), per_user == items
    if not full.any():
        return clean(NAME, SCOPE, users, f"no user has all {items:,} items")
    count = int(full.sum())
    return found(
        log, np.zeros(0, np.int64), name=NAME, scope=SCOPE, severity=by_share(count, users, warning=0.05), count=count, n=users,
        message=f"{count:,} of {users:,} users have an event on each of the {items:,} items", examples=tuple(log.users[full][:10].tolist()),
        remedy="judge by values (`cupel.interactions.filters.at_least`), or leave these users out of training by pairs",
    )  # fmt: skip
