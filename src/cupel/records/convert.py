"""The same votes as a TRL preference table or as a table of votes; what the other format cannot hold is said."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.schema import OUTCOMES, A, B, Votes

Target = Literal["trl", "votes"]
TARGETS: tuple[Target, ...] = ("trl", "votes")

#: importers whose tables have the columns chosen and rejected
TRL_FAMILY = ("trl", "trl_conversational", "trl_implicit", "hh", "pairs")


def to_rows(votes: Votes, to: Target = "trl") -> tuple[pa.Table, list[str]]:
    """(table, losses): votes in another format, and one sentence for each thing that it cannot hold.

    "trl": prompt, chosen, rejected and every other column of the source; a table that came from TRL goes out as it came (columns,
    order,
    types), with chosen and rejected exchanged where the vote was turned. "votes": prompt, response_a, response_b, vote, one row per
    vote. Raises InputError for another name, or where no row is left.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "response_a": "x", "response_b": "y", "vote": v, "annotator": "k"} for v in ("b", "tie")])
    >>> table, losses = to_rows(votes, "trl")
    >>> table.to_pylist()
    [{'prompt': 'p', 'chosen': 'y', 'rejected': 'x', 'annotator': 'k'}]
    >>> losses
    ['1 of 2 votes express no preference (1 tie); a TRL table cannot hold them',
     'the order in which the sides were shown is lost; position bias can no longer be measured']
    """
    if to not in TARGETS:
        raise InputError(f"cannot convert to {to!r}. Formats: {', '.join(TARGETS)}.")
    table, losses = _trl(votes) if to == "trl" else _votes(votes)
    if not table.num_rows:
        raise InputError(f"no row is left for {to}: {'; '.join(losses) or 'there are no votes'}.")
    return table, losses


def _trl(votes: Votes) -> tuple[pa.Table, list[str]]:
    losses: list[str] = []
    undecided = votes.sign == 0
    if undecided.any():
        counts = [
            (OUTCOMES[code].replace("_", " "), int((votes.outcome == code).sum())) for code in range(len(OUTCOMES)) if code not in (A, B)
        ]
        kinds = ", ".join(f"{count:,} {name}" for name, count in counts if count)
        losses.append(f"{int(undecided.sum()):,} of {len(votes):,} votes express no preference ({kinds}); a TRL table cannot hold them")
    kept = votes.take(~undecided) if undecided.any() else votes
    _weights(kept, losses)
    if votes.source_format in TRL_FAMILY and kept.source is not None:
        return _exchanged(kept), losses
    if kept.order_known and len(kept):
        losses.append("the order in which the sides were shown is lost; position bias can no longer be measured")
    turned = kept.outcome == B
    chosen, rejected = np.where(turned, kept.second, kept.first), np.where(turned, kept.first, kept.second)
    columns: dict[str, Any] = {}
    if _any_prompt(votes):
        columns["prompt"] = kept.prompts.take(pa.array(kept.prompt))
    columns["chosen"], columns["rejected"] = kept.responses.take(pa.array(chosen)), kept.responses.take(pa.array(rejected))
    if kept.models:
        columns["chosen_model"] = _names(kept.models, np.where(turned, kept.model_second, kept.model_first))
        columns["rejected_model"] = _names(kept.models, np.where(turned, kept.model_first, kept.model_second))
    return _with_extras(kept, columns), losses


def _votes(votes: Votes) -> tuple[pa.Table, list[str]]:
    losses: list[str] = []
    _weights(votes, losses)
    if not votes.order_known:
        losses.append("the order in which the sides were shown is not in the source: response_a is the chosen text; position says nothing")
    words = pa.array(list(OUTCOMES), pa.large_string())
    columns: dict[str, Any] = {
        "id": votes.ids.cast(pa.large_string()),
        "prompt": votes.prompts.take(pa.array(votes.prompt)),
        "response_a": votes.responses.take(pa.array(votes.first)),
        "response_b": votes.responses.take(pa.array(votes.second)),
        "vote": words.take(pa.array(votes.outcome)),
    }
    if votes.annotators:
        columns["annotator"] = _names(votes.annotators, votes.annotator)
    if votes.models:
        columns["model_a"], columns["model_b"] = _names(votes.models, votes.model_first), _names(votes.models, votes.model_second)
    return _with_extras(votes, columns), losses


def _exchanged(votes: Votes) -> pa.Table:
    """The source with the two sides exchanged (and their models) in the rows whose vote was turned."""
    table = votes.source
    assert table is not None
    turned = votes.outcome == B
    if not turned.any():
        return table
    n = len(votes)
    names = _columns(votes)
    for one, other in (("chosen", "rejected"), ("model_first", "model_second")):
        if one not in names or other not in names or names[one] not in table.column_names or names[other] not in table.column_names:
            continue
        i, k = table.column_names.index(names[one]), table.column_names.index(names[other])
        a, b = table.column(i), table.column(k)
        if a.type != b.type:
            raise InputError(f"columns {names[one]} ({a.type}) and {names[other]} ({b.type}) cannot be exchanged. Give both the same type.")
        stacked = pa.chunked_array([*a.chunks, *b.chunks], a.type)
        row = np.arange(n)
        new_a, new_b = (
            stacked.take(pa.array(np.where(turned, row + n, row))),
            stacked.take(pa.array(np.where(turned, row, row + n))),
        )
        table = table.set_column(i, table.field(i), new_a).set_column(k, table.field(k), new_b)
    return table


def _with_extras(votes: Votes, columns: dict[str, Any]) -> pa.Table:
    """The columns, then every source column that they do not replace."""
    if votes.source is not None:
        names = _columns(votes)
        replaced = {
            names[name]
            for name in ("prompt", "chosen", "rejected", "response_a", "response_b", "conversation_a", "conversation_b", "vote")
            if name in names
        }
        if "chosen_model" in columns or "model_a" in columns:
            replaced |= {names[name] for name in ("model_first", "model_second") if name in names}
        if "annotator" in columns and "annotator" in names:
            replaced.add(names["annotator"])
        if "id" in columns and "id" in names:
            replaced.add(names["id"])
        for name in votes.source.column_names:
            if name not in replaced and name not in columns:
                columns[name] = votes.source[name]
    return pa.table(columns)


def _weights(votes: Votes, losses: list[str]) -> None:
    plain = np.where(votes.outcome == A, 1.0, np.where(votes.outcome == B, 0.0, 0.5))
    weight = np.isin(votes.outcome, (A, B, OUTCOMES.index("tie"))).astype(float)
    if not np.array_equal(votes.w, weight):
        losses.append(
            f"the weights of {int((votes.w != weight).sum()):,} rows are lost; a trainer that reads this table weighs all rows alike"
        )
    if not np.array_equal(votes.p, plain):
        losses.append(f"the probabilities of {int((votes.p != plain).sum()):,} rows are lost; the table holds hard labels")


def _columns(votes: Votes) -> dict[str, str]:
    return dict(votes.meta.get("columns", {}))


def _any_prompt(votes: Votes) -> bool:
    return any(text for text in votes.prompt_texts())


def _names(names: tuple[str, ...], codes: np.ndarray) -> pa.Array:
    return pa.array([*names, None], pa.large_string()).take(pa.array(np.where(codes < 0, len(names), codes)))
