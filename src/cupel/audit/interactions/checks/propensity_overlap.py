"""Propensities so small that few events decide what is estimated with them."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, not_applicable, percent
from cupel.audit.interactions.context import Context, found
from cupel.audit.types import Finding, Scope
from cupel.interactions.log import Log

NAME = "propensity_overlap"
SCOPE: Scope = "dataset"


def check(log: Log, context: Context) -> Finding:
    """Smallest propensity, effective sample size (sum w)^2 / sum w^2 of the weights w = 1 / propensity, and the share below the clip.

    Finding (warning) where the events weigh as fewer than a tenth of their number; info where 1 % of them or more lie below the clip (.01)
    or the 1 % of largest weights carry a quarter of the weight. All equal propensities weigh all events alike.
    """
    theta = log.propensity
    if theta is None or not len(log):
        return not_applicable(NAME, SCOPE, "the log states no propensities")
    from cupel.noise.exposure import effective_size, top_share

    w = 1 / theta
    n, effective, top, below = len(log), effective_size(w), top_share(w), float((theta < context.clip).mean())
    details = {
        "smallest": float(theta.min()), "largest_weight": float(w.max()), "effective": round(effective, 3),
        "share_of_top": round(top, 6), "below_clip": round(below, 6), "clip": context.clip,
    }  # fmt: skip
    said = (
        f"the {n:,} events weigh as {effective:,.0f} equal ones under 1 / propensity ({percent(effective / n)}); the smallest propensity "
        f"is {theta.min():.3g}, {percent(below)} lie below {context.clip:g}"
    )
    if effective >= 0.1 * n and below < 0.01 and top < 0.25:
        return clean(NAME, SCOPE, n, said, details)
    rows = np.argsort(theta, kind="stable")[:10]
    return found(
        log, np.zeros(0, np.int64), name=NAME, scope=SCOPE, severity="warning" if effective < 0.1 * n else "info", message=said,
        remedy="self-normalise and clip (`cupel.noise.exposure`), and state the effective number with every estimate",
        count=int((theta < context.clip).sum()), examples=tuple(f"{log.users[log.user[r]]} {log.items[log.item[r]]}" for r in rows),
        details=details,
    )  # fmt: skip
