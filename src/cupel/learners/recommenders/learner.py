"""One recommender in training: its optimiser, the state of its treatment, the statistics of its objective, and its step by equation (1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.records import Form, Made, Step
from cupel.learners.recommenders.resume import Resumption, optimiser_tensors, restore_optimiser
from cupel.learners.recommenders.rows import Rowwise
from cupel.learners.recommenders.types import Factors, Recommender
from cupel.noise.loss import terms_of, weigh
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective, Side


class Learner:
    """A model that moves. Peers have numbers 0, 1, ...; what a model draws aside (masks, views) comes from the seed and its number, so
    leaving it out moves no other draw.

    state    of the treatment; context: of the objective; total: planned steps; step, epoch: where training stands
    """

    def __init__(
        self, model: Recommender, number: int, objective: Objective, treatment: Treatment, options: RecommenderOptions, spec: DataSpec,
        total: int,
    ) -> None:  # fmt: skip
        self.model, self.number, self.objective, self.treatment, self.o, self.total = model, number, objective, treatment, options, total
        self.aside = torch.Generator().manual_seed(options.seed + 2 + 1_000_003 * number)
        self.state: State = treatment.init(spec)
        self.context: Context = {}
        self.optimiser = _optimiser(model, options)
        self.rowwise = isinstance(self.optimiser, Rowwise)
        self.plain = treatment.name == "identity"
        self.step = self.epoch = 0
        self.kept: dict[str, Tensor] = {}

    @property
    def lower(self) -> str:
        """The way out of losses that are not finite."""
        return f"lower learning_rate (now {self.o.learning_rate:g})"

    def begin(self, epoch: int) -> None:
        """Before the steps of a pass: the rate, and the selection of treatments that make one among all records (peer review by epoch)."""
        self.epoch = epoch
        self.model.train()
        for part in self.optimiser.param_groups:
            part["lr"] = self.o.learning_rate * self.o.decay**epoch
        if epoch and selects_by_epoch(self.treatment):
            none, nobody = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
            given = Target(none, none)
            terms = Terms(none, none, nobody, nobody, nobody, self.step, epoch, self.total, given, none, none)
            self.state = self.treatment.update(terms, self.state)

    def sides(self, step: Step, form: Form) -> Side:
        """The sides of a step's responses, with gradient."""
        self.optimiser.zero_grad()
        if self.rowwise:
            return self.optimiser.sides(step.user, step.items)
        if form == "all":
            return Side(score=self.model.scores(step.user).reshape(-1))
        return self.model.sides(step.user, step.items, step.event)

    def look(self, step: Step, made: Made, others: Sequence[Made]) -> tuple[Tensor, Target]:
        """Gradients of a step, left in the parameters; returns the loss of each record, detached, and the (p, w) used."""
        losses, used = self.losses(made, others)
        whole = losses.sum() / (len(losses) if self.o.reduction == "mean" else 1)
        if self.o.l2 and not self.rowwise:
            penalty = self.model.penalty(step.user, step.items)
            whole = whole if penalty is None else whole + self.o.l2 * penalty
        extra = None if self.rowwise else self.model.extra(step.user, step.items, self.aside)
        (whole if extra is None else whole + extra).backward()
        return losses.detach(), used

    def move(self) -> None:
        """One step of the optimiser on the gradients there are."""
        if self.o.clip and not self.rowwise:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.o.clip)
        self.optimiser.step()
        self.step += 1

    def losses(self, made: Made, others: Sequence[Made] = (), *, learn: bool = True) -> tuple[Tensor, Target]:
        """w (p keep + (1 - p) flip) of each record, and the (p, w) used; the treatment learns from the step where `learn`.

        others: the same records as the peers see them; their mean losses, under this model's statistics, are those of "the peer".
        """
        if self.objective.context is not None and learn:
            self.context = self.objective.context(made.first.map(_detached), made.second.map(_detached), self.context)
        try:
            keep, flip = terms_of(self.objective, made.first, made.second, self.context)
        except ValueError as error:
            raise InputError(f"pass {self.epoch + 1}, step {self.step + 1}: {error}: {self.lower}") from error
        used = made.given
        if not self.plain:
            with torch.no_grad():
                terms = self._terms(made, keep, flip, others)
                assert terms.given is not None
                used = self.treatment.target(terms.given, terms, self.state)
                if learn:
                    self.state = (self.treatment.renew or self.treatment.update)(terms, self.state)
        cast = Target(used.p.to(keep), used.w.to(keep))
        return weigh(self.objective, cast, keep, flip), used

    def _terms(self, made: Made, keep: Tensor, flip: Tensor, others: Sequence[Made]) -> Terms:
        seen = [terms_of(self.objective, x.first.map(_detached), x.second.map(_detached), self.context) for x in others]
        peer = [torch.stack([x.double().cpu() for x in found]).mean(dim=0) for found in zip(*seen, strict=True)] or [None, None]
        return Terms(
            keep.detach().double().cpu(), flip.detach().double().cpu(), made.record.cpu(), made.user.cpu(), made.item.cpu(), self.step,
            self.epoch, self.total, Target(made.given.p.cpu(), made.given.w.cpu()), *peer,
        )  # fmt: skip

    def remember(self) -> None:
        """Keep the model as it is, for `recall`."""
        self.kept = {name: x.detach().clone() for name, x in self.model.state_dict().items()}

    def recall(self) -> Recommender:
        """The model as it was last remembered, or as it is; it moves no more."""
        if self.kept:
            self.model.load_state_dict(self.kept)
        return self.model.requires_grad_(False).eval()

    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """Everything that goes on from here, as tensors by kind."""
        found = {
            "model": self.model.state_dict(), "kept": self.kept, "optimiser": optimiser_tensors(self.optimiser), "treatment": self.state,
            "context": self.context, "random": {"aside": self.aside.get_state()},
        }  # fmt: skip
        return {f"{self.number}.{kind}": tensors for kind, tensors in found.items()}

    def restore(self, found: Resumption, step: int) -> None:
        """Put back what `parts` gave after so many steps."""

        def of(kind: str) -> dict[str, Tensor]:
            return found.of(f"{self.number}.{kind}")

        self.model.load_state_dict(of("model"))
        restore_optimiser(self.optimiser, of("optimiser"))
        self.kept, self.state, self.context, self.step = of("kept"), of("treatment"), of("context"), step
        self.aside.set_state(of("random")["aside"])


def selects_by_epoch(treatment: Treatment) -> bool:
    """Whether a treatment, or one of a chain, selects among all records before a pass begins, going by a peer."""
    return treatment.reads_peer and any(name.endswith("level") and x == "epoch" for name, x in treatment.settings.items())


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
