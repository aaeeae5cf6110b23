"""What held-out events say about a state of the models: a metric of ranked lists, or the loss of training on records not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.interactions.log import Log, by_user
from cupel.interactions.metrics import ranked
from cupel.learners.recommenders.generative.base import Generative
from cupel.learners.recommenders.learner import Learner, selects_by_epoch
from cupel.learners.recommenders.options import RecommenderOptions, metric_of
from cupel.learners.recommenders.records import Drawer, Form
from cupel.learners.recommenders.types import Recommender, top
from cupel.noise.types import Treatment
from cupel.objectives.types import Objective, Side


class Held:
    """Held-out events of the users and items that are trained on. InputError where they are of others."""

    def __init__(self, log: Log, train: Drawer, options: RecommenderOptions, form: Form) -> None:
        if log.shape != train.log.shape:
            raise InputError(f"the held-out log is of {log.shape} users and items, that to train on of {train.log.shape}: split one log")
        self.select, (self.name, self.k) = options.select, metric_of(options.select)
        self.relevant, self.seen = by_user(log), train.rows
        self.users = np.flatnonzero(self.relevant.counts)
        if self.name == "loss":
            both = Log(log.users, log.items, np.concatenate([train.log.user, log.user]), np.concatenate([train.log.item, log.item]))
            plain = replace(options, sampler="uniform")
            self.draws = Drawer(log, plain, form, "events", taken=both)  # an item taken in training is no item that was not taken
            generator = torch.Generator().manual_seed(options.seed + 3)
            units, size = self.draws.units, options.batch_size
            self.steps = [self.draws.draw(np.sort(units[at : at + size]), generator, None) for at in range(0, len(units), size)]

    @torch.no_grad()
    def values(self, learners: Sequence[Learner]) -> list[float]:
        """Of each model the metric's mean over users, or the mean of its loss over held-out records (with the peers' as in training)."""
        for learner in learners:
            learner.model.eval()
        if self.name != "loss":
            return [self._metric(learner.model) for learner in learners]
        total, n = np.zeros(len(learners)), 0
        for step in self.steps:
            at = step.to(learners[0].model.device())
            made = [self.draws.made(at, sides_after(learner.model, at.user, at.items)) for learner in learners]
            for j, learner in enumerate(learners):
                losses, _ = learner.losses(made[j], made[:j] + made[j + 1 :], learn=False)
                total[j] += float(losses.sum())
            n += len(made[0].record)
        return (total / n).tolist()

    def _metric(self, model: Recommender) -> float:
        found = ranked(top(model, self.users, min(self.k, model.n_items), seen=self.seen), self.relevant, self.users, [self.k])
        return float(found[self.select].mean())


def check_held(made: type[Recommender], objective: Objective, treatment: Treatment, select: str) -> None:
    """InputError where the loss of held-out records would mean nothing: no sides for them, or a selection made by name."""
    if select != "loss":
        return
    more = sorted(objective.needs - {"score"})
    if more and not issubclass(made, Generative):
        raise InputError(
            f"select=loss scores held-out records after the training log, where {made.name} gives scores alone, and {objective.name} needs "
            f"{', '.join(more)}: select by a metric, e.g. ndcg@20"
        )
    if selects_by_epoch(treatment):
        raise InputError(
            f"select=loss treats held-out records, and {treatment.name} selected among those of training by name: select by a metric, e.g. "
            f"ndcg@20"
        )


def sides_after(model: Recommender, user: Tensor, items: Tensor) -> Side:
    """Sides of B * K items for the users, after the whole training log; of models that generate items, with their log-probabilities."""
    if isinstance(model, Generative):
        memory = model.memory(model.history(user), model.said_last(user))
        logp = model.decoder(memory, model.codes[items]).sum(-1).reshape(-1)
        return Side(score=logp, logp=logp, n_tokens=torch.full_like(logp, len(model.sizes)))
    owner, back = torch.unique(user, return_inverse=True)
    return Side(score=torch.gather(model.scores(owner)[back], 1, items).reshape(-1))
