"""Many votes from few annotators."""

from __future__ import annotations

import math

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "annotator_concentration"
SCOPE: Scope = "dataset"
COST = 0


def check(votes: Votes, context: Context) -> Finding:
    """Share of named votes cast by the busiest 1 % of annotators (at least one annotator).

    Finding from .20 where there are 20 annotators or more, and from .50 where there are 3 to 19: from a fifth on, the habits of one
    in a hundred people move every number of the set. Severity: warning from .40 (.75 with few annotators), else info.
    `effective_annotators` is 1 / sum of squared shares.
    """
    who = votes.annotator[votes.annotator >= 0]
    counts = np.sort(np.bincount(who, minlength=1))[::-1]
    counts = counts[counts > 0]
    people, n = len(counts), int(counts.sum())
    if people < 3:
        return not_applicable(NAME, SCOPE, f"{people:,} named annotators; concentration needs 3", n)
    top = max(1, math.ceil(people / 100))
    share = float(counts[:top].sum() / n)
    details = {
        "annotators": people,
        "top": top,
        "share_of_top": round(share, 6),
        "effective_annotators": round(float(1 / ((counts / n) ** 2).sum()), 3),
    }
    told = f"the busiest {top:,} of {people:,} annotators cast {percent(share)} of {n:,} votes"
    bar, strong = (0.20, 0.40) if people >= 20 else (0.50, 0.75)
    if share < bar:
        return clean(NAME, SCOPE, n, told, details)
    return found(
        votes,
        np.zeros(0, dtype=np.int64),
        name=NAME,
        scope=SCOPE,
        severity="warning" if share >= strong else "info",
        message=told,
        remedy="cupel train reward FILE --treatment em-annotator (one rate of error per annotator), or collect from more people",
        count=int(counts[:top].sum()),
        n=n,
        details=details,
    )
