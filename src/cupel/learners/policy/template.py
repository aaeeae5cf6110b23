"""Texts of a record to tokens of a prompt and of a response, and the faults of templates that nobody may train on unseen.

A prompt and a response are rendered to text by the chat template (or stand as they are), the response being what the template adds to the
prompt, and each part is tokenised by itself: no token reaches across the boundary, which is how the model meets a prompt when it answers.
A response of several turns (assistant, tool, assistant) is scored by the assistant's turns only.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cupel.errors import InputError, RecordError
from cupel.learners.policy.images import images_of
from cupel.records.text import messages

#: what each fault means and what can be done about it
FAULTS = {
    "double_bos": (
        "begin with two beginning-of-text tokens, or repeat it at the response",
        "take the token out of the texts, or out of the chat template (template=FILE)",
    ),
    "prompt_not_prefix": (
        "render to a text that does not begin with their rendered prompt",
        "the template rewrites earlier turns: use another (template=FILE), or its argument that keeps them (template_arguments)",
    ),
    "missing_eos": (
        "end without an end-of-text or end-of-turn token, so that the model would not learn to stop",
        "give the tokenizer an eos_token, or a template that closes the assistant's turn",
    ),
    "empty_response": ("have a response without any token", "drop them: cupel curate --drop empty_sides"),
}


class Tokenised(NamedTuple):
    """Tokens of a response; which of them count (None: all); the names of its faults."""

    ids: list[int]
    counted: list[bool] | None
    faults: tuple[str, ...]


@dataclass
class Faults:
    """Counts of faults over a data set, with the first record of each."""

    n: int = 0
    count: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, found: Sequence[str], record: str) -> None:
        """Note the faults of one response."""
        self.n += 1
        for name in found:
            self.count[name] += 1
            self.first.setdefault(name, record)

    def check(self, accepted: Sequence[str]) -> None:
        """RecordError for faults that were not accepted: what, how many, which first, the ways out."""
        refused = [name for name in FAULTS if self.count[name] and name not in accepted]
        if refused:
            name = refused[0]
            what, remedy = FAULTS[name]
            others = "".join(f"; also {other}: {self.count[other]:,}" for other in refused[1:])
            raise RecordError(
                f"{self.count[name]:,} of {self.n:,} responses {what} (first: {self.first[name]}){others}. Either {remedy}, or let it "
                f"through with accept: [{', '.join(refused)}]"
            )


def template_text(file: str | None) -> str | None:
    """The text of a chat template; "none" and None as they are. InputError where the file cannot be read."""
    if file is None or file == "none":
        return file
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the chat template {file} cannot be read: {error}") from error


class Template:
    """A tokenizer with its chat template, as prompts and responses meet it.

    template   text of a chat template in place of the tokenizer's; "none" for plain text
    arguments  passed on to the template (enable_thinking, ...)

    Prompts that are chat lists need a template (InputError); plain prompts become a user's message where there is one.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, arguments: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.text = None if template == "none" else template or tokenizer.chat_template
        self.arguments = dict(arguments or {})
        if isinstance(self.text, dict):  # several templates by name
            self.text = self.text.get("default") or next(iter(self.text.values()))
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._made: dict[tuple[str, bool], list[int]] = {}
        special = {n for n, token in added.items() if token.special}
        self._closing = (special - {self.bos} | {self.eos}) - {None}  # one token may open and close texts (GPT-2's)

    @classmethod
    def load(cls, tokenizer: Any, file: str | None, arguments: Mapping[str, Any] | None = None) -> Template:
        """With a chat template read from a file; "none" or None as they are. InputError where it cannot be read."""
        return cls(tokenizer, template_text(file), arguments)

    @property
    def digest(self) -> str:
        """Hash of everything that turns texts into tokens: template, its arguments, vocabulary, special tokens."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        parts = [self.text or "plain", json.dumps(self.arguments, sort_keys=True), vocabulary, str(self.tokenizer.special_tokens_map)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    # ---- rendering --------------------------------------------------------------------------------------------------------------

    def _render(self, chat: list[dict[str, Any]], tools: Any, opening: bool) -> str:
        return self.tokenizer.apply_chat_template(
            chat, tools=tools, chat_template=self.text, tokenize=False, add_generation_prompt=opening, **self.arguments
        )

    def ahead(self, prompts: Sequence[str], responses: Sequence[str]) -> None:
        """Tokenise texts that `prompt` and `response` will ask for together, which takes half the time; those of the last call are kept.

        What a chat template makes of them is known only when it is asked for: with one, nothing is done.
        """
        self._made = {}
        for texts, special in ((prompts, True), (responses, False)) if self.text is None else ():
            wanted = [text for text in dict.fromkeys(texts) if text]
            if wanted:
                found = self.tokenizer(wanted, add_special_tokens=special, return_attention_mask=False)["input_ids"]
                self._made |= {(text, special): ids for text, ids in zip(wanted, found, strict=True)}

    def _ids(self, text: str, special: bool = False) -> list[int]:
        made = self._made.get((text, special))
        if made is not None:
            return made
        return self.tokenizer(text, add_special_tokens=special)["input_ids"] if text or special else []

    def _chat(self, prompt: str) -> list[dict[str, Any]]:
        found = messages(prompt)
        return found if found is not None else [{"role": "user", "content": prompt}]

    def prompt(self, text: str, tools: Any = None) -> list[int]:
        """Tokens of a prompt, with what opens the assistant's turn. Never empty where the tokenizer has a beginning-of-text token.

        InputError for a chat list without a chat template, or where the template refuses it.
        """
        if self.text is not None:
            return self._ids(self._rendered(self._chat(text), tools, opening=True))
        if messages(text) is not None:
            raise InputError(
                "prompts are lists of chat messages, but the tokenizer has no chat template: give one with template=FILE, or another model"
            )
        ids = self._ids(text, special=True)
        ids = ids[:-1] if ids and self.eos is not None and ids[-1] == self.eos else ids  # T5 and others close every text
        if ids:
            return ids
        opening = self.eos if self.bos is None else self.bos
        if opening is None:
            raise InputError("a prompt is empty and the tokenizer has no beginning-of-text token: nothing would predict the first token")
        return [opening]

    def response(self, prompt: str, text: str, tools: Any = None) -> Tokenised:
        """Tokens of a response to a prompt, closed as the template closes it (or by the end-of-text token), and its faults."""
        if self.text is None:
            return self._plain(text)
        chat, said = self._chat(prompt), messages(text)
        if said is None:
            said = [{"role": "assistant", "content": text}]
        ids: list[int] = []
        counted: list[bool] = []
        faults: list[str] = []
        whole = self._rendered(chat, tools, opening=True)
        for n, message in enumerate(said):
            ours = message["role"] == "assistant"
            before = self._rendered([*chat, *said[:n]], tools, opening=ours) if n else whole
            after = self._rendered([*chat, *said[: n + 1]], tools, opening=False)
            if not before.startswith(whole) or not after.startswith(before):
                faults.append("prompt_not_prefix")
                before = whole = ""
                ids, counted = [], []
            for part, counts in ((before[len(whole) :], False), (after[len(before) :], ours)):
                more = self._ids(part)
                ids += more
                counted += [counts] * len(more)
            whole = after
        faults += self._faults(ids)
        return Tokenised(ids, None if all(counted) else counted, tuple(dict.fromkeys(faults)))

    def _plain(self, text: str) -> Tokenised:
        ids = self._ids(text)
        if self.eos is not None and (not ids or ids[-1] != self.eos):
            ids = [*ids, self.eos]
        return Tokenised(ids, None, tuple(self._faults(ids)))

    def _faults(self, ids: list[int]) -> list[str]:
        if not ids:
            return ["empty_response"]
        faults = ["double_bos"] if self.bos is not None and self.bos != self.eos and ids[0] == self.bos else []
        return faults if self._closes(ids) else [*faults, "missing_eos"]

    def content(self, prompt: str) -> str:
        """What a prompt holds beside tokens: nothing here. InputError for a prompt with images, which need a model that reads them."""
        if images_of(prompt):
            raise InputError("a prompt has an image part, but the model reads text alone: choose a vision-language model")
        return ""

    def prompt_faults(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Faults of a prompt's tokens."""
        return ("double_bos",) if self.bos is not None and len(ids) > 1 and ids[0] == ids[1] == self.bos else ()

    def _closes(self, ids: list[int]) -> bool:
        """Whether the last token that is not white space ends a text or a turn."""
        for token in reversed(ids[-4:]):
            if token in self._closing:
                return True
            if self.tokenizer.decode([token]).strip():
                return False
        return False

    def _rendered(self, chat: list[dict[str, Any]], tools: Any, *, opening: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self._render(chat, tools, opening)
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            roles = " ".join(str(message["role"]) for message in chat)
            raise InputError(
                f"the chat template refuses a conversation with the roles {roles}: {error}. Give another with template=FILE, or its "
                f"arguments with template_arguments"
            ) from error
