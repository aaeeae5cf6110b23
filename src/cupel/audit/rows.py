"""From scores to what is done with each row, and from margins to a probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cupel.audit.types import Finding, Power
from cupel.records.schema import TRAIN, Votes

#: checks after which a row has nothing to choose between: dropped by default
NOTHING_TO_CHOOSE = ("identical_sides", "empty_sides", "equal_after_normalising")
#: at most this many rows, and at most this share, are sent to a person
REVIEW_ROWS = 100
REVIEW_SHARE = 0.02
#: the share of rows called doubtful, where the audit can see
DOUBTFUL_SHARE = 0.10


def calibrated(margin: np.ndarray, sign: np.ndarray, train: np.ndarray) -> np.ndarray:
    """sigmoid(slope * margin), [n]: how well the content predicts each recorded label; the slope is fitted on the training rows.

    `margin` is oriented to the recorded label, so every row counts as a success; the slope that maximises
    sum log sigmoid(slope * margin) is found by Newton's method and is 0 where margins carry nothing.

    >>> m = np.array([2.0, 1.0, -1.0, 3.0]); s = np.ones(4, dtype=int)
    >>> bool((calibrated(m, s, s == 1) > 0.5).sum() == 3)
    True
    """
    used = train & (sign != 0) & np.isfinite(margin)
    values = margin[used].astype(np.float64)
    scale = float(values.std()) or 1.0
    values = values / scale
    slope = 0.0
    for _ in range(50):
        q = 1.0 / (1.0 + np.exp(-slope * values))
        gradient = float(((1 - q) * values).sum()) - 1e-3 * slope
        curvature = float((q * (1 - q) * values**2).sum()) + 1e-3
        step = float(np.clip(gradient / curvature, -2.0, 2.0))
        slope += step
        if abs(step) < 1e-10:
            break
    slope = max(slope, 0.0)
    return 1.0 / (1.0 + np.exp(-np.clip(slope * margin / scale, -700, 700)))


def row_verdicts(
    votes: Votes, suspicion: np.ndarray, p_correct: np.ndarray, findings: Sequence[Finding], power: Power
) -> np.ndarray:
    """int8 [n], indices into ROW_VERDICTS: drop, (flip is never decided here), review, reweight or keep.

    drop      nothing to choose between (identical, empty or equal sides)
    review    the most suspicious rows (at most 100 and at most 2 %), only where the audit can see planted flips
    reweight  P(right) below one half; with one vote per pair, the next most suspicious rows up to a tenth
    Held-out rows are always kept.
    """
    from cupel.audit.result import ROW_VERDICTS

    verdict = np.full(len(votes), ROW_VERDICTS.index("keep"), dtype=np.int8)
    train = votes.split == TRAIN
    if power.verdict == "can_see":
        stated = np.flatnonzero(train & (votes.sign != 0))
        ranked = stated[np.argsort(-suspicion[stated], kind="stable")]
        known = np.isfinite(p_correct[stated]).any() if len(stated) else False
        doubtful = stated[p_correct[stated] < 0.5] if known else ranked[: int(DOUBTFUL_SHARE * len(stated))]
        verdict[doubtful] = ROW_VERDICTS.index("reweight")
        verdict[ranked[: min(REVIEW_ROWS, int(REVIEW_SHARE * len(stated)))]] = ROW_VERDICTS.index("review")
    for finding in findings:
        if finding.status == "finding" and finding.name in NOTHING_TO_CHOOSE:
            verdict[finding.rows[train[finding.rows]]] = ROW_VERDICTS.index("drop")
    return verdict
