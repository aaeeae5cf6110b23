"""RewardBench 2 and RM-Bench: lists of right and wrong responses to a prompt (Malik et al. 2025; Liu et al. 2024, arXiv:2410.16184)."""

from __future__ import annotations

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, mostly, objects
from cupel.records.schema import A
from cupel.records.text import is_chat

NAME = "rewardbench"
DESCRIPTION = "rewardbench (prompt; chosen, rejected as lists of texts: every right response beats every wrong one)"
NEEDS = ("prompt", "chosen", "rejected")
ORDER_KNOWN = False
LOSSES = "right ones are not compared with right ones, nor wrong with wrong; a benchmark's score per row is not a mean over pairs"


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not frame.has(*NEEDS):
        return 0.0, ""
    if not all(mostly(frame, frame.names[name], lambda v: isinstance(v, list) and not is_chat(v)) for name in ("chosen", "rejected")):
        return 0.0, ""
    return 1.0, "columns chosen and rejected hold lists of texts, right and wrong ones"


def parse(frame: Frame) -> Parsed:
    """Every chosen response against every rejected one."""
    names = [frame.names[name] for name in NEEDS]
    out = Comparisons(frame, names)
    for row, (question, right, wrong) in enumerate(zip(*(objects(frame, name) for name in names), strict=True)):
        prompt = out.prompt(row, question)
        if not isinstance(right, list) or not isinstance(wrong, list) or not right or not wrong:
            out.refuse(row, "not_a_list", "columns chosen and rejected must both hold at least one text")
            continue
        good = [out.text(row, value, f"chosen response {i}") for i, value in enumerate(right, start=1)]
        bad = [out.text(row, value, f"rejected response {i}") for i, value in enumerate(wrong, start=1)]
        if prompt is None or any(text is None for text in (*good, *bad)):
            continue
        for i, x in enumerate(good):
            for j, y in enumerate(bad):
                out.add(row, prompt, str(x), str(y), A, chosen_index=i, rejected_index=j)
    return out.parsed([f"{len(frame):,} rows became {out.n:,} pairs: {LOSSES}"])
