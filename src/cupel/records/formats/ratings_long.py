"""Ratings one by one: a prompt, one response and its rating per row; responses to the same prompt are compared."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.grouping import grouped
from cupel.records.formats.unfolding import number, objects

NAME = "ratings_long"
DESCRIPTION = "ratings_long (prompt, response, rating or rank; one response per row, annotator if known)"
NEEDS = ("prompt",)
ORDER_KNOWN = False
SPANS_ROWS = True
LOSSES = "the size of a difference is kept as strength only, equal values are ties, and pairs of one prompt are not independent"

RESPONSES = ("response", "completion", "answer", "output", "text")
RATINGS = ("rating", "score", "reward")
RANKS = ("rank", "ranking")


def _find(frame: Frame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in frame.columns and name not in frame.names.values()), None)


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    response, rating, rank = _find(frame, RESPONSES), _find(frame, RATINGS), _find(frame, RANKS)
    if not frame.has("prompt") or response is None or (rating is None and rank is None):
        return 0.0, ""
    what = f"{rating} its rating" if rating else f"{rank} its rank (1 is best)"
    return 0.6, f"column {response} holds one response per row to {frame.names['prompt']}, {what}; responses to one prompt are compared"


def parse(frame: Frame) -> Parsed:
    """Pairs of responses to the same prompt, by the same annotator where annotators are named; a larger rating or a smaller rank wins."""
    response, rating, rank = _find(frame, RESPONSES), _find(frame, RATINGS), _find(frame, RANKS)
    column = rating or rank
    if response is None or column is None:
        from cupel.errors import RecordError

        raise RecordError(
            f"format {NAME} needs a response ({', '.join(RESPONSES)}) and a rating ({', '.join((*RATINGS, *RANKS))}) in every row; its "
            f"columns: {', '.join(frame.columns)}."
        )
    values, sign = objects(frame, column), 1 if rating else -1

    def judge(row: int) -> tuple[float | None, dict[str, Any]]:
        found = number(values[row])
        return (None, {}) if found is None else (sign * found, {"score" if rating else "rank": found})

    also = (frame.names["annotator"],) if frame.has("annotator") else ()
    missing = f"column {column} holds no number"
    return grouped(frame, response, judge, missing=missing, loss=LOSSES, also=also, consumed=(column,))
