"""UltraFeedback: an instruction, several completions, and a rating of each per aspect (Cui et al. 2023, arXiv:2310.01377)."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Candidate, Comparisons, mostly, number, objects

NAME = "ultrafeedback"
DESCRIPTION = "ultrafeedback (instruction; completions with response, model and annotations per aspect)"
NEEDS = ("prompt", "completions")
ORDER_KNOWN = False
LOSSES = "ratings per aspect become one preference per pair by their mean; the size of a difference is kept as strength only"


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has("prompt") or "completions" not in frame.columns:
        return 0.0, ""

    def hold(key: str) -> bool:
        return mostly(frame, "completions", lambda value: isinstance(value, list) and isinstance(value[0], dict) and key in value[0])

    if not hold("response") or not (hold("annotations") or hold("overall_score")):
        return 0.0, ""
    what = "ratings per aspect" if hold("annotations") else "overall scores"
    return 1.0, f"column completions holds responses with {what} beside {frame.names['prompt']}"


def parse(frame: Frame) -> Parsed:
    """Every pair of completions, preferred by the mean of the aspects' ratings (`overall_score` where no aspect was rated).

    The published `overall_score` was wrong for some rows of the first release, so ratings are believed before it. The ratings stay as
    columns ASPECT_a and ASPECT_b. Completions without any rating are left out and counted; fewer than two leave no comparison.
    """
    out = Comparisons(frame, ["completions"])
    prompts = objects(frame, frame.names["prompt"])
    n_rows = n_unrated = n_pairs_of_prompts = 0
    for row, value in enumerate(objects(frame, "completions")):
        prompt = out.prompt(row, prompts[row], "the instruction")
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            out.refuse(row, "not_a_list", "column completions holds no list of completions")
            continue
        if prompt is None:
            continue
        found, ok = [], True
        for position, item in enumerate(value, start=1):
            text = out.text(row, item.get("response"), f"completion {position}")
            ok &= text is not None
            score, columns = _score(item)
            if score is None:
                n_unrated += 1
            elif text is not None:
                found.append(Candidate(text, score, _name(item.get("model")), columns=columns))
        if not ok:
            continue
        n_rows += 1
        n_pairs_of_prompts += len({str(item.get("custom_system_prompt") or "") for item in value}) > 1
        if len(found) < 2:
            out.why[row] = f"{len(found)} of {len(value)} completions carry a rating"
        out.pairs(row, prompt, found)
    losses = [f"{n_rows:,} rows of rated completions became {out.n:,} pairs: {LOSSES}; pairs of one row are not independent"]
    if n_unrated:
        losses.append(f"{n_unrated:,} completions without a rating are left out")
    if n_pairs_of_prompts:
        losses.append(
            f"in {n_pairs_of_prompts:,} rows the completions had different system prompts, which pairs under one prompt do not hold "
            "(columns system_a, system_b keep them)"
        )
    return out.parsed(losses)


def _score(item: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """(mean rating or None, columns): what is known of one completion."""
    columns: dict[str, Any] = {}
    annotations = item.get("annotations")
    for aspect, found in (annotations if isinstance(annotations, dict) else {}).items():
        rating = number(found.get("Rating", found.get("rating")) if isinstance(found, dict) else found)
        if rating is not None:
            columns[aspect] = rating
    overall = number(item.get("overall_score"))
    score = sum(columns.values()) / len(columns) if columns else overall
    if overall is not None:
        columns["overall_score"] = overall
    if item.get("custom_system_prompt"):
        columns["system"] = str(item["custom_system_prompt"])
    return score, {"score": score, **columns}


def _name(value: Any) -> str | None:
    return None if value is None else str(value)
