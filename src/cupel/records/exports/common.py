"""What the targets share: decided votes, the winning and the losing side, texts as messages, and the columns that go along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records import text as text_
from cupel.records.columns import present
from cupel.records.schema import OUTCOMES, A, B, Votes

Chat = list[dict[str, Any]]

#: importers whose tables have the columns chosen and rejected, one comparison per row
TRL_FAMILY = ("trl", "trl_conversational", "trl_implicit", "hh", "pairs")


def decided(votes: Votes, what: str, losses: list[str]) -> Votes:
    """The votes that express a preference; the others are counted in `losses`."""
    undecided = votes.sign == 0
    if not undecided.any():
        return votes
    counts = [(OUTCOMES[code].replace("_", " "), int((votes.outcome == code).sum())) for code in range(len(OUTCOMES)) if code not in (A, B)]
    kinds = ", ".join(f"{count:,} {name}" for name, count in counts if count)
    losses.append(f"{int(undecided.sum()):,} of {len(votes):,} votes express no preference ({kinds}); {what} cannot hold them")
    return votes.take(~undecided)


def weights(votes: Votes, losses: list[str]) -> None:
    """Say which weights and probabilities a table of hard labels does not hold."""
    plain = np.where(votes.outcome == A, 1.0, np.where(votes.outcome == B, 0.0, 0.5))
    weight = np.isin(votes.outcome, (A, B, OUTCOMES.index("tie"))).astype(float)
    if not np.array_equal(votes.w, weight):
        losses.append(
            f"the weights of {int((votes.w != weight).sum()):,} rows are lost; a trainer that reads this table weighs all rows alike"
        )
    if not np.array_equal(votes.p, plain):
        losses.append(f"the probabilities of {int((votes.p != plain).sum()):,} rows are lost; the table holds hard labels")


def order_lost(votes: Votes, losses: list[str]) -> None:
    """Say that the order in which the sides were shown is lost, where it was known."""
    if votes.order_known and len(votes):
        losses.append("the order in which the sides were shown is lost; position bias can no longer be measured")


def sides(votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """(chosen, rejected): indices into `votes.responses`."""
    turned = votes.outcome == B
    return np.where(turned, votes.second, votes.first), np.where(turned, votes.first, votes.second)


def prompt_chats(votes: Votes) -> list[Chat]:
    """Each row's prompt as messages: a plain text is one message of the user, no prompt is no message."""
    made = []
    for text in votes.prompt_texts():
        chat = text_.messages(text)
        made.append(chat if chat is not None else [{"role": "user", "content": text}] if text.strip() else [])
    return [made[i] for i in votes.prompt.tolist()]


def response_chats(votes: Votes, index: np.ndarray) -> list[Chat]:
    """The responses of an index as messages: a plain text is one message of the assistant."""
    made: dict[int, Chat] = {}
    texts = votes.responses
    for i in np.unique(index).tolist():
        text = texts[i].as_py()
        chat = text_.messages(text)
        made[i] = chat if chat is not None else [{"role": "assistant", "content": text}]
    return [made[i] for i in index.tolist()]


def plain_prompts(votes: Votes, losses: list[str]) -> None:
    """Say that plain prompts became messages of a user."""
    plain = np.array([bool(text.strip()) and text_.messages(text) is None for text in votes.prompt_texts()], dtype=bool)
    n = int(plain[votes.prompt].sum()) if len(plain) else 0
    if n:
        losses.append(f"{n:,} prompts that were plain text are written as one message of a user; whether they were is no longer known")


def chat_column(values: list[Any], name: str, losses: list[str]) -> pa.Array:
    """Messages as an Arrow column, or as JSON text (and that is said) where one Arrow type does not hold them as they are."""
    from cupel.records.textual import _array, _text_column

    array = _array(values)
    if array is not None and [present(value) for value in array.to_pylist()] == [present(value) for value in values]:
        return array
    losses.append(f"the messages of column {name} are of several shapes: Parquet and CSV hold them as JSON text, JSON Lines as they are")
    return _text_column(values, False)


def names(known: tuple[str, ...], codes: np.ndarray) -> pa.Array:
    """Names of codes, null where -1."""
    return pa.array([*known, None], pa.large_string()).take(pa.array(np.where(codes < 0, len(known), codes)))


