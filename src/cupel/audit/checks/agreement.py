"""How far several votes on one pair agree."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks.context import Context
from cupel.audit.label_error import joined_groups
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import TIE, Votes

NAME = "agreement"
SCOPE: Scope = "dataset"
COST = 1

_MIN_UNITS = 10


def check(votes: Votes, context: Context) -> Finding:
    """Krippendorff's alpha (nominal; a tie is a label of its own) of the votes on a pair, with its bootstrap interval over groups.

    Beside it the probability A that two random votes that state a preference agree, and the shares of the labels, without which
    alpha cannot be read. Pairs are normalised; skipped and both-bad votes are left out; a second vote of one person on a pair does
    not count, for it is no second opinion. Finding when the upper 95 % end is below .667, the customary lower limit for tentative
    conclusions (Krippendorff 2004). Severity: error when the lower end is not above 0, since such votes cannot be told from coin
    flips; warning when the upper end is below .40; else info. Low agreement may be taste, and low votes on a pair do not make the
    majority of several wrong.
    """
    shared = context.shared(votes)
    use = (votes.outcome <= TIE) & (shared.response_id[shared.first] != shared.response_id[shared.second])
    rows = np.flatnonzero(use)
    cell = dense(shared.key[rows], shared.voter[rows])
    head = np.zeros(int(cell.max(initial=-1)) + 1, dtype=np.int64)
    head[cell[::-1]] = np.arange(len(rows) - 1, -1, -1)  # a person's first vote on each pair
    rows = rows[np.sort(head)]
    key, sign = shared.key[rows], shared.key_sign[rows].astype(np.int64)
    several = np.bincount(key, minlength=1)
    units = int((several > 1).sum())
    if units < _MIN_UNITS:
        return not_applicable(NAME, SCOPE, f"{units:,} pairs have votes of two people; agreement needs {_MIN_UNITS}", units)
    from cupel.votes.agreement import krippendorff_alpha, pairwise_agreement

    groups = shared.cluster[rows]
    if len(np.unique(groups[several[key] > 1])) < _MIN_UNITS:
        groups = key  # too few groups have repeated pairs: then pairs are what is drawn again
    groups = joined_groups(groups, context.seed)
    alpha = krippendorff_alpha(key, sign, groups=groups, seed=context.seed)
    decided = np.bincount(key[sign != 0], minlength=1)
    raw = None
    if (decided > 1).any():
        raw = pairwise_agreement(key, sign, ties="drop", groups=groups, seed=context.seed)
    named = bool((votes.annotator[rows] >= 0).all())
    names = {-1.0: "other side", 0.0: "tie", 1.0: "one side"}
    details = {
        "alpha": _number(alpha.alpha),
        "low": _number(alpha.low),
        "high": _number(alpha.high),
        "pairs": alpha.units,
        "votes": alpha.votes,
        "ties": round(sum(s for v, s in zip(alpha.values, alpha.shares, strict=True) if names[v] == "tie"), 6),
        "raw_agreement": None if raw is None else {"share": _number(raw.estimate), "low": _number(raw.low), "high": _number(raw.high)},
        "annotators_named": named,
    }
    if not np.isfinite([alpha.alpha, alpha.low, alpha.high]).all():
        why = alpha.note or "alpha has no interval here: some draws hold one label only"
        return not_applicable(NAME, SCOPE, f"{why} ({alpha.units:,} pairs)", alpha.units)
    told = f"alpha {alpha.alpha:.2f} (95 % {alpha.low:.2f} to {alpha.high:.2f}) on {alpha.units:,} pairs with {alpha.votes:,} votes"
    if raw is not None:
        told += f"; two votes that state a preference agree in {percent(raw.estimate)}"
    if not named:
        told += "; where annotators are not named, each vote counts as another person's"
    if not alpha.high < 0.667:
        return clean(NAME, SCOPE, alpha.units, told, details)
    return found(
        votes,
        np.zeros(0, dtype=np.int64),
        name=NAME,
        scope=SCOPE,
        severity="error" if alpha.low <= 0 else "warning" if alpha.high < 0.40 else "info",
        message=told,
        remedy="clear the guideline for annotators, collect more votes per pair, or cupel review OUT",
        count=alpha.units,
        n=alpha.units,
        details=details,
    )


def _number(x: float) -> float | None:
    return round(float(x), 6) if np.isfinite(x) else None
