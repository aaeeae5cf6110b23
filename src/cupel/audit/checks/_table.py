"""A table of texts as the checks read it: facts of every text from one walk over them, and the texts themselves only where asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.audit.checks._bytes import Part, parts
from cupel.audit.checks._language import ASKS_OF, LANGUAGE_CHARACTERS, LATIN, MIN_HITS, MIN_LETTERS, STOPWORDS, scripts
from cupel.audit.checks._texts import Looks, look
from cupel.audit.checks._words import languages_of, read_words
from cupel.records.arrow import pc
from cupel.records.groups import by_appearance
from cupel.records.minhash import buffers

#: texts that become Python strings at a time
_SOME = 1024


@dataclass(frozen=True)
class Facts:
    """What the checks know of n texts; some 30 bytes each.

    identity   int64 [n], equal after normalising (of a chat: with its roles) means equal number, in the order of first appearance
    chars      int64 [n], characters without white space at the ends; words: int64 [n], words between white space
    looks      `_texts.Looks`; harmful, refuses, asks: bool [n], it can hold a harmful word, a refusal, a question about a language
    language   int8 [n], 1 + index among `STOPWORDS`, 0 if unclear; script: int8 [n], index among `SCRIPTS`
    chat       bool [n], a chat list with roles
    """

    identity: np.ndarray
    chars: np.ndarray
    words: np.ndarray
    looks: Looks
    harmful: np.ndarray
    refuses: np.ndarray
    asks: np.ndarray
    language: np.ndarray
    script: np.ndarray
    chat: np.ndarray


class Table:
    """Unique texts of one kind; those that no comparison uses count as empty, so that a view of a part costs no more than that part.

    prompts: texts may be chat lists, and are then read without their clothes: the contents of the turns, a line each.
    """

    def __init__(self, texts: pa.Array, uses: Iterable[np.ndarray], *, prompts: bool) -> None:
        self.texts = texts
        self.used = np.zeros(len(texts), dtype=bool)
        for index in uses:
            self.used[index] = True
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self.texts)

    def parts(self) -> Iterator[Part]:
        """The texts as bytes, a part at a time."""
        return parts(self.texts, None if self.used.all() else self.used, chat_text if self._prompts else None)

    @cached_property
    def facts(self) -> Facts:
        """The facts of all texts."""
        return _read(self)

    def came(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """(position, text as it came) of some used texts."""
        for low in range(0, len(rows), _SOME):
            part = rows[low : low + _SOME]
            yield from zip(part.tolist(), self.texts.take(pa.array(part)).to_pylist(), strict=True)

    def at(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """(position, text) of some used texts; of a chat, the contents of its turns."""
        for row, text in self.came(rows):
            yield row, plain(text) if self._prompts else text

    def plain_parts(self) -> Iterator[tuple[int, list[str]]]:
        """(position of the first, texts) of all texts, some thousand at a time; of a chat, the contents of its turns."""
        for low in range(0, len(self), _SOME):
            some = self.texts.slice(low, _SOME).to_pylist()
            yield low, [(plain(t) if self._prompts else t) if u else "" for t, u in zip(some, self.used[low : low + _SOME], strict=True)]

    def normal_parts(self) -> Iterator[tuple[int, list[str]]]:
        """(position of the first, normalised texts) of all texts, a part at a time."""
        for part in self.parts():
            yield part.first, [piece.decode() for piece in part.pieces]

    def near(self, words: int, seed: int) -> np.ndarray:
        """int64 [n]: texts that are equal after normalising, or share .8 of their runs of `words` words, have the same number."""
        from cupel.records.near_duplicates import near_duplicates

        found = near_duplicates(self.texts, words=words, seed=seed, among=None if self.used.all() else self.used, then=self.compared)
        return _joined(self.facts.identity, found.cluster)

    def compared(self, some: pa.Array) -> pa.Array:
        """What near-copies are told by: chats without their clothes, letters composed."""
        if self._prompts and pc.any(pc.starts_with(some, "[")).as_py():
            some = pa.array([plain(text) for text in some.to_pylist()], pa.large_string())
        offsets, data = buffers(some)
        text = data[offsets[0] : offsets[-1]]
        lead = np.flatnonzero(text >= 0xCC)  # letters that composition changes lie behind these bytes
        lead = lead[(text[lead] != 0xE2) | (text[np.minimum(lead + 1, len(text) - 1)] != 0x80)]
        if not len(lead):
            return some
        loose = np.zeros(len(some), dtype=bool)
        loose[np.searchsorted(offsets[1:] - offsets[0], lead, side="right")] = True
        return pc.replace_with_mask(some, pa.array(loose), pc.utf8_normalize(some.filter(pa.array(loose)), "NFC"))


def chat_turns(prompt: str) -> list[dict[str, Any]] | None:
    """The turns of a prompt that is a chat list in JSON (`[{"role": ..., "content": ...}, ...]`), else None.

    >>> chat_turns('[{"role": "user", "content": "hi"}]')
    [{'role': 'user', 'content': 'hi'}]
    >>> chat_turns("[1, 2] is a list") is None
    True
    """
    if not prompt.startswith("["):
        return None
    try:
        turns = json.loads(prompt)
    except ValueError:
        return None
    if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) and "role" in t for t in turns):
        return None
    return turns


def plain(prompt: str) -> str:
    """A prompt without the clothes of a chat: the contents of its turns, a line each; other text as it is.

    >>> plain('[{"role": "user", "content": "hi"}]'), plain("hi")
    ('hi', 'hi')
    """
    found = chat_text(prompt)
    return prompt if found is None else found


def chat_text(prompt: str) -> str | None:
    """The contents of the turns of a prompt that is a chat, a line each, else None."""
    turns = chat_turns(prompt)
    if turns is None:
        return None
    return "\n".join(content(turn) for turn in turns).encode("utf-8", "replace").decode()  # JSON can escape half a character


def content(turn: dict[str, Any]) -> str:
    """The text of a turn; of a list of parts, their texts.

    >>> content({"role": "user", "content": [{"type": "text", "text": "hi"}]})
    'hi'
    """
    value = turn.get("content")
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
    return ""


# ---- the walk -------------------------------------------------------------------------------------------------------------------


def _read(table: Table) -> Facts:
    n = len(table)
    digest = np.zeros((n, 2), dtype=np.uint64)
    chars, words = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    looks = Looks(*(np.zeros(n, dtype=bool) for _ in fields(Looks)))
    harmful, refuses, asks, chat = (np.zeros(n, dtype=bool) for _ in range(4))
    language, script = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int8)
    for part in table.parts():
        at = slice(part.first, part.first + len(part.pieces))
        found = b"".join([blake2b(piece, digest_size=16).digest() for piece in part.compared])
        digest[at] = np.frombuffer(found, dtype="<u8").reshape(-1, 2)
        chars[at], chat[at] = part.chars, part.chat
        words[at] = np.diff(np.searchsorted(np.flatnonzero(part.normal.data[: part.normal.size + 1] == 32), part.normal.stop), prepend=-1)
        words[at][part.normal.start == part.normal.stop] = 0
        for name, values in vars(look(part.raw)).items():
            getattr(looks, name)[at] = values
        read = read_words(part, STOPWORDS, LANGUAGE_CHARACTERS, MIN_LETTERS)
        harmful[at], refuses[at] = read.harmful, read.refuses
        language[at] = languages_of(read.hits, read.varied, MIN_HITS)
        script[at] = _scripts(part, read.letters)
        if table._prompts:
            normal = pa.array(part.pieces, pa.large_binary()).cast(pa.large_string())
            asks[at] = pc.match_substring_regex(normal, ASKS_OF).to_numpy(zero_copy_only=False)
    return Facts(_numbers(digest), chars, words, looks, harmful, refuses, asks, language, script, chat)


def _scripts(part: Part, letters: np.ndarray) -> np.ndarray:
    """`scripts` of the beginnings of normalised texts; without letters beyond ASCII they are Latin or too short."""
    out = np.where(letters, LATIN, 0)
    data = part.normal.data[: part.normal.size]
    if part.wide.any():  # lead bytes C2 and E2 begin signs alone
        rows = np.flatnonzero(part.normal.holding(np.flatnonzero((data >= 0xC3) & (data != 0xE2))))
        out[rows] = scripts([part.pieces[i].decode()[:LANGUAGE_CHARACTERS] for i in rows.tolist()])
    return out


def _numbers(digest: np.ndarray) -> np.ndarray:
    """int64 [n]: equal digests (uint64 [n, 2]) share a number, in the order of first appearance."""
    order = np.argsort(digest[:, 0], kind="stable")
    same = digest[order[1:], 0] == digest[order[:-1], 0]
    if (same & (digest[order[1:], 1] != digest[order[:-1], 1])).any():
        order = np.lexsort((digest[:, 1], digest[:, 0]))
        same = (digest[order[1:]] == digest[order[:-1]]).all(axis=1)
    label = np.zeros(len(digest), dtype=np.int64)
    label[order[1:]] = np.cumsum(~same)
    return by_appearance(label, len(digest) + 1).astype(np.int64)


def _joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """int64 [n]: positions connected by an equal number in either array share a number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(a):
        return np.zeros(0, dtype=np.int64)
    size = int(a.max()) + 1
    many = np.flatnonzero(np.bincount(b)[b] > 1)  # clusters of one join nothing
    graph = coo_array((np.ones(len(many), dtype=np.int8), (a[many], size + b[many].astype(np.int64))), shape=(size + len(b),) * 2)
    return connected_components(graph, directed=False)[1][a].astype(np.int64)
