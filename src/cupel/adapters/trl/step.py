"""One optimiser step over TRL's micro-batches: its number of comparisons, its treatment as a whole, the update of the state at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from cupel.noise.fixed import identity
from cupel.noise.loss import preference_terms
from cupel.noise.step import merge_terms, treat_step
from cupel.noise.types import State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective, Side

#: gathers a list from all processes, in the order of their ranks
Gather = Callable[[list[Any]], list[Any]]


@dataclass
class Step:
    """What the micro-batches of a step share.

    parts    micro-batches of this process; count: comparisons of the step, over all processes
    targets  treated target of each micro-batch, where the treatment had to see the whole step; else None
    context  statistics of the step, where the objective asks for some and they had to be computed beforehand; else None
    prepared micro-batches with their references, those that were needed beforehand and are still to be trained on
    seen     terms of the micro-batches so far
    """

    parts: int
    count: int
    targets: list[Target] | None = None
    context: Context | None = None
    prepared: list[tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=list)
    seen: list[Terms] = field(default_factory=list)


def loss_of(
    step: Step, objective: Objective, treatment: Treatment, first: Side, second: Side, target: Target, terms: Terms, state: State,
    context: Context,
) -> tuple[Tensor, Target]:  # fmt: skip
    """(w (p keep + (1 - p) flip) of each comparison of the next micro-batch, [B], the target used); its terms are kept in the step."""
    if step.targets is None:
        loss, used, seen = preference_terms(objective, treatment, first, second, target, terms, state, context)
    else:
        ours = step.targets[len(step.seen)]
        given = Target(*(x.to(device=y.device, dtype=y.dtype) for x, y in zip(ours, target, strict=True)))
        loss, used, seen = preference_terms(objective, identity(), first, second, given, terms, {}, context)
    step.seen.append(_detached(seen._replace(given=target)))
    return loss, used


def treated(treatment: Treatment, parts: Sequence[Terms], state: State, gather: Gather, rank: int) -> list[Target]:
    """The target of each micro-batch of this process, from the terms of the whole step.

    Rows are found again by their place, not by their record: a sampler that fills up its last batch has a record twice.
    """
    everyone = gather([(rank, _detached(part)) for part in parts])
    whole = [part for _, part in everyone]
    order = torch.argsort(torch.cat([part.record for part in whole]), stable=True)  # as merge_terms
    merged = treat_step(treatment, merge_terms(whole), state)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    targets = [x[back].split([len(part.record) for part in whole]) for x in merged]
    return [Target(p, w) for (owner, _), p, w in zip(everyone, *targets, strict=True) if owner == rank]


def updated(treatment: Treatment, step: Step, state: State, gather: Gather) -> State:
    """The state after the step."""
    with torch.no_grad():
        return treatment.update(merge_terms(gather(step.seen)), state)


def context_of(objective: Objective, sides: Sequence[tuple[Side, Side]], previous: Context, gather: Gather) -> Context:
    """The statistics that the objective asks for, over the sides of all micro-batches and processes, on the CPU."""
    assert objective.context is not None
    whole = gather([(first.map(_cpu), second.map(_cpu)) for first, second in sides])
    return objective.context(joined([first for first, _ in whole]), joined([second for _, second in whole]), previous)


def joined(sides: Sequence[Side]) -> Side:
    """The responses of all sides in one; token axes are filled up on the right, outside the mask.

    >>> a, b = Side(token_logp=torch.zeros(1, 2), mask=torch.ones(1, 2, dtype=torch.bool)), Side(token_logp=torch.zeros(1, 3))
    >>> joined([a, a]).mask.shape
    torch.Size([2, 2])
    """
    columns = {}
    for name in (f.name for f in fields(Side)):
        values = [getattr(side, name) for side in sides]
        if any(value is None for value in values):
            continue
        width = max((value.shape[1] for value in values if value.dim() == 2), default=0)
        filled = [torch.nn.functional.pad(v, (0, width - v.shape[1])) if v.dim() == 2 else v for v in values]
        columns[name] = torch.cat(filled)
    return Side(**columns)


def learned_rate(state: State) -> float | None:
    """The flip rate that a treatment has learned, 1 - reliability averaged over the labels seen; None where it learns none.

    >>> learned_rate({"reliability": torch.tensor([0.75]), "labels": torch.tensor([0.0])})
    0.25
    """
    wrong, labels, rates = 0.0, 0.0, []
    for name, value in sorted(state.items()):
        if name.rpartition("/")[2].partition("@")[0] != "reliability":
            continue
        seen = state.get(name.replace("reliability", "labels"))
        rates += (1 - value).tolist()
        if seen is not None:
            wrong, labels = wrong + float((1 - value) @ seen), labels + float(seen.sum())
    if not rates:
        return None
    return wrong / labels if labels else sum(rates) / len(rates)


def _cpu(x: Tensor) -> Tensor:
    return x.detach().cpu()


def _detached(terms: Terms) -> Terms:
    """The terms on the CPU, without gradient."""
    given = None if terms.given is None else Target(*(_cpu(x) for x in terms.given))
    tensors = {name: _cpu(value) for name, value in terms._asdict().items() if isinstance(value, Tensor)}
    return terms._replace(given=given, **tensors)
