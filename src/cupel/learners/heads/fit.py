"""The minibatch loop: heads that learn from comparisons of cached vectors by equation (1), alone, as an ensemble, or as peers.

A step of a head: its next B comparisons, the distinct sides of these scored once, keep and flip of the objective, the treatment's (p, w),
the mean of w (p keep + (1 - p) flip) over B, one step of Adam. Which comparisons come when is a pure function of (seed, epoch). The
gradients of all heads are taken before any head moves, so that peers review each other as they stood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons, Gather
from cupel.learners.heads.margins import Reader, shape_of
from cupel.learners.heads.network import one_torch_thread
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.names import build, settings_of
from cupel.learners.models.types import Given, PreferenceModel
from cupel.noise.loss import check, terms_of, weigh
from cupel.noise.peer import curriculum_order
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective, Side

Progress = Callable[[str, int, int], None]


class Tally:
    """What a head did with each of n comparisons, over its epochs. All values float64 [n].

    seen, kept   passes, and those in which its weight was above 0
    mean         of the margin in favour of the stated label; `variance` of the same
    p, w         the target of the last pass
    """

    def __init__(self, n: int) -> None:
        self._table = np.zeros((n, 6))  # a row is read and written at once: it lies on one or two cache lines
        self.seen, self.kept, self.mean, self._spread, self.p, self.w = self._table.T

    def add(self, rows: np.ndarray, margin: np.ndarray, used: Target) -> None:
        """One pass over the rows, each once, with their margins in favour of the stated label."""
        seen, kept, mean, spread, _, _ = self._table[rows].T
        p, w = used.p.numpy(), used.w.numpy()
        now = mean + (margin - mean) / (seen + 1)
        self._table[rows] = np.stack([seen + 1, kept + (w > 0), now, spread + (margin - mean) * (margin - now), p, w], axis=1)

    @property
    def variance(self) -> np.ndarray:
        """Variance of the margin over epochs, [n]; 0 after one."""
        return self._spread / np.maximum(self.seen - 1, 1)

    @property
    def frequency(self) -> np.ndarray:
        """Share of the passes that kept each comparison, [n]."""
        return self.kept / np.maximum(self.seen, 1)


class Fitted(NamedTuple):
    """Trained heads, what each did with the records, its treatment's last state, and one line of numbers per epoch."""

    models: tuple[PreferenceModel, ...]
    tallies: tuple[Tally, ...]
    states: tuple[State, ...]
    epochs: list[dict[str, Any]]

    @property
    def weights(self) -> tuple[dict[str, np.ndarray], ...]:
        """The parameters of each head by name."""
        return tuple({name: x.detach().numpy().copy() for name, x in model.named_parameters()} for model in self.models)


def check_fit(objective: Objective, treatment: Treatment, options: HeadOptions, data: Comparisons, seeds: Sequence[int]) -> None:
    """InputError where objective, treatment, peers and data do not go together, before anything is trained."""
    gives = settings_of(options.model)[0].gives
    given = {name for name, there in (("length", data.length), ("rating", data.strength)) if there is not None}
    missing = sorted(objective.needs - gives - given)
    if missing:
        raise InputError(
            f"{objective.name} needs {', '.join(missing)} of each side, which a head on frozen vectors does not give. Objectives for "
            f"rewards read a score, e.g. bradley_terry; for a language model: cupel train policy"
        )
    try:
        check(objective, treatment)
    except ValueError as error:
        raise InputError(str(error)) from error
    if treatment.reads_peer and not options.peers:
        raise InputError(f"{treatment.name} goes by the losses of a peer: give peers=2, which trains two heads beside each other")
    if not options.peers:
        return
    if not treatment.reads_peer:
        raise InputError(f"peers={options.peers}, but {treatment.name} looks at no peer: leave one out, or take peer_review")
    twice = len(seeds) - len(set(seeds))
    if twice:
        raise InputError(f"{twice + 1} of {len(seeds)} peers have the same seed: equal margins cannot review each other")
    at_once = min(options.batch_size if treatment.scope == "step" else len(data), len(data))
    if at_once < 2:
        raise InputError(f"a selection among {at_once} comparison at a time selects nothing: give batch_size=2 and two comparisons or more")