def columns_of(votes: Votes) -> dict[str, str]:
    """Canonical name -> column of the source."""
    return dict(votes.meta.get("columns", {}))


def models_by_side(votes: Votes, columns: dict[str, Any]) -> None:
    """Columns chosen_model and rejected_model, where models are known."""
    if votes.models:
        turned = votes.outcome == B
        columns["chosen_model"] = names(votes.models, np.where(turned, votes.model_second, votes.model_first))
        columns["rejected_model"] = names(votes.models, np.where(turned, votes.model_first, votes.model_second))


def with_extras(votes: Votes, columns: dict[str, Any], *, by_outcome: bool = False, only: Callable[[str], bool] | None = None) -> pa.Table:
    """The columns, then every source column that they do not replace.

    by_outcome: where the sides are turned so that the preferred one is first, a pair of source columns NAME_a and NAME_b becomes
    NAME_chosen and NAME_rejected, and is turned with them.
    """
    if votes.source is None:
        return pa.table(columns)
    of = columns_of(votes)
    texts = ("prompt", "chosen", "rejected", "response_a", "response_b", "conversation_a", "conversation_b", "vote")
    replaced = {of[name] for name in texts if name in of}
    if "chosen_model" in columns or "model_a" in columns or "model" in columns:
        replaced |= {of[name] for name in ("model_first", "model_second") if name in of}
    for name in ("annotator", "id"):
        if name in columns and name in of:
            replaced.add(of[name])
    turned = votes.outcome == B
    for name in votes.source.column_names:
        if name in replaced or name in columns or (only is not None and not only(name)):
            continue
        stem = name[:-2]
        if by_outcome and name.endswith(("_a", "_b")) and _pair(votes.source, stem) and not {f"{stem}_a", f"{stem}_b"} & replaced:
            if name.endswith("_a"):
                columns[f"{stem}_chosen"] = _turned(votes.source, f"{stem}_a", f"{stem}_b", turned)
                columns[f"{stem}_rejected"] = _turned(votes.source, f"{stem}_b", f"{stem}_a", turned)
            continue
        columns[name] = votes.source[name]
    return pa.table(columns)


def _pair(table: pa.Table, stem: str) -> bool:
    there = {f"{stem}_a", f"{stem}_b"} <= set(table.column_names)
    free = not {f"{stem}_chosen", f"{stem}_rejected"} & set(table.column_names)
    return bool(stem) and there and free and table.schema.field(f"{stem}_a").type == table.schema.field(f"{stem}_b").type


def _turned(table: pa.Table, one: str, other: str, turned: np.ndarray) -> pa.Array:
    """Column `one`, with the values of `other` in the rows that are turned."""
    stacked = pa.chunked_array([*table[one].chunks, *table[other].chunks], table.schema.field(one).type)
    row = np.arange(table.num_rows)
    return stacked.take(pa.array(np.where(turned, row + table.num_rows, row)))


def exchanged(votes: Votes) -> pa.Table:
    """The source with the two sides exchanged (and their models) in the rows whose vote was turned."""
    table = votes.source
    assert table is not None
    turned = votes.outcome == B
    if not turned.any():
        return table
    of = columns_of(votes)
    for one, other in (("chosen", "rejected"), ("model_first", "model_second")):
        if one not in of or other not in of or of[one] not in table.column_names or of[other] not in table.column_names:
            continue
        i, k = table.column_names.index(of[one]), table.column_names.index(of[other])
        if table.column(i).type != table.column(k).type:
            raise InputError(
                f"columns {of[one]} ({table.column(i).type}) and {of[other]} ({table.column(k).type}) cannot be exchanged. Give both the "
                "same type."
            )
        new_a, new_b = _turned(table, of[one], of[other], turned), _turned(table, of[other], of[one], turned)
        table = table.set_column(i, table.field(i), new_a).set_column(k, table.field(k), new_b)
    return table


def leave_out(votes: Votes, bad: list[str], losses: list[str]) -> tuple[Votes, np.ndarray]:
    """(votes without the rows that `bad` gives a reason for, mask of those kept); each reason is counted in `losses`."""
    keep = np.array([not why for why in bad], dtype=bool)
    for why in dict.fromkeys(why for why in bad if why):
        losses.append(f"{bad.count(why):,} of {len(bad):,} rows are left out: {why}")
    return (votes if keep.all() else votes.take(keep)), keep
