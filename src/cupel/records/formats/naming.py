"""Which field of an annotation tool's record is the prompt, which are the responses, and which of them an answer names."""

from __future__ import annotations

import re
from typing import Any

from cupel.records.labels import WORDS

PROMPTS = ("prompt", "instruction", "question", "query", "context", "input", "chat", "conversation", "post", "document", "text_prompt")


def split_fields(fields: dict[str, Any]) -> tuple[str | None, list[str]]:
    """(name of the prompt or None, names of the responses in their order): by the names, then by what is text.

    >>> split_fields({"prompt": "p", "response-1": "x", "response-2": "y", "source": 3})
    ('prompt', ['response-1', 'response-2'])
    """
    prompt = next((name for wanted in PROMPTS for name in fields if name.lower() == wanted), None)
    rest = [name for name, value in fields.items() if name != prompt and (isinstance(value, str | list))]
    numbered = [name for name in rest if re.search(r"([-_ ]?)([0-9]+|[a-dA-D])$", name)]
    return prompt, numbered if len(numbered) > 1 else rest


def which(answer: Any, names: list[str]) -> int | str | None:
    """The position of the response that an answer names, "tie", "both_bad" or "skip", or None where it names nothing known.

    >>> which("response-2", ["response-1", "response-2"]), which("left", ["a", "b"]), which("Tie", ["a", "b"]), which("maybe", ["a", "b"])
    (1, 0, 'tie', None)
    """
    word = str(answer).strip()
    plain = [_plain(name) for name in names]
    if _plain(word) in plain:
        return plain.index(_plain(word))
    tails = [_tail(name) for name in names]
    if _plain(word) in tails and len(set(tails)) == len(tails):
        return tails.index(_plain(word))
    if _tail(word) in tails and len(set(tails)) == len(tails) and not word.isalpha():
        return tails.index(_tail(word))
    meaning = WORDS.get(word.lower())
    if meaning == "a":
        return 0
    return 1 if meaning == "b" else meaning


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _tail(word: str) -> str:
    found = re.search(r"([0-9]+|[A-Za-z])$", word)
    return "" if found is None else found[1].lower()
