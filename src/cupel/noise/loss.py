"""Equation (1): the one place where an objective and a treatment meet."""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.noise.types import State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective, Side


def check(objective: Objective, treatment: Treatment) -> None:
    """ValueError where `treatment` changes p but `objective` has no swap: without a flipped loss p means nothing."""
    if objective.swap == "none" and "p" in treatment.touches:
        raise ValueError(
            f"{treatment.name} changes p, the probability that a label is right, but the sides of {objective.name} cannot be swapped one "
            f"comparison at a time. Use a treatment that changes only w, or an objective with a swap"
        )


def terms_of(objective: Objective, first: Side, second: Side, context: Context) -> tuple[Tensor, Tensor]:
    """(keep, flip), float [B] with gradient: the losses with the sides as recorded and swapped, the context the same for both.

    Where the sides cannot be swapped, flip is NaN: nothing may read it.
    """
    keep = objective.loss(first, second, context)
    if objective.swap == "none":
        return keep, torch.full_like(keep, float("nan"))
    return keep, objective.loss(second, first, context)


def preference_loss(
    objective: Objective, treatment: Treatment, first: Side, second: Side, target: Target, terms: Terms, state: State,
    context: Context | None = None,
) -> tuple[Tensor, Target]:  # fmt: skip
    """Loss of each comparison, w (p keep + (1 - p) flip), [B], and the target (p, w) that was used, without gradient.

    `terms` names records, annotators and the step; its keep and flip are replaced by those of these sides, unless the treatment looks
    at the whole step, whose terms the caller then gathers first. The caller reduces, and calls `treatment.update` once per step.
    Raises ValueError as `check`.
    """
    check(objective, treatment)
    context = {} if context is None else context
    keep, flip = terms_of(objective, first, second, context)
    with torch.no_grad():
        if treatment.scope == "comparison":
            terms = terms._replace(keep=keep.detach(), flip=flip.detach())
        used = treatment.target(target, terms, state)
    if objective.swap == "none":
        return used.w * keep, used
    return used.w * (used.p * keep + (1 - used.p) * flip), used
