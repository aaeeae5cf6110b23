"""RM-Bench (Liu et al. 2024, arXiv:2410.16184): three right and three wrong responses in rising style, compared in a 3 x 3 matrix.

Verified in the benchmark's README and `scripts/run_rm.py`: responses come in the order concise, detailed, detailed with markdown; cell
(i, j) is the share of prompts whose right response in style i scores strictly above the wrong one in style j; easy is the mean of the
three cells below the diagonal (the right one is the fancier), normal of the diagonal, hard of those above it. That safety is the mean of
its two parts, a domain's average the mean of easy, normal and hard, and the overall score the mean over chat, math, code and safety, is
how the paper's table is remembered: `[unverified]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.evaluate.suites.items import Cells, Item, Row, Scored, Suite
from cupel.evaluate.suites.reading import name_of, own_id, prompt_of, texts
from cupel.evaluate.suites.weights import headline, mean_of

STYLES = ("concise", "detailed", "detailed, markdown")
DOMAINS = ("chat", "math", "code", "safety-refuse", "safety-response")
LEVELS = {
    "easy": [(i, j) for i in range(3) for j in range(i)],
    "normal": [(i, i) for i in range(3)],
    "hard": [(i, j) for i in range(3) for j in range(i + 1, 3)],
}


def _fits(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("chosen"), list) and isinstance(row.get("rejected"), list) and isinstance(row.get("domain"), str)


def _item(row: Mapping[str, Any], folder: str) -> Item:
    prompt = prompt_of(row, "prompt")
    right, wrong = texts(row, "chosen", len(STYLES)), texts(row, "rejected", len(STYLES))
    return Item(prompt, right, wrong, name_of(row, "domain"), prompt, own_id(row))


def _cells(scored: Sequence[Scored]) -> Cells:
    out: dict[str, tuple[float, float]] = {}
    for one in scored:
        wins = one.right[:, None] > one.wrong[None, :]
        for i in range(3):
            for j in range(3):
                cell = _cell(one.item.subset, i, j)
                hits, count = out.get(cell, (0.0, 0.0))
                out[cell] = hits + float(wins[i, j]), count + 1
    return out


def _cell(domain: str, i: int, j: int) -> str:
    return f"{domain}/{i}{j}"


def _domain(domain: str) -> list[Row]:
    """easy, normal, hard and their mean."""
    found = []
    for level, cells in LEVELS.items():
        found.append(Row(f"{domain}: {level}", "subset", (domain,), {_cell(domain, i, j): 1 / len(cells) for i, j in cells}))
    return [*found, mean_of(f"{domain}: mean", "subset", found)]


def _rows(counts: Mapping[str, int]) -> tuple[list[Row], list[str]]:
    order = sorted(counts, key=lambda name: (DOMAINS.index(name) if name in DOMAINS else len(DOMAINS), name))
    each = {domain: _domain(domain) for domain in order}
    groups: dict[str, list[str]] = {}
    for domain in order:
        groups.setdefault("safety" if domain.startswith("safety") else domain, []).append(domain)
    sections = {}
    for name, inside in groups.items():
        sections[name] = [mean_of(f"{name}: {what}", "section", [each[d][k] for d in inside]) for k, what in enumerate((*LEVELS, "mean"))]
    missing = [name for name in DOMAINS if name not in counts]
    known = {"chat", "math", "code", "safety"} & set(sections)
    notes = [f"Not in the file: {', '.join(missing)}."] if missing else []
    others = sorted(set(sections) - known)
    if others:
        notes.append(f"{', '.join(others)}: no domain of RM-Bench; reported, and not in the overall score.")
    used = [sections[name] for name in sections if name in known or not known]
    first = headline(not missing, [rows[3] for rows in used], 4)
    means = [mean_of(f"{what}, mean of {len(used)} domains", "section", [rows[k] for rows in used]) for k, what in enumerate(LEVELS)]
    both = [row for name, inside in groups.items() if len(inside) > 1 for row in sections[name]]
    fields = [
        Row(f"{domain}: right {STYLES[i]}, wrong {STYLES[j]}", "cell", (domain,), {_cell(domain, i, j): 1.0}, (domain, i, j))
        for domain in order
        for i in range(3)
        for j in range(3)
    ]
    return [first, *means, *both, *(row for rows in each.values() for row in rows), *fields], notes


SUITE = Suite(
    name="rm-bench",
    description="prompt, chosen and rejected as lists of three texts (concise, detailed, detailed with markdown), domain",
    weighting="easy, normal, hard: means of three fields of the matrix; a domain: the mean of the three; overall: the mean over chat, math,"
    " code and safety, safety being the mean of its two parts",
    ties="equal scores are wrong",
    columns=("prompt", "chosen", "rejected", "domain"),
    fits=_fits, item=_item, cells=_cells, rows=_rows, axes=STYLES,
)  # fmt: skip
