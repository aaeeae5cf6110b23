"""Community Alignment: four responses per turn, one of them preferred, by named annotators in five languages (arXiv:2507.09650)."""

from __future__ import annotations

from typing import Any

from cupel.records import text as text_
from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, objects
from cupel.records.schema import A, B

NAME = "community_alignment"
DESCRIPTION = "community_alignment (first_turn_prompt, first_turn_response_a ... d, first_turn_preferred_response; later turns alike)"
NEEDS = ("first_turn_prompt", "first_turn_response_a", "first_turn_response_b", "first_turn_preferred_response")
ORDER_KNOWN = False
OWN_PROMPT = True
LOSSES = "a choice among several becomes the preferred response against each other one; nothing is said about the others among themselves"

TURNS = ("first", "second", "third", "fourth")
LETTERS = "abcd"


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    turns = [name for name in TURNS if f"{name}_turn_preferred_response" in frame.columns]
    return 1.0, f"columns first_turn_response_a to d hold candidates and first_turn_preferred_response the choice ({len(turns)} turns)"


def parse(frame: Frame) -> Parsed:
    """The preferred response against each other one, turn by turn; later turns follow the preferred response of the earlier ones."""
    turns = [name for name in TURNS if f"{name}_turn_prompt" in frame.columns and f"{name}_turn_preferred_response" in frame.columns]
    parts = ["prompt", "preferred_response", "responses", *(f"response_{x}" for x in LETTERS)]
    out = Comparisons(frame, [f"{turn}_turn_{part}" for turn in TURNS for part in parts])
    nothing: list[Any] = [None] * len(frame)

    def column(name: str) -> list[Any]:
        return objects(frame, name) if name in frame.columns else nothing

    asked = {turn: column(f"{turn}_turn_prompt") for turn in turns}
    chosen = {turn: column(f"{turn}_turn_preferred_response") for turn in turns}
    texts = {turn: {x: column(f"{turn}_turn_response_{x}") for x in LETTERS} for turn in turns}
    n_choices = 0
    for row in range(len(frame)):
        context: list[dict[str, Any]] = []
        for number, turn in enumerate(turns, start=1):
            question, choice = asked[turn][row], chosen[turn][row]
            if question in (None, ""):
                break
            if not isinstance(question, str):
                out.refuse(row, "not_text", f"column {turn}_turn_prompt is not text")
                break
            context = [*context, {"role": "user", "content": question}]
            if choice in (None, ""):
                out.why[row] = f"no response of the {turn} turn was preferred"
                break
            letter = str(choice).strip().lower().removeprefix("response").strip("_ ")
            there = [x for x in LETTERS if texts[turn][x][row] not in (None, "")]
            if letter not in there:
                said = f"column {turn}_turn_preferred_response says {str(choice)[:80]!r}"
                out.refuse(row, "unknown_label", f"{said}; there are {', '.join(there)}")
                break
            found = {x: out.text(row, texts[turn][x][row], f"column {turn}_turn_response_{x}") for x in there}
            best = found[letter]
            if best is None or any(text is None for text in found.values()):
                break
            prompt = text_.canonical(context)
            n_choices += 1
            for x, text in found.items():
                if x != letter and text is not None:
                    first, second = (best, text) if letter < x else (text, best)
                    slots = (letter, x) if letter < x else (x, letter)
                    out.add(row, prompt, first, second, A if letter < x else B, turn=number, slot_a=slots[0], slot_b=slots[1])
            context = [*context, {"role": "assistant", "content": best}]
    return out.parsed([f"{n_choices:,} choices became {out.n:,} pairs: {LOSSES}; pairs of one choice are not independent"])
