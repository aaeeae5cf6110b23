"""How often each annotator's answers agree with the others' on the same pairs: words about answers, never about people."""

from __future__ import annotations

from typing import Any

import numpy as np

from cupel.records.schema import TRAIN, Votes

MAX_LISTED = 50


def annotator_table(votes: Votes) -> list[dict[str, Any]]:
    """Per annotator (pseudonym) of the training split: votes, votes on shared pairs, agreement with the others, Wilson interval.

    A vote is compared with the sign of the sum of the other votes on its pair; ties on either side are left out. The 50 annotators
    with most votes are listed, then by pseudonym; annotators without a shared pair have null agreement.
    """
    from cupel.audit.checks.context import pseudonyms
    from cupel.votes.intervals import wilson

    if not votes.annotators:
        return []
    names = pseudonyms(votes.annotators)
    inside = (votes.split == TRAIN) & (votes.annotator >= 0)
    pair, sign, annotator = votes.pair[inside], votes.pair_sign[inside].astype(np.int64), votes.annotator[inside]
    total = np.bincount(pair, weights=sign, minlength=int(votes.pair.max(initial=0)) + 1)
    others = total[pair] - sign
    compared = (sign != 0) & (others != 0)
    size = len(votes.annotators)
    n_votes = np.bincount(annotator, minlength=size)
    n_compared = np.bincount(annotator[compared], minlength=size)
    n_agree = np.bincount(annotator[compared], weights=(np.sign(others) == sign)[compared], minlength=size)
    order = sorted(np.flatnonzero(n_votes).tolist(), key=lambda a: (-int(n_votes[a]), names[a]))[:MAX_LISTED]
    table = []
    for a in order:
        n, k = int(n_compared[a]), int(n_agree[a])
        low, high = wilson(k, n) if n else (None, None)
        table.append(
            {"name": names[a], "n": int(n_votes[a]), "n_compared": n, "agreement": k / n if n else None,
             "low": None if low is None else float(low), "high": None if high is None else float(high)}
        )  # fmt: skip
    return table
