"""The loop: recommenders that learn from interactions by equation (1).

A step: events of the training log, items not taken drawn for each, the sides of all, keep and flip of the objective, the treatment's
(p, w), the mean (or sum) of w (p keep + (1 - p) flip), one step of the optimiser. In the terms of a treatment the user is the annotator
and the item the group, so that what is learned by annotator or group of texts is learned by user or item here. Where the treatment goes by
a peer, two models of two seeds are trained on the same steps (`peers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.learners.recommenders.held import Held, check_held
from cupel.learners.recommenders.learner import Learner
from cupel.learners.recommenders.names import build, settings_of
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.peers import PEERS, Kept, check_apart, check_review, disagreement
from cupel.learners.recommenders.records import Drawer, Form, Numbered, count, form_of
from cupel.learners.recommenders.resume import read, write
from cupel.learners.recommenders.types import Factors, Known, Recommender
from cupel.noise.loss import check
from cupel.noise.types import DataSpec, State, Treatment
from cupel.objectives.types import Objective

Progress = Callable[[str, int, int], None]


class Fitted(NamedTuple):
    """A trained recommender, and how it came about.

    state       of the treatment at the end of training; epochs: one line of numbers per pass; notes: on what was left out
    best_epoch  the pass whose state was kept, counted from 1: the last one where nothing was held out, 0 for models that are solved
    peer        the model that was trained beside this one, of seed + 1, where the treatment goes by one, as it was after the same pass;
                peer_state: of its treatment
    kept        with a peer, float64 [n]: of each event of the training log how often it had a weight above 0, over passes and both models
    """

    model: Recommender
    state: State
    epochs: list[dict[str, Any]]
    best_epoch: int
    notes: tuple[str, ...] = ()
    peer: Recommender | None = None
    peer_state: State | None = None
    kept: np.ndarray | None = None


def fit(
    known: Known, objective: Objective, treatment: Treatment, options: RecommenderOptions, *, validation: Log | None = None,
    progress: Progress | None = None, resume: tuple[Path, str] | None = None,
) -> Fitted:  # fmt: skip
    """A recommender of the training log in `known`.

    validation  events held out, of the same users and items: they decide which pass is kept (`select`, `every`, `patience`); of peers the
                mean of both decides, and both are kept as they were after the same pass
    resume      a file and the key of the run: every `every` passes its state is written there, and a run that finds its file goes on
                from it to the same bytes; the file is removed at the end

    InputError where objective, treatment and records do not go together, where the log has nothing to learn from, and where the loss is
    no longer finite.

    >>> from cupel.learners.recommenders.types import top
    >>> from cupel.noise.fixed import identity
    >>> from cupel.objectives.reward import bradley_terry
    >>> log = Log.of([0, 0, 1, 1, 2], [0, 1, 2, 3, 0])
    >>> found = fit(Known(log), bradley_terry(), identity(), RecommenderOptions(model="mf:dim=4", epochs=30, learning_rate=0.1))
    >>> top(found.model, [0], 2)[0].tolist() in ([0, 1], [1, 0])
    True
    """
    check_fit(objective, treatment, options)
    solved = settings_of(options.model)[0].kind == "solved"
    models = []
    for j in range(PEERS if treatment.reads_peer and not solved else 1):
        models.append(build(options.model, *known.log.shape, options.seed + j).to(options.device))
        models[-1].prepare(known)
    if solved:
        models[0].solve(known)
        return Fitted(models[0].requires_grad_(False).eval(), {}, [], 0)
    return _Run(models, known, objective, treatment, options, validation, progress, resume).run()


def check_fit(objective: Objective, treatment: Treatment, options: RecommenderOptions) -> None:
    """InputError where objective, treatment and model do not go together, before anything is read."""
    made = settings_of(options.model)[0]
    if made.kind == "solved":
        return
    missing = sorted(objective.needs - made.gives)
    if missing:
        raise InputError(
            f"{objective.name} needs {', '.join(missing)} of each side, and {made.name} gives {', '.join(sorted(made.gives))}: "
            f"take an objective of scores, e.g. bradley_terry (BPR) or bpo; models that generate items take sft"
        )
    try:
        check(objective, treatment)
    except ValueError as error:
        raise InputError(str(error)) from error
    if options.optimiser.startswith("rows") and not (issubclass(made, Factors) and made.rowwise):
        raise InputError(f"optimiser={options.optimiser} moves the rows a step touches, and {made.name} touches all: take adam")
    form = form_of(options, objective)
    check_review(treatment, options, form)
    check_held(made, objective, treatment, options.select)


class _Run:
    """One training, of a model or of peers."""

    def __init__(
        self, models: Sequence[Recommender], known: Known, objective: Objective, treatment: Treatment, options: RecommenderOptions,
        validation: Log | None, progress: Progress | None, resume: tuple[Path, str] | None,
    ) -> None:  # fmt: skip
        self.o, self.objective = options, objective
        self.form: Form = form_of(options, objective)
        self.draws = Drawer(known.log, options, self.form, models[0].batches, known.event_p)
        self.generator = torch.Generator().manual_seed(options.seed + 1)
        spec = DataSpec(Numbered(count(self.form, known.log, options)), known.log.users.tolist(), known.log.items.tolist())
        self.total = self.draws.steps * options.epochs
        self.learners = [Learner(model, j, objective, treatment, options, spec, self.total) for j, model in enumerate(models)]
        check_apart(models)
        self.tally = Kept(self.draws.rows) if len(models) > 1 else None
        self.held = Held(validation, self.draws, options, self.form) if validation is not None and len(validation) else None
        self.progress, self.resume = progress, resume
        self.log: list[dict[str, Any]] = []
        self.best, self.best_epoch, self.since = -math.inf, options.epochs, 0

    def run(self) -> Fitted:
        """Train to the end, or until the held-out events say that it does not get better."""
        for epoch in range(self._restored(), self.o.epochs):
            line = self._pass(epoch)
            looked = (epoch + 1) % self.o.every == 0 or epoch + 1 == self.o.epochs
            if looked and self.held is not None:
                self._look(self.held.values(self.learners), line)
            self.log.append(line)
            if self.o.patience and self.since >= self.o.patience:
                break
            if looked and self.resume is not None:
                self._write(epoch + 1)
        first, *others = self.learners
        if self.held is None:
            self.best_epoch = len(self.log)
        if self.resume is not None:
            self.resume[0].unlink(missing_ok=True)
        found = Fitted(first.recall(), first.state, self.log, self.best_epoch, tuple(self.draws.notes))
        if self.tally is None:
            return found
        return found._replace(peer=others[0].recall(), peer_state=others[0].state, kept=self.tally.frequency)

    def _look(self, values: list[float], line: dict[str, Any]) -> None:
        """Keep the state if the held-out number, of peers its mean, is the best so far."""
        name, value = "heldout_loss" if self.o.select == "loss" else self.o.select, sum(values) / len(values)
        line[name] = value
        if len(values) > 1:
            line[f"{name} of each"] = values
        better = -value if self.o.select == "loss" else value
        if better > self.best:
            self.best, self.best_epoch, self.since = better, len(self.log) + 1, 0
            for learner in self.learners:
                learner.remember()
        else:
            self.since += 1

    def _write(self, passes: int) -> None:
        """What goes on from here."""
        assert self.resume is not None
        parts = {name: tensors for learner in self.learners for name, tensors in learner.parts().items()}
        parts["random"] = {"draws": self.generator.get_state()}
        if self.tally is not None:
            parts["tally"] = self.tally.tensors
        values = {
            "passes": passes, "step": self.learners[0].step, "log": self.log, "best": None if math.isinf(self.best) else self.best,
            "best_epoch": self.best_epoch, "since": self.since,
        }  # fmt: skip
        write(*self.resume, parts, values)

    def _restored(self) -> int:
        """Passes that an interrupted run of the same key has done, its state put back; 0 where there is none."""
        found = None if self.resume is None else read(*self.resume)
        if found is None:
            return 0
        values = found.values
        for learner in self.learners:
            learner.restore(found, values["step"])
        self.generator.set_state(found.of("random")["draws"])
        if self.tally is not None:
            self.tally.restore(found.of("tally"))
        self.log, self.since, self.best_epoch = list(values["log"]), values["since"], values["best_epoch"]
        self.best = -math.inf if values["best"] is None else values["best"]
        return values["passes"]

    def _pass(self, epoch: int) -> dict[str, Any]:
        order, size = self.draws.order(epoch), self.o.batch_size
        for learner in self.learners:
            learner.begin(epoch)
        sums: dict[str, float] = {}
        for number in range(self.draws.steps):
            for name, value in self._step(order[number * size : (number + 1) * size]).items():
                sums[name] = sums.get(name, 0.0) + value
            if self.progress is not None and number % 16 == 0:
                self.progress("train", epoch * self.draws.steps + number, self.total)
        n = max(sums.pop("n"), 1)
        if not all(math.isfinite(value) for value in sums.values()):
            raise InputError(f"the loss is not finite any more in pass {epoch + 1} of {self.o.epochs}: {self.learners[0].lower}")
        return {"epoch": epoch + 1, **{name: value / n for name, value in sums.items()}}

    def _step(self, units: np.ndarray) -> dict[str, float]:
        """Sums over the records of a step: n, loss, weight; with peers the other's loss, how much is kept, and where they disagree."""
        learners, first = self.learners, self.learners[0]
        for learner in learners:
            learner.model.begin_step(learner.aside)
        step = self.draws.draw(units, self.generator, first.model if self.o.sampler == "hard" else None).to(first.model.device())
        made = [self.draws.made(step, learner.sides(step, self.form)) for learner in learners]
        # all look before any moves: peers review each other as they stood
        seen = [learner.look(step, made[j], made[:j] + made[j + 1 :]) for j, learner in enumerate(learners)]
        for learner in learners:
            learner.move()
        sums = {"n": len(seen[0][0]), "loss": float(seen[0][0].sum()), "weight": float(seen[0][1].w.sum())}
        if self.tally is not None:
            used = [target.w for _, target in seen]
            self.tally.add(step, used, self.form)
            sums |= {"peer_loss": float(seen[1][0].sum()), "kept": sum(float((w > 0).sum()) for w in used) / len(used)}
            sums["disagreement"] = disagreement(made, self.objective, first.context)
        return sums
