"""Many heads at once: every cell of a grid is a column of one weight tensor, trained by the same full-batch steps.

A head is score = x . theta on frozen features x of unique sides. The columns of one objective and one treatment are (case, part, ridge):
part 0 learns from all training rows, parts 1 ... K leave out one fold each, for treatments whose evidence has to come from a head that did
not see the label. A step scores all sides under all columns (one matrix product), gathers winners and losers by case, and asks the
objective once for B = columns x rows comparisons.

Nothing is random here, and no column depends on which other columns are trained beside it, up to float32 rounding of the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cupel.compare.unit import context_of, side, unit
from cupel.noise.loss import check, terms_of, weigh
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment
from cupel.objectives.types import Context, Objective, Side

#: scores held at once per tensor; more columns are trained in turns
BUDGET = 1 << 22
#: a loss that grows by more than this share in a step was overshot
SLACK = 0.02
#: targets that count as one pass over the data, for treatments that learn once a pass
PASS = 3
#: bounds of the slope that turns cross-fitted log-odds into those of the truth
SLOPES = (0.05, 20.0)


@dataclass(frozen=True)
class Space:
    """Unique sides in coordinates in which the differences of the training pairs are uncorrelated.

    x [m, d] float32; curvature [d]: mean squared difference of each coordinate over the training pairs; words [m] of each response
    """

    x: Tensor
    curvature: Tensor
    words: Tensor

    @classmethod
    def of(cls, features: np.ndarray, words: np.ndarray, first: np.ndarray, second: np.ndarray) -> Space:
        """The space of features [m, d] for training pairs (first, second) int [n]; labels play no part."""
        difference = features[first].astype(np.float64) - features[second]
        values, basis = np.linalg.eigh(difference.T @ difference / len(difference))
        rotated = (features.astype(np.float64) @ basis).astype(np.float32)
        return cls(_tensor(rotated), _tensor(np.maximum(values, 0).astype(np.float32)), _tensor(np.maximum(words, 1).astype(np.float32)))


@dataclass(frozen=True)
class Rows:
    """Training rows under J cases: the sides of the recorded winner and loser int [J, n], weights [n], fold of each row int [n],
    annotator int [J, n] (-1 unknown) with their names per case, group int [n] and how many there are."""  # fmt: skip

    winner: np.ndarray
    loser: np.ndarray
    weight: np.ndarray
    fold: np.ndarray
    annotator: np.ndarray
    annotators: tuple[tuple[str, ...], ...]
    group: np.ndarray

    def take(self, cases: slice) -> Rows:
        """Some of the cases."""
        return Rows(
            self.winner[cases], self.loser[cases], self.weight, self.fold, self.annotator[cases], self.annotators[cases], self.group
        )


class Trained(NamedTuple):
    """theta [J, R, d] of the heads of part 0 in the coordinates of the space; evidence [J, R, n]: log-odds in favour of each recorded
    label by heads that did not see it, None without cross-fitting; context per column, for objectives that have one; scale: D, the
    unit of a score."""

    theta: Tensor
    evidence: Tensor | None
    context: list[Context]
    scale: float


class Schedule(NamedTuple):
    """steps in all, steps before treatments begin, and steps that share one target."""

    steps: int = 30
    warm: int = 9
    refresh: int = 3


def crossfits(treatment: Treatment) -> bool:
    """Whether the evidence of a treatment has to come from heads that did not see the label: it corrects p, or asks for a peer."""
    return (treatment.corrects and treatment.reads_flip) or treatment.reads_peer


def train(
    space: Space, rows: Rows, objective: Objective, treatment: Treatment, ridges: np.ndarray, schedule: Schedule | None = None
) -> Trained:
    """Heads of every case and ridge, in turns that keep memory bounded.

    Minimises over theta: sum_i w_i (p_i keep_i + (1 - p_i) flip_i) / (L sum_i w_i) + ridge/2 |theta|^2, scores D x . theta, (D, L) the
    objective's unit. Steps are gradient steps with Nesterov's momentum, divided by curvature + ridge coordinate by coordinate, at most
    one unit of score long (root mean square over pairs); momentum starts again where it points uphill, and a step that made the loss
    grow is taken back and its column goes on at .3 of the pace. The target (p, w) is plain for `warm` steps and then renewed every
    `refresh` steps.

    Treatments that correct p see cross-fitted log-odds times a slope that is fitted with their own posterior, so that rate and slope
    are joint. ridges float [R], at least 0. ValueError as `cupel.noise.loss.check`.
    """
    schedule = schedule or Schedule()
    check(objective, treatment)
    parts = 1 + (int(rows.fold.max()) + 1 if crossfits(treatment) else 0)
    per_case = parts * len(ridges) * max(len(space.x), rows.winner.shape[1])
    at_once = max(1, BUDGET // per_case)
    found = [
        _train(space, rows.take(slice(j, j + at_once)), objective, treatment, ridges, schedule, parts)
        for j in range(0, len(rows.winner), at_once)
    ]
    evidence = None if found[0].evidence is None else torch.cat([f.evidence for f in found if f.evidence is not None])
    return Trained(torch.cat([f.theta for f in found]), evidence, [c for f in found for c in f.context], found[0].scale)


def margins(space: Space, objective: Objective, found: Trained, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The objective's margin of pairs (first, second) int [n] under every head, float32 [J, R, n]."""
    cases, ridges, d = found.theta.shape
    score = found.scale * found.theta.reshape(-1, d) @ space.x.T
    a, b = _tensor(first), _tensor(second)
    out = torch.empty(len(score), len(first))
    with torch.no_grad():
        for c in range(len(score)):
            one, other = side(score[c, a], space.words[a]), side(score[c, b], space.words[b])
            out[c] = objective.margin(one, other, found.context[c] if found.context else {})
    return out.reshape(cases, ridges, -1).numpy()


