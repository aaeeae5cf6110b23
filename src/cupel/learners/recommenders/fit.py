"""The loop: recommenders that learn from interactions by equation (1).

A step: events of the training log, items not taken drawn for each, the sides of all, keep and flip of the objective, the treatment's
(p, w), the mean (or sum) of w (p keep + (1 - p) flip), one step of the optimiser. In the terms of a treatment the user is the annotator
and the item the group, so that what is learned by annotator or group of texts is learned by user or item here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.interactions.log import Log, by_user
from cupel.interactions.metrics import ranked
from cupel.learners.recommenders.names import build, settings_of
from cupel.learners.recommenders.options import RecommenderOptions, metric_of
from cupel.learners.recommenders.records import Drawer, Form, Made, Numbered, Step, count, form_of
from cupel.learners.recommenders.resume import optimiser_tensors, read, restore_optimiser, write
from cupel.learners.recommenders.rows import Rowwise
from cupel.learners.recommenders.types import Factors, Known, Recommender, top
from cupel.noise.loss import check, terms_of, weigh
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective

Progress = Callable[[str, int, int], None]


class Fitted(NamedTuple):
    """A trained recommender, and how it came about.

    state       of the treatment at the end of training; epochs: one line of numbers per pass; notes: on what was left out
    best_epoch  the pass whose state was kept, counted from 1: the last one where nothing was held out, 0 for models that are solved
    """

    model: Recommender
    state: State
    epochs: list[dict[str, Any]]
    best_epoch: int
    notes: tuple[str, ...] = ()


def fit(
    known: Known, objective: Objective, treatment: Treatment, options: RecommenderOptions, *, validation: Log | None = None,
    progress: Progress | None = None, resume: tuple[Path, str] | None = None,
) -> Fitted:  # fmt: skip
    """A recommender of the training log in `known`.

    validation  events held out, of the same users and items: they decide which pass is kept (`select`, `every`, `patience`)
    resume      a file and the key of the run: every `every` passes its state is written there, and a run that finds its file goes on
                from it to the same bytes; the file is removed at the end

    InputError where objective, treatment and records do not go together, where the log has nothing to learn from, and where the loss is
    no longer finite.

    >>> from cupel.noise.fixed import identity
    >>> from cupel.objectives.reward import bradley_terry
    >>> log = Log.of([0, 0, 1, 1, 2], [0, 1, 2, 3, 0])
    >>> found = fit(Known(log), bradley_terry(), identity(), RecommenderOptions(model="mf:dim=4", epochs=30, learning_rate=0.1))
    >>> top(found.model, [0], 2)[0].tolist() in ([0, 1], [1, 0])
    True
    """
    model = build(options.model, *known.log.shape, options.seed).to(options.device)
    model.prepare(known)
    if model.kind == "solved":
        model.solve(known)
        return Fitted(model.requires_grad_(False).eval(), {}, [], 0)
    return _Run(model, known, objective, treatment, options, validation, progress, resume).run()


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
    if treatment.reads_peer:
        raise InputError(f"{treatment.name} goes by the losses of a peer, and a recommender is trained alone: leave it out")
    if options.optimiser.startswith("rows") and not (issubclass(made, Factors) and made.rowwise):
        raise InputError(f"optimiser={options.optimiser} moves the rows a step touches, and {made.name} touches all: take adam")
    form_of(options, objective)


class _Run:
    """One training."""

    def __init__(
        self, model: Recommender, known: Known, objective: Objective, treatment: Treatment, options: RecommenderOptions,
        validation: Log | None, progress: Progress | None, resume: tuple[Path, str] | None,
    ) -> None:  # fmt: skip
        check_fit(objective, treatment, options)
        self.model, self.known, self.objective, self.treatment, self.o = model, known, objective, treatment, options
        self.form: Form = form_of(options, objective)
        self.draws = Drawer(known.log, options, self.form, model.batches, known.event_p)
        self.generator = torch.Generator().manual_seed(options.seed + 1)
        self.aside = torch.Generator().manual_seed(options.seed + 2)  # masks and views: leaving them out moves no other draw
        spec = DataSpec(Numbered(count(self.form, known.log, options)), known.log.users.tolist(), known.log.items.tolist())
        self.state = treatment.init(spec)
        self.plain = treatment.name == "identity"
        self.context: Context = {}
        self.optimiser = _optimiser(model, options)
        self.total = self.draws.steps * options.epochs
        self.step = self.epoch = 0
        self.held = _Held(self, validation) if validation is not None and len(validation) else None
        self.progress, self.resume = progress, resume
        self.log: list[dict[str, Any]] = []
        self.best, self.best_epoch, self.since = -math.inf, options.epochs, 0
        self.kept: dict[str, Tensor] = {}

    @property
    def _lower(self) -> str:
        return f"lower learning_rate (now {self.o.learning_rate:g})"

    def run(self) -> Fitted:
        """Train to the end, or until the held-out events say that it does not get better."""
        for epoch in range(self._restored(), self.o.epochs):
            line = self._pass(epoch)
            looked = (epoch + 1) % self.o.every == 0 or epoch + 1 == self.o.epochs
            if looked and self.held is not None:
                self._look(self.held.value(), line)
            self.log.append(line)
            if self.o.patience and self.since >= self.o.patience:
                break
            if looked and self.resume is not None:
                self._write(epoch + 1)
        if self.kept:
            self.model.load_state_dict(self.kept)
        if self.held is None:
            self.best_epoch = len(self.log)
        if self.resume is not None:
            self.resume[0].unlink(missing_ok=True)
        return Fitted(self.model.requires_grad_(False).eval(), self.state, self.log, self.best_epoch, tuple(self.draws.notes))

    def _look(self, value: float, line: dict[str, Any]) -> None:
        """Keep the state if the held-out number is the best so far."""
        line["heldout_loss" if self.o.select == "loss" else self.o.select] = value
        better = -value if self.o.select == "loss" else value
        if better > self.best:
            self.best, self.best_epoch, self.since = better, len(self.log) + 1, 0
            self.kept = {name: x.detach().clone() for name, x in self.model.state_dict().items()}
        else:
            self.since += 1

    def _write(self, passes: int) -> None:
        """What goes on from here."""
        assert self.resume is not None
        random = {"draws": self.generator.get_state(), "aside": self.aside.get_state()}
        parts = {
            "model": self.model.state_dict(), "kept": self.kept, "optimiser": optimiser_tensors(self.optimiser), "treatment": self.state,
            "context": self.context, "random": random,
        }  # fmt: skip
        values = {
            "passes": passes, "step": self.step, "log": self.log, "best": None if math.isinf(self.best) else self.best,
            "best_epoch": self.best_epoch, "since": self.since,
        }  # fmt: skip
        write(*self.resume, parts, values)

    def _restored(self) -> int:
        """Passes that an interrupted run of the same key has done, its state put back; 0 where there is none."""
        found = None if self.resume is None else read(*self.resume)
        if found is None:
            return 0
        self.model.load_state_dict(found.of("model"))
        restore_optimiser(self.optimiser, found.of("optimiser"))
        self.kept, self.state, self.context = found.of("kept"), found.of("treatment"), found.of("context")
        random, values = found.of("random"), found.values
        self.generator.set_state(random["draws"])
        self.aside.set_state(random["aside"])
        self.log, self.step, self.since, self.best_epoch = list(values["log"]), values["step"], values["since"], values["best_epoch"]
        self.best = -math.inf if values["best"] is None else values["best"]
        return values["passes"]

    def _pass(self, epoch: int) -> dict[str, Any]:
        self.epoch = epoch
        self.model.train()
        order, size = self.draws.order(epoch), self.o.batch_size
        loss, n, weight = 0.0, 0, 0.0
        for part in self.optimiser.param_groups:
            part["lr"] = self.o.learning_rate * self.o.decay**epoch
        for number in range(self.draws.steps):
            here = self._step(order[number * size : (number + 1) * size])
            loss, n, weight = loss + here[0], n + here[1], weight + here[2]
            if self.progress is not None and number % 16 == 0:
                self.progress("train", epoch * self.draws.steps + number, self.total)
        if not math.isfinite(loss):
            raise InputError(f"the loss is not finite any more in pass {epoch + 1} of {self.o.epochs}: {self._lower}")
        return {"epoch": epoch + 1, "loss": loss / max(n, 1), "weight": weight / max(n, 1)}

    def _step(self, units: np.ndarray) -> tuple[float, int, float]:
        """(sum of losses, records, sum of weights) of a step."""
        model = self.model
        model.begin_step(self.aside)
        step = self.draws.draw(units, self.generator, model if self.o.sampler == "hard" else None)
        device = model.device()
        step = Step(*(None if x is None else x.to(device) for x in step))  # pyright: ignore[reportArgumentType]: only `taken` may be None
        self.optimiser.zero_grad()
        rowwise = isinstance(self.optimiser, Rowwise)
        side = self.optimiser.sides(step.user, step.items) if rowwise else _sides(model, step, self.form)
        made = self.draws.made(step, side)
        losses, used = self.losses(made)
        loss = losses.sum() / (len(losses) if self.o.reduction == "mean" else 1)
        whole = loss
        if self.o.l2 and not rowwise:
            penalty = model.penalty(step.user, step.items)
            whole = whole if penalty is None else whole + self.o.l2 * penalty
        extra = None if rowwise else model.extra(step.user, step.items, self.aside)
        (whole if extra is None else whole + extra).backward()
        if self.o.clip and not rowwise:
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.o.clip)
        self.optimiser.step()
        self.step += 1
        return float(losses.detach().sum()), len(losses), float(used.w.sum())

    def losses(self, made: Made, *, learn: bool = True) -> tuple[Tensor, Target]:
        """w (p keep + (1 - p) flip) of each record, and the (p, w) used; the treatment learns from the step where `learn`."""
        if self.objective.context is not None and learn:
            self.context = self.objective.context(made.first.map(_detached), made.second.map(_detached), self.context)
        try:
            keep, flip = terms_of(self.objective, made.first, made.second, self.context)
        except ValueError as error:
            raise InputError(f"pass {self.epoch + 1}, step {self.step + 1}: {error}: {self._lower}") from error
        used = made.given
        if not self.plain:
            terms = Terms(
                keep.detach().double().cpu(), flip.detach().double().cpu(), made.record.cpu(), made.user.cpu(), made.item.cpu(), self.step,
                self.epoch, self.total, Target(made.given.p.cpu(), made.given.w.cpu()),
            )  # fmt: skip
            assert terms.given is not None
            with torch.no_grad():
                used = self.treatment.target(terms.given, terms, self.state)
                if learn:
                    self.state = self.treatment.update(terms, self.state)
        cast = Target(used.p.to(keep), used.w.to(keep))
        return weigh(self.objective, cast, keep, flip), used


class _Held:
    """What held-out events say about a state of the model."""

    def __init__(self, run: _Run, log: Log) -> None:
        if log.shape != run.known.log.shape:
            raise InputError(
                f"the held-out log is of {log.shape} users and items, that to train on of {run.known.log.shape}: split one log"
            )
        self.run, (self.name, self.k) = run, metric_of(run.o.select)
        self.relevant = by_user(log)
        self.users = np.flatnonzero(self.relevant.counts)
        self.seen = run.draws.rows
        if self.name == "loss":
            both = replace(run.o, sampler="uniform")
            self.draws = Drawer(log, both, run.form, "events")
            # an item taken in training is no item that was not taken
            self.draws.unseen = type(self.draws.unseen)(_joined(run.known.log, log))
            generator = torch.Generator().manual_seed(run.o.seed + 3)
            units = self.draws.units
            size = run.o.batch_size
            self.steps = [self.draws.draw(np.sort(units[at : at + size]), generator, None) for at in range(0, len(units), size)]

    @torch.no_grad()
    def value(self) -> float:
        """The metric's mean over users, or the mean of the loss over held-out records."""
        model = self.run.model
        model.eval()
        if self.name != "loss":
            found = ranked(top(model, self.users, min(self.k, model.n_items), seen=self.seen), self.relevant, self.users, [self.k])
            return float(found[self.run.o.select].mean())
        total, n = 0.0, 0
        device = model.device()
        for step in self.steps:
            at = Step(*(None if x is None else x.to(device) for x in step))  # pyright: ignore[reportArgumentType]: only `taken` may be None
            losses, _ = self.run.losses(self.draws.made(at, _held_sides(model, at)), learn=False)
            total, n = total + float(losses.sum()), n + len(losses)
        return total / n


