"""Rows that hold a list of responses: records of SteerLM 2.0, and lists whose responses carry a relevance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import RecordError
from cupel.learners.policy.lists import STEER
from cupel.learners.policy.names import Names
from cupel.learners.policy.options import PolicyOptions, Source
from cupel.learners.policy.tokens import DROPPED, Lists, Rows
from cupel.records.schema import TIE, Quarantined, Votes
from cupel.records.sources import load
from cupel.records.splits import assign

#: columns of the rows' responses, beside the votes that hold them one by one: see `read_lists`
COLUMNS = ("list", "relevance", "proposal", "name")
#: what a row of a list may be called by `map`
KNOWN = ("prompt", "responses", "relevance", "log_attributes", "ratings", "wanted", "log_prior", "log_proposal", "id", "weight")


@dataclass(frozen=True)
class _One:
    """A row: its place, its texts, and what is said of each response."""

    at: int
    prompt: str
    responses: tuple[str, ...]
    relevance: tuple[float, ...]
    proposal: tuple[float, ...]
    weight: float


class _Bad(ValueError):
    """A row that cannot be used: reason and detail."""


def read_lists(source: Source, options: PolicyOptions, heldout: float) -> Votes:
    """Lists as votes on single responses (`second` is -1), each with the number of its list, its relevance and its proposal in `source`.

    A row is prompt and responses (a list of texts; a prompt of messages is canonical JSON, as everywhere), and of each response:

        steer      log_prior, log P(y|x) of the plain model; log_attributes, log P(a|x,y), or the predicted ratings (`ratings`, a list of
                   numbers for each response) and the `wanted` ones; with reference: none also log_proposal, log Q'(y|a,x)
        others     relevance (or ratings), a number: larger is better

    also id and weight. Rows that do not fit are set aside with the reason, RecordError where they are more than max_bad; a list of one
    response teaches nothing: such lists are set aside too, with a warning.
    """
    rows = load(source.file)
    table = _renamed(rows.table, source)
    steer = options.objective.strip().partition(":")[0] == STEER
    name = Path(source.file).name
    _check_columns(table.column_names, name, steer=steer, stated=options.reference == "none")
    columns = {column: _objects(table[column]) for column in KNOWN if column in table.column_names}
    made: list[_One] = []
    aside: list[Quarantined] = list(rows.quarantine)
    alone = 0
    for at in range(len(table)):
        row = {column: values[at] for column, values in columns.items()}
        try:
            one = _one(at, row, steer)
        except _Bad as bad:
            aside.append(Quarantined(int(rows.line[at]), "bad_list", str(bad), repr(row)[:2000]))
            continue
        if len(one.responses) < 2:
            alone += 1
            aside.append(Quarantined(int(rows.line[at]), "one_response", "a list of one response teaches nothing", repr(row)[:2000]))
            continue
        made.append(one)
    faults = len(aside) - alone
    if faults > options.max_bad * (len(table) + len(rows.quarantine)) or not made:
        first = min(aside, key=lambda q: (q.reason == "one_response", q.line))
        raise RecordError(
            f"{len(aside):,} of {len(table) + len(rows.quarantine):,} rows of {name} hold no list that can be used (first: line "
            f"{first.line}: {first.detail}). Repair them, name the columns with map, or allow more with max_bad"
        )
    if alone:
        warnings.warn(f"{alone:,} of {len(table):,} lists of {name} have one response: they teach nothing and are left out", stacklevel=2)
    ids = columns.get("id") or [None] * len(table)
    lines = [int(rows.line[one.at]) for one in made]
    names = [str(line if ids[one.at] is None else ids[one.at]) for one, line in zip(made, lines, strict=True)]
    if twice := len(made) - len(set(names)):
        raise RecordError(f"{twice:,} of {len(made):,} ids of {name} are taken twice: make them unique, or leave them out")
    return _split(_votes(made, lines, names), heldout, options.seed).with_(quarantine=tuple(aside))


def as_lists(votes: Votes, rows: Rows, name: str = "") -> Rows:
    """The lists of rows that hold their responses one by one. A list of which truncation dropped a response is dropped whole.

    name: of the data set, which ids begin with where there are several.
    """
    assert votes.source is not None
    number, relevance, proposal = (votes.source[column].to_numpy() for column in COLUMNS[:3])
    names, begin = np.unique(number, return_index=True)
    of_row = np.searchsorted(names, number)
    outcome, lost = np.zeros(len(names), np.int8), np.zeros(len(names), np.int64)
    np.maximum.at(outcome, of_row, rows.outcome)
    np.add.at(lost, of_row, rows.lost)
    kept = np.flatnonzero(outcome < DROPPED)
    if not len(kept):
        raise RecordError(
            f"none of {len(names):,} lists is left whole to train on: of each a response was dropped. Raise max_length, or choose "
            f"truncation: shorten_prompt or shorten_response"
        )
    place = np.full(len(names), -1)
    place[kept] = np.arange(len(kept))
    home = place[of_row[rows.source_row]]
    there = np.flatnonzero(home >= 0)
    there = there[np.argsort(home[there], kind="stable")]
    at = rows.source_row[there]
    sizes = np.bincount(home[there], minlength=len(kept))
    first = there[np.cumsum(sizes) - sizes]
    lists = Lists(np.cumsum(sizes), rows.first[there], relevance[at], proposal[at])
    ids = votes.source["name"].combine_chunks().take(begin[kept])
    return Rows(
        first=rows.first[first], second=np.full(len(kept), -1, np.int32), p=np.full(len(kept), 0.5), w=rows.w[first],
        annotator=rows.annotator[first], group=rows.group[first], annotators=rows.annotators, groups=rows.groups, outcome=outcome,
        ids=Names([(f"{name}/" if name else "", ids)]), lost=np.where(outcome < DROPPED, lost, 0).astype(np.int32),
        source_row=kept.astype(np.int32), strength=rows.strength[first], lists=lists,
    )  # fmt: skip


def _renamed(table: Any, source: Source) -> Any:
    given = dict(source.map or {})
    unknown = [name for name in given if name not in KNOWN]
    if unknown:
        raise RecordError(f"map names {unknown[0]!r}, which is no column of a list: those are {', '.join(KNOWN)}")
    absent = [column for column in given.values() if column not in table.column_names]
    if absent:
        raise RecordError(f"{source.file} has no column {absent[0]!r}. Its columns: {', '.join(table.column_names)}")
    back = {column: name for name, column in given.items()}
    shadowed = [column for column in table.column_names if column in given and given[column] != column]
    kept = table.drop_columns(shadowed) if shadowed else table
    return kept.rename_columns([back.get(column, column) for column in kept.column_names])


def _check_columns(names: Sequence[str], file: str, *, steer: bool, stated: bool) -> None:
    """RecordError where a column is missing, or states a proposal beside a reference that is another."""
    there = set(names)
    wanted = ["prompt", "responses"]
    if steer:
        wanted += ["log_prior", *(["log_proposal"] if stated else [])]
        if "log_attributes" not in there:
            wanted += ["ratings", "wanted"] if {"ratings", "wanted"} & there else ["log_attributes"]
    elif "ratings" not in there:
        wanted.append("relevance")
    missing = [name for name in wanted if name not in there]
    if missing:
        more = ", the predicted `ratings` and the `wanted` ones instead of log_attributes" if steer else ""
        raise RecordError(
            f"{file} has no column {missing[0]}: the records of this objective are {', '.join(wanted)}{more}. Its columns are "
            f"{', '.join(names)}; name others with map"
        )
    if steer and not stated and "log_proposal" in there:
        raise RecordError(
            f"{file} states log_proposal, and the run has a reference that would take its place: choose reference: none to go by the "
            f"column, or leave the column out where the responses were drawn from the reference"
        )


def _one(at: int, row: Mapping[str, Any], steer: bool) -> _One:
    from cupel.records.text import canonical, is_chat

    prompt, responses = row.get("prompt"), row.get("responses")
    if not isinstance(responses, list) or not responses or not all(isinstance(text, str) and text.strip() for text in responses):
        raise _Bad("responses is no list of texts, or one of them is blank")
    n = len(responses)
    if steer:
        said = _attributes(row, n)
        relevance = [a + b for a, b in zip(said, _numbers(row, "log_prior", n), strict=True)]
    else:
        relevance = _numbers(row, "relevance" if "relevance" in row else "ratings", n)
    proposal = _numbers(row, "log_proposal", n) if "log_proposal" in row else [math.nan] * n
    weight = 1.0 if row.get("weight") is None else row["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (math.isfinite(weight) and weight >= 0):
        raise _Bad(f"weight is a finite number of at least 0, not {weight!r}")
    text = canonical(prompt) if isinstance(prompt, list) and is_chat(prompt) else "" if prompt is None else str(prompt)
    return _One(at, text, tuple(responses), tuple(relevance), tuple(proposal), float(weight))


def _attributes(row: Mapping[str, Any], n: int) -> list[float]:
    """log P(a|x,y) of each response: as stated, or from predicted and wanted ratings."""
    if "log_attributes" in row:
        return _numbers(row, "log_attributes", n)
    import torch

    from cupel.objectives.steering import attribute_log_probability

    wanted, ratings = row["wanted"], row["ratings"]
    if not isinstance(wanted, list) or not isinstance(ratings, list) or len(ratings) != n:
        raise _Bad(f"ratings is no list of the predicted ratings of each of {n} responses, or wanted is no list")
    if any(not isinstance(one, list) or len(one) != len(wanted) for one in ratings) or not wanted:
        raise _Bad(f"the ratings of each response are as many as the wanted ones, {len(wanted)} and at least one")
    try:
        said = torch.tensor(ratings, dtype=torch.float64)
        aim = torch.tensor(wanted, dtype=torch.float64).expand_as(said)
        return attribute_log_probability(said, aim).tolist()
    except (ValueError, TypeError) as error:
        raise _Bad(str(error)) from error


def _numbers(row: Mapping[str, Any], name: str, n: int) -> list[float]:
    values = row.get(name)
    sound: Callable[[Any], bool] = lambda x: isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)  # noqa: E731
    if not isinstance(values, list) or len(values) != n or not all(sound(x) for x in values):
        raise _Bad(f"{name} is no list of {n} finite numbers, one for each response")
    return [float(x) for x in values]


def _objects(values: Any) -> list[Any]:
    """Values as Python objects; lists written as JSON text are read."""
    from cupel.records.columns import present
    from cupel.records.formats.unfolding import read_json

    return [read_json(value) if isinstance(value, str) else present(value) for value in values.to_pylist()]


def _votes(made: Sequence[_One], lines: Sequence[int], ids: Sequence[str]) -> Votes:
    """One vote per response, without a preference; a group is a prompt."""
    import pyarrow as pa

    sizes = np.array([len(one.responses) for one in made])
    number = np.repeat(np.arange(len(made)), sizes)
    prompts, prompt = np.unique(np.array([one.prompt for one in made], dtype=object), return_inverse=True)
    responses, first = np.unique(np.array([text for one in made for text in one.responses], dtype=object), return_inverse=True)
    n = len(number)
    source = {
        "list": pa.array(number), "relevance": pa.array([x for one in made for x in one.relevance], pa.float64()),
        "proposal": pa.array([x for one in made for x in one.proposal], pa.float64()),
        "name": pa.array([ids[k] for k in number.tolist()], pa.large_string()),
    }  # fmt: skip
    return Votes(
        prompts=pa.array(prompts.tolist(), pa.large_string()), responses=pa.array(responses.tolist(), pa.large_string()),
        ids=pa.array([f"{ids[k]} {m}" for k, size in enumerate(sizes.tolist()) for m in range(size)]),
        prompt=prompt[number].astype(np.int32), first=first.astype(np.int32), second=np.full(n, -1, np.int32),
        outcome=np.full(n, TIE, np.int8), annotator=np.full(n, -1, np.int32), group=prompt[number].astype(np.int32), p=np.full(n, 0.5),
        w=np.array([one.weight for one in made])[number], strength=np.full(n, np.nan), seconds=np.full(n, np.nan),
        model_first=np.full(n, -1, np.int32), model_second=np.full(n, -1, np.int32), split=np.full(n, -1, np.int8),
        line=np.asarray(lines, np.int64)[number], source=pa.table(source), source_format="lists",
    )  # fmt: skip


def _split(votes: Votes, heldout: float, seed: int) -> Votes:
    """Whole lists are held out: the split of one of each one's responses holds for all."""
    if not heldout:
        return votes
    assert votes.source is not None
    number = votes.source["list"].to_numpy()
    begin = np.unique(number, return_index=True)[1]
    few = assign(votes.take(begin).with_(second=votes.first[begin]), heldout=heldout, seed=seed)
    return votes.with_(split=few.split[number], meta=few.meta)
