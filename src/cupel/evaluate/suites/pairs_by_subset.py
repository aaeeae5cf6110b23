"""Any file of pairs with a right side: `prompt`, `chosen`, `rejected`, and `subset` and `group` where they are known.

The overall score is the mean over pairs; equal scores count one half. This is what `cupel evaluate` does without a suite, for data whose
labels are believed: there are subsets and a page instead of noise in labels and training seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cupel.evaluate.suites.items import Item, Row, Suite
from cupel.evaluate.suites.reading import own_id, prompt_of, text
from cupel.evaluate.suites.weights import best_of, one_each, per_item, weighted
from cupel.records.text import is_chat

#: the subset of rows that name none
ALL = "all"


def _fits(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("chosen"), str) or is_chat(row.get("chosen"))


def _item(row: Mapping[str, Any], folder: str) -> Item:
    prompt = prompt_of(row, "prompt")
    subset, group = row.get("subset"), row.get("group")
    named = str(group) if group is not None else prompt
    right, wrong = (text(row, "chosen"),), (text(row, "rejected"),)
    return Item(prompt, right, wrong, ALL if subset is None else str(subset), named, own_id(row))


def _rows(counts: Mapping[str, int]) -> tuple[list[Row], list[str]]:
    first = weighted("overall", "overall", dict(counts))
    return [first, *(one_each(counts) if set(counts) != {ALL} else [])], []


SUITE = Suite(
    name="pairs-by-subset",
    description="prompt, chosen, rejected; subset and group if known",
    weighting="overall: the mean over pairs",
    ties="equal scores count one half",
    columns=("prompt", "chosen", "rejected"),
    fits=_fits, item=_item, cells=per_item(best_of), rows=_rows,
)  # fmt: skip
