"""What an objective asks of the outcomes of comparisons: the weight of a tie, how strongly a side was preferred, a rating of each side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cupel.errors import RecordError
from cupel.learners.policy.tokens import Rows
from cupel.objectives.reward import TIE_WEIGHT
from cupel.objectives.types import Objective

#: objectives that read no more of two ratings than how far they are apart: a stated strength of the preference serves as well
GAP = frozenset({"bradley_terry", "odpo"})


def suited(rows: Rows, objective: Objective) -> Rows:
    """Comparisons as the objective reads them: a tie (p = 1/2) with the weight that makes it the objective's own tie, ratings complete.

    Where only the gap between two ratings is read (`GAP`), a stated strength s stands for the ratings s and 0, and goes before them.
    RecordError where the objective reads ratings or strengths and comparisons state none.
    """
    if "rating" in objective.needs:
        rows = _rated(rows, objective)
    weight = TIE_WEIGHT.get(objective.name, 1.0)
    return rows if weight == 1 else replace(rows, w=np.where(rows.p == 0.5, weight * rows.w, rows.w))


def _rated(rows: Rows, objective: Objective) -> Rows:
    rating = np.full((len(rows), 2), np.nan, np.float32) if rows.rating is None else rows.rating
    if objective.name in GAP:
        stated = np.stack([rows.strength, np.zeros_like(rows.strength)], axis=1)
        rating = np.where(np.isfinite(rows.strength)[:, None], stated, rating)
    lacking = np.flatnonzero(~np.isfinite(rating).all(axis=1))
    if not len(lacking):
        return replace(rows, rating=rating)
    first = rows.ids[int(lacking[0])]
    if objective.name in GAP:
        leave = "leave rated out" if objective.name == "bradley_terry" else "choose gap=constant"
        raise RecordError(
            f"{len(lacking):,} of {len(rows):,} comparisons state no strength of the preference (first: {first}), which {objective.name} "
            f"reads. Give a column `preference_strength`, or ratings of both sides, or {leave}"
        )
    none = " The data have no such columns." if rows.rating is None else ""
    raise RecordError(
        f"{len(lacking):,} of {len(rows):,} comparisons lack a rating of one of their sides (first: {first}), which {objective.name} "
        f"reads of each response.{none} Give columns chosen_rating and rejected_rating (or rating_a and rating_b), name others (map: "
        f"{{rating_first: COLUMN, rating_second: COLUMN}}), leave these comparisons out, or choose another objective"
    )