def fit(
    features: np.ndarray, data: Comparisons, objective: Objective, treatment: Treatment, options: HeadOptions, *,
    seeds: Sequence[int] | None = None, progress: Progress | None = None,
) -> Fitted:  # fmt: skip
    """Heads on `features` [sides, d] float32, in memory or memory-mapped; one per seed (default: seed, seed + 1, ...).

    Head j begins and shuffles by its own seed only: without peers, or where a treatment leaves all weights as they are, it is bit for bit
    the head that is trained alone with that seed. Memory: a batch of sides, and 56 bytes per comparison and head. Runs on one thread.
    InputError as `check_fit`; InputError where parameters are no longer finite.

    >>> from cupel.noise.fixed import identity
    >>> from cupel.objectives.reward import bradley_terry
    >>> x = np.array([[1.0], [0.0]], np.float32)
    >>> data = Comparisons.of(np.zeros(64, int), np.ones(64, int))
    >>> found = fit(x, data, bradley_terry(), identity(), HeadOptions(batch_size=8, learning_rate=0.1))
    >>> bool(found.weights[0]["theta"][0] > 2), int(found.tallies[0].seen[0])
    (True, 20)
    """
    seeds = tuple(range(options.seed, options.seed + options.heads)) if seeds is None else tuple(seeds)
    check_fit(objective, treatment, options, data, seeds)
    gather = Gather(features, data, options.batch_size)
    per_epoch = -(-len(data) // options.batch_size)
    total = per_epoch * options.epochs
    log: list[dict[str, Any]] = []
    with one_torch_thread():
        heads = [_Head(gather, objective, treatment, options, (j, seed), total) for j, seed in enumerate(seeds)]
        for epoch in range(options.epochs):
            for head in heads:
                head.begin(epoch)
            for step in range(per_epoch):
                for head in heads:
                    head.look(step, [other for other in heads if other is not head] if options.peers else [])
                for head in heads:
                    head.move()
                if progress is not None and step % 64 == 0:
                    progress("train", epoch * per_epoch + step, total)
            for head in heads:
                head.check_finite()
            log.append({"epoch": epoch, "heads": [head.line.numbers() for head in heads]})
    models = tuple(head.model.requires_grad_(False) for head in heads)
    return Fitted(models, tuple(head.tally for head in heads), tuple(head.state for head in heads), log)


def batch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Comparisons of an epoch in the order of its steps, int64 [n]: a pure function of seed and epoch.

    >>> batch_order(4, seed=0, epoch=0).tolist() == batch_order(4, seed=0, epoch=0).tolist()
    True
    """
    return np.random.default_rng([seed, epoch, 7]).permutation(n)


@dataclass
class _Line:
    """Sums of an epoch."""

    n: int = 0
    loss: float = 0.0
    kept: int = 0
    apart: int = 0
    reviewed: int = 0

    def numbers(self) -> dict[str, Any]:
        """Means of the epoch: loss, share kept, and the share of margins whose sign the peers see otherwise (None without peers)."""
        apart = self.apart / self.reviewed if self.reviewed else None
        return {"loss": self.loss / self.n, "kept": self.kept / self.n, "disagreement": apart}


class _Head:
    """One head in training."""

    def __init__(
        self, gather: Gather, objective: Objective, treatment: Treatment, options: HeadOptions, name: tuple[int, int], total: int
    ) -> None:  # fmt: skip
        self.gather, self.objective, self.treatment, self.o, self.total = gather, objective, treatment, options, total
        self.number, self.seed = name
        data = gather.data
        self.model = build(options.model, shape_of(gather.features, data), self.seed)
        self.model.prepare(gather.features, data)
        self.reads = Reader(data, self.model)
        parts = []
        for key, x in self.model.named_parameters():
            pace = self.model.pace(key)
            decay = options.l2 if self.model.decayed(key) else 0.0
            parts.append({"params": [x], "weight_decay": decay, "lr": options.learning_rate * pace, "pace": pace})
        self.optimiser = torch.optim.Adam(parts, lr=options.learning_rate, fused=True)
        self.state = treatment.init(DataSpec(data.ids, data.annotators, data.groups))
        self.context: Context = {}
        self.tally = Tally(len(data))
        self.step = self.epoch = 0
        self.order = np.zeros(0, np.int64)
        self.line = _Line()
        self.seen: Terms | None = None

    def begin(self, epoch: int) -> None:
        """The order of an epoch. Peer review by epoch selects before the first step of it, and may feed what it selected easy to hard."""
        self.epoch, self.line = epoch, _Line()
        n = len(self.gather.data)
        self.order = batch_order(n, self.seed, epoch)
        if self.o.scope != "epoch" or not epoch:
            return
        self.state = self.treatment.update(self._terms(np.zeros(0, np.int64), torch.zeros(0), torch.zeros(0), ([], [])), self.state)
        if self.o.curriculum:
            easy = curriculum_order(self.state).numpy()
            kept = self.state["kept@record"].numpy()[easy] > 0
            self.order = np.concatenate([easy[kept], easy[~kept]])  # selection first; what was left out is looked at last, at weight 0

    def look(self, step: int, peers: Sequence[_Head]) -> None:
        """Gradients of the epoch's step, left in the parameters."""
        size, data = self.o.batch_size, self.gather.data
        rows = np.sort(self.order[step * size : (step + 1) * size])
        block, first, second = self.gather(rows)
        x, at = torch.from_numpy(block), (torch.from_numpy(first), torch.from_numpy(second))
        facts: dict[str, tuple[Tensor, Tensor]] = {}
        if data.length is not None and "length" in self.objective.needs:
            one, two = (torch.from_numpy(data.length[side[rows]]) for side in (data.first, data.second))
            facts["n_tokens"] = (one, two)
        if data.strength is not None and "rating" in self.objective.needs:
            gap = torch.from_numpy(data.strength[rows])
            facts["rating"] = (gap, torch.zeros_like(gap))
        given = self.reads(rows)
        sides = _sides(self.model, x, at, given, facts)
        if self.objective.context is not None:
            self.context = self.objective.context(sides[0].map(_detached), sides[1].map(_detached), self.context)
        try:
            keep, flip = terms_of(self.objective, *sides, self.context)
        except ValueError as error:  # scores that are not finite, above all
            raise self._broken(str(error)) from error
        with torch.no_grad():
            margin = self.objective.margin(*sides, self.context).double().numpy()
            other = [_sides(peer.model, x, at, given, facts) for peer in peers]
            reviewed = [terms_of(self.objective, *pair, self.context) for pair in other]
        self.seen = self._terms(rows, keep, flip, ([k for k, _ in reviewed], [f for _, f in reviewed]))
        stated = self.seen.given
        assert stated is not None
        with torch.no_grad():
            used = self.treatment.target(stated, self.seen, self.state)
        loss = weigh(self.objective, Target(used.p.to(keep.dtype), used.w.to(keep.dtype)), keep, flip).sum() / len(rows)
        self.optimiser.zero_grad(set_to_none=True)
        if bool((used.w > 0).any()):  # a step without weight has nothing to say, and Adam's memory is not to speak for it
            penalty = self.model.penalty()
            (loss if penalty is None else loss + penalty).backward()
        self._count(rows, margin, used, loss, [_difference(pair) for pair in other])

    def move(self) -> None:
        """One step of Adam on the gradients there are; afterwards the treatment learns from the step."""
        if self.o.schedule == "linear":
            for part in self.optimiser.param_groups:
                part["lr"] = self.o.learning_rate * part["pace"] * (1 - self.step / self.total)
        self.optimiser.step()
        assert self.seen is not None
        self.state = self.treatment.update(self.seen, self.state)
        self.step += 1

    def _terms(self, rows: np.ndarray, keep: Tensor, flip: Tensor, peers: tuple[list[Tensor], list[Tensor]]) -> Terms:
        """Terms of the comparisons, in the order of records, float64; a peer's losses are the mean over all peers."""
        data = self.gather.data
        part = {name: torch.from_numpy(getattr(data, name)[rows]) for name in ("p", "w", "annotator", "group")}
        mean = [torch.stack(found).double().mean(dim=0) if found else None for found in peers]
        if self.treatment.reads_peer and not len(rows):
            mean = [torch.zeros(0, dtype=torch.float64)] * 2
        return Terms(
            keep.detach().double(), flip.detach().double(), torch.from_numpy(rows), part["annotator"], part["group"], self.step, self.epoch,
            self.total, Target(part["p"], part["w"]), mean[0], mean[1],
        )  # fmt: skip

    def _count(self, rows: np.ndarray, margin: np.ndarray, used: Target, loss: Tensor, others: list[np.ndarray]) -> None:
        stated = np.where(self.gather.data.p[rows] >= 0.5, margin, -margin)
        self.tally.add(rows, stated, used)
        line = self.line
        line.n += len(rows)
        line.loss += float(loss.detach()) * len(rows)
        line.kept += int((used.w > 0).sum())
        for other in others:
            line.apart += int(((margin > 0) != (other > 0)).sum())
            line.reviewed += len(rows)

    def check_finite(self) -> None:
        """InputError where a parameter is not finite."""
        if not all(bool(torch.isfinite(x).all()) for x in self.model.parameters()) or not math.isfinite(self.line.loss):
            raise self._broken(f"parameters or loss are not finite (mean loss {self.line.loss / self.line.n:.3g})")

    def _broken(self, why: str) -> InputError:
        return InputError(
            f"head {self.number} broke in epoch {self.epoch + 1} of {self.o.epochs}, step {self.step + 1}: {why}. Lower learning_rate "
            f"({self.o.learning_rate:g}), raise l2, or scale the features"
        )


def _sides(
    model: PreferenceModel, x: Tensor, at: tuple[Tensor, Tensor], given: Given, stated: dict[str, tuple[Tensor, Tensor]]
) -> tuple[Side, Side]:  # fmt: skip
    """The two sides of each comparison, with what data states of them; the distinct sides of the batch are represented once."""
    z = model.represent(x)
    first, second = model.sides(z.index_select(0, at[0]), z.index_select(0, at[1]), given)
    if not stated:
        return first, second
    one, two = ({name: pair[k] for name, pair in stated.items()} for k in (0, 1))
    return replace(first, **one), replace(second, **two)


def _detached(x: Tensor) -> Tensor:
    return x.detach()


def _difference(sides: tuple[Side, Side]) -> np.ndarray:
    first, second = sides[0].score, sides[1].score
    assert first is not None
    assert second is not None
    return (first - second).numpy()
