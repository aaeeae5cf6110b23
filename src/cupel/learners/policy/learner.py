"""The loop: data to tokens, reference, steps, evaluations, checkpoints, and the model at the end. A killed run goes on to the same bytes.

    OUT / model /            the best or the last model, as transformers and peft load it, with cupel.json beside it
    OUT / log.jsonl          a line per step and per evaluation; no clock times
    OUT / records.parquet    per comparison: what truncation did to it, the target (p, w) as given, margin and target when last trained on
    OUT / metrics.json       the last evaluations, the flip rate held out and in the sample, counts
    OUT / performance.jsonl  seconds, tokens per second, peak memory: what differs from run to run
    OUT / checkpoints /      see `checkpoint`; OUT / .tokens and .reference are kept for the next run
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cupel.errors import CupelError, InputError
from cupel.learners.policy import order
from cupel.learners.policy.batch import Data
from cupel.learners.policy.checkpoint import Checkpoints, Snapshot
from cupel.learners.policy.evaluation import evaluate_sets, flip_rate
from cupel.learners.policy.generations import Generations
from cupel.learners.policy.journal import Journal, words
from cupel.learners.policy.judging import Scoring, judge_of
from cupel.learners.policy.model import load_model, model_digest, replace_folder, save_model
from cupel.learners.policy.names import Names
from cupel.learners.policy.optimise import clip, gradient_norm, optimiser_of, restore, schedule_of, state_of
from cupel.learners.policy.options import PolicyOptions, Reference, reference_of
from cupel.learners.policy.preparing import Progress, parsed, prepare
from cupel.learners.policy.questions import questions
from cupel.learners.policy.ranks import Ranks, place_into, whole
from cupel.learners.policy.reward_model import conventions, explanation_of, given_by, head_of, load_reward_model, scorer_of
from cupel.learners.policy.scaling import Scaler
from cupel.learners.policy.step import Stepper, StepResult, check_run
from cupel.learners.policy.stored import frozen, peer_for, reference_for
from cupel.learners.policy.tokens import OUTCOMES, Tokens
from cupel.noise.state import load_state, save_state, state_digest
from cupel.records.files import lock, to_json, write_json, write_parquet


class TrainingError(CupelError):
    """Training cannot go on: losses or gradients are not finite, step after step."""


@dataclass(frozen=True)
class Trained:
    """What a run left: where, how many steps, the last metrics, and the sentences for people."""

    out: Path
    steps: int
    metrics: Mapping[str, Any]
    words: tuple[str, ...]


def train_policy(
    options: PolicyOptions, *, force: bool = False, progress: Progress | None = None, judge: Scoring | None = None
) -> Trained:
    """Train a policy (or, with kind="sft", imitate preferred responses) as `options` say; resumes what OUT holds.

    judge: a function of (prompts, answers) to scores that compares what the policy writes with what the start wrote (`generate`).

    Raises InputError for data, templates, models and options that do not fit, before weights are loaded where that can be known;
    TrainingError where losses stop being finite.
    """
    ranks = Ranks(options)
    out = Path(options.out)
    if not ranks.first:
        return _Run(options, ranks, out, progress, judge).run(force)
    with lock(out):
        return _Run(options, ranks, out, progress, judge).run(force)


#: evaluations of a run that names no number of steps between them
EVALUATIONS = 5
#: options that say where and how fast a run goes, not what comes of it
_ELSEWHERE = ("out", "keep", "cache", "trackers", "device", "processes", "nonfinite")


class _Run:
    """One run on one process."""

    def __init__(self, options: PolicyOptions, ranks: Ranks, out: Path, progress: Progress | None, judge: Scoring | None) -> None:
        self.o, self.ranks, self.out, self.progress = options, ranks, out, progress if ranks.first else None
        self.objective, self.treatment = parsed(options)
        self.judge = judge_of(options, judge)
        self.reference_kind: Reference = reference_of(options.reference)
        if "reference" not in self.objective.needs and "reference_tokens" not in self.objective.needs and options.kind == "sft":
            self.reference_kind = Reference("none")
        live = self.reference_kind.kind in ("live", "refresh", "ema")
        single = options.unpaired or options.kind == "sft"
        check_run(self.objective, self.treatment, live=live, unpaired=single, peer=options.peer is not None, gives=given_by(options))
        wants = {"reference", "reference_tokens"} & self.objective.needs
        if self.reference_kind.kind == "none" and wants:
            raise InputError(f"{self.objective.name} compares with a reference: choose reference: start, or an objective such as simpo")

    # ---- from start to end ----------------------------------------------------------------------------------------------------------

    def run(self, force: bool) -> Trained:
        o = self.o
        if self.ranks.first:
            self.prepared = prepare(o, self.out, mismatch="mismatch" in self.objective.needs, progress=self.progress)
        self.ranks.wait()
        if not self.ranks.first:
            self.prepared = prepare(o, self.out, mismatch="mismatch" in self.objective.needs)
        data, self.asked = self.prepared.data, questions(self.prepared.sets, o)
        self.per_epoch = order.steps_per_epoch(self._epoch_size(), o.batch_size)
        self.total = min(self.per_epoch * o.epochs, o.steps or self.per_epoch * o.epochs)
        described = {name: value for name, value in o.recorded().items() if name not in _ELSEWHERE}
        named = {**described, "data": self.prepared.digest, "start": model_digest(o), "code": _code()}
        named |= {name: model_digest(replace(o, model=name, adapter=None)) for name in frozen(o)}
        named |= {"judge": self.judge.digest} if self.judge else {}
        digest = hashlib.sha256(to_json(named).encode()).hexdigest()
        self.checkpoints = Checkpoints(self.out, digest, described)
        if force and self.ranks.first:
            self.checkpoints.clear()
            shutil.rmtree(self.out / "model", ignore_errors=True)
        self.ranks.wait()
        last = self.checkpoints.last()
        self._load()
        step = self._restore(last) if last else self._begin()
        self.schedule = schedule_of(o, self.total)
        if not step:  # curves begin at the start; a run that goes on has this line
            self._evaluate(0)
        self._loop(step)
        return self._finish(data)

    def _epoch_size(self) -> int:
        data = self.prepared.data
        sizes = np.bincount(data.source, minlength=len(self.prepared.shares))
        return sum(order.taken(int(n), share) for n, share in zip(sizes, self.prepared.shares, strict=True))

    def _load(self) -> None:
        """Model, scorer, optimiser; the reference is filled before the first step."""
        from cupel.scorers.scorer import Scorer

        o = self.o
        torch.manual_seed(_number(o.seed, "adapter"))  # an adapter's first values
        reward = o.kind == "reward"
        self.model: Any = load_reward_model(o, self.prepared, self._tokens()) if reward else load_model(o)
        self.model.to(self.ranks.device)
        if reward:
            self.scorer: Any = scorer_of(self.model, o)
        else:
            self.scorer = Scorer(self.model, o.layout, longest=o.max_length, examples=self.prepared.examples)
        self.reference: Any = reference_for(o, self.reference_kind, self.objective, self.scorer, self.ranks, self.prepared, self.progress)
        peer = peer_for(o, self.objective, self.reference, self.ranks, self.prepared, self.progress)
        self.wrapped = self.ranks.wrap(self.scorer)
        more = (self.checkpoints.digest, self.judge, self.progress)
        self.generations = Generations(o, self.asked, self.prepared, self.scorer, self.ranks, self.out, *more)
        self.names = {id(p): name for name, p in self.scorer.model.named_parameters() if p.requires_grad}
        self.optimiser = optimiser_of(self.scorer.model, o)
        self.scaler = Scaler.of(o, self.scorer.model)
        self.stepper = Stepper(self.wrapped, self.scorer, self.reference, self.objective, self.treatment, self.ranks, o.normalise, peer)
        self.journal = Journal(self.out, self.ranks, trackers=bool(o.trackers))
        if o.trackers:
            self.ranks.accelerator.init_trackers("cupel", config=json.loads(to_json(o.recorded())))

    def _tokens(self) -> list[Tokens]:
        return [tokens for data in (self.prepared.data, *self.prepared.sets.values()) for tokens in data.tokens]

    # ---- state ----------------------------------------------------------------------------------------------------------------------

    def _begin(self) -> int:
        self.state = self.treatment.init(self.prepared.data.spec)
        self.context: Mapping[str, Tensor] = {}
        n = len(self.prepared.data)
        self.seen = {name: torch.full((n,), float("nan")) for name in ("margin", "evidence", "p", "w")}
        self.best: dict[str, Any] = {"score": None, "step": None, "waited": 0}
        self.evaluations: list[dict[str, Any]] = []
        self.skipped = 0
        self.ended = ""
        self.journal.start()
        self.generations.keep(0)
        return 0

    def _restore(self, last: Snapshot) -> int:
        assert last.folder is not None
        step = self._begin_from(last.progress)
        parameters = dict(self.scorer.model.named_parameters())
        for name, value in last.parameters.items():
            place_into(parameters[name], value)
        parts: dict[str, dict[str, Tensor]] = {"optimiser": {}, "context": {}, "reference": {}, "seen": {}}
        for name, value in last.trainer.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = value
        restore(self.optimiser, self.names, parts["optimiser"], last.numbers)
        self.context = {name: value.to(self.ranks.device) for name, value in parts["context"].items()}
        if parts["reference"]:
            self.reference.load({k: v.to(self.ranks.device) for k, v in parts["reference"].items()}, last.progress["reference_version"])
        self.seen = parts["seen"]
        self.state = load_state(last.folder / "treatment.safetensors", self.treatment, self.prepared.data.spec).state
        self.journal.cut(step)
        self.generations.keep(step)
        return step

    def _begin_from(self, progress: Mapping[str, Any]) -> int:
        self.best, self.evaluations = dict(progress["best"]), list(progress["evaluations"])
        self.skipped, self.ended = int(progress["skipped"]), str(progress["ended"])
        self.scorer.last_layout = str(progress["layout"])
        self.scaler.load(progress["scaler"])
        return int(progress["step"])

    def _save(self, step: int) -> None:
        """A checkpoint of this moment; all processes take part in gathering, the first one writes."""
        self.ranks.same(state_digest(self.state), "the state of the treatment")
        parameters = {name: whole(p).contiguous().clone() for name, p in self.scorer.model.named_parameters() if p.requires_grad}
        tensors, numbers = state_of(self.optimiser, self.names)
        trainer = {f"optimiser/{name}": value for name, value in tensors.items()}
        trainer |= {f"context/{name}": value.detach().cpu().clone() for name, value in self.context.items()}
        trainer |= {f"seen/{name}": value for name, value in self.seen.items()}
        version = getattr(self.reference, "version", 0)
        if hasattr(self.reference, "state"):
            trainer |= {f"reference/{name}": value.cpu().clone() for name, value in self.reference.state().items()}
        progress = {
            "step": step, "best": self.best, "evaluations": self.evaluations, "skipped": self.skipped, "ended": self.ended,
            "reference_version": version, "layout": self.scorer.last_layout, "scaler": self.scaler.state(),
        }  # fmt: skip
        state = self._whole_model()
        if self.ranks.first:
            self.checkpoints.save(
                Snapshot(parameters, trainer, numbers, progress),
                lambda folder: self._export(folder, state),
                lambda path: save_state(path, self.treatment, self.state, self.prepared.data.spec),
            )
            self.checkpoints.rotate(self.o.keep, self.best["step"])
        self.ranks.wait()

    def _whole_model(self) -> dict[str, Tensor]:
        """Tensors of the model by name, sharded ones gathered: all processes have to call it."""
        return {name: whole(value) for name, value in self.scorer.model.state_dict().items()} if self.ranks.sharded else {}

    def _export(self, folder: Path, state: Mapping[str, Tensor], *, merge: bool = False) -> None:
        save_model(folder, self.scorer.model, self.prepared.processor, state, merge)
        o, template = self.o, self.prepared.template
        said = {"kind": o.kind, "objective": "sft" if o.kind == "sft" else o.objective, "treatment": o.treatment, "code": _code()}
        said |= {"template": template.digest}
        if o.kind == "reward":
            said |= {"tokens": conventions(template, o), **head_of(o, self.prepared, self.scorer.model)}
        (folder / "cupel.json").write_text(to_json(said), "utf-8")
        if learned := explanation_of(o, self.prepared, self.scorer.model):
            (folder / "explanation.json").write_text(to_json(learned), "utf-8")

    # ---- the loop -------------------------------------------------------------------------------------------------------------------

    def _loop(self, step: int) -> None:
        o, bad = self.o, 0
        while step < self.total and not self.ended:
            epoch, place = divmod(step, self.per_epoch)
            if place == 0 or not hasattr(self, "rows"):
                self.rows = order.epoch_order(self.prepared.data.prompt, self.prepared.data.source, self.prepared.shares, o.seed, epoch)
            rows = self.rows[place * o.batch_size : (place + 1) * o.batch_size]
            result, norm, used = self._step(rows, step, epoch)
            self.journal.count(used)
            step += 1
            scale = self.scaler.scale
            overflow = self.scaler.overflowed(finite_loss=result.finite, finite_gradient=math.isfinite(norm))
            good = result.finite and math.isfinite(norm)
            bad = 0 if good else bad + (not overflow)
            more = {"scale": scale, "overflow": overflow} if self.scaler.on else {}
            self.journal.step(step, epoch, result, norm, self.schedule(step - 1), more)
            if not good and not overflow:
                self.skipped += 1
                self._refuse(bad, step, result)
            if self.progress:
                self.progress("train", step, self.total)
            last = step == self.total
            if last or self._due(step, o.evaluate_every or max(1, -(-self.total // EVALUATIONS))):
                self._evaluate(step)
            if last or self.ended or self._due(step, o.save_every) or self.best["step"] == step:
                self.journal.performance(step)
                self._save(step)

    def _due(self, step: int, every: int | None) -> bool:
        return step % (every or self.per_epoch) == 0

    def _step(self, rows: np.ndarray, step: int, epoch: int) -> tuple[StepResult, float, int]:
        """One optimiser step; (what it did, norm of the gradient, tokens of this process)."""
        o, data = self.o, self.prepared.data
        torch.manual_seed(_number(o.seed, "step", step, self.ranks.rank))
        parts = order.parts_of(rows, data.prompt, data.cost, data.prompt_cost, o.batch_tokens, self.ranks.size)[self.ranks.rank]
        batches = [data.batch(part.rows, part.counts) for part in parts]
        self.scorer.train()
        result = self.stepper.step(batches, self.state, self.context, step=step, epoch=epoch, total=self.total, scale=self.scaler.scale)
        norm = gradient_norm(self.scorer.model, self.ranks) / self.scaler.scale
        if result.finite and math.isfinite(norm):
            for group in self.optimiser.param_groups:
                group["lr"] = self.schedule(step) * group.get("pace", 1.0)
            clip(self.scorer.model, norm, o.max_grad_norm, self.scaler.scale)
            self.optimiser.step()
            self.state = self.treatment.update(result.terms, self.state)
            self.context = result.context
            if hasattr(self.reference, "after_step"):
                self.reference.after_step(step + 1)
            self._remember(result)
        self.optimiser.zero_grad(set_to_none=True)
        return result, norm, sum(len(b.groups.prompt_ids) + len(b.groups.response_ids) for b in batches)

    def _remember(self, result: StepResult) -> None:
        record = result.terms.record
        evidence = result.terms.flip - result.terms.keep
        evidence = torch.where(torch.isnan(evidence), result.margin, evidence)
        given = result.terms.given
        toward = 1.0 if given is None else torch.where(given.p >= 0.5, 1.0, -1.0)
        for name, values in (("margin", result.margin), ("evidence", evidence * toward), ("p", result.used.p), ("w", result.used.w)):
            self.seen[name][record] = values.float()

    def _refuse(self, bad: int, step: int, result: StepResult) -> None:
        """Name the records of a step that was skipped; stop after too many in a row."""
        ids = self.prepared.data.spec.records
        broken = ~torch.isfinite(result.terms.keep)
        named = result.terms.record[broken] if bool(broken.any()) else result.terms.record
        first = ", ".join(ids[int(n)] for n in named[:5])
        self.journal.line({"step": step, "skipped": True, "records": [ids[int(n)] for n in named[:20]], "n_records": len(named)})
        if bad >= self.o.nonfinite:
            last = self.checkpoints.all()
            kept = f"The last checkpoint is {last[-1]}" if last else "No checkpoint had been written"
            raise TrainingError(
                f"loss or gradient was not finite in {bad} steps in a row, the last of them step {step} with {len(named)} comparisons in "
                f"question (first: {first}). {kept}. Lower learning_rate, train with precision=bf16 or no, or look at these records"
            )

    def _evaluate(self, step: int) -> None:
        if not self.prepared.sets:
            return
        start = step == 0 and self.reference_kind.kind not in ("none", "model")
        found = evaluate_sets(self.stepper, self.prepared.sets, self.context, self.o.batch_tokens, self.progress, start=start)
        for name, written in (self.generations.at(step) if step else {}).items():  # answers of the start stand beside all others
            found[name]["generations"] = written
        line = {"step": step, "evaluation": found}
        self.journal.evaluation(line)
        self.evaluations.append(line)
        if self.o.best:
            self._choose(step, found)

    def _choose(self, step: int, found: Mapping[str, Any]) -> None:
        name, _, metric = (self.o.best or "").rpartition("/")
        if name not in found or metric not in ("accuracy", "loss"):
            raise InputError(f"best={self.o.best!r} is not NAME/accuracy or NAME/loss of an evaluation set: {', '.join(found)}")
        if not step:  # what was not trained is no checkpoint to choose
            return
        score = found[name][metric] if metric == "accuracy" else -found[name][metric]
        if self.best["score"] is None or score > self.best["score"]:
            self.best = {"score": score, "step": step, "waited": 0}
            return
        self.best["waited"] += 1
        if self.o.patience and self.best["waited"] >= self.o.patience:
            self.ended = f"{self.o.best} has not improved in {self.best['waited']} evaluations since step {self.best['step']}"

    def _finish(self, data: Data) -> Trained:
        """The model, the records and the metrics of a finished run."""
        steps = self._last_step()
        state = self._whole_model()
        metrics = self._metrics(steps)
        if self.ranks.first:
            temporary = self.out / ".model.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            with self.checkpoints.refused(f"the model {self.out / 'model'}", temporary):
                if self.best["step"] is not None and not self.o.merge:
                    shutil.copytree(self.checkpoints.folder / f"step-{self.best['step']:08d}" / "model", temporary)
                else:
                    self._export(temporary, state, merge=self.o.merge)
                self._keep_familiar(temporary)
                replace_folder(temporary, self.out / "model")
            write_parquet(self.out / "records.parquet", self._records(data))
            write_json(self.out / "metrics.json", metrics)
        if self.o.trackers:
            self.ranks.accelerator.end_training()
        self.ranks.wait()
        return Trained(self.out, steps, metrics, tuple(words(metrics, self.out)))

    def _keep_familiar(self, folder: Path) -> None:
        """Beside a reward's final weights: where its training sides lay under them. Nothing where parameters are sharded."""
        if self.o.kind != "reward" or self.ranks.sharded:
            return
        from cupel.learners.policy.rewards import TransformerReward
        from cupel.learners.policy.shift import keep, training_familiar

        best = self.best["step"]
        if best is not None and not self.o.merge:
            parameters = dict(self.scorer.model.named_parameters())
            for name, value in self.checkpoints.parameters(best).items():
                place_into(parameters[name], value)
        reward = TransformerReward(self.scorer, self.prepared.template, self.o.max_length, self.o.batch_tokens)
        keep(folder, training_familiar(reward, self.prepared.data, self.o.seed))

    def _last_step(self) -> int:
        last = self.checkpoints.all()
        return int(last[-1].name.removeprefix("step-")) if last else 0

    def _metrics(self, steps: int) -> dict[str, Any]:
        data = self.prepared.data
        evidence = self.seen["evidence"].double().numpy()
        there = np.isfinite(evidence)
        inside = {"rate": None, "why": "too few comparisons", "basis": "in-sample"}
        if self.o.kind == "sft":
            inside["why"] = "imitation has no margins between labels"
        elif there.sum() > 1:
            inside = {**flip_rate(evidence[there]), "basis": "in-sample"}
        outcomes = {name: sum(rows.counts()[name] for rows in data.rows) for name in OUTCOMES}
        last = self.evaluations[-1]["evaluation"] if self.evaluations else {}
        return {
            "steps": steps, "epochs": steps / self.per_epoch, "n_comparisons": len(data), "outcomes": outcomes,
            "skipped_steps": self.skipped, "overflows": self.scaler.skipped, "ended": self.ended, "best": self.best, "evaluation": last,
            "evaluations": self.evaluations,
            "in_sample_flip_rate": inside, "treatment_state": _small(self.state), "objective": self.objective.name,
            "treatment": self.treatment.name, "layout": self.scorer.last_layout, "layouts": list(self.scorer.layouts),
        }  # fmt: skip

    def _records(self, data: Data) -> Any:
        import pyarrow as pa

        parts = []
        for n, rows in enumerate(data.rows):
            parts.append((np.flatnonzero(data.source == n), rows))
        columns: dict[str, Any] = {"id": Names.joined([rows.ids for _, rows in parts]).to_arrow().cast(pa.string())}
        lost = [rows.lost[rows.source_row] for _, rows in parts]
        columns["tokens_lost"] = pa.array(np.concatenate(lost))
        columns |= {f"{name}_given": pa.array(np.concatenate([getattr(rows, name) for _, rows in parts])) for name in ("p", "w")}
        for name in ("margin", "p", "w"):
            values = self.seen[name].double().numpy()
            columns[name] = pa.array(values, mask=np.isnan(values))
        return pa.table(columns)


def _number(seed: int, *parts: object) -> int:
    """A seed for torch from the run's seed and a place in it."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, (seed, *parts))).encode()).digest()[:8], "big") >> 1


def _small(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors of a treatment's state that are a few numbers, for people."""
    return {name: tensor.tolist() for name, tensor in sorted(state.items()) if tensor.numel() <= 64}


def _code() -> str:
    from cupel import __version__

    return f"cupel {__version__}, torch {torch.__version__}"
