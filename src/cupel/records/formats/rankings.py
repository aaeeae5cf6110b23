"""Rankings: a prompt, several responses and their ranks, as two lists or as a list of ranked answers (Nectar)."""

from __future__ import annotations

from typing import Any

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.ratings import RESPONSES, list_column
from cupel.records.formats.unfolding import Candidate, Comparisons, mostly, number, objects

NAME = "rankings"
DESCRIPTION = "rankings (prompt; responses and ranks as lists, 1 is best, or answers as a list of {answer, rank, model})"
NEEDS = ()
ORDER_KNOWN = False
LOSSES = "equal ranks are ties; how far apart two ranks are is kept as strength only"

RANKS = ("ranks", "ranking", "rank")
TEXTS = ("answer", "response", "text", "output", "completion")


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    responses = list_column(frame, RESPONSES)
    if responses is None:
        return 0.0, ""
    prompt = f" beside {frame.names['prompt']}" if frame.has("prompt") else "; there is no prompt"
    if mostly(frame, responses, lambda value: isinstance(value, list) and isinstance(value[0], dict) and "rank" in value[0]):
        return 1.0, f"column {responses} holds answers with their rank (1 is best){prompt}"
    ranks = list_column(frame, RANKS)
    if ranks is None:
        return 0.0, ""
    return (0.9 if frame.has("prompt") else 0.7), f"columns {responses} and {ranks} hold texts and their ranks (1 is best){prompt}"


def parse(frame: Frame) -> Parsed:
    """Every pair of ranked responses; the smaller rank is preferred."""
    responses, ranks = list_column(frame, RESPONSES), list_column(frame, RANKS)
    out = Comparisons(frame, [name for name in (responses, ranks) if name])
    prompts = objects(frame, frame.names["prompt"]) if frame.has("prompt") else [None] * len(frame)
    lists = objects(frame, responses) if responses else [None] * len(frame)
    orders = objects(frame, ranks) if ranks else [None] * len(frame)
    n_rows = 0
    for row, value in enumerate(lists):
        prompt = out.prompt(row, prompts[row])
        found = _items(out, row, value, orders[row])
        if prompt is None or found is None:
            continue
        candidates = []
        for position, (content, place, model) in enumerate(found, start=1):
            text, rank = out.text(row, content, f"response {position}"), number(place)
            if rank is None:
                out.refuse(row, "missing_rank", f"response {position} has no rank")
            if text is not None and rank is not None:
                candidates.append(Candidate(text, -rank, None if model is None else str(model), columns={"rank": rank}))
        if row in frame.bad:
            continue
        n_rows += 1
        if len(candidates) < 2:
            out.why[row] = f"a ranking of {len(candidates)} compares nothing"
        out.pairs(row, prompt, candidates)
    losses = [f"{n_rows:,} rankings became {out.n:,} pairs: {LOSSES}; pairs of one ranking are not independent"]
    return out.parsed(losses)


def _items(out: Comparisons, row: int, value: Any, order: Any) -> list[tuple[Any, Any, Any]] | None:
    """(text, rank, model) of each response of a row, or None and the row set aside."""
    if not isinstance(value, list):
        return out.refuse(row, "not_a_list", "there is no list of responses")
    if all(isinstance(item, dict) for item in value) and value and any("rank" in item for item in value):
        return [(next((item[key] for key in TEXTS if key in item), None), item.get("rank"), item.get("model")) for item in value]
    if not isinstance(order, list):
        return out.refuse(row, "not_a_list", "there is no list of ranks")
    if len(order) != len(value):
        return out.refuse(row, "arity", f"{len(value)} responses, {len(order)} ranks")
    return [(text, rank, None) for text, rank in zip(value, order, strict=True)]
