"""What both trainers do beside TRL: targets from the data, equation (1) for the loss, the state of a treatment from step to step."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from cupel.adapters.trl.choice import check_choice, objective_of, treatment_of
from cupel.adapters.trl.data import CODED, Collator, coded, spec_of, split, target_of, terms_of
from cupel.adapters.trl.hooks import METHODS, Methods, check_attributes, check_methods
from cupel.adapters.trl.step import Step, context_of, learned_rate, loss_of, treated, updated
from cupel.errors import CupelError, InputError
from cupel.noise.fixed import identity
from cupel.noise.loss import terms_of as losses_of
from cupel.noise.state import load_state, save_state, state_digest
from cupel.noise.types import DataSpec, State, Treatment
from cupel.objectives.types import Context, Objective, Side

#: what stands in a checkpoint folder beside TRL's files
STATE, CONTEXT = "cupel_treatment.safetensors", "cupel_context.safetensors"


class Recorder:
    """The model as TRL is given it: called as TRL calls it, its first outputs kept; with `only`, TRL's own work ends there."""

    class Enough(Exception):
        """The forward is done, and nothing else is wanted."""

    def __init__(self, model: Any, *, only: bool = False) -> None:
        self.model, self.only, self.outputs = model, only, None

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """The model's outputs; ends TRL's work with `only`."""
        outputs = self.model(*positional, **named)
        if self.outputs is None:
            self.outputs = outputs
        if self.only:
            raise Recorder.Enough
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Learner:
    """A mixin in front of a trainer of TRL: its objective and treatment, its columns, its steps.

    Made with `objective` (a name such as "sigmoid:beta=0.1", or an Objective; None: what TRL's arguments say) and `treatment` (a name
    such as "em:flip=0.2,by=annotator", or a Treatment; None: plain training); everything else is TRL's.

    objective, treatment  as chosen
    data_spec             ids of rows, annotators and groups of the training set
    treatment_state       the treatment's memory, updated once for each optimiser step
    """

    #: the trainer of TRL, the class of its arguments, and hooks beyond those of every trainer
    upstream: ClassVar[type]
    config: ClassVar[type]
    methods: ClassVar[Methods] = {}
    attributes: ClassVar[tuple[str, ...]] = ("data_collator", "accelerator", "model_wrapped", "state")
    #: the loss comes divided by the number of comparisons of the whole step
    loss_is_scaled_for_ga = True

    def __init__(
        self, *positional: Any, objective: str | Objective | None = None, treatment: str | Treatment | None = None, **named: Any
    ) -> None:
        check_methods(self.upstream, {**METHODS, **self.methods})
        given = inspect.signature(self.upstream.__init__).bind(self, *positional, **named).arguments
        del given["self"]
        args, train = given.get("args"), given.get("train_dataset")
        if train is None:
            raise InputError("train_dataset is missing: there is nothing to train on")
        self.data_spec = spec_of(train)
        self.treatment = treatment_of(treatment)
        self.objective = self.default_objective(args, train) if objective is None else objective_of(objective)
        self.check_arguments(args, train, chosen=objective is not None)
        train = coded(train, self.data_spec, "train_dataset", training=True)
        parts = 1 if args is None else args.gradient_accumulation_steps * max(args.world_size, 1)
        soft = bool((torch.tensor(train.with_format(None)["cupel_p"][:]) != 1).any())
        self.treatment_state: State = check_choice(
            self.objective, self.treatment, self.gives(args), self.data_spec, soft=soft, parts=parts, why=self.why
        )  # fmt: skip
        self._context: Context = {}
        self._step: Step | None = None
        self._sums: dict[str, defaultdict[str, float]] = {"train": defaultdict(float), "eval": defaultdict(float)}
        given["train_dataset"] = train
        if given.get("eval_dataset") is not None:
            given["eval_dataset"] = self._coded(given["eval_dataset"])
        super().__init__(**given)
        check_attributes(self, self.upstream, self.attributes)
        self._refuse_parallel()
        self.data_collator = Collator(self.data_collator)
        self.add_callback(_Keep(self))  # type: ignore[attr-defined]

    # What the two trainers differ in

    #: what would help where TRL lacks what an objective needs
    why: ClassVar[Mapping[str, str]] = {}

    def default_objective(self, args: Any, train: Any) -> Objective:
        """The objective that TRL's arguments describe."""
        raise NotImplementedError

    def check_arguments(self, args: Any, train: Any, *, chosen: bool) -> None:
        """InputError where TRL's arguments say something about the loss that the objective does not."""
        raise NotImplementedError

    def gives(self, args: Any) -> frozenset[str]:
        """The needs of objectives that this trainer can serve."""
        raise NotImplementedError

    def prepared(self, inputs: dict[str, Any], extra: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A batch, and what TRL does not know of it, with what no gradient flows through: the reference's log-probabilities."""
        return inputs, extra

    def using(self) -> AbstractContextManager[None]:
        """How TRL is told to take what `prepared` has put into the batch."""
        return nullcontext()

    def sides(self, outputs: Any, inputs: Mapping[str, Any]) -> tuple[Side, Side]:
        """The chosen and the rejected side of a batch."""
        raise NotImplementedError

    def extra_loss(self, outputs: Any) -> Tensor | None:
        """A term of TRL's loss that is no matter of preferences, as a mean over the batch."""
        return None

    # Hooks of TRL and transformers

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        columns = self._signature_columns or []
        self._signature_columns = [*columns, *(name for name in CODED if name not in columns)]

    def evaluate(self, eval_dataset: Any = None, *positional: Any, **named: Any) -> dict[str, float]:
        """TRL's evaluation; its loss is that of the labels as the data state them, (p, w), without treatment."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self._coded(eval_dataset)
        return super().evaluate(eval_dataset, *positional, **named)  # type: ignore[misc]

    def train(self, resume_from_checkpoint: str | bool | None = None, *positional: Any, **named: Any) -> Any:
        """TRL's training; a checkpoint also brings back the treatment's state and the objective's statistics."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)  # type: ignore[attr-defined]
        if folder:
            self._restore(Path(str(folder)))
        return super().train(resume_from_checkpoint, *positional, **named)  # type: ignore[misc]

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The micro-batches of one optimiser step; here it is counted, and treated where that takes all of it at once."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        self._step = self._opened(batches)
        return batches, items

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Sum of w (p keep + (1 - p) flip) over a micro-batch, divided by the number of comparisons of the step.

        TRL runs the model and logs its metrics; the loss it computes on the way is not used.
        """
        training = self.model.training  # type: ignore[attr-defined]
        step = self._step if training else None
        if step is not None and step.prepared:
            inputs, extra = step.prepared.pop(0)
        else:
            inputs, extra = self.prepared(*split(inputs))
        recorder = Recorder(model)
        with self.using():
            result = super().compute_loss(recorder, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        first, second = self.sides(recorder.outputs, {**inputs, **extra})
        target, terms = target_of(extra), terms_of(extra, *self._place())
        if step is None or len(step.seen) == step.parts:  # called by hand, or for an evaluation
            step = Step(1, self._total(len(target.p)) if training else len(target.p))
        context = step.context if step.context is not None else self._statistics([(first, second)])
        treatment, state = (self.treatment, self.treatment_state) if training else (identity(), {})
        each, used = loss_of(step, self.objective, treatment, first, second, target, terms, state, context)
        self._count(training, self.objective.margin(first, second, context), used)
        share = self._processes() / step.count if training else 1 / step.count
        loss = each.sum() * share
        beside = self.extra_loss(recorder.outputs)
        if beside is not None:
            loss = loss + beside * (len(each) * share)
        if training and len(step.seen) == step.parts:
            self._context = context
            self.treatment_state = updated(self.treatment, step, self.treatment_state, self._gather)
        return (loss, result[1]) if return_outputs else loss

    def log(self, logs: dict[str, float], *positional: Any, **named: Any) -> None:
        """TRL's log, with the mean margin, p and w since the last one, and the flip rate where the treatment learns one."""
        mode = "train" if self.model.training else "eval"  # type: ignore[attr-defined]
        sums, prefix = self._sums[mode], "eval_" if mode == "eval" else ""
        if sums["n"]:
            for name in ("margin", "p", "w"):
                logs[f"{prefix}cupel/{name}"] = sums[name] / sums["n"]
            rate = learned_rate(self.treatment_state) if mode == "train" else None
            if rate is not None:
                logs["cupel/flip_rate"] = rate
        sums.clear()
        super().log(logs, *positional, **named)  # type: ignore[misc]

    # Steps

    def _opened(self, batches: list[Any]) -> Step:
        step = Step(len(batches), self._total(sum(len(batch["cupel_p"]) for batch in batches)))
        divided = len(batches) > 1 or self._processes() > 1
        if not divided or not batches or (self.treatment.scope != "step" and self.objective.context is None):
            return step
        seen, sides = [], []
        for part in (self.model, self.optimizer):  # type: ignore[attr-defined]
            if callable(getattr(part, "train", None)):  # of optimisers, those without a schedule
                part.train()
        with torch.no_grad(), self.compute_loss_context_manager():  # type: ignore[attr-defined]
            for batch in batches:
                inputs, extra = self.prepared(*split(self._prepare_inputs(batch)))  # type: ignore[attr-defined]
                step.prepared.append((inputs, extra))
                recorder = Recorder(self.model_wrapped, only=True)  # type: ignore[attr-defined]
                try:
                    with self.using():
                        super().compute_loss(recorder, inputs)  # type: ignore[misc]
                except Recorder.Enough:
                    sides.append(tuple(side.map(torch.Tensor.detach) for side in self.sides(recorder.outputs, {**inputs, **extra})))
                seen.append(extra)
        if self.objective.context is not None:
            step.context = self._statistics(sides)
        if self.treatment.scope == "step":
            parts = []
            for (first, second), extra in zip(sides, seen, strict=True):
                keep, flip = losses_of(self.objective, first, second, step.context or {})
                parts.append(terms_of(extra, *self._place())._replace(keep=keep, flip=flip, given=target_of(extra)))
            rank = self.accelerator.process_index  # type: ignore[attr-defined]
            step.targets = treated(self.treatment, parts, self.treatment_state, self._gather, rank)
        return step

    def _statistics(self, sides: list[Any]) -> Context:
        if self.objective.context is None:
            return {}
        found = context_of(self.objective, sides, self._context, self._gather if self.model.training else list)  # type: ignore[attr-defined]
        return {name: value.to(self.accelerator.device) for name, value in found.items()}  # type: ignore[attr-defined]

    def _place(self) -> tuple[int, int, int]:
        """(steps taken, passes begun before this one, planned steps)."""
        state = self.state  # type: ignore[attr-defined]
        return int(state.global_step), int(state.epoch or 0), int(state.max_steps or 0)

    def _processes(self) -> int:
        return self.accelerator.num_processes  # type: ignore[attr-defined]

    def _gather(self, parts: list[Any]) -> list[Any]:
        return gather_object(parts) if self._processes() > 1 else parts

    def _total(self, count: int) -> int:
        return sum(self._gather([count]))

    def _count(self, training: bool, margin: Tensor, used: Any) -> None:
        columns = (margin.detach(), used.p, used.w, torch.ones_like(used.w))
        values = torch.stack([x.float().sum() for x in columns])
        if self._processes() > 1:
            values = self.accelerator.gather(values.unsqueeze(0)).sum(0)  # type: ignore[attr-defined]
        sums = self._sums["train" if training else "eval"]
        for name, value in zip(("margin", "p", "w", "n"), values.tolist(), strict=True):
            sums[name] += value

    def _coded(self, dataset: Any) -> Any:
        if isinstance(dataset, dict):
            return type(dataset)({name: self._coded(part) for name, part in dataset.items()})
        return coded(dataset, self.data_spec, "eval_dataset", training=False)

    def _refuse_parallel(self) -> None:
        args, config = self.args, getattr(self.accelerator, "parallelism_config", None)  # type: ignore[attr-defined]
        axes = [name for name in ("tp_size", "cp_size", "sp_size") if getattr(config, name, None) not in (None, 1)]
        if axes or args.n_gpu > 1:
            raise InputError(
                f"this adapter works with data parallelism (DDP, FSDP, DeepSpeed) only, not with "
                f"{', '.join(axes) or 'nn.DataParallel'}: launch one process per device, each with comparisons of its own"
            )

    # Checkpoints

    def _store(self, folder: Path) -> None:
        from safetensors.torch import save

        from cupel.records.files import atomic_write

        digests = self._gather([state_digest(self.treatment_state)])
        if len(set(digests)) > 1:
            raise CupelError(f"the state of {self.treatment.name} differs between processes: {len(set(digests))} states on {len(digests)}")
        if not self.is_world_process_zero():  # type: ignore[attr-defined]
            return
        save_state(folder / STATE, self.treatment, self.treatment_state, self.data_spec)
        if self._context:
            tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(self._context.items())}
            with atomic_write(folder / CONTEXT) as temporary:
                temporary.write_bytes(save(tensors))

    def _restore(self, folder: Path) -> None:
        from safetensors.torch import load

        self.treatment_state = load_state(folder / STATE, self.treatment, self.data_spec).state
        if self.objective.context is not None:
            if not (folder / CONTEXT).is_file():
                raise InputError(f"{folder} has no {CONTEXT}: it was not written with an objective such as {self.objective.name}")
            device = self.accelerator.device  # type: ignore[attr-defined]
            self._context = {name: value.to(device) for name, value in load((folder / CONTEXT).read_bytes()).items()}


class _Keep(TrainerCallback):
    """Puts the state into each checkpoint folder, once TRL has written its own files there."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """transformers' event after a checkpoint."""
        self.learner._store(Path(args.output_dir) / f"checkpoint-{state.global_step}")


__all__ = ["CONTEXT", "STATE", "DataSpec", "Learner", "Recorder"]
