"""What a check is given beside the votes, and the text computations that several checks share (made once, when first asked for)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cupel.audit.checks._table import Table
from cupel.records.keys import dense
from cupel.records.schema import Votes


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


class Shared:
    """Tables of texts, keys and lengths that several checks need, each computed when first asked for."""

    def __init__(self, votes: Votes, seed: int) -> None:
        self.votes = votes
        self.seed = seed
        self.first = votes.first.astype(np.int64)
        self.second = votes.second.astype(np.int64)
        self.prompt = votes.prompt.astype(np.int64)
        self.prompts = Table(votes.prompts, (self.prompt,), prompts=True)
        self.responses = Table(votes.responses, (self.first, self.second), prompts=False)

    # ---- facts of texts -----------------------------------------------------------------------------------------------------

    @property
    def prompt_id(self) -> np.ndarray:
        """int64 of prompts: equal after normalising (of the whole chat, roles included) means equal number."""
        return self.prompts.facts.identity

    @property
    def response_id(self) -> np.ndarray:
        """int64 of responses: equal after normalising means equal number."""
        return self.responses.facts.identity

    @property
    def chars(self) -> np.ndarray:
        """int64 of responses: characters, white space at the ends not counted."""
        return self.responses.facts.chars

    @property
    def words(self) -> np.ndarray:
        """int64 of responses: words between white space."""
        return self.responses.facts.words

    @property
    def asked(self) -> np.ndarray:
        """bool of prompts: not empty."""
        return self.prompts.facts.words > 0

    # ---- keys of rows -------------------------------------------------------------------------------------------------------

    @cached_property
    def key(self) -> np.ndarray:
        """int64 [n]: dense number of the unordered pair (normalised prompt, {normalised responses})."""
        return self.pair_key(self.prompt_id, self.response_id)

    def pair_key(self, prompt_label: np.ndarray, response_label: np.ndarray) -> np.ndarray:
        """int64 [n]: dense number of the unordered pair under any labelling of prompts and responses."""
        a, b = response_label[self.first], response_label[self.second]
        return dense(prompt_label[self.prompt], dense(np.minimum(a, b), np.maximum(a, b)))

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
            if int(dense(candidate).max(initial=-1)) >= 9:
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
    def prompt_cluster(self) -> np.ndarray:
        """int64 of prompts: equal or nearly equal prompts share a number (3-word runs: prompts are short)."""
        return self.prompts.near(3, self.seed)

    @cached_property
    def response_cluster(self) -> np.ndarray:
        """int64 of responses: equal or nearly equal responses share a number (5-word runs)."""
        return self.responses.near(5, self.seed)

    def nearly_the_same(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """bool: the responses at positions a and b have a Jaccard similarity of .8 (only those of one cluster can have it)."""
        from cupel.records.near_duplicates import SIMILAR, similarity

        out = self.response_cluster[a] == self.response_cluster[b]
        at = np.flatnonzero(out)
        out[at] = similarity(self.responses.texts, a[at], b[at], words=5, then=self.responses.compared) >= SIMILAR
        return out

    # ---- rows from flags of texts -------------------------------------------------------------------------------------------

    def either(self, flag: np.ndarray) -> np.ndarray:
        """bool [n]: the flag of a response holds on at least one side."""
        return flag[self.first] | flag[self.second]

    def one_sided(self, flag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(bool [n]: the flag holds on exactly one side; int8 [n]: +1 that side was preferred, -1 the other, 0 neither)."""
        a, b = flag[self.first], flag[self.second]
        one = a != b
        return one, np.where(one, np.where(a, self.votes.sign, -self.votes.sign), 0).astype(np.int8)
