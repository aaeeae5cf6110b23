"""Annotators whose answers are unlike those of the others: near chance, against the rest, always one place, or too fast to have
read."""

from __future__ import annotations

from typing import Any

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._stats import benjamini_hochberg, lower_tail, two_sided_p
from cupel.audit.checks.context import Context, Shared
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import Votes

NAME = "annotators_out_of_line"
SCOPE: Scope = "row"
COST = 1

_MIN_VOTES = 10
_FDR = 0.05
#: rows that the expectation of a margin counts for beside the rows of the prompt
_PRIOR = 2.0
#: expected agreement below which there is no common opinion that anybody could be unlike
_COMMON = 0.65
#: words a second that nobody reads: four times the mean silent reading rate of 238 words a minute (Brysbaert 2019)
_FASTEST = 4 * 238 / 60


def leave_one_out(key: np.ndarray, sign: np.ndarray, voter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(others int64 [n], count int64 [n]): sum of the signs, and number, of the votes of *other* voters on the pair of each row.

    >>> leave_one_out(np.array([0, 0, 0]), np.array([1, 1, -1]), np.array([0, 1, 2]))[0].tolist()
    [0, 0, 2]
    """
    size = int(key.max(initial=-1)) + 1
    own = dense(key, voter)
    voted = (sign != 0).astype(np.int64)
    total, own_total = np.bincount(key, weights=sign, minlength=size), np.bincount(own, weights=sign)
    count, own_count = np.bincount(key, weights=voted, minlength=size), np.bincount(own, weights=voted)
    return np.rint(total[key] - own_total[own]).astype(np.int64), np.rint(count[key] - own_count[own]).astype(np.int64)


def check(votes: Votes, context: Context) -> Finding:
    """Number of annotators with at least 10 votes whose answers do not follow the others', or the text (rows: all their votes).

    unlike the others: share of votes on the side of the majority of the others on the pair. Expected is what other annotators
    reach on the same prompt at the same margin and number of votes (shrunk by 2 rows to that margin over all prompts), so that hard
    questions are not held against those who answered them. Named when the exact binomial
    lower tail passes a false discovery rate of .05 over annotators *and* the share is nearer to one half than to the expected one,
    where .65 or more is expected: below that there is no common opinion to be unlike. Below one half with a lower tail under .05 it
    is called "against the others", else "near chance".

    one place: share of votes for the side shown first (known order only), at the same rate against the pooled share, and at least
    .90 on one place.

    too fast: where times exist, more than half of the votes came faster than 952 words a minute, four times the mean silent reading
    rate (Brysbaert 2019, doi:10.1016/j.jml.2019.104047), by an exact one-sided test at the same rate.

    Severity: warning from 5 % of votes (a convention), else info.
    A difference of taste can look like this: the message speaks of answers, and nobody is dropped by a machine.
    """
    shared = context.shared(votes)
    n_people = len(votes.annotators)
    named = votes.annotator >= 0
    if not n_people or not named.any():
        return not_applicable(NAME, SCOPE, "annotators are not named")
    total = np.bincount(votes.annotator[named], minlength=n_people)
    if not (total >= _MIN_VOTES).any():
        return not_applicable(NAME, SCOPE, f"no annotator has {_MIN_VOTES} votes", n_people)
    notes: dict[int, dict[str, Any]] = {}
    tested = {
        "agreement": _unlike(votes, shared, notes),
        "place": _one_place(votes, shared, notes),
        "time": _too_fast(votes, shared, notes),
    }
    if not any(tested.values()):
        return not_applicable(
            NAME, SCOPE, "no annotator has 10 votes on pairs on which others voted, in a known order, or with times", n_people
        )
    n = max(tested.values())
    table = [{"annotator": shared.names[i], "votes": int(total[i]), **notes[i]} for i in sorted(notes, key=lambda i: shared.names[i])]
    details = {"annotators_tested": tested, "false_discovery_rate": _FDR, "annotators": table}
    if not table:
        return clean(NAME, SCOPE, n, f"the answers of none of {n:,} annotators are out of line", details)
    rows = named & np.isin(votes.annotator, list(notes))
    n_votes = int(rows.sum())
    words = [f"{row['annotator']} ({'; '.join(row['reasons'])})" for row in table[:3]]
    more = f" and {len(table) - 3:,} more" if len(table) > 3 else ""
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="warning" if n_votes / len(votes) >= 0.05 else "info",
        message=(
            f"the answers of {len(table):,} of {n:,} annotators, {percent(n_votes / len(votes))} of all votes, are out of line: "
            f"{', '.join(words)}{more}"
        ),
        remedy="cupel review OUT (look at these votes; weigh annotators, do not drop them unseen)",
        count=len(table),
        n=n,
        details=details,
    )


def _note(notes: dict[int, dict[str, Any]], person: int, kind: str, reason: str, **numbers: float) -> None:
    entry = notes.setdefault(int(person), {"kinds": [], "reasons": []})
    entry["kinds"].append(kind)
    entry["reasons"].append(reason)
    entry.update({k: round(float(v), 6) for k, v in numbers.items()})


def _unlike(votes: Votes, shared: Shared, notes: dict[int, dict[str, Any]]) -> int:
    sign = np.where(shared.decided, shared.key_sign, 0).astype(np.int64)
    others, count = leave_one_out(shared.key, sign, shared.voter)
    use = (votes.annotator >= 0) & (sign != 0) & (others != 0)
    who = votes.annotator[use].astype(np.int64)
    agrees = (np.sign(others[use]) == sign[use]).astype(np.float64)
    stratum = dense(np.minimum(count[use], 20), np.minimum(np.abs(others[use]), 20))
    n_people = len(votes.annotators)
    m = np.bincount(who, minlength=n_people)
    k = np.rint(np.bincount(who, weights=agrees, minlength=n_people)).astype(np.int64)
    # both expectations leave the annotator's own votes out; the prompt's is shrunk to that of the margin
    overall = _others_mean(stratum, who, agrees, float(agrees.mean()) if len(agrees) else 0.5, 1e-9)
    local = dense(stratum, shared.prompt[use])
    expected_row = _others_mean(local, who, agrees, overall, _PRIOR)
    expected = np.bincount(who, weights=expected_row, minlength=n_people) / np.maximum(m, 1)
    enough = np.flatnonzero(m >= _MIN_VOTES)
    if len(enough) < 3:
        return 0
    p = lower_tail(k[enough], m[enough], expected[enough])
    share = k[enough] / m[enough]
    low = benjamini_hochberg(p, _FDR) & (share < (0.5 + expected[enough]) / 2) & (expected[enough] >= _COMMON)
    for i, s, e in zip(enough[low], share[low], expected[enough][low], strict=True):
        against = s < 0.5 and float(lower_tail(k[i : i + 1], m[i : i + 1], np.array([0.5]))[0]) < 0.05
        kind = "against the others" if against else "near chance"
        reason = f"answers agree with the majority of others in {percent(s)} of {m[i]:,} votes, expected {percent(e)}"
        _note(notes, i, kind, reason, agreement=s, expected_agreement=e)
    return len(enough)


def _others_mean(cell: np.ndarray, who: np.ndarray, x: np.ndarray, prior: np.ndarray | float, weight: float) -> np.ndarray:
    """Mean of x over the rows of a row's cell that are other people's, shrunk to `prior` as if by `weight` rows."""
    own = dense(cell, who)
    n = (np.bincount(cell)[cell] - np.bincount(own)[own]) if len(cell) else np.zeros(0)
    total = (np.bincount(cell, weights=x)[cell] - np.bincount(own, weights=x)[own]) if len(cell) else np.zeros(0)
    return np.clip((total + weight * prior) / (n + weight), 0.0, 1.0)


def _one_place(votes: Votes, shared: Shared, notes: dict[int, dict[str, Any]]) -> int:
    if not votes.order_known:
        return 0
    use = (votes.annotator >= 0) & shared.decided
    who, won = votes.annotator[use], votes.sign[use] > 0
    m = np.bincount(who, minlength=len(votes.annotators))
    k = np.bincount(who[won], minlength=len(votes.annotators))
    enough = np.flatnonzero(m >= _MIN_VOTES)
    if not len(enough):
        return 0
    pooled = (won.sum() - k[enough] + 0.5) / (len(won) - m[enough] + 1)
    share = k[enough] / m[enough]
    odd = benjamini_hochberg(two_sided_p(k[enough], m[enough], pooled), _FDR) & (np.maximum(share, 1 - share) >= 0.90)
    for i, s in zip(enough[odd], share[odd], strict=True):
        place = "first" if s > 0.5 else "second"
        _note(
            notes,
            i,
            f"always {place}",
            f"{percent(max(s, 1 - s))} of {m[i]:,} answers are for the side shown {place}",
            share_first=s,
        )
    return len(enough)


def _too_fast(votes: Votes, shared: Shared, notes: dict[int, dict[str, Any]]) -> int:
    use = (votes.annotator >= 0) & np.isfinite(votes.seconds) & (votes.seconds >= 0)
    who = votes.annotator[use]
    needed = (shared.words[shared.first] + shared.words[shared.second])[use] / _FASTEST
    fast = votes.seconds[use] < needed
    m = np.bincount(who, minlength=len(votes.annotators))
    k = np.bincount(who[fast], minlength=len(votes.annotators))
    enough = np.flatnonzero(m >= _MIN_VOTES)
    if not len(enough):
        return 0
    upper = lower_tail(m[enough] - k[enough], m[enough], np.full(len(enough), 0.5))
    for i in enough[benjamini_hochberg(upper, _FDR) & (k[enough] / m[enough] > 0.5)]:
        reason = f"{percent(float(k[i] / m[i]))} of {m[i]:,} answers came faster than 952 words a minute"
        _note(notes, i, "too fast", reason, share_too_fast=float(k[i] / m[i]))
    return len(enough)
