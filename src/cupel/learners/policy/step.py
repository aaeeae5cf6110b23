"""One optimiser step: equation (1), w (p keep + (1 - p) flip), over the micro-batches of all processes, as if they were one batch.

The sum over comparisons is divided once, by the step's global number of comparisons (or sum of weights): a mean of micro-batch means would
be another gradient. Treatments that look at the whole step, and objectives with statistics of the step, get it from a first pass without
gradient, which is left out where one micro-batch is the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.policy.batch import Batch, Place
from cupel.learners.policy.lists import effective, listed
from cupel.learners.policy.peer import Peer, check_peer
from cupel.learners.policy.ranks import Ranks
from cupel.noise.loss import check, terms_of, weigh
from cupel.noise.step import merge_terms, rows_of, treat_step
from cupel.noise.types import State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective, Side
from cupel.scorers.groups import Groups
from cupel.scorers.scorer import Scorer
from cupel.scorers.scores import Scores

#: what a language model's scorer can give; objectives that need more are refused when a run begins
GIVEN = frozenset(
    {"logp", "length", "reference", "tokens", "reference_tokens", "collision", "divergence", "tilt", "prompt", "mismatch", "rating"}
)
#: of these, what only a reference that is computed in every step can give
LIVE = frozenset({"divergence", "tilt", "prompt"})
#: what a reward model's scorer can give
REWARD_GIVEN = frozenset({"score", "length", "rating"})


class Reference(Protocol):
    """Stored scores, a live snapshot, or nothing (`cupel.scorers.reference.values`)."""

    def scores(self, groups: Groups, needs: Iterable[str] = ()) -> Scores | None:
        """Scores of a batch under the reference."""
        ...


@dataclass
class StepResult:
    """What a step did, the same on all processes. Sums are over the comparisons of the step."""

    loss: float
    n: int
    terms: Terms
    used: Target
    margin: Tensor
    finite: bool
    sums: dict[str, float] = field(default_factory=dict)
    context: Context = field(default_factory=dict)


def check_run(
    objective: Objective, treatment: Treatment, *, live: bool, unpaired: bool = False, peer: bool = False,
    gives: frozenset[str] | None = None,
) -> None:  # fmt: skip
    """InputError where the objective needs what no language model's scorer gives, or the pair makes no sense, before anything is loaded.

    peer: whether another model's losses are there (`check_peer`); gives: what a reward model gives of a side (`REWARD_GIVEN`, and what
    its head adds), None for a language model.
    """
    reward = gives is not None
    if gives is not None and (missing := sorted(objective.needs - gives)):
        raise InputError(
            f"{objective.name} needs {', '.join(missing)} of each side, which this reward model does not give. Objectives for rewards read "
            f"{', '.join(sorted(gives))}, e.g. bradley_terry; for a language model: cupel train policy"
        )
    missing = [] if reward else sorted(objective.needs - GIVEN)
    if missing:
        raise InputError(
            f"{objective.name} needs {', '.join(missing)} of each side, which the scorer of a language model does not give. Objectives for "
            f"policies read {', '.join(sorted(GIVEN))}"
        )
    if unpaired and "rating" in objective.needs:
        raise InputError(
            f"{objective.name} reads a rating of each of two responses, and rows of single responses have none: give comparisons with the "
            f"ratings of both sides, or choose an objective that judges a response alone (kto, bco)"
        )
    only_live = sorted(objective.needs & LIVE)
    if only_live and "reference" in objective.needs and not live:
        raise InputError(
            f"{objective.name} needs {', '.join(only_live)}, for which the reference has to be computed in each step: use reference: live"
        )
    check_peer(objective, treatment, peer)
    try:
        check(objective, treatment)
        if unpaired:
            one, none = _trial(), Side()
            objective.loss(one, none, {} if objective.context is None else objective.context(one, none, {}))
    except ValueError as error:
        raise InputError(str(error)) from error


def _trial() -> Side:
    """A side with a value in every field that a scorer fills: to ask an objective whether it can judge a response alone."""
    zero, token = torch.zeros(1), torch.zeros(1, 1)
    return Side(
        logp=zero, n_tokens=torch.ones(1), reference_logp=zero, token_logp=token, reference_token_logp=token, mask=torch.ones(1, 1) > 0,
        divergence=token, collision=token, tilt_up=zero, tilt_down=zero, prompt_logp=zero, reference_prompt_logp=zero,
        mismatch_log_ratio=zero,
    )  # fmt: skip


class Stepper:
    """Runs steps: the scorer (wrapped or not), the reference, the objective and the treatment of a run.

    model is what is called in training (DDP or sharded), scorer the module inside; `sides` and `forward` serve evaluation too.
    """

    def __init__(
        self, model: nn.Module, scorer: Scorer, reference: Reference, objective: Objective, treatment: Treatment, ranks: Ranks,
        normalise: str = "comparisons", peer: Peer | None = None,
    ) -> None:  # fmt: skip
        self.model, self.scorer, self.reference, self.ranks = model, scorer, reference, ranks
        self.objective, self.treatment, self.normalise, self.peer = objective, treatment, normalise, peer
        self.needs = frozenset(objective.needs) | {"logp"}

    # ---- sides --------------------------------------------------------------------------------------------------------------------

    def sides(self, batch: Batch, model: Callable[..., Scores], *, start: bool = False) -> list[tuple[Side, Side]]:
        """Sides of the pairs and of the single responses of a batch, each where there are any.

        start: the policy is its own reference still: ratios are 1 then, and not the rounding between two forwards of one model.
        """
        groups = batch.groups.to(self.ranks.device)
        reference = None if start else self.reference.scores(groups, self.needs)
        distribution = getattr(self.reference, "distribution", None)
        with self.ranks.autocast():
            scores = model(groups, needs=self.needs, reference=distribution)
        reference = scores if start else reference
        other = self._mismatch(batch) if batch.mismatch is not None and "mismatch" in self.needs else None
        found, pairs = [], len(groups.first)
        if pairs:
            sides = scores.sides(groups, reference)
            if "rating" in self.needs:
                rating = batch.rating[:pairs].to(sides[0].score if sides[0].logp is None else sides[0].logp)
                sides = (replace(sides[0], rating=rating[:, 0]), replace(sides[1], rating=rating[:, 1]))
            found.append(sides if other is None else tuple(replace(side, mismatch_log_ratio=other[:pairs]) for side in sides))
        if batch.lists is not None:
            found.append((listed(scores, reference, batch.lists), Side()))
        if len(batch.alone):
            side = scores.side(batch.alone.to(self.ranks.device), reference)
            found.append((side if other is None else replace(side, mismatch_log_ratio=other[pairs:]), Side()))
        return found

    def _mismatch(self, batch: Batch) -> Tensor:
        """[B] log-ratio of a response to another prompt, for each comparison, without gradient."""
        assert batch.mismatch is not None
        groups = batch.mismatch.to(self.ranks.device)
        with torch.no_grad(), self.ranks.autocast():
            policy, reference = self.scorer(groups).logp, self.reference.scores(groups, ("logp",))
        if reference is None:
            raise InputError(f"{self.objective.name} compares with a reference, but reference: none was chosen")
        return (policy - reference.logp.to(policy)).index_select(0, batch.mismatch_index.to(policy.device))

    def losses(self, sides: Sequence[tuple[Side, Side]], context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """keep, flip and margin [B] of the pairs, then of the single responses."""
        keep, flip, margin = [], [], []
        for first, second in sides:
            a, b = terms_of(self.objective, first, second, context)
            keep.append(a)
            flip.append(b)
            with torch.no_grad():
                margin.append(self.objective.margin(first, second, context))
        return torch.cat(keep), torch.cat(flip), torch.cat(margin).detach()

    # ---- a step -------------------------------------------------------------------------------------------------------------------

    def step(
        self, batches: Sequence[Batch], state: State, context: Context, *, step: int, epoch: int, total: int, scale: float = 1.0
    ) -> StepResult:
        """Gradients of a step times `scale`, left in the parameters; nothing is updated. `batches`: this process's part, as many as on any
        other."""  # fmt: skip
        place = Place(step, epoch, total)
        counts = torch.cat([batch.target.w > 0 if _filler(batch) else torch.ones(len(batch.record), dtype=torch.bool) for batch in batches])
        n = int(self.ranks.total(float(counts.sum())))
        alone_in_step = len(batches) == 1 and self.ranks.size == 1
        if not alone_in_step and self.objective.swap == "none":
            raise InputError(
                f"{self.objective.name} couples the comparisons of a step, which therefore has to be one micro-batch on one process; this "
                f"one is {len(batches)} on {self.ranks.size}. Raise batch_tokens, or lower batch_size"
            )
        treated: tuple[Target, Tensor] | None = None
        if not alone_in_step and (self.objective.context is not None or self.treatment.scope == "step"):
            context, treated = self._first_pass(batches, state, context, place)
        denominator = self._denominator(batches, n)
        seen: list[Terms] = []
        used: list[Target] = []
        margins: list[Tensor] = []
        sums: dict[str, float] = {}
        local = 0.0
        for number, batch in enumerate(batches):
            with self.ranks.last_backward(self.model, number == len(batches) - 1):
                sides = self.sides(batch, self.model)
                if alone_in_step and self.objective.context is not None:
                    context = self.objective.context(*_joined([_detached(pair) for pair in sides]), context)
                keep, flip, margin = self.losses(sides, context)
                terms = self._terms(batch, keep, flip, context, place)
                target = self._target(batch, terms, state, treated)
                loss = weigh(self.objective, Target(*(x.to(keep) for x in target)), keep, flip).sum() / denominator
                (loss * (scale * self.ranks.size)).backward()
            local += float(loss.detach())
            if not _filler(batch):
                seen.append(terms)
                used.append(target)
                margins.append(margin.detach().cpu())
                _add(sums, self._sums(sides, context, margin, target))
        return self._result(seen, used, margins, sums, local, n, context, place)

    def _first_pass(
        self, batches: Sequence[Batch], state: State, context: Context, place: Place
    ) -> tuple[Context, tuple[Target, Tensor] | None]:
        """Statistics and treated target of a whole step, without gradient."""
        sides: list[list[tuple[Side, Side]]] = []
        with torch.no_grad():
            for batch in batches:
                sides.append([_detached(pair) for pair in self.sides(batch, self.model)])
            if self.objective.context is not None:
                kept = [pair for pairs, batch in zip(sides, batches, strict=True) if not _filler(batch) for pair in pairs]
                context = self.objective.context(*self._everywhere(kept), context)
            if self.treatment.scope != "step":
                return context, None
            parts = []
            for pairs, batch in zip(sides, batches, strict=True):
                if _filler(batch):
                    continue
                keep, flip, _ = self.losses(pairs, context)
                parts.append(self._terms(batch, keep, flip, context, place))
            merged = self._merged(parts, place)
            return context, (treat_step(self.treatment, merged, state), merged.record)

    def _terms(self, batch: Batch, keep: Tensor, flip: Tensor, context: Context, place: Place) -> Terms:
        """Terms of a micro-batch, on the CPU, with its target before treatment and the losses of a peer."""
        terms = batch.terms(keep.detach().cpu(), flip.detach().cpu(), place)._replace(given=batch.target)
        if self.peer is None:
            return terms
        peer_keep, peer_flip = self.peer.losses(batch, context, self.ranks.device)
        return terms._replace(peer_keep=peer_keep, peer_flip=peer_flip)

    def _everywhere(self, pairs: list[tuple[Side, Side]]) -> tuple[Side, Side]:
        """The sides of a step from all micro-batches and processes; fields with one value per comparison."""
        first, second = _joined(pairs)
        if self.ranks.size == 1:
            return first, second

        def whole(side: Side, like: Side) -> Side:
            names = [f.name for f in fields(Side) if (x := getattr(like, f.name)) is not None and x.ndim == 1]
            return Side(**{name: self.ranks.gather(getattr(side, name)).to(self.ranks.device) for name in names})

        return whole(first, first), whole(second, second)

    def _target(self, batch: Batch, terms: Terms, state: State, treated: tuple[Target, Tensor] | None) -> Target:
        if _filler(batch):
            return batch.target
        if treated is not None:
            return rows_of(treated[0], treated[1], batch.record)
        with torch.no_grad():
            found = self.treatment.target(batch.target, terms, state)
        return Target(found.p.cpu().double(), found.w.cpu().double())

    def _denominator(self, batches: Sequence[Batch], n: int) -> float:
        if self.normalise == "comparisons":
            return float(max(n, 1))
        weight = self.ranks.total(float(sum(batch.target.w.sum() for batch in batches)))
        return weight if weight > 0 else 1.0

    def _merged(self, parts: list[Terms], place: Place) -> Terms:
        if self.ranks.size == 1:
            return merge_terms(parts)
        mine = merge_terms(parts) if parts else _no_terms(place)
        given = mine.given
        assert given is not None
        gather = self.ranks.gather
        whole = Target(gather(given.p), gather(given.w))
        keep, flip, record = gather(mine.keep), gather(mine.flip), gather(mine.record)
        peers = {}
        if self.peer is not None:
            peers = {name: gather(given.p[:0] if (x := getattr(mine, name)) is None else x) for name in ("peer_keep", "peer_flip")}
        return merge_terms([Terms(keep, flip, record, gather(mine.annotator), gather(mine.group), *place, given=whole, **peers)])

    def _sums(self, sides: Sequence[tuple[Side, Side]], context: Context, margin: Tensor, used: Target) -> dict[str, float]:
        """Sums over the comparisons of a micro-batch that logs and reports are made of."""
        out = {"p": float(used.p.sum()), "w": float(used.w.sum())}
        at = 0
        for first, second in sides:
            if len(second):  # of a response alone there is no ranking
                mine = margin[at : at + len(first)]
                _add(out, {"margin": float(mine.double().sum()), "right": float((mine > 0).sum()), "n_pairs": float(len(first))})
            at += len(first)
            for name, side in (("first", first), ("second", second)):
                if not len(side):
                    continue
                assert side.n_tokens is not None
                found = {f"tokens_{name}": side.n_tokens, f"n_{name}": torch.ones(len(side))}
                if side.logp is not None:  # a reward model has none
                    found |= {f"logp_{name}": side.logp, f"n_logp_{name}": torch.ones(len(side))}
                    if side.reference_logp is not None:
                        found |= {f"moved_{name}": side.logp - side.reference_logp, f"n_moved_{name}": torch.ones(len(side))}
                _add(out, {key: float(value.detach().double().sum()) for key, value in found.items()})
            with torch.no_grad():
                size = effective(first, self.objective.name)
            if size is not None:
                _add(out, {"effective": float(size.double().sum())})
            if self.objective.saturated is not None:
                with torch.no_grad():
                    _add(out, {"saturated": float(self.objective.saturated(first, second, context).sum())})
        return out

    def _result(
        self, seen: list[Terms], used: list[Target], margins: list[Tensor], sums: dict[str, float], local: float, n: int, context: Context,
        place: Place,
    ) -> StepResult:  # fmt: skip
        terms = self._merged(seen, place)
        records = torch.cat([part.record for part in seen]) if seen else torch.zeros(0, dtype=torch.int64)

        def whole(values: list[Tensor]) -> Tensor:
            mine = torch.cat([x.double() for x in values]) if values else torch.zeros(0, dtype=torch.float64)
            return self.ranks.gather(mine)

        order = torch.argsort(self.ranks.gather(records), stable=True)
        target = Target(whole([x.p for x in used])[order], whole([x.w for x in used])[order])
        kinds = ("logp", "tokens", "n", "n_logp", "moved", "n_moved")
        names = [f"{kind}_{side}" for kind in kinds for side in ("first", "second")]
        names += ["margin", "right", "n_pairs", "p", "w", "saturated", "effective"]
        totals = {name: self.ranks.total(sums.get(name, 0.0)) for name in names}
        loss = self.ranks.total(local)
        return StepResult(loss, n, terms, target, whole(margins)[order], math.isfinite(loss), totals, context)


def _filler(batch: Batch) -> bool:
    """Whether a batch is there only to keep processes in step: all its weights are 0, which no comparison of the data has."""
    return bool((batch.target.w == 0).all())


def _detached(pair: tuple[Side, Side]) -> tuple[Side, Side]:
    return pair[0].map(lambda x: x.detach()), pair[1].map(lambda x: x.detach())


def _joined(pairs: Sequence[tuple[Side, Side]]) -> tuple[Side, Side]:
    """Sides of several batches as one; fields with one value per comparison where there are several."""
    pairs = [pair for pair in pairs if len(pair[0])]
    if len(pairs) == 1:
        return pairs[0]

    def together(sides: list[Side]) -> Side:
        sides = [side for side in sides if len(side)]
        names = [f.name for f in fields(Side) if sides and (x := getattr(sides[0], f.name)) is not None and x.ndim == 1]
        return Side(**{name: torch.cat([getattr(side, name) for side in sides]) for name in names})

    return together([first for first, _ in pairs]), together([second for _, second in pairs])


def _no_terms(place: Place) -> Terms:
    none, numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    return Terms(numbers, numbers, none, none, none, *place, given=Target(numbers, numbers))


def _add(sums: dict[str, float], more: dict[str, float]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value
