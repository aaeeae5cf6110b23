"""Users and items with too few events to learn from."""

from __future__ import annotations

from cupel.audit.checks._build import by_share, clean, percent
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log

NAME = "rare_ids"
SCOPE: Scope = "row"
LEAST = 5


def check(log: Log, context: Context) -> Finding:
    """Events of users or items with fewer than 5 events. Finding (info) from 5 % of the events, warning from 30 %.

    A model learns next to nothing of them and a split per user leaves none for training; the customary 5-core takes them out, which makes
    any result one about the others.
    """
    users, items = log.counts("user"), log.counts()
    rows = (users < LEAST)[log.user] | (items < LEAST)[log.item]
    few = {"users": int(((users > 0) & (users < LEAST)).sum()), "items": int(((items > 0) & (items < LEAST)).sum())}
    count = int(rows.sum())
    said = (
        f"{few['users']:,} of {int((users > 0).sum()):,} users and {few['items']:,} of {int((items > 0).sum()):,} items have fewer than "
        f"{LEAST} events; {count:,} events ({percent(count / max(len(log), 1))}) are theirs"
    )
    if count < 0.05 * len(log) or not count:
        return clean(NAME, SCOPE, len(log), said, few)
    return found(
        log, rows, name=NAME, scope=SCOPE, severity=by_share(count, len(log), warning=0.30), message=said,
        remedy="`cupel.interactions.filters.k_core`, and say so with every result; or use item texts", details=few,
    )  # fmt: skip
