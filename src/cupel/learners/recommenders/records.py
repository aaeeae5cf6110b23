"""What a step is made of: users, items, and each record's target; pairs, single items or whole rows of the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows, by_user
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.sampling import Unseen
from cupel.learners.recommenders.types import Recommender
from cupel.noise.types import Target
from cupel.objectives.types import Objective, Side

Form = Literal["pairs", "single", "all"]


class Numbered(Sequence[str]):
    """The names "0", "1", ... of n records, none of them stored."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        found = range(self.n)[index]
        return str(found) if isinstance(found, int) else [str(i) for i in found]


class Step(NamedTuple):
    """B draws of a step. user, event int64 [B]; items int64 [B, K], in column 0 the one that was taken (pairs, single)."""

    user: Tensor
    items: Tensor
    event: Tensor
    taken: Tensor | None = None

    def to(self, device: torch.device) -> Step:
        """The same on a device."""
        taken = None if self.taken is None else self.taken.to(device)
        return Step(self.user.to(device), self.items.to(device), self.event.to(device), taken)


class Made(NamedTuple):
    """The sides of a step's N records, what is stated about each, and who and what they are about (int64 [N] each)."""

    first: Side
    second: Side
    given: Target
    record: Tensor
    user: Tensor
    item: Tensor


def form_of(options: RecommenderOptions, objective: Objective) -> Form:
    """How events become records: as asked, or by what the objective can take."""
    alone = _takes_one(objective)
    if options.records in ("single", "all") and not alone:
        raise InputError(
            f"{objective.name} compares two items, and records={options.records} gives one at a time: take pairs, or an objective of "
            f"single items (bpo)"
        )
    form = options.records or ("single" if alone else "pairs")
    if form == "pairs" and not options.negatives:
        raise InputError("a pair needs an item that was not taken: negatives=1 or more")
    return form


def _takes_one(objective: Objective) -> bool:
    """Whether an objective judges one side with nothing opposite."""
    if "score" not in objective.needs:
        return objective.name == "sft"
    try:
        objective.loss(Side(score=torch.zeros(1)), Side(), {})
    except ValueError:
        return False
    return True


def count(form: Form, log: Log, options: RecommenderOptions) -> int:
    """How many records a log has: the number that a treatment's state by record is made for."""
    k = options.negatives
    return {"pairs": len(log) * k, "single": len(log) * (1 + k), "all": len(log.users) * len(log.items)}[form]


class Drawer:
    """Steps of a log: which events come when is a pure function of (seed, epoch); items not taken are drawn by a generator.

    taken: a log of the same users and items that says what was taken, where this is more than the log that is drawn from.
    """

    def __init__(
        self, log: Log, options: RecommenderOptions, form: Form, batches: str, p: np.ndarray | None = None, *, taken: Log | None = None,
    ) -> None:  # fmt: skip
        if not len(log):
            raise InputError("the log to train on has no events")
        if p is not None and (form == "all" or p.shape != (len(log),) or not np.isfinite(p).all()):
            raise InputError(f"event_p is a finite number for each of {len(log):,} events, of shape {p.shape}, and not for records=all")
        self.p = None if p is None else torch.from_numpy(p.astype(np.float64))
        self.log, self.o, self.form = log, options, form
        self.unseen = Unseen(log if taken is None else taken, how=options.sampler, power=options.power)
        self.rows: Rows = by_user(log)
        able = self.unseen.able.numpy()
        full = int((~able).sum())
        self.notes = [f"{full:,} users took every item: their events teach nothing here and are left out"] if full and form != "all" else []
        self.by_users = batches == "users" or form == "all"
        keep = np.ones(len(log), bool) if form == "all" else able[log.user]
        self.kept = keep
        self.units = np.flatnonzero(np.bincount(log.user[keep], minlength=len(log.users)) > 0) if self.by_users else np.flatnonzero(keep)
        if form == "all":
            self.units = np.arange(len(log.users))
        if not len(self.units):
            raise InputError("no event of the log can be compared with an item that was not taken: every user took everything")
        self.user, self.item = (torch.from_numpy(x.astype(np.int64)) for x in (log.user, log.item))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.units) // self.o.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Events or users in the order of an epoch."""
        return self.units[np.random.default_rng([self.o.seed, epoch, 7]).permutation(len(self.units))]

    def draw(self, units: np.ndarray, generator: torch.Generator, model: Recommender | None) -> Step:
        """The records of those events or users. `model` scores candidates where the hardest is asked for."""
        if self.form == "all":
            user = torch.from_numpy(units)
            items = torch.arange(len(self.log.items)).expand(len(units), -1)
            taken = self.unseen.taken(user[:, None], items)
            return Step(user, items, torch.full((len(units),), -1), taken)
        if self.by_users:
            event = np.concatenate([self.rows.event[self.rows.start[u] : self.rows.start[u + 1]] for u in np.sort(units)])
            event = torch.from_numpy(event[self.kept[event]])
        else:
            event = torch.from_numpy(np.sort(units))
        user, taken = self.user[event], self.item[event]
        k = self.o.negatives
        if self.o.sampler == "hard" and model is not None:
            other = self.unseen(user, k * self.o.candidates, generator)
            with torch.no_grad():
                there = model.device()
                found = model.score(user.to(there), other.to(there), event.to(there)).cpu().view(len(user), k, -1)
            best = found.argmax(dim=2, keepdim=True)
            other = torch.gather(other.view(len(user), k, -1), 2, best)[:, :, 0]
        else:
            other = self.unseen(user, k, generator)
        return Step(user, torch.cat([taken[:, None], other], dim=1), event)

    def made(self, step: Step, side: Side) -> Made:
        """The records of a step, from the sides of its B * K responses."""
        b, wide = step.items.shape
        here = step.items.device
        if self.form == "all":
            assert step.taken is not None
            p = step.taken.reshape(-1).to(torch.float64)
            user, item = step.user.repeat_interleave(wide), step.items.reshape(-1)
            return Made(side, Side(), Target(p, torch.ones_like(p)), user * wide + item, user, item)
        k = wide - 1
        if self.form == "single":
            p = torch.zeros(b, wide, dtype=torch.float64, device=here)
            w = torch.ones_like(p)
            p[:, 0] = 1.0 if self.p is None else self.p[step.event.cpu()].to(here)
            w[:, 0] = float(max(k, 1)) if self.o.positive is None else self.o.positive
            record = torch.cat([step.event[:, None], len(self.log) + step.event[:, None] * k + torch.arange(k, device=here)], dim=1)
            user = step.user.repeat_interleave(wide)
            return Made(side, Side(), Target(p.reshape(-1), w.reshape(-1)), record.reshape(-1), user, step.items.reshape(-1))
        p = torch.ones(b * k, dtype=torch.float64, device=here)
        if self.p is not None:
            p = self.p[step.event.cpu()].to(here).repeat_interleave(k)
        record = (step.event[:, None] * k + torch.arange(k, device=here)).reshape(-1)

        def taken(x: Tensor) -> Tensor:
            x = x.view(b, wide, *x.shape[1:])
            return x[:, :1].expand(b, k, *x.shape[2:]).reshape(b * k, *x.shape[2:])

        def other(x: Tensor) -> Tensor:
            x = x.view(b, wide, *x.shape[1:])
            return x[:, 1:].reshape(b * k, *x.shape[2:])

        user, item = (step.user, step.items[:, 0]) if k == 1 else (x.repeat_interleave(k) for x in (step.user, step.items[:, 0]))
        return Made(side.map(taken), side.map(other), Target(p, torch.ones_like(p)), record, user, item)
