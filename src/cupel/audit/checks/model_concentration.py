"""One model that wins nearly always."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes
from cupel.votes.intervals import wilson

NAME = "model_concentration"
SCOPE: Scope = "row"
COST = 0

_MIN_VOTES = 30


def check(votes: Votes, context: Context) -> Finding:
    """Models that win nearly every decided vote they are in, and the rows they win.

    Named when a model has at least 30 decided votes against other models and the lower end of Wilson's interval of its share of
    wins is above .90: "who wrote it" then predicts the label, and a reward model may learn an author's signature instead of
    quality. Severity: warning when such rows are half of the votes with known models, else info.
    """
    a, b = votes.model_first, votes.model_second
    use = (a >= 0) & (b >= 0) & (a != b) & (votes.sign != 0)
    n = int(use.sum())
    if n < _MIN_VOTES:
        return not_applicable(NAME, SCOPE, f"{n:,} decided votes between two named models; a share needs {_MIN_VOTES}", n)
    winner, loser = np.where(votes.sign > 0, a, b), np.where(votes.sign > 0, b, a)
    wins = np.bincount(winner[use], minlength=len(votes.models))
    played = wins + np.bincount(loser[use], minlength=len(votes.models))
    always = [m for m in np.flatnonzero(played >= _MIN_VOTES).tolist() if wilson(int(wins[m]), int(played[m]))[0] > 0.90]
    busiest = int(played.argmax())
    details = {
        "models": int((played > 0).sum()),
        "busiest_model": votes.models[busiest],
        "busiest_share": round(float(played[busiest] / n), 6),
        "always_winning": [{"model": votes.models[m], "wins": int(wins[m]), "votes": int(played[m])} for m in always],
    }
    if not always:
        return clean(NAME, SCOPE, n, f"none of {details['models']:,} models wins nearly always", details)
    rows = use & np.isin(winner, always)
    first = always[int(np.argmax(played[always]))]
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="warning" if rows.sum() / n >= 0.5 else "info",
        message=(
            f"{len(always):,} of {details['models']:,} models win nearly always (first: "
            f"{votes.models[first]!r}, {int(wins[first]):,} of "
            f"{int(played[first]):,}); {percent(float(rows.sum() / n))} of the votes are their wins"
        ),
        remedy="compare models of similar strength, or cupel review OUT on rows where the usual loser wins",
        n=n,
        details=details,
    )
