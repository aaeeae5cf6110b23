"""What the targets share: decided votes, the winning and the losing side, texts as messages, and the columns that go along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records import text as text_
from cupel.records.arrow import pc
from cupel.records.columns import present
from cupel.records.exports.losses import Again, Losses, Plan
from cupel.records.inference import fitted, inferred, merge
from cupel.records.schema import OUTCOMES, A, B, Votes

Chat = list[dict[str, Any]]

#: texts looked at at a time
_STEP = 1 << 14

#: importers whose tables have the columns chosen and rejected, one comparison per row
TRL_FAMILY = ("trl", "trl_conversational", "trl_implicit", "hh", "pairs")


def decided(votes: Votes, what: str, losses: Losses) -> Votes:
    """The votes that express a preference; the others are counted in `losses`."""
    undecided = votes.sign == 0
    kinds = [name.replace("_", " ") for code, name in enumerate(OUTCOMES) if code not in (A, B)]
    counts = {name.replace("_", " "): int((votes.outcome == code).sum()) for code, name in enumerate(OUTCOMES)}

    def say(counts: Counter[str]) -> list[str]:
        found = [(kind, counts[kind]) for kind in kinds if counts[kind]]
        said = ", ".join(f"{count:,} {kind}" for kind, count in found)
        n = sum(count for _, count in found)
        return [f"{n:,} of {counts.total():,} votes express no preference ({said}); {what} cannot hold them"] if n else []

    losses.count("undecided", counts, say)
    return votes.take(~undecided) if undecided.any() else votes


def weights(votes: Votes, losses: Losses) -> None:
    """Say which weights and probabilities a table of hard labels does not hold."""
    plain = np.where(votes.outcome == A, 1.0, np.where(votes.outcome == B, 0.0, 0.5))
    weight = np.isin(votes.outcome, (A, B, OUTCOMES.index("tie"))).astype(float)
    losses.some(
        "weights", int((votes.w != weight).sum()),
        lambda n: f"the weights of {n:,} rows are lost; a trainer that reads this table weighs all rows alike",
    )  # fmt: skip
    losses.some(
        "probabilities", int((votes.p != plain).sum()), lambda n: f"the probabilities of {n:,} rows are lost; the table holds hard labels"
    )


def order_lost(votes: Votes, losses: Losses) -> None:
    """Say that the order in which the sides were shown is lost, where it was known."""
    losses.some(
        "order", len(votes) if votes.order_known else 0,
        lambda _: "the order in which the sides were shown is lost; position bias can no longer be measured",
    )  # fmt: skip


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


def plain_prompts(votes: Votes, losses: Losses) -> None:
    """Say that plain prompts became messages of a user."""
    plain = np.array([bool(text.strip()) and text_.messages(text) is None for text in votes.prompt_texts()], dtype=bool)
    losses.some(
        "plain prompts", int(plain[votes.prompt].sum()) if len(plain) else 0,
        lambda n: f"{n:,} prompts that were plain text are written as one message of a user; whether they were is no longer known",
    )  # fmt: skip


def any_chat(texts: pa.Array) -> bool:
    """Whether any of these texts is a conversation; a part of them in memory at a time."""
    for low in range(0, len(texts), _STEP):
        some = texts.slice(low, _STEP)
        maybe = some.filter(pc.starts_with(some, "["))
        if any(text_.messages(text) is not None for text in maybe.to_pylist()):
            return True
    return False


def chat_column(values: list[Any], name: str, losses: Losses, plan: Plan) -> pa.Array:
    """Messages as an Arrow column, or as JSON text (and that is said) where one Arrow type does not hold them as they are."""
    from cupel.records.textual import has_empty_struct, text_column

    array = None
    if plan.settled:
        kind = plan.types[name]
        array = None if kind is None else fitted(None, values, kind)
    else:
        array = inferred(values)
        kind = None if array is None else array.type
        plan.types[name] = merge(plan.types.get(name, pa.null()), kind)
    if array is not None and has_empty_struct(array.type):
        array = None
    if array is not None and [present(value) for value in array.to_pylist()] != [present(value) for value in values]:
        array = plan.types[name] = None
    if plan.settled and array is None and kind is not None:
        plan.types[name] = None
        raise Again
    losses.some(
        f"shapes of {name}", int(array is None),
        lambda _: f"the messages of column {name} are of several shapes: Parquet and CSV hold them as JSON text, JSON Lines as they are",
    )  # fmt: skip
    return text_column(values, False) if array is None else array


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
    if "rating_a" in columns:
        replaced |= {of[name] for name in ("rating_first", "rating_second") if name in of}
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
    """The source with the two sides exchanged (with their models and ratings) in the rows whose vote was turned."""
    table = votes.source
    assert table is not None
    turned = votes.outcome == B
    if not turned.any():
        return table
    of = columns_of(votes)
    for one, other in (("chosen", "rejected"), ("model_first", "model_second"), ("rating_first", "rating_second")):
        if one not in of or other not in of or of[one] not in table.column_names or of[other] not in table.column_names:
            continue
        i, k = table.column_names.index(of[one]), table.column_names.index(of[other])
        if table.column(i).type != table.column(k).type and all(_numeric(table.column(n).type) for n in (i, k)):
            for n in (i, k):
                table = table.set_column(n, table.column_names[n], table.column(n).cast(pa.float64(), safe=False))
        if table.column(i).type != table.column(k).type:
            raise InputError(
                f"columns {of[one]} ({table.column(i).type}) and {of[other]} ({table.column(k).type}) cannot be exchanged. Give both the "
                "same type."
            )
        new_a, new_b = _turned(table, of[one], of[other], turned), _turned(table, of[other], of[one], turned)
        table = table.set_column(i, table.field(i), new_a).set_column(k, table.field(k), new_b)
    return table


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def leave_out(votes: Votes, bad: list[str], losses: Losses) -> tuple[Votes, np.ndarray]:
    """(votes without the rows that `bad` gives a reason for, mask of those kept); each reason is counted in `losses`."""
    keep = np.array([not why for why in bad], dtype=bool)

    def say(counts: Counter[str]) -> list[str]:
        return [f"{n:,} of {counts.total():,} rows are left out: {why}" for why, n in counts.items() if why]

    losses.count("left out", Counter(bad), say)
    return (votes if keep.all() else votes.take(keep)), keep
