"""HelpSteer2 and HelpSteer3 preferences: two responses and a signed strength; each person's where they are given.

Wang et al. 2024, arXiv:2410.01257, and 2025, arXiv:2505.11475. From -3 (the first response is much better) to 3 (the second one is).
"""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import NO_COMPARISON, Comparisons, number, objects
from cupel.records.schema import TIE, A, B

NAME = "helpsteer_preference"
DESCRIPTION = "helpsteer_preference (prompt or context, response1, response2, overall_preference or preference_strength from -3 to 3)"
NEEDS = ()
ORDER_KNOWN = False
OWN_PROMPT = True
UNUSED = ("vote", "strength")
LOSSES = "the sign of the strength is the vote and its size is kept as strength"

SIDES = (("response1", "response2"), ("response_1", "response_2"))
OVERALL = ("overall_preference", "preference_strength")


def _columns(frame: Frame) -> tuple[tuple[str, str], str, str] | None:
    sides = next((pair for pair in SIDES if set(pair) <= set(frame.columns)), None)
    overall = next((name for name in OVERALL if name in frame.columns), None)
    prompt = "context" if "context" in frame.columns else frame.names.get("prompt")
    return None if sides is None or overall is None or prompt is None else (sides, overall, prompt)


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    found = _columns(frame)
    if found is None:
        return 0.0, ""
    (first, second), overall, prompt = found
    people = " and each person's in individual_preference" if "individual_preference" in frame.columns else ""
    return 1.0, f"columns {first} and {second} hold two responses to {prompt}, {overall} a signed strength{people} (below 0: {first})"


def parse(frame: Frame) -> Parsed:
    """One vote per person where `individual_preference` has them, else one per row; 0 is a tie."""
    found = _columns(frame)
    if found is None:
        from cupel.errors import RecordError

        raise RecordError(f"format {NAME} needs {DESCRIPTION.split('(')[1][:-1]}; the columns are {', '.join(frame.columns)}.")
    (first, second), overall, prompt = found
    people: list[Any] = [None] * len(frame)
    if "individual_preference" in frame.columns:
        people = objects(frame, "individual_preference")
    out = Comparisons(frame, [prompt, first, second, "individual_preference"])
    several = anonymous = 0
    values = zip(objects(frame, prompt), objects(frame, first), objects(frame, second), objects(frame, overall), people, strict=True)
    for row, (question, one, two, strength, votes) in enumerate(values):
        text = out.prompt(row, question)
        a, b = out.text(row, one, f"column {first}"), out.text(row, two, f"column {second}")
        if text is None or a is None or b is None:
            continue
        given = [vote for vote in votes if isinstance(vote, dict)] if isinstance(votes, list) else []
        anonymous += len(given)
        several += len(given) > 1
        for vote in given or [{"score": strength}]:
            value = number(vote.get("score"))
            if value is None:
                reason = NO_COMPARISON if vote.get("score") is None and given else "missing_label"
                out.why[row] = "no person gave a preference"
                if not given:
                    out.refuse(row, reason, f"column {overall} holds no number")
                continue
            if abs(value) > 3:
                out.refuse(row, "unknown_label", f"a strength of {value:g} is outside [-3, 3]")
                continue
            rest: dict[str, Any] = {f"individual_{key}": item for key, item in vote.items() if key != "score" and given}
            out.add(row, text, a, b, TIE if value == 0 else A if value < 0 else B, strength=abs(value), **rest)
    losses = [f"{out.n:,} votes from {len(frame):,} rows: {LOSSES}"]
    if anonymous:
        losses.append(f"the file does not say which person gave which of {anonymous:,} individual votes; the annotator stays unknown")
    return out.parsed(losses)
