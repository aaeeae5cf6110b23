"""Labels that the length of the two sides explains."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._stats import binomial_p, clustered_share, logistic
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes
from cupel.votes.intervals import wilson

NAME = "length_only"
SCOPE: Scope = "dataset"
COST = 1

_MIN_ROWS = 30


def check(votes: Votes, context: Context) -> Finding:
    """Share of decided votes won by the side with more characters, with Wilson's interval, an exact p, and an interval over
    prompts.

    Beside it the slope of the log-odds on the difference of lengths, per standard deviation and per 100 words (ridge 1, through the
    origin: which side is called first means nothing), and the share within quarters of the absolute difference. An association:
    longer answers may also be better.
    Finding when the lower end over prompts is above .60 (or the upper end below .40): a scorer that only counts characters then
    agrees with 6 of 10 votes, which is what heads on sentence vectors reach on hard sets. Severity: warning when that end is above
    .70 (below .30), a convention; else info. Votes on sides of equal length are left out.
    """
    shared = context.shared(votes)
    gap = (shared.chars[shared.first] - shared.chars[shared.second]).astype(np.float64)
    use = shared.decided & (gap != 0)
    n = int(use.sum())
    if n < _MIN_ROWS:
        return not_applicable(NAME, SCOPE, f"{n:,} decided votes on sides of different length; a share needs {_MIN_ROWS}", n)
    gap, sign = gap[use], votes.sign[use]
    longer = (gap > 0) == (sign > 0)
    share = clustered_share(longer, shared.cluster[use])
    low, high = wilson(int(longer.sum()), n)
    words = (shared.words[shared.first] - shared.words[shared.second])[use].astype(np.float64)
    scale = float(np.sqrt((words**2).mean())) or 1.0
    slope = logistic(words / scale, sign > 0, ridge=1.0, intercept=False)[1]
    cuts = np.unique(np.quantile(np.abs(gap), [0.25, 0.5, 0.75]))
    quarter = np.searchsorted(cuts, np.abs(gap), side="right")
    strata = []
    for q in range(len(cuts) + 1):
        inside = quarter == q
        if inside.any():
            size = np.abs(gap[inside])
            part = clustered_share(longer[inside], shared.cluster[use][inside])
            strata.append({"from_chars": int(size.min()), "to_chars": int(size.max()), **part.as_dict()})
    details = {
        **share.as_dict(),
        "longer_won": int(longer.sum()),
        "wilson_low": round(low, 6),
        "wilson_high": round(high, 6),
        "binomial_p": binomial_p(int(longer.sum()), n),
        "log_odds_per_sd": round(slope, 6),
        "sd_words": round(scale, 3),
        "log_odds_per_100_words": round(slope / scale * 100, 6),
        "strata": strata,
    }
    told = (
        f"the longer side won {percent(share.value)} of {n:,} decided votes (95 % {percent(share.low)} to {percent(share.high)}); "
        f"log-odds {slope / scale * 100:+.2f} per 100 words"
    )
    if share.low <= 0.60 and share.high >= 0.40:
        return clean(NAME, SCOPE, n, told, details)
    return found(
        votes,
        np.zeros(0, dtype=np.int64),
        name=NAME,
        scope=SCOPE,
        severity="warning" if share.low > 0.70 or share.high < 0.30 else "info",
        message=told + (": length alone predicts them" if share.low > 0.5 else ": shortness alone predicts them"),
        remedy="cupel evaluate MODEL FILE (compare with length-only accuracy, and accuracy where the shorter side wins)",
        count=int(longer.sum()),
        n=n,
        details=details,
    )
