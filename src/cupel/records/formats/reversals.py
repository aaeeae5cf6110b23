"""Reasonable preference reversals: two responses and two contexts, under which different ones are preferred (Pitis et al. 2024)."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.grouping import optional
from cupel.records.formats.unfolding import Comparisons, objects
from cupel.records.schema import A, B

NAME = "reversals"
DESCRIPTION = "reversals (prompt, response_a, response_b; context_1 prefers a, context_2 prefers b, or as label_1, label_2 say)"
NEEDS = ("response_a", "response_b")
ORDER_KNOWN = False
LOSSES = "the two comparisons of a row have opposite labels, and only their column context tells them apart"
CONTEXTS, LABELS = ("context_1", "context_2"), ("label_1", "label_2")


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS) or not all(name in frame.columns for name in CONTEXTS):
        return 0.0, ""
    return 1.0, "columns context_1 and context_2 hold two contexts, under which two responses are compared"


def parse(frame: Frame) -> Parsed:
    """Two comparisons per row, each with its `context` and its number `side` (1 or 2)."""
    names = [frame.names[name] for name in NEEDS]
    out = Comparisons(frame, (*names, *CONTEXTS, *LABELS))
    prompts = objects(frame, frame.names["prompt"]) if frame.has("prompt") else [None] * len(frame)
    sides = [objects(frame, name) for name in names]
    contexts = [objects(frame, name) if name in frame.columns else [None] * len(frame) for name in CONTEXTS]
    labels = [optional(frame, name) for name in LABELS]
    for row in range(len(frame)):
        prompt = out.prompt(row, prompts[row])
        texts = [out.text(row, side[row], f"response {letter}") for side, letter in zip(sides, "ab", strict=True)]
        stated = [out.text(row, one[row], name) for one, name in zip(contexts, CONTEXTS, strict=True)]
        codes = [_label(values[row], default) for (_, values), default in zip(labels, "ab", strict=True)]
        if None in codes:
            out.refuse(row, "bad_label", "label_1 and label_2 are a or b")
        elif codes[0] == codes[1]:
            out.refuse(row, "same_label", "both contexts prefer the same response: that is no reversal")
        if None not in stated and stated[0] == stated[1]:
            out.refuse(row, "same_context", "both contexts are the same text, with opposite labels")
        if row in frame.bad or prompt is None or None in texts:
            continue
        for number, (context, code) in enumerate(zip(stated, codes, strict=True), start=1):
            out.add(row, prompt, str(texts[0]), str(texts[1]), int(code), context=context, side=number)  # type: ignore[arg-type]
    return out.parsed([f"{len(frame) - len(frame.bad):,} rows became {out.n:,} comparisons: {LOSSES}"])


def _label(value: Any, default: str) -> int | None:
    return {"a": A, "b": B}.get(str(default if value is None else value).strip().lower())
