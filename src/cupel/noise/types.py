"""Targets and treatments: what a label is taken to say, and maps on it that never see a model.

The loss of a comparison is w (p keep + (1 - p) flip), where keep is the objective's loss if the recorded label is right and flip the loss
if it is wrong. A treatment maps the target (p, w).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: a treatment's memory: named tensors on the CPU in float64 or int64, saved with the checkpoint, equal on all ranks
State = Mapping[str, Tensor]


class Target(NamedTuple):
    """What a label is taken to say: p [B], the probability that the first side is the better one (a treatment may leave [0, 1]), and
    w [B], the weight of the comparison, at least 0."""  # fmt: skip

    p: Float[Tensor, " B"]
    w: Float[Tensor, " B"]


class Terms(NamedTuple):
    """What a treatment may look at, all without gradient.

    keep, flip   [B]  losses of the comparison with its sides as recorded and swapped
    record       [B]  index of the comparison in the data (its identity across epochs)
    annotator    [B]  index into `DataSpec.annotators`, -1 where unknown
    group        [B]  index into `DataSpec.groups`, -1 where unknown
    step         number of optimiser steps taken so far; epoch: of passes begun before this one; total: planned steps, 0 if unknown
    given        the target before any treatment, for updates that need to know what the labels say; None: every label is (p, w) = (1, 1)
    peer_keep, peer_flip  [B]  the same losses under another model: a peer trained beside this one, the model of another fold, or a
                 policy moved away from its reference. None where there is no such model
    """

    keep: Float[Tensor, " B"]
    flip: Float[Tensor, " B"]
    record: Int[Tensor, " B"]
    annotator: Int[Tensor, " B"]
    group: Int[Tensor, " B"]
    step: int = 0
    epoch: int = 0
    total: int = 0
    given: Target | None = None
    peer_keep: Float[Tensor, " B"] | None = None
    peer_flip: Float[Tensor, " B"] | None = None


def bare_terms(
    keep: Float[Tensor, " B"], flip: Float[Tensor, " B"] | None = None, *, step: int = 0, epoch: int = 0, total: int = 0
) -> Terms:
    """Terms of comparisons 0 ... B-1 of unknown annotators and groups; without `flip` nothing may read it (NaN).

    >>> bare_terms(torch.tensor([0.5, 0.1])).record.tolist()
    [0, 1]
    """
    unknown = torch.full((len(keep),), -1, device=keep.device)
    record = torch.arange(len(keep), device=keep.device)
    return Terms(keep, torch.full_like(keep, float("nan")) if flip is None else flip, record, unknown, unknown, step, epoch, total)


class DataSpec(NamedTuple):
    """What a treatment must know before the first step: the ids of records, annotators and groups, in the order of their indices.

    Ids, not counts: a state survives a resumed run and data that changed, because its rows are found again by name.
    """

    records: Sequence[str] = ()
    annotators: Sequence[str] = ()
    groups: Sequence[str] = ()


class Treatment(NamedTuple):
    """A noise treatment. Made by a factory; pure functions and an explicit state.

    init(spec)                 the state before the first step
    target(target, terms, state)  (p, w) -> (p, w); no gradient flows through it
    update(terms, state)       the state after an optimiser step, from the terms of the whole step (all ranks, sorted by record)
    scope     "comparison" if the target of one comparison depends on it alone; "step" if on the others of its optimiser step
    touches   which of "p" and "w" it changes: one that changes p needs an objective whose sides may be swapped
    corrects  whether it corrects p for noise (unbiased, em, propensity): at most one such treatment in a chain
    settings  the factory's arguments by name
    reads_flip  whether it looks at `flip` though it may change w only: it too needs an objective whose sides may be swapped
    reads_peer  whether it looks at the losses of a peer
    renew(terms, state)  `update` for loops that keep no older state: it may write into the tensors it is given, and returns the same
              bytes; None: there is no faster way than `update`
    """

    name: str
    init: Callable[[DataSpec], State]
    target: Callable[[Target, Terms, State], Target]
    update: Callable[[Terms, State], State]
    scope: Literal["comparison", "step"] = "comparison"
    touches: frozenset[Literal["p", "w"]] = frozenset()
    corrects: bool = False
    settings: Mapping[str, float | str | None] = {}
    reads_flip: bool = False
    reads_peer: bool = False
    renew: Callable[[Terms, State], State] | None = None
