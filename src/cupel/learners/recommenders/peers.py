"""Two recommenders that review each other: what they may be asked, what they kept, and what they say together.

Treatments that go by a peer (`Treatment.reads_peer`: peer_review, em with the evidence of the peer) are given the losses of a second model,
trained beside the first on the same steps (CRM, "Two Minds Better Than One", arXiv:2505.10597; card 09-crm). Both see the same events and
items in one order and differ by their start, seed and seed + 1: so it costs two passes forward where own orders would cost four. Each is
reviewed as the other stands before both move, in training mode, under the masks of its own step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.interactions.log import Log, Rows
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.records import Form, Made, Step
from cupel.learners.recommenders.types import Recommender
from cupel.noise.types import Treatment
from cupel.objectives.types import Context, Objective

PEERS = 2


def check_review(treatment: Treatment, options: RecommenderOptions, form: Form) -> None:
    """InputError where a selection by the peer would be made among one record."""
    wide = {"pairs": options.negatives, "single": 1 + options.negatives, "all": 2}[form]
    if treatment.reads_peer and treatment.scope == "step" and options.batch_size * wide < 2:
        raise InputError(f"{treatment.name} selects within a step, and a step has one record: give batch_size=2 or more")


def check_apart(models: Sequence[Recommender]) -> None:
    """InputError where two models begin with the same parameters: equal margins cannot review each other."""
    one, *others = models
    for other in others:
        if all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True)):
            raise InputError(
                f"peers that begin alike stay alike, and {one.name} begins the same for every seed: give it settings that draw its start"
            )


class Kept:
    """How often each event of a log had a weight above 0, over passes and models: tensors seen and kept, float64 [n]."""

    def __init__(self, rows: Rows) -> None:
        self.rows, n = rows, len(rows.event)
        self.tensors = {name: torch.zeros(n, dtype=torch.float64) for name in ("seen", "kept")}

    def add(self, step: Step, used: Sequence[Tensor], form: Form) -> None:
        """A step and the weights [N] of its records with each model. An event of several pairs was kept in a share of them; of records that
        are items by themselves those that were taken count."""  # fmt: skip
        b = len(step.user)
        for w in used:
            here = (w.detach().cpu() > 0).double().view(b, -1)
            if form == "all":
                user = step.user.cpu().numpy()
                owner = torch.from_numpy(np.repeat(np.arange(b), self.rows.counts[user]))
                ends = zip(self.rows.start[user].tolist(), self.rows.start[user + 1].tolist(), strict=True)
                at = np.concatenate([np.arange(low, high) for low, high in ends])
                event = torch.from_numpy(self.rows.event[at].astype(np.int64))
                share = here[owner, torch.from_numpy(self.rows.item[at].astype(np.int64))]
            else:
                event, share = step.event.cpu(), here.mean(dim=1) if form == "pairs" else here[:, 0]
            self.tensors["seen"].index_add_(0, event, torch.ones_like(share))
            self.tensors["kept"].index_add_(0, event, share)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back the tensors of an interrupted run."""
        self.tensors = dict(tensors)

    @property
    def frequency(self) -> np.ndarray:
        """Share of the looks that kept each event, float64 [n]; nan for events that were never looked at."""
        seen, kept = self.tensors["seen"].numpy(), self.tensors["kept"].numpy()
        return np.divide(kept, seen, out=np.full(len(seen), np.nan), where=seen > 0)


def disagreement(made: Sequence[Made], objective: Objective, context: Context) -> float:
    """The number of a step's records whose margin has another sign with the peer than with the first model.

    Peers come to agree; once they always do, neither tells the other anything.
    """
    with torch.no_grad():
        first, second = (objective.margin(x.first, x.second, context) > 0 for x in made)
        return float((first != second).sum())


def write_kept(place: Path, log: Log, kept: np.ndarray) -> Path:
    """Write kept.parquet: user, item, and how often the event was kept, in the order of the log; selections leave out rare tastes first,
    and this shows whose. Null for events that were not looked at."""  # fmt: skip
    import pyarrow as pa

    from cupel.records.files import write_parquet

    users, items = log.users[log.user], log.items[log.item]
    columns = {"user": pa.array(users.tolist(), pa.string()), "item": pa.array(items.tolist(), pa.string())}
    write_parquet(place / "kept.parquet", pa.table({**columns, "kept": pa.array(kept, pa.float64(), from_pandas=True)}))
    return place / "kept.parquet"


class Both(Recommender):
    """Models together: the mean of their scores. It is judged beside its parts, for it has the parameters of all of them."""

    name: ClassVar[str] = "both"

    def __init__(self, models: Sequence[Recommender]) -> None:
        super().__init__(models[0].n_users, models[0].n_items)
        self.models = nn.ModuleList(models)

    def scores(self, user: Tensor) -> Tensor:
        """Mean scores [B, I]."""
        return torch.stack([model.scores(user) for model in self._models()]).mean(dim=0)

    def _models(self) -> list[Recommender]:
        return list(self.models)  # pyright: ignore[reportReturnType]: the list holds recommenders alone
