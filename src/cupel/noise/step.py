# pyright: strict
"""One optimiser step out of its parts: the terms of micro-batches and ranks put together, and the whole step treated at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cupel.noise.types import State, Target, Terms, Treatment


def merge_terms(parts: Sequence[Terms]) -> Terms:
    """The terms of a step from those of its micro-batches and ranks: on the CPU, in float64, in the order of the records.

    Every rank that holds the same parts gets the same bytes, whatever order they came in, as long as no record occurs twice in a step;
    states that are updated from them stay equal. `given` is there where all parts have one, so are the losses of a peer.
    ValueError where there is no part, or where parts come from different steps.

    >>> a = Terms(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([7]), torch.tensor([0]), torch.tensor([-1]))
    >>> b = Terms(torch.tensor([0.2]), torch.tensor([0.1]), torch.tensor([3]), torch.tensor([1]), torch.tensor([-1]))
    >>> merged = merge_terms([a, b])
    >>> merged.record.tolist(), [round(x, 1) for x in merged.keep.tolist()], merged.keep.dtype
    ([3, 7], [0.2, 0.5], torch.float64)
    """
    if not parts:
        raise ValueError("a step has at least one part")
    places = sorted({(part.step, part.epoch, part.total) for part in parts})
    if len(places) > 1:
        raise ValueError(f"the parts come from {len(places)} different places (step, epoch, total): {places}; merge one step at a time")
    order = torch.argsort(_joined([part.record for part in parts]), stable=True)

    def numbers(tensors: Sequence[Tensor | None]) -> Tensor | None:
        known = [x for x in tensors if x is not None]
        return _joined(known).double()[order] if len(known) == len(parts) else None

    def indices(tensors: Sequence[Tensor]) -> Tensor:
        return _joined(tensors).long()[order]

    given = [part.given for part in parts if part.given is not None]
    target = None
    if len(given) == len(parts):
        target = Target(_joined([x.p for x in given]).double()[order], _joined([x.w for x in given]).double()[order])
    keep, flip = numbers([part.keep for part in parts]), numbers([part.flip for part in parts])
    assert keep is not None
    assert flip is not None
    return Terms(
        keep=keep, flip=flip, record=indices([part.record for part in parts]), annotator=indices([part.annotator for part in parts]),
        group=indices([part.group for part in parts]), step=parts[0].step, epoch=parts[0].epoch, total=parts[0].total, given=target,
        peer_keep=numbers([part.peer_keep for part in parts]), peer_flip=numbers([part.peer_flip for part in parts]),
    )  # fmt: skip


def treat_step(treatment: Treatment, terms: Terms, state: State) -> Target:
    """The treated target of all comparisons of a step, [N], in the order of `terms`; `terms.given` is the target before.

    Needed where a treatment looks at the whole step and the step is cut into parts: a part then takes its rows (`rows_of`) and is
    trained with `identity()`. `check(objective, treatment)` is the caller's, once.

    >>> from cupel.noise.selection import small_loss
    >>> keep, none = torch.tensor([0.5, 3.0, 0.2, 0.9]), torch.full((4,), -1)
    >>> terms = Terms(keep, -keep, torch.arange(4), none, none)
    >>> treat_step(small_loss(0.25, ramp=0), terms, {}).w.tolist()
    [1.3333333730697632, 0.0, 1.3333333730697632, 1.3333333730697632]
    """
    given = given_of(terms)
    with torch.no_grad():
        return treatment.target(given, terms, state)


def given_of(terms: Terms) -> Target:
    """The target before any treatment; every label is (1, 1) where nothing is said."""
    if terms.given is not None:
        return terms.given
    return Target(torch.ones_like(terms.keep), torch.ones_like(terms.keep))


def rows_of(target: Target, whole: Tensor, part: Tensor) -> Target:
    """The rows of a step's target that belong to a part of it, by record: `whole` int [N] and `part` int [B] are records.

    ValueError where a record of the part is not in the step, or is there twice.

    >>> step = Target(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.0, 2.0, 3.0]))
    >>> rows_of(step, torch.tensor([9, 2, 5]), torch.tensor([5, 9])).w.tolist()
    [3.0, 1.0]
    """
    home, order = torch.sort(whole.cpu().long(), stable=True)
    wanted = part.cpu().long()
    place = torch.searchsorted(home, wanted)
    found = home[place.clamp(max=max(len(home) - 1, 0))] == wanted if len(home) else torch.zeros_like(wanted, dtype=torch.bool)
    if not bool(found.all()):
        raise ValueError(f"{int((~found).sum()):,} of {len(wanted):,} records are not in the step (first: {int(wanted[~found][0])})")
    twice = home[1:][home[1:] == home[:-1]]
    if len(twice):
        raise ValueError(f"{len(twice):,} records occur twice in the step (first: {int(twice[0])}); their rows cannot be told apart")
    rows = order[place]
    return Target(target.p[rows.to(target.p.device)], target.w[rows.to(target.w.device)])


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.detach().cpu() for x in tensors])
