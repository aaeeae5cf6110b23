# pyright: strict
"""Equation (1): the one place where an objective and a treatment meet."""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.noise.types import State, Target, Terms, Treatment
from cupel.objectives.lists import ListObjective, RankedList
from cupel.objectives.types import Context, Objective, Side


def check(objective: Objective | ListObjective, treatment: Treatment) -> None:
    """ValueError where `treatment` changes p or reads the flipped loss but `objective` has no swap: without it neither means anything."""
    if objective.swap == "comparison":
        return
    why = f"{objective.name} reads no label" if objective.swap == "same" else (
        f"the sides of {objective.name} cannot be swapped one comparison at a time"
    )  # fmt: skip
    if "p" in treatment.touches:
        raise ValueError(
            f"{treatment.name} changes p, the probability that a label is right, but {why}. Use a treatment that changes only w, or an "
            f"objective with a swap"
        )
    if treatment.reads_flip:
        raise ValueError(
            f"{treatment.name} looks at the loss of the flipped label, but {why}. Use a treatment that looks at the loss alone "
            f"(small_loss, trimmed), or an objective with a swap"
        )


def terms_of(objective: Objective, first: Side, second: Side, context: Context) -> tuple[Tensor, Tensor]:
    """(keep, flip), float [B] with gradient: the losses with the sides as recorded and swapped, the context the same for both.

    Where the sides cannot be swapped, or swapping changes nothing, flip is NaN: nothing may read it.
    """
    keep = objective.loss(first, second, context)
    if objective.swap != "comparison":
        return keep, torch.full_like(keep, float("nan"))
    return keep, objective.loss(second, first, context)


def weigh(objective: Objective, used: Target, keep: Tensor, flip: Tensor) -> Tensor:
    """w (p keep + (1 - p) flip), [B]; w keep where the sides of the objective cannot be swapped."""
    if objective.swap != "comparison":
        return used.w * keep
    return used.w * (used.p * keep + (1 - used.p) * flip)


def preference_loss(
    objective: Objective, treatment: Treatment, first: Side, second: Side, target: Target, terms: Terms, state: State,
    context: Context | None = None,
) -> tuple[Tensor, Target]:  # fmt: skip
    """Loss of each comparison, w (p keep + (1 - p) flip), [B], and the target (p, w) that was used, without gradient.

    `terms` names records, annotators and the step; its keep and flip are replaced by those of these sides. A treatment that looks at
    the whole step needs these sides to be the whole step; where they are a part of it, treat the step first (`cupel.noise.step`) and
    hand its part of the result in with `identity()`. The caller reduces, and calls `treatment.update` once per step.
    Raises ValueError as `check`, and where sides, target and terms describe different numbers of comparisons.
    """
    loss, used, _ = preference_terms(objective, treatment, first, second, target, terms, state, context)
    return loss, used


def preference_terms(
    objective: Objective, treatment: Treatment, first: Side, second: Side, target: Target, terms: Terms, state: State,
    context: Context | None = None,
) -> tuple[Tensor, Target, Terms]:  # fmt: skip
    """`preference_loss`, and the terms that the treatment saw, detached: what its `update` wants, once the step is gathered."""
    check(objective, treatment)
    keep, flip = terms_of(objective, first, second, {} if context is None else context)
    sizes = {"sides": len(keep), "target": len(target.p), "terms": len(terms.record)}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"sides, target and terms describe different numbers of comparisons: {sizes}. Where the sides are one part of an optimiser "
            f"step, call cupel.noise.step.treat_step on the whole step and hand in its part of the result with identity()"
        )
    with torch.no_grad():
        seen = terms._replace(keep=keep.detach(), flip=flip.detach(), given=target)
        used = treatment.target(target, seen, state)
    return weigh(objective, used, keep, flip), used, seen


def list_loss(
    objective: ListObjective, treatment: Treatment, lists: RankedList, target: Target, terms: Terms, state: State
) -> tuple[Tensor, Target]:
    """Loss of each list, w keep, [B], and the target that was used: a list has no flip, so only its weight can be treated.

    ValueError as `check`, and where lists, target and terms differ in number.
    """
    check(objective, treatment)
    keep = objective.loss(lists)
    if not len(keep) == len(target.w) == len(terms.record):
        raise ValueError(f"{len(keep)} lists, {len(target.w)} targets and {len(terms.record)} terms do not belong together")
    with torch.no_grad():
        seen = terms._replace(keep=keep.detach(), flip=torch.full_like(keep, float("nan")), given=target)
        used = treatment.target(target, seen, state)
    return used.w * keep, used