def _sides(model: Recommender, step: Step, form: str) -> Any:
    if form == "all":
        from cupel.objectives.types import Side

        return Side(score=model.scores(step.user).reshape(-1))
    return model.sides(step.user, step.items, step.event)


def _held_sides(model: Recommender, step: Step) -> Any:
    """Sides of held-out records: scored after the whole training log."""
    from cupel.objectives.types import Side

    user, back = torch.unique(step.user, return_inverse=True)
    found = torch.gather(model.scores(user)[back], 1, step.items)
    return Side(score=found.reshape(-1))


def _joined(one: Log, two: Log) -> Log:
    """The events of both, of the same users and items."""
    return Log(one.users, one.items, np.concatenate([one.user, two.user]), np.concatenate([one.item, two.item]))


def _optimiser(model: Recommender, o: RecommenderOptions) -> Any:
    if o.optimiser.startswith("rows"):
        assert isinstance(model, Factors)
        return Rowwise(model, o)
    parameters = [x for x in model.parameters() if x.requires_grad]
    if o.optimiser in ("adam", "adamw"):
        made = torch.optim.Adam if o.optimiser == "adam" else torch.optim.AdamW
        return made(parameters, lr=o.learning_rate, weight_decay=o.weight_decay, fused=True)
    if o.optimiser == "adagrad":
        return torch.optim.Adagrad(parameters, lr=o.learning_rate, weight_decay=o.weight_decay)
    return torch.optim.SGD(parameters, lr=o.learning_rate, weight_decay=o.weight_decay)


def _detached(x: Tensor) -> Tensor:
    return x.detach()
