"""Votes that follow the place at which a response was shown."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._stats import benjamini_hochberg, clustered_share, two_sided_p
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes
from cupel.votes.intervals import wilson

NAME = "position_bias"
SCOPE: Scope = "dataset"
COST = 1

_MIN_ROWS = 30


def check(votes: Votes, context: Context) -> Finding:
    """Share of decided votes won by the side shown first, with its interval over prompts; needs a known order.

    Finding when the 95 % interval lies wholly outside .50 +- .02: significance alone would name every large set. Severity: warning
    when it lies outside .50 +- .05, else info; both margins are conventions. Annotators with 10 or more votes whose own share
    differs from the pooled one are counted (exact binomial, false discovery rate .05).
    """
    if not votes.order_known:
        return not_applicable(NAME, SCOPE, "the order in which the sides were shown is not known")
    shared = context.shared(votes)
    use = shared.decided
    n = int(use.sum())
    if n < _MIN_ROWS:
        return not_applicable(NAME, SCOPE, f"{n:,} decided votes; a share needs {_MIN_ROWS}", n)
    won = votes.sign[use] > 0
    share = clustered_share(won, shared.cluster[use])
    who = votes.annotator[use]
    total = np.bincount(who[who >= 0], minlength=len(votes.annotators))
    first = np.bincount(who[(who >= 0) & won], minlength=len(votes.annotators))
    enough = np.flatnonzero(total >= 10)
    differ = enough[benjamini_hochberg(two_sided_p(first[enough], total[enough], share.value), 0.05)]
    low, high = wilson(int(won.sum()), n)
    details = {
        **share.as_dict(),
        "wilson_low": round(low, 6),
        "wilson_high": round(high, 6),
        "annotators_with_10_votes": len(enough),
        "annotators_that_differ": sorted(shared.names[i] for i in differ),
    }
    told = f"the side shown first won {percent(share.value)} of {n:,} decided votes (95 % {percent(share.low)} to {percent(share.high)})"
    if share.low <= 0.52 and share.high >= 0.48:
        return clean(NAME, SCOPE, n, told, details)
    strong = share.low > 0.55 or share.high < 0.45
    return found(
        votes,
        np.zeros(0, dtype=np.int64),
        name=NAME,
        scope=SCOPE,
        severity="warning" if strong else "info",
        message=told,
        remedy="show each pair in both orders, or in random order, when you collect again; cupel review OUT",
        count=int(won.sum()),
        n=n,
        details=details,
    )
