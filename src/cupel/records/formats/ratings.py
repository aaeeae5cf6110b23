"""Ratings in rows: a prompt, a list of responses and a list of their ratings (also distilabel's generations)."""

from __future__ import annotations

from cupel.records.columns import Frame
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Candidate, Comparisons, mostly, number, objects

NAME = "ratings"
DESCRIPTION = "ratings (prompt; responses and ratings as lists of equal length)"
NEEDS = ()
ORDER_KNOWN = False
LOSSES = "the size of a difference of ratings is kept as strength only; equal ratings are ties"

RESPONSES = ("responses", "completions", "generations", "candidates", "answers", "options", "items", "outputs")
RATINGS = ("ratings", "scores", "rewards")
MODELS = ("models", "generation_models", "model_names")


def list_column(frame: Frame, names: tuple[str, ...]) -> str | None:
    """The first of these columns that the data has and that holds lists.

    >>> import pyarrow as pa
    >>> list_column(Frame(pa.table({"responses": [["x", "y"]]})), RESPONSES)
    'responses'
    """
    for name in names:
        if mostly(frame, name, lambda value: isinstance(value, list)):
            return name
    return None


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    responses, ratings = list_column(frame, RESPONSES), list_column(frame, RATINGS)
    if responses is None or ratings is None:
        return 0.0, ""
    prompt = f" beside {frame.names['prompt']}" if frame.has("prompt") else "; there is no prompt"
    return (0.9 if frame.has("prompt") else 0.7), f"columns {responses} and {ratings} hold a list of texts and their ratings{prompt}"


def parse(frame: Frame) -> Parsed:
    """Every pair of rated responses; a larger rating is better. A list of another length than its texts sets the row aside."""
    responses, ratings = list_column(frame, RESPONSES), list_column(frame, RATINGS)
    out = Comparisons(frame, [name for name in (responses, ratings) if name])
    texts = objects(frame, responses) if responses else [None] * len(frame)
    values = objects(frame, ratings) if ratings else [None] * len(frame)
    models = next((objects(frame, name) for name in MODELS if name in frame.columns), [None] * len(frame))
    prompts = objects(frame, frame.names["prompt"]) if frame.has("prompt") else [None] * len(frame)
    n_unrated = n_rows = 0
    for row, (items, scores) in enumerate(zip(texts, values, strict=True)):
        prompt = out.prompt(row, prompts[row])
        if not isinstance(items, list) or not isinstance(scores, list):
            out.refuse(row, "not_a_list", f"columns {responses} and {ratings} must both hold lists")
            continue
        if len(items) != len(scores):
            out.refuse(row, "arity", f"{len(items)} responses, {len(scores)} ratings")
            continue
        found = [out.text(row, item, f"response {position}") for position, item in enumerate(items, start=1)]
        if prompt is None or any(text is None for text in found):
            continue
        who = models[row]
        names = who if isinstance(who, list) and len(who) == len(items) else [None] * len(items)
        candidates = []
        for text, score, model in zip(found, scores, names, strict=True):
            value = number(score)
            if value is None or text is None:
                n_unrated += 1
                continue
            candidates.append(Candidate(text, value, None if model is None else str(model), columns={"score": value}))
        n_rows += 1
        if len(candidates) < 2:
            out.why[row] = f"{len(candidates)} of {len(items)} responses carry a rating"
        out.pairs(row, prompt, candidates)
    losses = [f"{n_rows:,} rows of ratings became {out.n:,} pairs: {LOSSES}; pairs of one row are not independent"]
    if n_unrated:
        losses.append(f"{n_unrated:,} responses without a rating are left out")
    return out.parsed(losses)
