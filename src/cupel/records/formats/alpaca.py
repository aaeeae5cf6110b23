"""Preferences in Alpaca form, as LLaMA-Factory reads them: instruction and input, chosen and rejected as text."""

from __future__ import annotations

from cupel.records import text as text_
from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, objects
from cupel.records.schema import A

NAME = "alpaca"
DESCRIPTION = "alpaca (instruction, input, chosen, rejected; system and history if any)"
NEEDS = ("instruction", "input", "chosen", "rejected")
ORDER_KNOWN = False


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    return 0.95, "columns instruction and input make the prompt, chosen and rejected hold text"


def parse(frame: Frame) -> Parsed:
    """The prompt is the instruction and, on the next line, the input; with a system prompt or a history it is a chat list."""
    out = Comparisons(frame, [*NEEDS, "system", "history"])
    system = objects(frame, "system") if "system" in frame.columns else [None] * len(frame)
    history = objects(frame, "history") if "history" in frame.columns else [None] * len(frame)
    for row, (instruction, given, good, bad) in enumerate(zip(*(objects(frame, name) for name in NEEDS), strict=True)):
        x, y = out.text(row, good, "column chosen"), out.text(row, bad, "column rejected")
        words = [part for part in (instruction, given) if isinstance(part, str) and part]
        if not words:
            out.refuse(row, "missing_text", "neither instruction nor input holds text")
        if x is None or y is None or not words:
            continue
        prompt = "\n".join(words)
        before = [{"role": "system", "content": system[row]}] if system[row] else []
        for turn in history[row] or []:
            if not isinstance(turn, list) or len(turn) != 2:
                out.refuse(row, "not_a_chat", "column history must hold pairs of a question and an answer")
                break
            before += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
        if before:
            prompt = text_.canonical([*before, {"role": "user", "content": prompt}])
        out.add(row, prompt, x, y, A)
    return out.parsed()
