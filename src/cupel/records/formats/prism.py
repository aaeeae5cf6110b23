"""PRISM conversations: up to four models answer each turn, every answer rated from 1 to 100 (Kirk et al. 2024, arXiv:2404.16019)."""

from __future__ import annotations

from typing import Any

from cupel.records import text as text_
from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Candidate, Comparisons, dicts, mostly, number, objects

NAME = "prism"
DESCRIPTION = "prism (conversation_history: turns of user and model with score and if_chosen; user_id, conversation_id)"
NEEDS = ("conversation_history",)
ORDER_KNOWN = False
OWN_PROMPT = True
LOSSES = "ratings from 1 to 100 become preferences (equal is a tie); the size of a difference is kept as strength only"


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not mostly(frame, "conversation_history", lambda value: any(m.get("role") == "model" for m in dicts(value))):
        return 0.0, ""
    return 1.0, "column conversation_history holds turns of a user and of several models with score and if_chosen"


def parse(frame: Frame) -> Parsed:
    """Every pair of answers to the same turn; the prompt is the chosen answers so far and the user's message."""
    out = Comparisons(frame, ["conversation_history", "opening_prompt"])
    who = objects(frame, "user_id") if "user_id" in frame.columns else [None] * len(frame)
    turns = 0
    for row, history in enumerate(objects(frame, "conversation_history")):
        if not isinstance(history, list) or not all(isinstance(m, dict) for m in history):
            out.refuse(row, "not_a_chat", "column conversation_history holds no list of turns")
            continue
        found = _turns(out, row, history)
        if row in frame.bad:
            continue
        for turn, prompt, candidates in found:
            turns += 1
            out.pairs(row, prompt, candidates, turn=turn, annotator=None if who[row] is None else str(who[row]))
    return out.parsed([f"{turns:,} rated turns became {out.n:,} pairs: {LOSSES}; pairs of one turn are not independent"])


def _turns(out: Comparisons, row: int, history: list[dict[str, Any]]) -> list[tuple[int, str, list[Candidate]]]:
    """(turn, prompt, rated answers) for each turn with at least two; a missing score counts as 1 (chosen) or 0."""
    context: list[dict[str, Any]] = []
    found: list[tuple[int, str, list[Candidate]]] = []
    if any(number(m.get("turn")) is None for m in history):
        out.refuse(row, "not_a_chat", "a message of the history has no turn")
        return []
    numbers = sorted({int(m["turn"]) for m in history})
    for turn in numbers:
        said = [m for m in history if int(m["turn"]) == turn]
        asked = [m for m in said if m.get("role") == "user"]
        answers = [m for m in said if m.get("role") == "model"]
        if len(asked) != 1 or not isinstance(asked[0].get("content"), str):
            out.refuse(row, "not_a_chat", f"turn {turn} has {len(asked)} messages of the user, not one")
            return []
        context = [*context, {"role": "user", "content": asked[0]["content"]}]
        candidates = []
        scored = [number(m.get("score")) for m in answers]
        known = all(score is not None for score in scored)
        for position, (m, score) in enumerate(zip(answers, scored, strict=True), start=1):
            text = out.text(row, m.get("content"), f"answer {position} of turn {turn}")
            if text is None:
                return []
            value = score if known and score is not None else float(bool(m.get("if_chosen")))
            columns = {"score": score, "if_chosen": bool(m.get("if_chosen"))}
            candidates.append(Candidate(text, value, m.get("model_name"), columns=columns))
        if len(candidates) > 1:
            found.append((turn, text_.canonical(context), candidates))
        chosen = next((m for m in answers if m.get("if_chosen")), None)
        if chosen is None:
            if turn != numbers[-1]:
                out.refuse(row, "no_choice", f"no answer of turn {turn} was chosen, though the conversation goes on")
                return []
            break
        context = [*context, {"role": "assistant", "content": chosen["content"]}]
    return found
