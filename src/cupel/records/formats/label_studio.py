"""Label Studio's JSON export: tasks with data and annotations; pairwise choices, choices and rankings of the responses.

One vote per annotation of each person. Cancelled annotations and predictions are not votes.
"""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.naming import split_fields, which
from cupel.records.formats.unfolding import Candidate, Comparisons, dicts, mostly, number, objects
from cupel.records.schema import OUTCOMES, A, B

NAME = "label_studio"
DESCRIPTION = "label_studio (data, annotations with result of type pairwise, choices or ranker)"
NEEDS = ("data", "annotations")
ORDER_KNOWN = True
OWN_PROMPT = True
LOSSES = "predictions, cancelled annotations and results of other kinds are not votes"

KINDS = ("pairwise", "choices", "ranker")


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    if not mostly(frame, "annotations", lambda value: any("result" in item for item in dicts(value))):
        return 0.0, ""
    return 1.0, "columns data and annotations hold Label Studio tasks and the annotators' results"


def parse(frame: Frame) -> Parsed:
    """Votes on the texts of the task; left is the first response."""
    out = Comparisons(frame, ["data", "annotations", "predictions"])
    n_cancelled = n_other = 0
    for row, (data, given) in enumerate(zip(objects(frame, "data"), objects(frame, "annotations"), strict=True)):
        if not isinstance(data, dict) or not isinstance(given, list):
            out.refuse(row, "not_a_task", "columns data and annotations hold no task")
            continue
        prompt_name, names = split_fields(data)
        prompt = out.prompt(row, data.get(prompt_name) if prompt_name else None)
        if len(names) < 2:
            there = ", ".join(data)[:200]
            out.refuse(row, "no_sides", f"the task has {len(names)} texts that could be responses ({there}); two are needed")
            continue
        texts = [out.text(row, data[name], f"data.{name}") for name in names]
        if prompt is None or any(text is None for text in texts):
            continue
        for annotation in given:
            if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
                n_cancelled += 1
                continue
            results = dicts(annotation.get("result"))
            result = next((item for kind in KINDS for item in results if item.get("type") == kind), None)
            n_other += result is None
            if result is not None:
                _vote(out, row, prompt, [str(text) for text in texts], names, result, annotation)
        out.why.setdefault(row, "no annotation of this task compares its responses")
    losses = [f"{out.n:,} votes from {len(frame):,} tasks: {LOSSES}"]
    if n_cancelled or n_other:
        losses.append(f"{n_cancelled:,} cancelled annotations and {n_other:,} without a comparison are left out")
    return out.parsed(losses)


def _vote(
    out: Comparisons, row: int, prompt: str, texts: list[str], names: list[str], result: dict[str, Any], annotation: dict[str, Any]
) -> None:
    value = result.get("value")
    value = value if isinstance(value, dict) else {}
    who = annotation.get("completed_by")
    who = who.get("email") or who.get("id") if isinstance(who, dict) else who
    known: dict[str, Any] = {"annotator": None if who is None else str(who), "seconds": number(annotation.get("lead_time"))}
    if result["type"] == "ranker":
        order = value.get("ranker")
        order = next(iter(order.values()), None) if isinstance(order, dict) else order
        sides = [which(name, names) for name in order] if isinstance(order, list) else [None]
        if not all(isinstance(side, int) and side < len(texts) for side in sides):
            return out.refuse(row, "unknown_label", f"the ranking {str(order)[:80]!r} names something else than {', '.join(names)}")
        placed = sorted((side, rank) for rank, side in enumerate(sides) if isinstance(side, int))
        return out.pairs(row, prompt, [Candidate(texts[i], -float(k), columns={"rank": k + 1}) for i, k in placed], **known)
    choices = value.get("choices")
    answer = value.get("selected") if result["type"] == "pairwise" else next(iter(choices if isinstance(choices, list) else []), None)
    if answer is None and result["type"] == "pairwise":
        answer = "tie"
    side = which(answer, names)
    if isinstance(side, int) and side < len(texts):
        for other in range(len(texts)):
            if other != side:
                i, j = min(side, other), max(side, other)
                out.add(row, prompt, texts[i], texts[j], A if i == side else B, **known)
        return None
    if isinstance(side, str) and len(texts) == 2:
        return out.add(row, prompt, texts[0], texts[1], OUTCOMES.index(side), **known)  # type: ignore[arg-type]
    return out.refuse(row, "unknown_label", f"the answer {str(answer)[:80]!r} names none of {', '.join(names)}")
