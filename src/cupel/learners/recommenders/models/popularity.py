"""Popularity: an item's score is the number of users who took it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cupel.learners.recommenders.types import Known, Recommender


class Popularity(Recommender):
    """Score n_i, the number of training events of the item: the same list for everybody, and the least that a model has to beat."""

    name: ClassVar[str] = "popularity"
    kind = "solved"
    count: Tensor

    def __init__(self, users: int, items: int, *, seed: int = 0) -> None:
        super().__init__(users, items)
        self.register_buffer("count", torch.zeros(items))

    def solve(self, known: Known) -> None:
        """Count."""
        self.count = torch.from_numpy(known.log.counts("item").astype(np.float32))

    def scores(self, user: Tensor) -> Tensor:
        """The counts, for every user."""
        return self.count.expand(len(user), -1)


MODEL = Popularity
