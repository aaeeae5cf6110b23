# pyright: strict
"""Exposure: what was not seen could not be chosen, so a missing click is no dislike (missing not at random)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from cupel.noise.fixed import unchanged
from cupel.noise.lookup import By, Stated, by_id, check_values
from cupel.noise.reading import wide
from cupel.noise.types import State, Target, Terms, Treatment

_RULE = "a propensity is the probability that the comparison could be recorded, in (0, 1]"


def popularity(counts: Tensor, power: float = 0.5) -> Tensor:
    """Propensity (n / max n)^power from counts of positives, [n] in (0, 1] (card 32-unbiased-mnar). ValueError where a count is below 1.

    Popular because relevant is confused with popular because shown; give real exposure where it is known.

    >>> popularity(torch.tensor([100, 25, 4, 1])).round(decimals=6)
    tensor([1.0000, 0.5000, 0.2000, 0.1000])
    """
    if len(counts) == 0 or bool((counts < 1).any()):
        raise ValueError(f"{int((counts < 1).sum()):,} of {len(counts):,} items have no positive; their propensity cannot be estimated")
    return (counts / counts.max()) ** power


def propensity(exposure: Stated, *, by: By = "record", clip: float = 0.0, nonnegative: bool = False) -> Treatment:
    """Target p <- p / max(theta, M): unbiased for clicks that could only be made where an item was shown.

    p = 1 is a click (keep: loss if relevant, flip: loss if not), P(click) = theta * relevance. (1) then is Y/t d1 + (1 - Y/t) d0 with
    t = max(theta, M): Saito et al. 2020, "Unbiased Recommender Learning from MNAR Implicit Feedback" (card 32-unbiased-mnar). With M = 0
    its expectation is the loss on true relevance; M trades bias for variance, and 1 is the naive loss. A click's coefficient of d0 is
    negative, so the loss is unbounded below, and a model trained to the end ranks near-randomly. Stopping early on the same estimator
    repairs its probabilities, not its ranking (benchmarks/mnar.py); what ranks is the likelihood, `missed(1 - theta)`, or

    nonnegative  drop the d0 term of a group (an item) in a step where its sum is negative (ours; .69 against .54 AUC at convergence).
                 Looks at the whole step.
    exposure     theta in (0, 1], one number or by id. clip: M in [0, 1]. ValueError otherwise, and at `init` where an id is missing; a
                 warning where M (below 1) exceeds every theta. `missed(1 - theta, form="inverse")` is the same treatment.

    >>> from cupel.noise.types import bare_terms
    >>> propensity(0.25, by="all").target(Target(torch.tensor([1.0, 0.0]), torch.ones(2)), bare_terms(torch.zeros(2)), {}).p
    tensor([4., 0.])
    """
    check_values("exposure", exposure, lambda t: 0 < t <= 1, _RULE)
    _check_clip(clip)
    given = by_id("exposure", exposure, by)
    largest = max(exposure.values(), default=1.0) if isinstance(exposure, Mapping) else exposure
    if largest < clip < 1:
        warnings.warn(f"the clip {clip:g} exceeds every propensity (largest: {largest:g}): this is a rescaled naive loss", stacklevel=2)

    def target(target: Target, terms: Terms, state: State) -> Target:
        p = target.p / given.read(terms, state, target.p).clamp(min=clip)
        if not nonnegative:
            return target._replace(p=p)
        other = wide(target.w * (1 - p)) * wide(terms.flip)
        negative = _sum_by_group(terms.group, other) < 0
        return Target(torch.where(negative, 1.0, p), torch.where(negative, target.w * p, target.w))

    touches: frozenset[Literal["p", "w"]] = frozenset({"p", "w"} if nonnegative else {"p"})
    return Treatment(
        "propensity", given.init, target, unchanged, scope="step" if nonnegative else "comparison", touches=touches, corrects=True,
        settings={"exposure": given.stated, "by": by, "clip": clip, "nonnegative": nonnegative}, reads_flip=nonnegative,
    )  # fmt: skip


def propensity_weights(exposure: Stated, *, by: By = "record", clip: float = 0.0) -> Treatment:
    """Weight w <- w / max(theta, M): what was rarely recorded counts for what was not (inverse propensity).

    For comparisons that were all made, but some with more chance than others (active sampling, position): not for clicks, where a
    missing one is no comparison (`propensity`). exposure, clip: as there.

    >>> from cupel.noise.types import bare_terms
    >>> propensity_weights(0.1, by="all", clip=0.5).target(Target(torch.ones(1), torch.ones(1)), bare_terms(torch.zeros(1)), {}).w
    tensor([2.])
    """
    check_values("exposure", exposure, lambda t: 0 < t <= 1, _RULE)
    _check_clip(clip)
    given = by_id("exposure", exposure, by)

    def target(target: Target, terms: Terms, state: State) -> Target:
        return target._replace(w=target.w / given.read(terms, state, target.w).clamp(min=clip))

    return Treatment(
        "propensity_weights", given.init, target, unchanged, touches=frozenset({"w"}),
        settings={"exposure": given.stated, "by": by, "clip": clip},
    )  # fmt: skip


def _check_clip(clip: float) -> None:
    if not 0 <= clip <= 1:
        raise ValueError(f"clip is a propensity below which none is used, in [0, 1], not {clip!r}")


def _sum_by_group(group: Tensor, value: Tensor) -> Tensor:
    """Sum of `value` over each comparison's group, [B]; a comparison without group stands for itself."""
    group = group.to(value.device)
    code = group.clamp(min=0).long()
    total = torch.zeros(int(code.max()) + 1 if len(code) else 1, dtype=value.dtype, device=value.device)
    total.index_add_(0, code, torch.where(group < 0, 0.0, value))
    return torch.where(group < 0, value, total[code])
