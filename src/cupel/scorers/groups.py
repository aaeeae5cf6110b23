"""A batch for a policy: prompts, the unique responses to them, and comparisons as pairs of indices into the responses.

A response is scored once, however many comparisons and votes name it. Lengths are Python integers: layouts are planned from them without
a synchronisation with the device that holds the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cupel.errors import RecordError


class Further(NamedTuple):
    """What a model reads beside token ids, for G prompts: nothing here knows what it means.

    extra      by name, for each prompt a tensor or None; those of a row's prompts are joined along the first axis, whatever it counts
               (images, patches, prompts), and their other axes filled up with zeros
    per_token  by name, int64 [sum of prompt_lengths]: a value per token, 0 for all tokens of responses
    content    for each prompt a name of what it holds beside its tokens ("": nothing); stored reference scores are found by it
    """

    extra: Mapping[str, tuple[Tensor | None, ...]] = {}
    per_token: Mapping[str, Tensor] = {}
    content: tuple[str, ...] = ()


#: (tokens of prompts, their contents) -> what the model reads beside them
Inputs = Callable[[Sequence[Sequence[int] | np.ndarray], Sequence[str]], Further]


@dataclass(frozen=True)
class Groups:
    """Tokens of G prompts and N responses, and C comparisons among the responses. Made by `Groups.of` or `Groups.from_pairs`.

    prompt_ids       int64 [sum of prompt_lengths]    tokens of the prompts, one after the other, without padding
    response_ids     int64 [sum of response_lengths]  tokens of the responses (closing token included), likewise
    prompt_lengths   G integers, at least 1: a first token predicts the next one
    response_lengths N integers, at least 1
    prompt_index     N integers in [0, G): the prompt of each response
    first, second    int64 [C]: the two responses of each comparison
    further          what the model reads beside token ids (pixel values of a vision model)
    person           int64 [C]: who compared, where a model asks for it; -1 unknown
    counted          bool [sum of response_lengths]: tokens that the response is scored by; the others (a user's turn, a tool's answer
                     within a response of several turns) are read by the model and not scored. None: all

    Raises RecordError where a prompt or a response is empty or has no token that counts, or an index points nowhere.
    """

    prompt_ids: Tensor
    response_ids: Tensor
    prompt_lengths: tuple[int, ...]
    response_lengths: tuple[int, ...]
    prompt_index: tuple[int, ...]
    first: Tensor
    second: Tensor
    further: Further = field(default_factory=Further)
    counted: Tensor | None = None
    person: Tensor | None = None

    def __post_init__(self) -> None:
        for what, lengths, ids in (
            ("prompt", self.prompt_lengths, self.prompt_ids), ("response", self.response_lengths, self.response_ids),
        ):  # fmt: skip
            empty = [i for i, n in enumerate(lengths) if n < 1]
            if empty:
                raise RecordError(
                    f"{len(empty)} of {len(lengths)} {what}s of a batch have no tokens (first: {what} {empty[0]}). A {what} needs one at "
                    f"least: keep the beginning-of-text token of prompts and the end-of-text token of responses, or drop these records"
                )
            if sum(lengths) != len(ids):
                raise RecordError(f"the lengths of the {what}s add up to {sum(lengths):,}, but there are {len(ids):,} tokens")
        if len(self.prompt_index) != len(self.response_lengths):
            raise RecordError(f"{len(self.response_lengths)} responses, but a prompt is named for {len(self.prompt_index)}")
        wrong = [n for n, g in enumerate(self.prompt_index) if not 0 <= g < len(self.prompt_lengths)]
        if wrong:
            raise RecordError(f"{len(wrong)} responses name a prompt that is not there (first: response {wrong[0]})")
        entries = [*(len(values) for values in self.further.extra.values()), *([len(self.further.content)] if self.further.content else [])]
        if any(n != len(self.prompt_lengths) for n in entries):
            raise RecordError(f"further inputs speak of {max(entries)} prompts, but there are {len(self.prompt_lengths)}")
        if self.counted is not None and len(self.counted) != len(self.response_ids):
            raise RecordError(f"`counted` speaks of {len(self.counted):,} tokens of responses, but there are {len(self.response_ids):,}")
        none = [n for n, count in enumerate(self.n_counted) if not count]
        if none:
            raise RecordError(f"{len(none)} of {self.n_responses} responses have no token that counts (first: response {none[0]})")

    @property
    def n_prompts(self) -> int:
        """Number of prompts G."""
        return len(self.prompt_lengths)

    @property
    def n_responses(self) -> int:
        """Number of responses N."""
        return len(self.response_lengths)

    @cached_property
    def n_counted(self) -> tuple[int, ...]:
        """Number of tokens that each response is scored by."""
        if self.counted is None:
            return self.response_lengths
        ends = np.concatenate([[0], np.cumsum(self.response_lengths)])
        total = np.concatenate([[0], np.cumsum(self.counted.cpu().numpy())])
        return tuple(int(n) for n in total[ends[1:]] - total[ends[:-1]])

    @property
    def members(self) -> list[list[int]]:
        """For each prompt, the indices of its responses in ascending order."""
        found: list[list[int]] = [[] for _ in self.prompt_lengths]
        for n, g in enumerate(self.prompt_index):
            found[g].append(n)
        return found

    @property
    def has_further(self) -> bool:
        """Whether the model reads more than token ids."""
        return bool(self.further.per_token) or any(value is not None for values in self.further.extra.values() for value in values)

    @property
    def filler(self) -> int:
        """The token that stands where a row is filled up: with further inputs one of a response, which stands for no part of an image."""
        return len(self.prompt_ids) + len(self.response_ids) - 1 if self.has_further else 0

    def joined(self, prompts: Sequence[int]) -> dict[str, Tensor]:
        """Further inputs of a row, or of several, that hold these prompts in this order (a prompt may stand there several times).

        >>> images = Further({"pixels": (torch.ones(2, 3), None, torch.ones(1, 2))})
        >>> Groups.of([[5], [6], [7]], [(g, [8]) for g in range(3)], further=images).joined([2, 0, 2])["pixels"].tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
        """
        found = {}
        for name, values in self.further.extra.items():
            there = [value for g in prompts if (value := values[g]) is not None]
            if there:
                found[name] = _joined(there)
        return found

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Groups:
        """The same batch on another device."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=non_blocking)

        return replace(
            self, prompt_ids=move(self.prompt_ids), response_ids=move(self.response_ids), first=move(self.first), second=move(self.second),
            further=Further(
                {name: tuple(None if x is None else move(x) for x in values) for name, values in self.further.extra.items()},
                {name: move(value) for name, value in self.further.per_token.items()}, self.further.content,
            ), counted=None if self.counted is None else move(self.counted),
            person=None if self.person is None else move(self.person),
        )  # fmt: skip

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], responses: Sequence[tuple[int, Sequence[int]]],
        comparisons: Sequence[tuple[int, int]] = (), further: Further | None = None,
        counted: Sequence[Sequence[bool] | None] | None = None,
    ) -> Groups:  # fmt: skip
        """A batch from token lists: prompts, responses as (prompt, tokens), comparisons as (first, second) indices of responses.

        counted: for each response, which of its tokens it is scored by (None: all of them).

        >>> groups = Groups.of([[1, 5, 6]], [(0, [7, 2]), (0, [8, 9, 2])], [(0, 1)])
        >>> groups.n_responses, groups.response_ids.tolist()
        (2, [7, 2, 8, 9, 2])
        """
        pairs = torch.tensor([list(pair) for pair in comparisons], dtype=torch.int64).reshape(-1, 2)
        if len(pairs) and not (int(pairs.min()) >= 0 and int(pairs.max()) < len(responses)):
            raise RecordError(f"a comparison names response {int(pairs.max())}, but there are {len(responses)}")
        return cls(
            prompt_ids=_flat(prompts),
            response_ids=_flat([ids for _, ids in responses]),
            prompt_lengths=tuple(len(ids) for ids in prompts),
            response_lengths=tuple(len(ids) for _, ids in responses),
            prompt_index=tuple(int(g) for g, _ in responses),
            first=pairs[:, 0].contiguous(),
            second=pairs[:, 1].contiguous(),
            further=further or Further(),
            counted=None if counted is None or all(c is None for c in counted) else _marks(responses, counted),
        )

    @classmethod
    def from_pairs(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> Groups:
        """A batch from (prompt, first, second) token lists: equal prompts, and equal responses to one prompt, are kept once.

        >>> groups = Groups.from_pairs([([1], [2], [3]), ([1], [3], [4]), ([1], [2], [3])])
        >>> groups.n_prompts, groups.n_responses, groups.first.tolist(), groups.second.tolist()
        (1, 3, [0, 1, 0], [1, 2, 1])
        """
        prompts: dict[tuple[int, ...], int] = {}
        responses: dict[tuple[int, tuple[int, ...]], int] = {}
        comparisons = []
        for prompt, first, second in pairs:
            g = prompts.setdefault(tuple(prompt), len(prompts))
            comparisons.append(tuple(responses.setdefault((g, tuple(ids)), len(responses)) for ids in (first, second)))
        return cls.of(list(prompts), list(responses), comparisons)


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Along the first axis; other axes filled up with zeros to the longest."""
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    if all(list(value.shape[1:]) == shape for value in values):
        return torch.cat(list(values))
    out = values[0].new_zeros(sum(len(value) for value in values), *shape)
    start = 0
    for value in values:
        out[(slice(start, start + len(value)), *(slice(n) for n in value.shape[1:]))] = value
        start += len(value)
    return out


def _marks(responses: Sequence[tuple[int, Sequence[int]]], counted: Sequence[Sequence[bool] | None]) -> Tensor:
    marks = [[True] * len(ids) if mark is None else list(mark) for (_, ids), mark in zip(responses, counted, strict=True)]
    return torch.tensor([bool(value) for mark in marks for value in mark], dtype=torch.bool)


def _flat(lists: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([int(token) for ids in lists for token in ids], dtype=torch.int64)
