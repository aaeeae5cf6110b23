"""Pairs on which both directions were recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import Votes

NAME = "contradictions"
SCOPE: Scope = "row"
COST = 1


@dataclass(frozen=True)
class ContradictionCounts:
    """Votes against the majority of their pair: N votes on `keys` pairs, `contradictory` of which have both directions."""

    n: int
    keys: int
    repeated: int
    contradictory: int
    rate: float
    ceiling: float
    minority: np.ndarray
    both: np.ndarray


def contradiction_counts(key: np.ndarray, sign: np.ndarray) -> ContradictionCounts:
    """Contradiction rate sum_key min(n_AB, n_BA) / N and accuracy ceiling of any fixed scorer, sum_key max(n_AB, n_BA) / N.

    key: int [n], the unordered pair; sign: +1 or -1 in the orientation of the key, 0 rows do not count.
    `both` [n]: the row's pair has votes in both directions; `minority` [n]: the row is on the smaller side of it (on neither in a
    draw).

    >>> c = contradiction_counts(np.array([0, 0, 0, 1]), np.array([1, 1, -1, 1]))
    >>> c.rate, c.ceiling, c.minority.tolist()
    (0.25, 0.75, [False, False, True, False])
    """
    voted = sign != 0
    size = int(key.max(initial=-1)) + 1
    up = np.bincount(key[sign > 0], minlength=size)
    down = np.bincount(key[sign < 0], minlength=size)
    n = int(voted.sum())
    minority = voted & np.where(sign > 0, up[key] < down[key], down[key] < up[key])
    return ContradictionCounts(
        n=n,
        keys=int(((up + down) > 0).sum()),
        repeated=int(((up + down) > 1).sum()),
        contradictory=int(((up > 0) & (down > 0)).sum()),
        rate=float(np.minimum(up, down).sum() / n) if n else float("nan"),
        ceiling=float(np.maximum(up, down).sum() / n) if n else float("nan"),
        minority=minority,
        both=voted & (up[key] > 0) & (down[key] > 0),
    )


def check(votes: Votes, context: Context) -> Finding:
    """Number of votes that stand against the majority of their own pair (rows: all votes of the pairs with both directions).

    Severity: warning from a contradiction rate of 10 % (no fixed scorer can then be right on more than 90 % of these votes), or
    when 1 % of the votes contradict another vote *of the same person*, which taste cannot explain; below both info. Votes of
    different people that differ are information, not damage: the remedy is to look, never to drop.
    """
    shared = context.shared(votes)
    sign = np.where(shared.decided, shared.key_sign, 0)
    counts = contradiction_counts(shared.key, sign)
    if not counts.repeated:
        return not_applicable(NAME, SCOPE, "every pair has one decided vote, so none can be contradicted", counts.n)
    own = contradiction_counts(dense(shared.key, votes.annotator), np.where(votes.annotator >= 0, sign, 0))
    changed = int(own.both.sum())
    details = {
        "contradiction_rate": round(counts.rate, 6),
        "ceiling": round(counts.ceiling, 6),
        "contradictory_pairs": counts.contradictory,
        "pairs": counts.keys,
        "pairs_with_two_or_more_votes": counts.repeated,
        "votes_against_own": changed,
    }
    if not counts.contradictory:
        return clean(NAME, SCOPE, counts.n, f"the votes of all {counts.repeated:,} repeated pairs point one way", details)
    message = (
        f"{counts.contradictory:,} of {counts.repeated:,} pairs with two or more votes have both directions; "
        f"{percent(counts.rate)} of {counts.n:,} votes stand against their pair's majority, so no fixed scorer "
        f"can agree with more than "
        f"{percent(counts.ceiling)}"
    )
    if changed:
        message += f"; {changed:,} votes contradict another vote of the same annotator"
    return found(
        votes,
        counts.both,
        name=NAME,
        scope=SCOPE,
        severity="warning" if counts.rate >= 0.10 or (counts.n and changed / counts.n >= 0.01) else "info",
        message=message,
        remedy="cupel review OUT",
        n=counts.n,
        details=details,
    )
