"""JudgeBench (Tan et al. 2024, arXiv:2410.12784): pairs of responses to hard questions, one of them objectively right.

Verified in the benchmark's README, `utils/metrics.py` and `utils/judges.py`: the columns, and that a judge's score is the share of right
decisions over all pairs. Its reward models decide `A>B if score_A > score_B else B>A`, so that equal scores favour whatever stands second;
here equal scores count one half, the mean over both orders. The four categories by the beginning of `source` (mmlu-pro,
livebench-reasoning, livebench-math, livecodebench) are those that others report `[unverified]`; they weigh nothing in the overall score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cupel.evaluate.suites.items import Item, Row, Suite
from cupel.evaluate.suites.reading import Bad, name_of, prompt_of, text
from cupel.evaluate.suites.weights import best_of, one_each, per_item, weighted

CATEGORIES = {"mmlu-pro": "Knowledge", "livebench-reasoning": "Reasoning", "livebench-math": "Math", "livecodebench": "Coding"}


def _fits(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("response_A"), str)


def _item(row: Mapping[str, Any], folder: str) -> Item:
    prompt, label = prompt_of(row, "question"), row.get("label")
    sides = text(row, "response_A"), text(row, "response_B")
    if label not in ("A>B", "B>A"):
        raise Bad(f"label is {label!r}, neither A>B nor B>A")
    right, wrong = sides if label == "A>B" else sides[::-1]
    return Item(prompt, (right,), (wrong,), name_of(row, "source"), prompt, str(row.get("pair_id") or ""))


def _rows(counts: Mapping[str, int]) -> tuple[list[Row], list[str]]:
    sections: dict[str, dict[str, float]] = {name: {} for name in CATEGORIES.values()}
    notes = []
    for source in sorted(counts):
        names = [category for start, category in CATEGORIES.items() if source.startswith(start)]
        if names:
            sections[names[0]][source] = counts[source]
        else:
            notes.append(f"{source}: a source of no category; it counts in the overall score.")
    made = [weighted(name, "section", weights) for name, weights in sections.items() if weights]
    return [weighted("overall", "overall", dict(counts)), *made, *one_each(counts)], notes


SUITE = Suite(
    name="judgebench",
    description="question, response_A, response_B, label A>B or B>A, source",
    weighting="overall and categories: the mean over pairs",
    ties="equal scores count one half",
    columns=("question", "response_A", "response_B", "label", "source"),
    fits=_fits, item=_item, cells=per_item(best_of), rows=_rows,
)  # fmt: skip
