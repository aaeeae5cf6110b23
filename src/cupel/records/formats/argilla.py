"""Argilla exports: records with fields and responses per question (version 2), or questions as columns (version 1).

One vote per submitted response of each person, on the first question that names, ranks or rates the records' responses.
"""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.naming import split_fields, which
from cupel.records.formats.unfolding import Candidate, Comparisons, dicts, mostly, number, objects
from cupel.records.schema import OUTCOMES, A, B

NAME = "argilla"
DESCRIPTION = "argilla (fields, responses; or one column per field and per question of lists with value, user_id, status)"
NEEDS = ()
ORDER_KNOWN = False
OWN_PROMPT = True
UNUSED = ("vote", "annotator", "prompt")
LOSSES = "only submitted answers to one question are votes; suggestions, drafts, discarded answers and other questions are not"


def _questions(frame: Frame) -> list[str]:
    """Columns of version 1 that hold lists of answers with user_id and value."""

    def answers(value: Any) -> bool:
        return any({"value", "user_id"} <= set(item) for item in dicts(value))

    return [name for name in frame.columns if mostly(frame, name, answers)]


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if {"fields", "responses"} <= set(frame.columns):
        records = mostly(frame, "fields", lambda value: isinstance(value, dict))
        return (1.0, "columns fields and responses hold Argilla records") if records else (0.0, "")
    questions = _questions(frame)
    if not questions:
        return 0.0, ""
    return 0.95, f"column {questions[0]} holds Argilla's answers with value, user_id and status"


def parse(frame: Frame) -> Parsed:
    """Votes on the sides that the answers name."""
    nested = {"fields", "responses"} <= set(frame.columns)
    questions = [] if nested else _questions(frame)
    if not nested and not questions:
        from cupel.errors import RecordError

        raise RecordError(f"format {NAME} needs {DESCRIPTION.split('(', 1)[1][:-1]}; the columns are {', '.join(frame.columns)}.")
    records = _nested(frame) if nested else _flat(frame, questions)
    out = Comparisons(frame, ["fields", "responses", *questions])
    chosen = _question(records)
    if chosen is not None:
        asked = sorted({name for _, answers in records for name in answers})
        others = [name for name in asked if name != chosen]
        also = f"; {', '.join(others)} is not used" if others else ""
        frame.detection.append(f"votes = question {chosen}{also}")
        if others:
            frame.doubts.append(f"question {chosen} is read as the vote; the records also answer {', '.join(others)}")
    n_unused = 0
    for row, (fields, answers) in enumerate(records):
        prompt_name, names = split_fields(fields)
        prompt = out.prompt(row, fields.get(prompt_name) if prompt_name else None)
        if len(names) < 2:
            there = ", ".join(fields)[:200]
            out.refuse(row, "no_sides", f"the record has {len(names)} fields that could be responses ({there}); two are needed")
            continue
        texts = [out.text(row, fields[name], f"field {name}") for name in names]
        if prompt is None or any(text is None for text in texts):
            continue
        for answer in answers.get(chosen or "", []):
            if answer.get("status") not in (None, "submitted") or answer.get("value") is None:
                n_unused += 1
                continue
            _vote(out, row, prompt, [str(text) for text in texts], names, answer)
        if row not in frame.bad and row not in out.rows:
            out.why.setdefault(row, "nobody submitted an answer")
    losses = [f"{out.n:,} votes from {len(frame):,} records: {LOSSES}"]
    if n_unused:
        losses.append(f"{n_unused:,} answers that were not submitted or say nothing are left out")
    return out.parsed(losses)


def _vote(out: Comparisons, row: int, prompt: str, texts: list[str], names: list[str], answer: dict[str, Any]) -> None:
    """The comparisons that one answer makes: a choice, or a ranking of all responses."""
    value = answer["value"]
    who: dict[str, Any] = {"annotator": None if answer.get("user_id") is None else str(answer["user_id"])}
    if isinstance(value, list):
        ranked = [item if isinstance(item, dict) else {"value": item, "rank": place} for place, item in enumerate(value, start=1)]
        candidates = []
        for item in ranked:
            side, rank = which(item.get("value"), names), number(item.get("rank"))
            if not isinstance(side, int) or side >= len(texts) or rank is None:
                said = str(item.get("value"))[:80]
                return out.refuse(row, "unknown_label", f"a ranking names {said!r}, which is none of {', '.join(names)}")
            candidates.append((side, Candidate(texts[side], -rank, columns={"field": names[side], "rank": rank})))
        return out.pairs(row, prompt, [candidate for _, candidate in sorted(candidates, key=lambda item: item[0])], **who)
    side = which(value, names)
    if isinstance(side, int) and side < len(texts):
        for other in range(len(texts)):
            if other != side:
                i, j = min(side, other), max(side, other)
                out.add(row, prompt, texts[i], texts[j], A if i == side else B, field_a=names[i], field_b=names[j], **who)
        return None
    if isinstance(side, str) and len(texts) == 2:
        return out.add(row, prompt, texts[0], texts[1], OUTCOMES.index(side), field_a=names[0], field_b=names[1], **who)  # type: ignore[arg-type]
    return out.refuse(row, "unknown_label", f"the answer {str(value)[:80]!r} names none of {', '.join(names)}")


def _question(records: list[tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]]) -> str | None:
    """The question whose answers name responses most often; the first one of equals."""
    counts: dict[str, int] = {}
    for fields, answers in records[:1000]:
        names = split_fields(fields)[1]
        for name, given in answers.items():
            for answer in given:
                value = answer.get("value")
                first = value[0] if isinstance(value, list) and value else value
                first = first.get("value") if isinstance(first, dict) else first
                counts[name] = counts.get(name, 0) + (first is not None and which(first, names) is not None)
    return max(counts, key=lambda name: counts[name]) if counts else None


def _nested(frame: Frame) -> list[tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]]:
    found = []
    for fields, responses in zip(objects(frame, "fields"), objects(frame, "responses"), strict=True):
        answers: dict[str, list[dict[str, Any]]] = {}
        if isinstance(responses, dict):
            for name, given in responses.items():
                answers[name] = dicts(given)
        elif isinstance(responses, list):  # version 1 JSON: one entry per person with the values of all questions
            for item in dicts(responses):
                values = item.get("values")
                for name, value in values.items() if isinstance(values, dict) else ():
                    answer = {"value": value.get("value") if isinstance(value, dict) else value}
                    answers.setdefault(name, []).append({**answer, "user_id": item.get("user_id"), "status": item.get("status")})
        found.append((fields if isinstance(fields, dict) else {}, answers))
    return found


def _flat(frame: Frame, questions: list[str]) -> list[tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]]:
    other = {"id", "status", "external_id", "metadata", "vectors", "_server_id"}
    plain = [name for name in frame.columns if name not in questions and name not in other and "suggestion" not in name]
    columns = {name: objects(frame, name) for name in (*plain, *questions)}
    found = []
    for row in range(len(frame)):
        fields = {name: columns[name][row] for name in plain}
        answers = {name: dicts(columns[name][row]) for name in questions}
        found.append((fields, answers))
    return found
