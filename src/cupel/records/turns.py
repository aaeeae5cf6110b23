"""Two whole conversations -> the prompt they share and the two responses that differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from cupel.records import text as text_
from cupel.records.columns import Frame, side_text

_TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant|System):", re.MULTILINE)
_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}

Chat = list[dict[str, Any]]


def common(first: Chat, second: Chat) -> tuple[Chat, Chat, Chat]:
    """(shared messages, rest of the first, rest of the second): the longest shared beginning after which each side still answers.

    The shared part ends before an assistant's message on both sides; it is empty where the conversations begin differently.

    >>> q, x, y = ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "X"}, {"role": "assistant", "content": "Y"})
    >>> common([q, x], [q, y]) == ([q], [x], [y])
    True
    """
    size = 0
    while size < min(len(first), len(second)) and first[size] == second[size]:
        size += 1
    while size and not (
        size < len(first) and size < len(second) and first[size]["role"] == "assistant" and second[size]["role"] == "assistant"
    ):
        size -= 1
    return first[:size], first[size:], second[size:]


def transcript(text: str) -> Chat | None:
    """The messages of a transcript of "Human:" and "Assistant:" paragraphs, or None where the text is none.

    >>> [m["role"] for m in transcript("\\n\\nHuman: Why?\\n\\nAssistant: So.")]
    ['user', 'assistant']
    """
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [{"role": _ROLES[mark[1]], "content": text[mark.end() : end].strip()} for mark, end in zip(marks, ends, strict=True)]


def sides(
    frame: Frame, first: Iterable[Chat | None], second: Iterable[Chat | None], given: list[str] | None = None
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """(prompt, first, second) as large_string arrays; rows whose conversations share no prompt are marked.

    given: the prompt column where there is one; conversations that repeat it are cut, answers alone are kept under it.
    """
    out: tuple[list[str], list[str], list[str]] = ([], [], [])
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        prompt, x, y = "", "", ""
        if a is not None and b is not None:
            if a == b and a[-1]["role"] == "assistant":  # one text on both sides: the last answer is the response
                shared, rest_a, rest_b = a[:-1], a[-1:], b[-1:]
            else:
                shared, rest_a, rest_b = common(a, b)
            only_answers = a[0]["role"] == "assistant" and b[0]["role"] == "assistant"
            if given is not None and only_answers:
                prompt, rest_a, rest_b = given[row], a, b
            elif not shared and not only_answers:
                frame.bad.setdefault(
                    row, ("different_prompts", "the two conversations share no prompt that an assistant answers on both sides")
                )
            elif shared:
                prompt = text_.canonical(shared)
                if given is not None and not _same(given[row], shared):
                    frame.bad.setdefault(row, ("different_prompts", "the prompt is not the beginning of the conversations"))
            x, y = side_text(rest_a, False) if rest_a else "", side_text(rest_b, False) if rest_b else ""
            if not x.strip() or not y.strip():
                frame.bad.setdefault(
                    row, ("empty_side", f"the {'first' if not x.strip() else 'second'} side says nothing after the prompt")
                )
        for column, value in zip(out, (prompt, x, y), strict=True):
            column.append(value)
    prompts, firsts, seconds = (pa.array(values, pa.large_string()) for values in out)
    for values in (prompts, firsts, seconds):
        frame.limit(values, "conversation")
    return prompts, firsts, seconds


def _same(given: str, shared: Chat) -> bool:
    """Whether a prompt says what the shared beginning says (a plain prompt may be its last message)."""
    chat = text_.messages(given)
    if chat is not None:
        return text_.canonical(chat) == text_.canonical(shared) or shared[: len(chat)] == chat
    if not given.strip():
        return True
    return given.strip() in (
        text_.render(text_.canonical(shared)).strip(),
        text_.content_text(shared[-1]["content"]).strip(),
        text_.content_text(shared[0]["content"]).strip(),
    )
