"""What a check is given beside the votes, and the text computations that several checks share (made once, when first asked for)."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cupel.audit.checks._texts import Looks, Words, look, read_words
from cupel.records.schema import Votes

#: words that are common in one of these languages and rare in the others
STOPWORDS = {
    "English": "the and of to is that it for with was this are you have not they from what which would be can how",
    "German": "der die und das ist nicht ein eine zu den mit von sich auf für dem auch wird werden oder wie sind",
    "French": "le les et des est une dans pour que qui pas sur avec ce cette sont vous nous être ou plus",
    "Spanish": "el los las y una por con para que es del como más pero está son esta este muy puede",
    "Italian": "il che di è per non una sono con della gli nel anche questo come più alla dei delle può",
    "Portuguese": "o os e uma não para com por como mais dos das em são está você também seu sua ao",
    "Dutch": "het een van en niet dat op te zijn voor met er maar ook aan wordt naar deze bij je",
}
#: characters of a text in which its language is looked for
LANGUAGE_CHARACTERS = 600

_SPACES = re.compile(r"[^\S ]|  ")


@dataclass(frozen=True)
class Context:
    """Options of a run of the checks, and its shared computations.

    against         texts (for example of a benchmark) that the data must not contain; None where none were given
    context_tokens  length of the context of the model to be trained, in tokens; None where unknown
    token_counts    callable from a list of texts to an int array of their lengths in tokens; needed with `context_tokens`
    seed            seed of everything random (MinHash, bootstrap)
    """

    against: tuple[str, ...] | None = None
    context_tokens: int | None = None
    token_counts: Callable[[list[str]], Any] | None = None
    seed: int = 0
    _shared: dict[int, Shared] = field(default_factory=dict, repr=False, compare=False)

    def shared(self, votes: Votes) -> Shared:
        """The shared computations of these votes; the same object on every call with the same `Votes`."""
        found = self._shared.get(id(votes))
        if found is None:
            found = self._shared[id(votes)] = Shared(votes, self.seed)
        return found


def normalise(text: str) -> str:
    """The text as it is compared: NFC, ends stripped, every run of white space one space, lower case.

    >>> normalise("  Two\\n Words ")
    'two words'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = " ".join(text.split()) if _SPACES.search(text) else text.strip()
    return text.lower()


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


def plain(prompt: str, turns: list[dict[str, Any]] | None = None) -> str:
    """A prompt without the clothes of a chat: the contents of its turns, a line each; other text as it is.

    >>> plain('[{"role": "user", "content": "hi"}]'), plain("hi")
    ('hi', 'hi')
    """
    turns = chat_turns(prompt) if turns is None else turns
    return prompt if turns is None else "\n".join(content(turn) for turn in turns)


def pseudonyms(annotators: Sequence[str]) -> tuple[str, ...]:
    """A name for each annotator that tells nothing about the person: A001, A002, ... in the order of the SHA-256 of their ids.

    >>> pseudonyms(["bob", "ann"])
    ('A002', 'A001')
    """
    order = sorted(range(len(annotators)), key=lambda i: (hashlib.sha256(annotators[i].encode()).digest(), i))
    width = max(3, len(str(len(annotators))))
    names = [""] * len(annotators)
    for place, i in enumerate(order, start=1):
        names[i] = f"A{place:0{width}d}"
    return tuple(names)