# ---- one turn -------------------------------------------------------------------------------------------------------------------


def _train(
    space: Space, rows: Rows, objective: Objective, treatment: Treatment, ridges: np.ndarray, schedule: Schedule, parts: int
) -> Trained:
    scale, gain = unit(objective, float(space.words.median()))
    cases, n = rows.winner.shape
    shape = (cases, parts, len(ridges))
    weight = _tensor(rows.weight.astype(np.float32))
    fold = _tensor(rows.fold)
    seen = torch.ones(parts, n)  # which rows a part learns from
    for k in range(parts - 1):
        seen[1 + k] = (fold != k).float()
    share = (weight * seen) / (weight * seen).sum(dim=1, keepdim=True)  # [P, n]
    ridge = _tensor(ridges.astype(np.float32))[:, None]
    precondition = 1.0 / (space.curvature + ridge)  # [R, d]
    gather = _Gather(space, rows, shape, scale, objective)
    treated = _Treated(rows, treatment, weight, fold, len(ridges), schedule, objective)
    theta = torch.zeros(*shape, space.x.shape[1])
    ahead, age, rate = theta.clone(), torch.zeros(*shape, 1), torch.ones(*shape, 1)
    last = torch.full((*shape, 1), torch.inf)
    for step in range(schedule.steps):
        ahead.requires_grad_(True)
        keep, flip = gather.losses(ahead)
        if step >= schedule.warm and (step - schedule.warm) % schedule.refresh == 0:
            treated.renew(keep.detach(), flip.detach())
            last = torch.full_like(last, torch.inf)  # another target, another loss
        target = treated.target
        loss = weigh(objective, Target(target.p[:, None], target.w[:, None] * share[None, :, None, :] / _positive(weight)), keep, flip)
        (slope,) = torch.autograd.grad(loss.sum() / gain, ahead)
        ahead = ahead.detach()
        value = loss.detach().sum(dim=-1, keepdim=True) / gain + (ridge * ahead.square()).sum(dim=-1, keepdim=True) / 2
        gradient = slope + ridge * ahead
        move = -rate * gradient * precondition
        move = move / (move.square() * space.curvature).sum(dim=-1, keepdim=True).sqrt().clamp(min=1.0)
        moved = ahead + move
        uphill = ((moved - theta) * gradient).sum(dim=-1, keepdim=True) > 0
        age = torch.where(uphill, 0.0, age + 1)
        onward = moved + (age / (age + 3)) * (moved - theta)
        worse = ~(value <= last + SLACK * last.abs())  # stepped too far, or to where the loss is not finite: back, and shorter steps
        ahead = torch.where(worse, theta, onward)
        theta = torch.where(worse, theta, moved)
        age, rate = torch.where(worse, 0.0, age), torch.where(worse, 0.3 * rate, rate)
        last = torch.where(worse, last, value)
    evidence = None
    with torch.no_grad():
        if parts > 1:
            keep, flip = gather.losses(theta)
            evidence = treated.of_others(flip - keep)
    return Trained(theta[:, 0].detach(), evidence, gather.context_of_part(0), scale)


