"""Unpaired rows, as KTO reads them: a prompt, one completion, and whether it is desirable (Ethayarajh et al. 2024, arXiv:2402.01306)."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, objects
from cupel.records.schema import A

NAME = "kto"
DESCRIPTION = "kto (prompt, completion, label: true where desirable; pair_id if two rows were one comparison)"
NEEDS = ("completion", "label")
ORDER_KNOWN = False
SPANS_ROWS = True
UNUSED = ("vote",)
LOSSES = "that a completion is desirable by itself is not in a pair; rows of prompts with one kind of label hold no comparison"

_TRUE, _FALSE = {"true", "1", "1.0", "desirable", "good", "yes"}, {"false", "0", "0.0", "undesirable", "bad", "no", "-1"}


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns) or frame.has("chosen"):
        return 0.0, ""
    pairing = "pair_id says which rows belong together" if "pair_id" in frame.columns else "completions of one prompt are compared"
    return 0.9, f"column completion holds one completion per row, label whether it is desirable; {pairing}"


def parse(frame: Frame) -> Parsed:
    """Each desirable completion against each undesirable one: of the same `pair_id` where there is one, else of the same prompt."""
    out = Comparisons(frame, ["completion", "label", "pair_id"])
    prompts = objects(frame, frame.names["prompt"]) if frame.has("prompt") else [None] * len(frame)
    pair = objects(frame, "pair_id") if "pair_id" in frame.columns else [None] * len(frame)
    groups: dict[Any, tuple[list[tuple[int, str]], list[tuple[int, str]]]] = {}
    for row, (value, label) in enumerate(zip(objects(frame, "completion"), objects(frame, "label"), strict=True)):
        text, prompt = out.text(row, value, "column completion"), out.prompt(row, prompts[row])
        word = "" if label is None else str(label).strip().lower()
        if word not in _TRUE | _FALSE:
            reason = "unknown_label" if word else "missing_label"
            out.refuse(row, reason, f"column label says {str(label)[:80]!r}; known: true, false" if word else "column label has no value")
        elif text is not None and prompt is not None:
            key = (prompt, None if pair[row] is None else str(pair[row]))
            groups.setdefault(key, ([], []))[word in _FALSE].append((row, text))
    n_pairs = 0
    for (prompt, name), (good, bad) in groups.items():
        for row, _ in (*good, *bad) if not good or not bad else ():
            out.why[row] = "no completion of this prompt has the other label"
        n_pairs += bool(good and bad)
        given = {"id": name} if name is not None and len(good) == len(bad) == 1 else {}
        for row, x in good:
            for other, y in bad:
                out.add(row, prompt, x, y, A, other=other, **given)
    return out.parsed([f"{len(frame):,} unpaired rows became {out.n:,} pairs of {n_pairs:,} prompts: {LOSSES}"])
