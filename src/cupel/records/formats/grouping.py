"""Rows of one response each -> the candidates of every prompt: what the long formats share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Candidate, Comparisons, objects


def optional(frame: Frame, *names: str) -> tuple[str | None, list[Any]]:
    """(column, values): the first of these columns that the data has; (None, nothing per row) where it has none."""
    for name in names:
        if name in frame.columns:
            return name, objects(frame, name)
    return None, [None] * len(frame)


def grouped(
    frame: Frame, response: str, judge: Callable[[int], tuple[float | None, dict[str, Any]]], *, missing: str, loss: str,
    also: tuple[str, ...] = (), consumed: tuple[str, ...] = (), reason: str = "missing_rating",
) -> Parsed:  # fmt: skip
    """Pairs within every prompt of a table with one judged response per row.

    judge: row -> (value, larger is better, or None where there is none; columns to keep). missing: what a row without a value lacks.
    also: further columns that must agree within a group (the rater, where each rater's rows are compared among themselves).
    """
    out = Comparisons(frame, [response, *consumed])
    texts = objects(frame, response)
    prompts = objects(frame, frame.names["prompt"]) if frame.has("prompt") else [None] * len(frame)
    keys = [objects(frame, name) for name in also]
    groups: dict[Hashable, list[Candidate]] = {}
    _, models = optional(frame, "model", "model_name", "generation_model")
    for row, value in enumerate(texts):
        text, prompt = out.text(row, value, f"column {response}"), out.prompt(row, prompts[row])
        score, columns = judge(row)
        if score is None:
            out.refuse(row, reason, missing)
        if text is None or prompt is None or score is None:
            continue
        model = None if models[row] is None else str(models[row])
        key = (prompt, *(str(values[row]) for values in keys))
        groups.setdefault(key, []).append(Candidate(text, score, model, row, columns))
    for (prompt, *_), candidates in groups.items():  # type: ignore[misc]
        for one in candidates if len(candidates) < 2 else ():
            out.why[one.row or 0] = "no other response to this prompt was rated"
        out.pairs(-1, prompt, candidates)
    n = sum(len(candidates) for candidates in groups.values())
    return out.parsed([f"{n:,} judged responses to {len(groups):,} prompts became {out.n:,} pairs: {loss}"])
