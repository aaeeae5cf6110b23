"""Two views of one graph, told to agree: what the contrastive variants of LightGCN share."""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.models.lightgcn import LightGCN
from cupel.objectives.contrastive import info_nce


class TwoViews(LightGCN):
    """LightGCN with weight x (InfoNCE of two views of the step's users + the same of its items); a subclass says what a view is.

    Each distinct user and item of a step counts once, where the official code counts it as often as the step names it. The pool is the
    same nodes' second views ("batch"), or those of all users and all items ("all": the official code of RLMRec).
    """

    #: whether items that were not taken are told apart, too
    everything: bool = False

    def agree(self, weight: float, temperature: float, pool: str) -> None:
        """Settings of the term. InputError where they make no sense."""
        if not (weight >= 0 and temperature > 0 and pool in ("batch", "all")):
            raise InputError(
                f"{self.name}: weight is at least 0, temperature positive and pool batch or all, not {weight!r}, {temperature!r}, {pool!r}"
            )
        self.weight, self.temperature, self.pool = weight, temperature, pool

    def view(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items, seen in one way."""
        raise NotImplementedError

    def extra(self, user: Tensor, items: Tensor, generator: torch.Generator) -> Tensor | None:
        """weight x the mean InfoNCE over distinct users plus that over distinct items; nothing is drawn where the weight is 0."""
        if not self.weight:
            return None
        one, two = self.view(generator), self.view(generator)
        nodes = torch.unique(user), torch.unique(items if self.everything else items[:, :1])
        terms = []
        for x, y, at in zip(one, two, nodes, strict=True):
            here = y[at]
            terms.append(info_nce(x[at], here, here if self.pool == "batch" else y, self.temperature).mean())
        return self.weight * (terms[0] + terms[1])
