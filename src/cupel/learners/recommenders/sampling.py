"""Items that a user has not taken: drawn evenly, by popularity, or those the model would show next."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.interactions.log import Log

How = Literal["uniform", "popularity", "hard"]
HOW: tuple[How, ...] = ("uniform", "popularity", "hard")
#: a table of one bit per (user, item) is kept below this many bytes; above, sorted pairs are searched
BITS = 1 << 28


class Unseen:
    """Draws of items that a user has not taken in a log, [B, K] at once.

    uniform     every item not taken, with equal chance
    popularity  items with chance proportional to (events)^power, then those taken are drawn again

    Users who took everything have no such item: `able` says who has. A draw is repeated until no item is a taken one, which ends with
    probability 1; after 64 rounds the rest is drawn exactly, from the list of what remains.
    """

    def __init__(self, log: Log, *, how: How = "uniform", power: float = 0.75) -> None:
        if how not in HOW:
            raise InputError(f"there is no sampler {how!r}; there are {', '.join(HOW)}")
        self.n_users, self.n_items = log.shape
        keys = np.sort(log.pairs())
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
        self.keys = torch.from_numpy(keys)
        taken = np.bincount(keys // max(self.n_items, 1), minlength=self.n_users)
        self.able = torch.from_numpy(taken < self.n_items)
        self.cumulative: Tensor | None = None
        if how == "popularity":
            mass = log.counts("item").astype(np.float64) ** power
            if not mass.sum() > 0:
                raise InputError("items cannot be drawn by popularity: the log has no events")
            self.cumulative = torch.from_numpy(np.cumsum(mass) / mass.sum())
        self.table: Tensor | None = None
        if self.n_users * self.n_items <= 8 * BITS:
            bits = np.zeros((self.n_users * self.n_items + 7) // 8, np.uint8)
            np.bitwise_or.at(bits, keys >> 3, (1 << (keys & 7)).astype(np.uint8))
            self.table = torch.from_numpy(bits)

    def taken(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether the user has taken the item, bool, of the shape of `item`; `user` broadcasts."""
        pair = user * self.n_items + item
        if self.table is not None:
            return (self.table.index_select(0, (pair >> 3).view(-1)).view(pair.shape) >> (pair & 7).to(torch.uint8)) & 1 > 0
        at = torch.searchsorted(self.keys, pair).clamp(max=len(self.keys) - 1)
        return self.keys[at] == pair

    def __call__(self, user: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Items not taken by those users, int64 [B, K], drawn with replacement. All users must be `able`."""
        owner = user if k == 1 else user.repeat_interleave(k)
        drawn = self._draw((len(owner),), generator)
        left = torch.nonzero(self.taken(owner, drawn))[:, 0]
        for _ in range(64):
            if not len(left):
                return drawn.view(len(user), k)
            again = self._draw((len(left),), generator)
            drawn[left] = again
            left = left[self.taken(owner[left], again)]
        every = torch.arange(self.n_items)
        for u in torch.unique(owner[left]).tolist():
            free = every[~self.taken(torch.tensor(u), every)]
            if not len(free):
                raise InputError(f"user {u} has taken all {self.n_items:,} items: there is nothing to compare them with")
            at = left[owner[left] == u]
            drawn[at] = free[torch.randint(len(free), (len(at),), generator=generator)]
        return drawn.view(len(user), k)

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if self.cumulative is None:
            return torch.randint(self.n_items, shape, generator=generator)
        place = torch.rand(shape, generator=generator, dtype=torch.float64)
        return torch.searchsorted(self.cumulative, place).clamp(max=self.n_items - 1)
