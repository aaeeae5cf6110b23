"""Arena battles in columns: prompt and both responses as lists of turns, the winner as three truth values (LMSYS 55k)."""

from __future__ import annotations

from cupel.records import text as text_
from cupel.records.columns import Frame, side_text
from cupel.records.formats import Parsed
from cupel.records.formats.unfolding import Comparisons, number, objects
from cupel.records.schema import TIE, A, B
from cupel.records.turns import Chat, common

NAME = "arena_columns"
DESCRIPTION = "arena_columns (prompt, response_a, response_b as lists of turns; winner_model_a, winner_model_b, winner_tie)"
NEEDS = ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b")
ORDER_KNOWN = True

WINNERS = (("winner_model_a", A), ("winner_model_b", B), ("winner_tie", TIE))


def detect(frame: Frame) -> tuple[float, str]:
    """How well the columns fit, and why."""
    if not set(NEEDS) <= {*frame.columns, *frame.names} or frame.has("vote"):
        return 0.0, ""
    return 1.0, "columns winner_model_a, winner_model_b and winner_tie say who won, response_a and response_b hold the turns of both"


def parse(frame: Frame) -> Parsed:
    """One comparison per row; several turns are put together as two conversations, which share their first question."""
    names = [frame.names[name] for name in ("prompt", "response_a", "response_b")]
    out = Comparisons(frame, names)
    flags = [objects(frame, name) if name in frame.columns else [0] * len(frame) for name, _ in WINNERS]
    models = [objects(frame, name) if name in frame.columns else [None] * len(frame) for name in ("model_a", "model_b")]
    for row, (asked, one, two) in enumerate(zip(*(objects(frame, name) for name in names), strict=True)):
        said = [code for (_, code), values in zip(WINNERS, flags, strict=True) if number(_plain(values[row])) == 1.0]
        if len(said) != 1:
            out.refuse(row, "missing_label" if not said else "unknown_label", f"{len(said)} of the three winner columns are set, not one")
            continue
        sides = _sides(asked, one, two)
        if sides is None:
            out.refuse(row, "arity", "prompt, response_a and response_b are not lists of as many turns")
            continue
        prompt, a, b = sides
        x, y = out.text(row, a, "column response_a"), out.text(row, b, "column response_b")
        if x is not None and y is not None:
            known = {"model_a": models[0][row], "model_b": models[1][row]} if models[0][row] is not None else {}
            out.add(row, prompt, x, y, said[0], **known)
    return out.parsed()


def _plain(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def _sides(asked: object, one: object, two: object) -> tuple[str, str, str] | None:
    """(prompt, first, second) of three texts, or of three lists of as many turns."""
    if isinstance(asked, str) and isinstance(one, str) and isinstance(two, str):
        return asked, one, two
    if not (isinstance(asked, list) and isinstance(one, list) and isinstance(two, list) and asked):
        return None
    if not len(asked) == len(one) == len(two):
        return None
    if len(asked) == 1:
        return str(asked[0] or ""), str(one[0] or ""), str(two[0] or "")
    chats: list[Chat] = []
    for answers in (one, two):
        chat: Chat = []
        for question, answer in zip(asked, answers, strict=True):
            chat += [{"role": "user", "content": question or ""}, {"role": "assistant", "content": answer or ""}]
        chats.append(chat)
    if chats[0] == chats[1]:
        return text_.canonical(chats[0][:-1]), side_text(chats[0][-1:], False), side_text(chats[1][-1:], False)
    shared, rest_a, rest_b = common(*chats)
    return text_.canonical(shared), side_text(rest_a, False), side_text(rest_b, False)