class _Gather:
    """Losses [J, P, R, n] of all rows under all columns."""

    def __init__(self, space: Space, rows: Rows, shape: tuple[int, int, int], scale: float, objective: Objective) -> None:
        self.shape, self.scale, self.objective = shape, scale, objective
        used, place = np.unique(np.stack([rows.winner, rows.loser]), return_inverse=True)  # sides of these rows only
        self.x = space.x[_tensor(used)]
        self.winner, self.loser = _tensor(place.reshape(2, *rows.winner.shape))
        words = space.words[_tensor(used)]
        self.coupled = objective.swap == "none" or objective.context is not None
        self.context: list[Context] = [{}] * (shape[0] * shape[1] * shape[2])
        self.words = [self._words(words[x]) for x in (self.winner, self.loser)]

    def _words(self, words: Tensor) -> Tensor | None:
        """Words of each side, [J, P, R, n]; None where the objective does not ask for lengths."""
        if "length" not in self.objective.needs:
            return None
        cases, parts, ridges = self.shape
        return words[:, None, None].expand(cases, parts, ridges, words.shape[1]).contiguous()

    def losses(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        cases, parts, ridges = self.shape
        score = (theta.reshape(-1, theta.shape[-1]) * self.scale) @ self.x.T
        score = score.reshape(cases, parts * ridges, -1)
        first, second = (
            torch.stack([score[j].index_select(1, place[j]) for j in range(cases)]).reshape(cases, parts, ridges, -1)
            for place in (self.winner, self.loser)
        )
        flat = [side(s.reshape(-1), None if w is None else w.reshape(-1)) for s, w in zip((first, second), self.words, strict=True)]
        if self.coupled:
            return self._one_by_one(flat[0], flat[1])
        keep, flip = terms_of(self.objective, flat[0], flat[1], {})
        return keep.reshape(first.shape), flip.reshape(first.shape)

    def _one_by_one(self, first: Side, second: Side) -> tuple[Tensor, Tensor]:
        """Objectives that look at the whole step: a column is a step of its own, with its own statistics."""
        found = []
        n = self.winner.shape[1]
        for c in range(len(self.context)):
            a, b = (part.map(lambda x, c=c: x.reshape(-1, n)[c]) for part in (first, second))
            self.context[c] = context_of(self.objective, a, b, self.context[c])
            found.append(terms_of(self.objective, a, b, self.context[c]))
        shape = (*self.shape, n)
        return torch.stack([k for k, _ in found]).reshape(shape), torch.stack([f for _, f in found]).reshape(shape)

    def context_of_part(self, part: int) -> list[Context]:
        """Statistics of the columns of one part, in the order (case, ridge)."""
        if self.objective.context is None:
            return []
        cases, parts, ridges = self.shape
        return [self.context[(j * parts + part) * ridges + r] for j in range(cases) for r in range(ridges)]


class _Treated:
    """The target [J, R, n] of every cell, renewed from the losses of its columns; one state per cell unless none is kept."""

    def __init__(
        self, rows: Rows, treatment: Treatment, weight: Tensor, fold: Tensor, ridges: int, schedule: Schedule, objective: Objective
    ) -> None:
        cases, n = rows.winner.shape
        self.treatment, self.fold, self.schedule = treatment, fold, schedule
        self.crossfits = crossfits(treatment)
        self.target = Target(torch.ones(cases, ridges, n), weight.expand(cases, ridges, n))
        self.given = Target(torch.ones(n), weight)
        self.annotator, self.group = _tensor(rows.annotator.astype(np.int64)), _tensor(rows.group.astype(np.int64))
        records, groups = tuple(map(str, range(n))), tuple(map(str, range(int(rows.group.max(initial=-1)) + 1)))
        self.states: list[list[State]] = [
            [treatment.init(DataSpec(records, names, groups)) for _ in range(ridges)] for names in rows.annotators
        ]
        self.slope = torch.ones(cases, ridges, 1)
        self.renewals = 0
        self.planned = max(1, -(-(schedule.steps - schedule.warm) // schedule.refresh))

    def of_others(self, value: Tensor) -> Tensor:
        """[J, R, n] of [J, P, R, n]: for each row the value of the part that left its fold out."""
        cases, _, ridges, n = value.shape
        index = (1 + self.fold).expand(cases, 1, ridges, n)
        return value.gather(1, index)[:, 0]

    def renew(self, keep: Tensor, flip: Tensor) -> None:
        """New targets from losses [J, P, R, n]; afterwards the states learn from them."""
        if self.crossfits:
            odds = self._calibrated(self.of_others(flip) - self.of_others(keep))
            keep, flip = torch.nn.functional.softplus(-odds), torch.nn.functional.softplus(odds)
        else:
            keep, flip = keep[:, 0], flip[:, 0]
        cases, ridges, _ = keep.shape
        if self.treatment.scope == "comparison" and not any(state for row in self.states for state in row):
            self.target = self._at_once(keep, flip)
        else:
            p, w = torch.empty_like(keep), torch.empty_like(keep)
            for j in range(cases):
                for r in range(ridges):
                    p[j, r], w[j, r] = self._cell(j, r, keep[j, r], flip[j, r])
            self.target = Target(p, w)
        self.renewals += 1

    def _at_once(self, keep: Tensor, flip: Tensor) -> Target:
        """Treatments that look at one comparison and remember nothing: all cells are one batch."""
        cases, ridges, n = keep.shape
        row = torch.arange(n).repeat(cases * ridges)
        annotator = self.annotator[:, None].expand(cases, ridges, n).reshape(-1)
        given = Target(torch.ones(row.shape), self.given.w.repeat(cases * ridges))
        terms = self._terms(keep.reshape(-1), flip.reshape(-1), row, annotator, self.group[row], given)
        used = self.treatment.target(given, terms, {})
        return Target(used.p.reshape(keep.shape), used.w.reshape(keep.shape))

    def _cell(self, j: int, r: int, keep: Tensor, flip: Tensor) -> Target:
        row = torch.arange(len(keep))
        terms = self._terms(keep, flip, row, self.annotator[j], self.group, self.given)
        used = self.treatment.target(self.given, terms, self.states[j][r])
        self.states[j][r] = self.treatment.update(terms, self.states[j][r])
        return used

    def _terms(self, keep: Tensor, flip: Tensor, row: Tensor, annotator: Tensor, group: Tensor, given: Target) -> Terms:
        peer = (keep, flip) if self.crossfits else (None, None)
        return Terms(
            keep, flip, row, annotator, group, step=self.renewals, epoch=self.renewals // PASS, total=self.planned, given=given,
            peer_keep=peer[0], peer_flip=peer[1],
        )  # fmt: skip

    def _calibrated(self, odds: Tensor) -> Tensor:
        """Cross-fitted log-odds times the slope under which the posterior of the last target agrees with them: Newton, 5 rounds.

        s <- s + sum w z (r - sigmoid(s z)) / sum w z^2 sigmoid'(s z): the M-step of the slope, r the target's p in [0, 1].
        """
        if not self.treatment.corrects:
            return odds
        z, r, w = odds.double(), self.target.p.double().clamp(0, 1), self.target.w.double()
        size = z.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-9)
        z = z / size
        slope = self.slope.double() * size
        for _ in range(5):
            q = torch.sigmoid(slope * z)
            rise = (w * z * (r - q)).sum(dim=-1, keepdim=True)
            bend = (w * z * z * q * (1 - q)).sum(dim=-1, keepdim=True) + 1e-6 * w.sum(dim=-1, keepdim=True)
            slope = (slope + (rise / bend).clamp(-1, 1)).clamp(*SLOPES)
        self.slope = (slope / size).float()
        return (slope * z).float()


def _positive(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, weight, 1.0)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
