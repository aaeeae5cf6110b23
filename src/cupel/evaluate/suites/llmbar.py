"""LLMBar (Zeng et al. 2023, arXiv:2310.07641): which of two outputs follows the instruction; one natural and four adversarial subsets.

Verified in the benchmark's README: the columns, label 1 or 2 for the better output, the folders of its subsets. That the adversarial
average is the plain mean of four subsets and the overall average that of all five is how the paper's tables are remembered:
`[unverified]`. An evaluator there says 1 or 2; no rule for equal scores of a reward model is known, they count one half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cupel.evaluate.suites.items import Item, Row, Suite
from cupel.evaluate.suites.reading import Bad, name_of, prompt_of, text
from cupel.evaluate.suites.weights import best_of, headline, mean_of, one_each, per_item, weighted

ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
SUBSETS = ("Natural", *ADVERSARIAL)


def _fits(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("output_1"), str)


def _item(row: Mapping[str, Any], folder: str) -> Item:
    prompt, label = prompt_of(row, "input"), row.get("label")
    outputs = text(row, "output_1"), text(row, "output_2")
    if label not in (1, 2):
        raise Bad(f"label is {label!r}, neither 1 nor 2")
    right, wrong = outputs if label == 1 else outputs[::-1]
    return Item(prompt, (right,), (wrong,), folder or name_of(row, "subset"), prompt)


def _rows(counts: Mapping[str, int]) -> tuple[list[Row], list[str]]:
    each = one_each(counts, SUBSETS)
    here = [row for row in each if row.name in SUBSETS]
    hard = [row for row in each if row.name in ADVERSARIAL]
    missing = [name for name in SUBSETS if name not in counts]
    others = sorted(set(counts) - set(SUBSETS))
    notes = [f"Not in the file: {', '.join(missing)}."] if missing else []
    if others:
        notes.append(f"{', '.join(others)}: no subset of LLMBar; reported, and not in the overall score.")
    first = headline(not missing, here, len(SUBSETS)) if here else weighted("mean over all rows", "overall", dict(counts))
    middle = [mean_of(f"Adversarial, mean of {len(hard)} subset(s)", "section", hard)] if hard else []
    return [first, *middle, *each], notes


SUITE = Suite(
    name="llmbar",
    description="input, output_1, output_2, label 1 or 2; the subset from a column or the folder's name",
    weighting="overall: the plain mean of five subsets; adversarial: of four",
    ties="equal scores count one half",
    columns=("input", "output_1", "output_2", "label"),
    fits=_fits, item=_item, cells=per_item(best_of), rows=_rows, folders=SUBSETS,
)  # fmt: skip
