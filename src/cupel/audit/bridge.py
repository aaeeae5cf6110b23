"""From an audit to its next steps: curation, and re-estimation with a person's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cupel.audit.types import FlipRate
from cupel.errors import InputError
from cupel.records.schema import TRAIN, Votes
from cupel.votes.label_error import p_correct, trusted, trusted_uniform

if TYPE_CHECKING:
    from cupel.audit.result import Audit
    from cupel.curate.policy import Curated
    from cupel.curate.review import Answers


def curate_audit(audit: Audit, *, flip_above: float | None, drop: Sequence[str]) -> Curated:
    """The curated data of an audit: see `cupel.curate.policy.curate`."""
    from cupel.curate.policy import curate

    return curate(
        audit.votes, audit.scores.suspicion, audit.scores.p_correct, audit.findings, flip_above=flip_above, drop=drop,
        trusted=audit.answers, can_see=audit.power.verdict == "can_see", seed=audit.seed,
    )  # fmt: skip


def estimate_trusted(votes: Votes, suspicion: np.ndarray, answers: Answers) -> tuple[FlipRate, np.ndarray]:
    """(rate, P(right) [n]) from a person's answers to the rows drawn at random; worklist answers repair data and enter no rate.

    P(right) is calibrated on the same answers by suspicion, NaN outside the training rows with a preference. Answers that prefer no
    side are left out of the rate and counted. InputError where no row of the random part was answered.
    """
    rows = answers.rows(votes)
    agrees, said = answers.agrees(votes), answers.signs()
    drawn = np.array([part == "random" for part in answers.part], dtype=bool)
    inside = np.zeros(len(rows), dtype=bool)
    inside[rows >= 0] = (votes.split[rows[rows >= 0]] == TRAIN) & (votes.sign[rows[rows >= 0]] != 0)
    used = drawn & inside & np.isfinite(agrees) & (said != 0)
    if not used.any():
        raise InputError(
            f"none of the {int(drawn.sum()):,} rows drawn at random has an answer that prefers a side, so no label error can be estimated. "
            "Fill in the column answer of review.csv; rows picked as most suspicious repair data but cannot give a rate."
        )
    wrong = 1.0 - agrees[used]
    if (answers.stratum[used] >= 0).all() and len(answers.sizes):
        rate = trusted(wrong, answers.stratum[used], answers.sizes)
        weight = (answers.sizes / np.maximum(np.bincount(answers.stratum[used], minlength=len(answers.sizes)), 1))[
            answers.stratum[used]
        ]
    else:
        rate = trusted_uniform(wrong)
        weight = np.ones(len(wrong))
    ties = int((drawn & inside & (said == 0)).sum())
    if ties:
        rate = replace(rate, assumptions=(*rate.assumptions, f"{ties} re-checked pairs without a preferred side were left out"))
    index = np.flatnonzero((votes.split == TRAIN) & (votes.sign != 0))
    place = np.searchsorted(index, rows[used])
    known = np.full(len(votes), np.nan)
    known[index] = p_correct(suspicion[index], place, wrong, float(rate.estimate or 0.0), weight=weight)
    return rate, known
