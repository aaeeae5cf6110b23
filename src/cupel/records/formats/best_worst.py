"""Best-worst choices: several responses, the best and the worst of them named (Louviere and Woodworth's best-worst scaling)."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.ratings import RESPONSES, list_column
from cupel.records.formats.unfolding import Comparisons, objects
from cupel.records.schema import A, B

NAME = "best_worst"
DESCRIPTION = "best_worst (responses as a list; best, and worst if known, as position or text)"
NEEDS = ("best",)
ORDER_KNOWN = False
LOSSES = "the best beats all others and all others beat the worst; nothing is said about those between"


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    responses = list_column(frame, RESPONSES)
    if responses is None or "best" not in frame.columns:
        return 0.0, ""
    worst = " and worst" if "worst" in frame.columns else " (the worst is not named)"
    return 1.0, f"column {responses} holds candidates, best{worst} which of them was chosen"


def parse(frame: Frame) -> Parsed:
    """The pairs that a choice implies: 2 k - 3 of k responses where best and worst are named, k - 1 where only the best is.

    Positions count from 0 where 0 occurs anywhere, from 1 where the length of a list occurs; where neither does, 0 is taken and the doubt
    is stated.
    """
    responses = list_column(frame, RESPONSES)
    out = Comparisons(frame, [*([responses] if responses else []), "best", "worst"])
    lists = objects(frame, responses) if responses else [None] * len(frame)
    best = objects(frame, "best")
    worst = objects(frame, "worst") if "worst" in frame.columns else [None] * len(frame)
    base = _base(frame, lists, [*best, *worst])
    prompts = objects(frame, frame.names["prompt"]) if frame.has("prompt") else [None] * len(frame)
    n_rows = 0
    for row, value in enumerate(lists):
        prompt = out.prompt(row, prompts[row])
        if not isinstance(value, list) or len(value) < 2:
            out.refuse(row, "not_a_list", "there is no list of at least two responses")
            continue
        texts = [out.text(row, item, f"response {position}") for position, item in enumerate(value, start=1)]
        if prompt is None or any(text is None for text in texts):
            continue
        top, bottom = _position(best[row], value, base), _position(worst[row], value, base)
        if top is None:
            reason = "missing_label" if best[row] is None else "unknown_label"
            out.refuse(row, reason, f"column best says {str(best[row])[:80]!r}, which is none of the {len(value)} responses")
        elif bottom is None and worst[row] is not None:
            out.refuse(row, "unknown_label", f"column worst says {str(worst[row])[:80]!r}, which is none of the {len(value)} responses")
        elif top == bottom:
            out.refuse(row, "best_is_worst", "best and worst are the same response")
        if row in frame.bad or top is None:
            continue
        n_rows += 1
        for i in range(len(value)):
            for j in range(i + 1, len(value)):
                if top in (i, j) or bottom in (i, j):
                    wins = i == top or j == bottom
                    out.add(row, prompt, str(texts[i]), str(texts[j]), A if wins else B, position_a=i, position_b=j)
    return out.parsed([f"{n_rows:,} choices became {out.n:,} pairs: {LOSSES}; pairs of one choice are not independent"])


def _base(frame: Frame, lists: list[Any], choices: list[Any]) -> int:
    """Whether positions count from 0 or from 1."""
    numbers = [int(str(value)) for value in choices if not isinstance(value, bool) and str(value).isdigit()]
    sizes = {len(value) for value in lists if isinstance(value, list)}
    if not numbers or 0 in numbers:
        return 0
    if sizes and max(numbers) == max(sizes):
        return 1
    frame.doubts.append("best and worst: positions are counted from 0; neither 0 nor the length of a list occurs, so 1 is possible")
    return 0


def _position(value: Any, items: list[Any], base: int) -> int | None:
    """The position of a choice: a number, or the text of one of the responses."""
    if value is None or isinstance(value, bool):
        return None
    if value in items:
        return items.index(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if str(value).isdigit() and 0 <= int(str(value)) - base < len(items):
        return int(str(value)) - base
    return None