def _factorise(texts: Sequence[str]) -> np.ndarray:
    """int64 [len(texts)]: equal texts share a number, in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(t, len(numbers)) for t in texts), dtype=np.int64, count=len(texts))


class Shared:
    """Texts, keys and lengths that several checks need, each computed when first asked for.

    Lists and arrays "of prompts" or "of responses" run along `votes.prompts` and `votes.responses`; texts that no comparison uses
    are "" there, so that a view of a part of the data costs no more than that part.
    """

    def __init__(self, votes: Votes, seed: int) -> None:
        self.votes = votes
        self.seed = seed
        self.first = votes.first.astype(np.int64)
        self.second = votes.second.astype(np.int64)
        self.prompt = votes.prompt.astype(np.int64)

    # ---- texts --------------------------------------------------------------------------------------------------------------

    @cached_property
    def prompts(self) -> list[str]:
        """The prompts as they came; "" where no comparison uses one."""
        return _used(self.votes.prompt_texts(), self.prompt)

    @cached_property
    def responses(self) -> list[str]:
        """The responses as they came; "" where no comparison uses one."""
        return _used(self.votes.response_texts(), np.concatenate([self.first, self.second]))

    @cached_property
    def chats(self) -> list[list[dict[str, Any]] | None]:
        """The turns of each prompt that is a chat, None where it is plain text."""
        return [chat_turns(t) for t in self.prompts]

    @cached_property
    def prompts_plain(self) -> list[str]:
        """The prompts without the clothes of a chat: contents of the turns, a line each."""
        return [plain(t, c) for t, c in zip(self.prompts, self.chats, strict=True)]

    @cached_property
    def prompts_normal(self) -> list[str]:
        """The plain prompts, normalised."""
        return _normalised(self.prompts_plain, self.prompts_look)

    @cached_property
    def responses_normal(self) -> list[str]:
        """The responses, normalised."""
        return _normalised(self.responses, self.responses_look)

    @cached_property
    def prompt_id(self) -> np.ndarray:
        """int64 of prompts: equal after normalising (of the whole chat, roles included) means equal number."""
        return _factorise([n if c is None else normalise(t) for t, n, c in zip(self.prompts, self.prompts_normal, self.chats, strict=True)])

    @cached_property
    def response_id(self) -> np.ndarray:
        """int64 of responses: equal after normalising means equal number."""
        return _factorise(self.responses_normal)

    @cached_property
    def responses_look(self) -> Looks:
        """What the responses can hold."""
        return look(self.responses)

    @cached_property
    def prompts_look(self) -> Looks:
        """What the plain prompts can hold."""
        return look(self.prompts_plain)

    @cached_property
    def responses_words(self) -> Words:
        """Words of the normalised responses."""
        return read_words(self.responses_normal, STOPWORDS, LANGUAGE_CHARACTERS)

    @cached_property
    def prompts_words(self) -> Words:
        """Words of the normalised prompts."""
        return read_words(self.prompts_normal, STOPWORDS, LANGUAGE_CHARACTERS)

    # ---- lengths ------------------------------------------------------------------------------------------------------------

    @cached_property
    def chars(self) -> np.ndarray:
        """int64 of responses: characters, white space at the ends not counted."""
        return np.fromiter((len(t.strip()) for t in self.responses), dtype=np.int64, count=len(self.responses))

    @cached_property
    def words(self) -> np.ndarray:
        """int64 of responses: words between white space."""
        return np.fromiter((t.count(" ") + 1 if t else 0 for t in self.responses_normal), dtype=np.int64, count=len(self.responses))

    # ---- keys of rows -------------------------------------------------------------------------------------------------------

    @cached_property
    def key(self) -> np.ndarray:
        """int64 [n]: dense number of the unordered pair (normalised prompt, {normalised responses})."""
        return self.pair_key(self.prompt_id, self.response_id)

    def pair_key(self, prompt_label: np.ndarray, response_label: np.ndarray) -> np.ndarray:
        """int64 [n]: dense number of the unordered pair under any labelling of prompts and responses."""
        a, b = response_label[self.first], response_label[self.second]
        size = np.int64(response_label.max(initial=0) + 1)
        sides = np.unique(np.minimum(a, b) * size + np.maximum(a, b), return_inverse=True)[1].reshape(-1).astype(np.int64)
        p = prompt_label[self.prompt].astype(np.int64)
        return np.unique(p * np.int64(sides.max(initial=0) + 1) + sides, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @cached_property
    def key_sign(self) -> np.ndarray:
        """int8 [n]: the vote in the orientation of `key` (+1: the side with the smaller number was preferred, 0: no preference)."""
        turned = self.response_id[self.first] > self.response_id[self.second]
        return np.where(turned, -self.votes.sign, self.votes.sign).astype(np.int8)

    @cached_property
    def decided(self) -> np.ndarray:
        """bool [n]: a side was preferred and the sides differ after normalising."""
        return (self.votes.sign != 0) & (self.response_id[self.first] != self.response_id[self.second])

    @cached_property
    def cluster(self) -> np.ndarray:
        """int64 [n]: what intervals treat as independent: groups where there are 10 or more, else prompts, else pairs."""
        for candidate in (self.votes.group.astype(np.int64), self.prompt):
            if len(np.unique(candidate)) >= 10:
                return candidate
        return self.key

    @cached_property
    def voter(self) -> np.ndarray:
        """int64 [n]: the annotator; a vote of an unnamed annotator counts as one of its own person."""
        named = self.votes.annotator.astype(np.int64)
        return np.where(named >= 0, named, len(self.votes.annotators) + np.arange(len(named)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Pseudonyms of `votes.annotators`."""
        return pseudonyms(self.votes.annotators)

    # ---- near-duplicates ----------------------------------------------------------------------------------------------------

    @cached_property
    def prompt_sketch(self):
        """MinHash sketch of the normalised prompts (3-word shingles: prompts are short)."""
        from cupel.audit.checks._minhash import Sketch

        return Sketch(self.prompts_normal, words=3, seed=self.seed)

    @cached_property
    def response_sketch(self):
        """MinHash sketch of the normalised responses (5-word shingles)."""
        from cupel.audit.checks._minhash import Sketch

        return Sketch(self.responses_normal, words=5, seed=self.seed)

    @cached_property
    def prompt_cluster(self) -> np.ndarray:
        """int64 of prompts: equal or nearly equal prompts share a number."""
        return self.prompt_sketch.clusters(self.prompt_id)

    @cached_property
    def response_cluster(self) -> np.ndarray:
        """int64 of responses: equal or nearly equal responses share a number."""
        return self.response_sketch.clusters(self.response_id)

    # ---- rows from flags of texts -------------------------------------------------------------------------------------------

    def either(self, flag: np.ndarray) -> np.ndarray:
        """bool [n]: the flag of a response holds on at least one side."""
        return flag[self.first] | flag[self.second]

    def one_sided(self, flag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(bool [n]: the flag holds on exactly one side; int8 [n]: +1 that side was preferred, -1 the other, 0 neither)."""
        a, b = flag[self.first], flag[self.second]
        one = a != b
        return one, np.where(one, np.where(a, self.votes.sign, -self.votes.sign), 0).astype(np.int8)


def _normalised(texts: list[str], looks: Looks) -> list[str]:
    """`normalise` of each text; most need no more than lower case."""
    whole = (looks.collapses | looks.loose).tolist()
    return [normalise(t) if w or not t.isascii() else t.lower() for t, w in zip(texts, whole, strict=True)]


def _used(texts: list[str], index: np.ndarray) -> list[str]:
    used = np.zeros(len(texts), dtype=bool)
    used[index] = True
    return texts if used.all() else [t if u else "" for t, u in zip(texts, used.tolist(), strict=True)]


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
