"""Stanford Human Preferences: two comments under a post, the one with the higher score preferred (Ethayarajh et al. 2022)."""

from __future__ import annotations

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, number, objects
from cupel.records.schema import A, B

NAME = "shp"
DESCRIPTION = "shp (history, human_ref_A, human_ref_B, labels: 1 for A, 0 for B; score_ratio)"
NEEDS = ("history", "human_ref_A", "human_ref_B", "labels")
ORDER_KNOWN = False
OWN_PROMPT = True
UNUSED = ("vote",)
LOSSES = "the vote is a difference of net up-votes of many people, not one person's; score_ratio is kept as strength"


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= set(frame.columns):
        return 0.0, ""
    return 1.0, "columns human_ref_A and human_ref_B hold two comments on history, labels is 1 where A is preferred and 0 where B is"


def parse(frame: Frame) -> Parsed:
    """One comparison per row."""
    out = Comparisons(frame, ["history", "human_ref_A", "human_ref_B"])
    ratios = objects(frame, "score_ratio") if "score_ratio" in frame.columns else [None] * len(frame)
    for row, (post, one, two, label, ratio) in enumerate(zip(*(objects(frame, name) for name in NEEDS), ratios, strict=True)):
        prompt = out.prompt(row, post)
        a, b = out.text(row, one, "column human_ref_A"), out.text(row, two, "column human_ref_B")
        value = number(label) if not isinstance(label, bool) else float(label)
        if value not in (0.0, 1.0):
            missing = label is None
            out.refuse(row, "missing_label" if missing else "unknown_label", f"column labels says {label!r}; known: 1 (A), 0 (B)")
        elif prompt is not None and a is not None and b is not None:
            out.add(row, prompt, a, b, A if value == 1 else B, strength=number(ratio))
    return out.parsed([f"{out.n:,} rows: {LOSSES}"])
