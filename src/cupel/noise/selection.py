# pyright: strict
"""Small-loss selection: a step learns from the comparisons that are easiest to believe, and from fewer of them as time goes on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cupel.noise.fixed import no_state, unchanged
from cupel.noise.reading import check_schedule, check_share, progress, stated_loss
from cupel.noise.types import State, Target, Terms, Treatment


def kept_share(drop: float, ramp: int | float, terms: Terms) -> float:
    """rho = 1 - drop * min(1, t / T): the share of comparisons kept, t and T epochs or shares of the planned steps.

    The co-teaching schedule [unverified for CRM: card 09-crm].

    >>> from cupel.noise.types import bare_terms
    >>> [round(kept_share(0.4, 5, bare_terms(torch.zeros(1), epoch=t)), 2) for t in range(7)]
    [1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.6]
    """
    return 1 - drop * progress(terms, ramp)


def keep_best(target: Target, score: Tensor, terms: Terms, share: float) -> Target:
    """w = 0 but for the `share` of the comparisons with the highest score; these scaled so that the sum of w stays.

    Of n comparisons with w > 0, k = max(1, floor(share n + 1/2)) are kept; ties go to the smaller record, so the order of a step does
    not matter. score float [B].

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(3))._replace(record=torch.tensor([5, 4, 6]))
    >>> keep_best(Target(torch.ones(3), torch.ones(3)), torch.tensor([1.0, 1.0, 0.0]), terms, 1 / 3).w
    tensor([0., 3., 0.])
    """
    live = target.w > 0
    n = int(live.sum())
    k = max(1, math.floor(share * n + 0.5))
    if k >= n:
        return target
    score = torch.where(live, score, -math.inf)
    threshold = score.kthvalue(len(score) - k + 1).values  # the k-th highest, without sorting
    kept, tied = score > threshold, score == threshold
    room = k - int(kept.sum())
    if int(tied.sum()) > room:
        rows = torch.nonzero(tied & live)[:, 0]
        rows = rows[torch.argsort(terms.record.to(rows.device)[rows], stable=True)][:room]
        tied = torch.zeros_like(tied).index_fill_(0, rows, True)
    w = torch.where(kept | tied, target.w, 0.0)
    return target._replace(w=w * (target.w.sum() / w.sum()))


def small_loss(drop: float = 0.2, *, ramp: int | float = 5) -> Treatment:
    """Weight 0 for the comparisons of a step with the highest loss of the label as stated, a share that grows to `drop`.

    Self-selection: the same model judges and learns (the control of peer review; card 09-crm). Of n comparisons k = max(1,
    floor(rho n + 1/2)) are kept, rho = 1 - drop min(1, t / T); their weights are scaled so that the step's sum of w stays.

    drop: share dropped in the end, about the flip rate, in [0, 1); 0 is plain training. ramp: T, an int in epochs, a float below 1 as a
    share of the planned steps (for training in one epoch). ValueError otherwise.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.5, 9.0, 0.1, 0.2]), torch.zeros(4), epoch=5)
    >>> small_loss(0.5).target(Target(torch.ones(4), torch.ones(4)), terms, {}).w
    tensor([0., 0., 2., 2.])
    """
    check_share("drop", drop)
    check_schedule("ramp", ramp)

    def target(target: Target, terms: Terms, state: State) -> Target:
        return keep_best(target, -stated_loss(target, terms), terms, kept_share(drop, ramp, terms))

    return Treatment(
        "small_loss", no_state, target, unchanged, scope="step", touches=frozenset({"w"}), settings={"drop": drop, "ramp": ramp},
    )  # fmt: skip
