"""Rows of the data as a batch: groups of tokens, the target before treatment, and who said it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cupel.learners.policy.lists import ListIndex
from cupel.learners.policy.names import Names
from cupel.learners.policy.tokens import Rows, Tokens
from cupel.noise.types import DataSpec, Target, Terms
from cupel.scorers.groups import Further, Groups, Inputs


class Place(NamedTuple):
    """Where a run is: optimiser steps and epochs begun before this one, and planned steps."""

    step: int
    epoch: int
    total: int


class Batch(NamedTuple):
    """A micro-batch. `groups.first` and `groups.second` are the sides of its pairs; `alone` int64 [U] are responses judged alone.

    Records come in the order: pairs, then single responses. record, annotator, group int64 [B]; target float64 [B].
    mismatch: each prompt with a response to another one; mismatch_index int64 [B] which of them belongs to a record.
    rating: float64 [B, 2] of the first and the second side, NaN where there is none.
    lists: the responses of records that are lists; there are no pairs and none alone then.
    """

    groups: Groups
    alone: Tensor
    record: Tensor
    annotator: Tensor
    group: Tensor
    target: Target
    mismatch: Groups | None
    mismatch_index: Tensor
    rating: Tensor
    lists: ListIndex | None = None

    def terms(self, keep: Tensor, flip: Tensor, place: Place) -> Terms:
        """Terms of these comparisons."""
        return Terms(keep, flip, self.record, self.annotator, self.group, *place)


@dataclass(frozen=True)
class Data:
    """Comparisons of all data sets of a run, as one table over their tokens.

    tokens    of each data set; source int32 [n] which one a comparison is from
    person    int32 [n] who compared, as the people of a model are numbered; None where no model asks
    inputs    makes what prompts hold beside tokens (images), batch by batch; None where they hold nothing
    partner   of each data set, for each prompt a response to another prompt (-1: none), where an objective asks for such pairs; else ()
    prompt    int64 [n] prompt, numbered through all data sets; cost, prompt_cost: tokens of a comparison's responses, and of each prompt
    """

    tokens: tuple[Tokens, ...]
    rows: tuple[Rows, ...]
    source: np.ndarray
    local: np.ndarray
    prompt: np.ndarray
    cost: np.ndarray
    prompt_cost: np.ndarray
    annotator: np.ndarray
    group: np.ndarray
    spec: DataSpec
    partner: tuple[np.ndarray, ...]
    inputs: Inputs | None = None
    person: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, parts: list[tuple[Tokens, Rows]], *, mismatch: bool = False, inputs: Inputs | None = None) -> Data:
        """All data sets, one after the other; the same annotator name is the same person everywhere.

        mismatch: batches also pair each prompt with a response to the next one.
        """
        names = tuple(dict.fromkeys(name for _, rows in parts for name in rows.annotators))
        place = {name: n for n, name in enumerate(names)}
        groups = Names.joined([rows.groups for _, rows in parts])
        source, local, prompt, cost, prompt_cost, annotator, group = [], [], [], [], [], [], []
        first_prompt = first_group = 0
        for n, (tokens, rows) in enumerate(parts):
            length = tokens.response_lengths
            source.append(np.full(len(rows), n, np.int32))
            local.append(np.arange(len(rows), dtype=np.int32))
            prompt.append((tokens.response_prompt[rows.first] + first_prompt).astype(np.int32))
            cost.append(rows.cost(length).astype(np.int32))
            prompt_cost.append(tokens.prompt_lengths.astype(np.int32))
            where = np.array([*(place[name] for name in rows.annotators), -1], np.int32)
            annotator.append(where[rows.annotator])
            group.append(np.where(rows.group < 0, np.int32(-1), rows.group + np.int32(first_group)))
            first_prompt += len(tokens.prompt_ends)
            first_group += len(rows.groups)
        spec = DataSpec(Names.joined([rows.ids for _, rows in parts]), names, groups)
        return cls(
            tokens=tuple(t for t, _ in parts), rows=tuple(r for _, r in parts), source=np.concatenate(source), local=np.concatenate(local),
            prompt=np.concatenate(prompt), cost=np.concatenate(cost), prompt_cost=np.concatenate(prompt_cost),
            annotator=np.concatenate(annotator), group=np.concatenate(group), spec=spec,
            partner=tuple(_partners(tokens) for tokens, _ in parts) if mismatch else (), inputs=inputs,
        )  # fmt: skip

    def as_people(self, people: Sequence[str]) -> Data:
        """The same comparisons, with their annotators numbered as in `people`; -1 for those who are not there."""
        place = {name: n for n, name in enumerate(people)}
        met = np.array([*(place.get(name, -1) for name in self.spec.annotators), -1], np.int32)
        return replace(self, person=met[self.annotator])

    def batch(self, at: np.ndarray, counts: bool = True) -> Batch:
        """The comparisons `at`, int [B], as a batch on the CPU; with `counts` false their weights are 0."""
        at = at[np.argsort(self._single(at), kind="stable")]
        prompts: dict[int, int] = {}
        responses: dict[tuple[int, int], int] = {}
        pairs, alone, texts, marks, held = [], [], [], [], []
        lists: list[tuple[list[int], np.ndarray, np.ndarray]] = []
        p, w, home, rating = np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at), np.int64), np.full((len(at), 2), np.nan)
        strangers: list[np.ndarray] = []
        for n, row in enumerate(at.tolist()):
            source, local = int(self.source[row]), int(self.local[row])
            rows, tokens = self.rows[source], self.tokens[source]
            g = prompts.setdefault(int(self.prompt[row]), len(prompts))
            if g == len(texts):
                own = int(tokens.response_prompt[rows.first[local]])
                texts.append(tokens.prompt(own))
                held.append(tokens.held(own) if self.inputs else "")
                if self.partner and (other := int(self.partner[source][own])) >= 0:
                    strangers.append(tokens.response(other)[: max(int(tokens.meta["max_length"]) - len(texts[-1]), 1)])
            of = rows.lists
            members = slice(0) if of is None else of.of(local)
            sides = [int(rows.first[local]), int(rows.second[local])] if of is None else of.response[members].tolist()
            found = []
            for side in sides:
                if side >= 0:
                    if (source, side) not in responses:
                        responses[source, side] = len(marks)
                        marks.append((g, tokens.response(side), tokens.marks(side)))
                    found.append(responses[source, side])
            if of is None:
                (pairs if len(found) == 2 else alone).append(found)
            else:
                lists.append((found, of.relevance[members], of.proposal[members]))
            home[n], p[n], w[n] = g, rows.p[local], rows.w[local] if counts else 0.0
            if rows.rating is not None:
                rating[n] = rows.rating[local]
        further = self.inputs(texts, held) if self.inputs else Further()
        groups = Groups(
            prompt_ids=_flat(texts), response_ids=_flat([ids for _, ids, _ in marks]), prompt_lengths=tuple(len(ids) for ids in texts),
            response_lengths=tuple(len(ids) for _, ids, _ in marks), prompt_index=tuple(g for g, _, _ in marks),
            first=torch.tensor([a for a, _ in pairs], dtype=torch.int64), second=torch.tensor([b for _, b in pairs], dtype=torch.int64),
            counted=_counted([(ids, mark) for _, ids, mark in marks]), further=further,
            person=None if self.person is None else torch.from_numpy(self.person[at[: len(pairs)]].astype(np.int64)),
        )  # fmt: skip
        return Batch(
            groups, torch.tensor([a for (a,) in alone], dtype=torch.int64), torch.from_numpy(at.astype(np.int64)),
            torch.from_numpy(self.annotator[at].astype(np.int64)), torch.from_numpy(self.group[at].astype(np.int64)),
            Target(torch.from_numpy(p), torch.from_numpy(w)), _mismatch(texts, strangers, further), torch.from_numpy(home),
            torch.from_numpy(rating), _list_index(lists) if lists else None,
        )  # fmt: skip

    def _single(self, at: np.ndarray) -> np.ndarray:
        out = np.zeros(len(at), bool)
        for n, rows in enumerate(self.rows):
            mine = self.source[at] == n
            out[mine] = rows.second[self.local[at[mine]]] < 0
        return out


def _partners(tokens: Tokens) -> np.ndarray:
    """int64 [prompts]: the first response that stays of the next prompt that has one, around the end; -1 in a data set of one prompt."""
    there = np.flatnonzero(tokens.response_lengths > 0)
    owner, first = np.unique(tokens.response_prompt[there], return_index=True)
    if len(owner) < 2:
        return np.full(len(tokens.prompt_ends), -1)
    following = np.searchsorted(owner, np.arange(len(tokens.prompt_ends)), side="right") % len(owner)
    return there[first][following]


def _mismatch(prompts: list[np.ndarray], strangers: list[np.ndarray], further: Further) -> Groups | None:
    if not strangers or len(strangers) != len(prompts):
        return None
    none = torch.zeros(0, dtype=torch.int64)
    lengths = tuple(len(ids) for ids in strangers)
    own = tuple(len(ids) for ids in prompts)
    return Groups(_flat(prompts), _flat(strangers), own, lengths, tuple(range(len(prompts))), none, none, further)


def _list_index(lists: list[tuple[list[int], np.ndarray, np.ndarray]]) -> ListIndex:
    """Lists of responses, each with relevance and proposal, filled up to the longest."""
    most = max(len(index) for index, _, _ in lists)
    index, mask = np.zeros((len(lists), most), np.int64), np.zeros((len(lists), most), bool)
    relevance, proposal = np.zeros((len(lists), most)), np.zeros((len(lists), most))
    for n, (own, graded, drawn) in enumerate(lists):
        size = len(own)
        index[n, :size], mask[n, :size], relevance[n, :size], proposal[n, :size] = own, True, graded, drawn
    return ListIndex(*(torch.from_numpy(x) for x in (index, mask, relevance, proposal)))


def _flat(lists: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(lists).astype(np.int64))


def _counted(found: list[tuple[np.ndarray, np.ndarray | None]]) -> Tensor | None:
    if all(mark is None or mark.all() for _, mark in found):
        return None
    return torch.from_numpy(np.concatenate([np.ones(len(ids), bool) if mark is None else mark for ids, mark in found]))
