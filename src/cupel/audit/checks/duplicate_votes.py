"""The same vote recorded more than once."""

from __future__ import annotations

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import A, B, Votes

NAME = "duplicate_votes"
SCOPE: Scope = "row"
COST = 1


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows that repeat an earlier one: same normalised pair, same outcome and, where annotators are named, the same
    person.

    Where no annotator is named a repeat may be a second person; then time, strength and models must be equal as well, and the
    finding stays at info because only the owner of the data can tell. Severity else: warning from 1 % of rows (the share at which
    reading also stops by default), because copies narrow every interval without knowledge; below it info. The first of each set of
    copies is not among the rows.
    """
    shared = context.shared(votes)
    n = len(votes)
    outcome = votes.outcome.astype(np.int64)
    # in the orientation of the pair, so that a swapped copy is a copy: A and B trade places, the rest stays
    turned = shared.response_id[shared.first] > shared.response_id[shared.second]
    outcome = np.where(turned & (outcome == A), B, np.where(turned & (outcome == B), A, outcome))
    named = votes.annotator >= 0
    models = np.sort(np.stack([votes.model_first, votes.model_second], axis=1), axis=1).astype(np.int64)
    anonymous = [np.nan_to_num(votes.seconds, nan=-1.0), np.nan_to_num(votes.strength, nan=-1.0), models[:, 0], models[:, 1]]
    columns = [shared.key, outcome, votes.annotator.astype(np.int64)] + [np.where(named, 0, c) for c in anonymous]
    label = np.zeros(n, dtype=np.int64)
    for column in columns:
        part = dense(column) if column.dtype.kind == "i" else np.unique(column, return_inverse=True)[1].reshape(-1)
        label = dense(label, part)
    head = np.zeros(int(label.max(initial=-1)) + 1, dtype=np.int64)
    head[label[::-1]] = np.arange(n - 1, -1, -1)
    again = np.ones(n, dtype=bool)
    again[head] = False
    if not again.any():
        return clean(NAME, SCOPE, n, "no vote is recorded twice")
    count, unnamed = int(again.sum()), int((again & ~named).sum())
    message = f"{count:,} of {n:,} votes ({percent(count / n)}) repeat an earlier vote on the same pair with the same outcome"
    if unnamed == count:
        message += "; annotators are not named, so these may be votes of several people: drop them only if you know they are copies"
    elif unnamed:
        message += f"; {unnamed:,} of them name no annotator and may be votes of several people"
    return found(
        votes,
        again,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count - unnamed, n, warning=0.01),
        message=message,
        remedy="--drop duplicate_votes",
        details={"without_annotator": unnamed},
    )
