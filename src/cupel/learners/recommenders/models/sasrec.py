"""SASRec: what a person takes next, from the items before it, by self-attention that looks back only."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.recommenders.attention import Dropout, Layer, reseed, seeded
from cupel.learners.recommenders.types import Known, Recommender


class SASRec(Recommender):
    """Score <h, V_i>, h the state of a causal transformer after the items that the user took strictly before the event.

    Kang and McAuley 2018, arXiv:1808.09781: item vectors are input and output at once, positions are learned, layers are normalised
    before their parts. Published training is the binary cross-entropy of each position with one item not taken: records "single" and the
    objective `bpo`; pairs and `bradley_terry` train it as well. Two things are our own: a begin sign stands before the first item, so that
    an empty history has a score; and of a user with more than `length` items all are trained on, in windows of `length` counted from the
    end (the last window is what is read after training), where the paper keeps the last window alone.

    All events of a user come in one step (`batches = "users"`): one pass gives the states before each of them.

    dim     width; heads, layers: of the attention; length: items looked back at, the begin sign included
    dropout of embeddings and layers; std: of the item vectors at the start
    """

    name: ClassVar[str] = "sasrec"
    batches = "users"
    sequence: Tensor
    start: Tensor
    place: Tensor

    def __init__(
        self, users: int, items: int, *, dim: int = 64, heads: int = 2, layers: int = 2, length: int = 50, dropout: float = 0.2,
        std: float = 0.02, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items)
        if min(dim, layers, length) < 1:
            raise InputError(f"sasrec: dim, layers and length are at least 1, not {dim}, {layers} and {length}")
        self.length = length
        with seeded(seed):
            self.item = nn.Parameter(torch.randn(items + 1, dim) * std)  # the last row is the begin sign
            self.position = nn.Parameter(torch.randn(length, dim) * std)
            self.layers = nn.ModuleList(Layer(dim, heads, dim, dropout) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(dim), Dropout(dropout)
        for name, size in (("sequence", users), ("start", users + 1), ("place", 0)):
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64), persistent=False)
        self.sequence.fill_(items)
        self.start.copy_(torch.arange(users + 1))

    def prepare(self, known: Known) -> None:
        """The items of each user in the order of time, behind a begin sign; and the place of every event in them."""
        rows, device = known.rows, self.device()
        owner = np.repeat(np.arange(self.n_users), rows.counts)
        sequence = np.full(len(rows.item) + self.n_users, self.n_items, dtype=np.int64)
        sequence[np.arange(len(rows.item)) + owner + 1] = rows.item
        place = np.empty(len(rows.item), dtype=np.int64)
        place[rows.event] = np.arange(len(rows.item)) - rows.start[owner]
        self.sequence, self.place = torch.from_numpy(sequence).to(device), torch.from_numpy(place).to(device)
        self.start = torch.from_numpy(rows.start + np.arange(self.n_users + 1)).to(device)

    def begin_step(self, generator: torch.Generator) -> None:
        """The masks of this step's dropout."""
        reseed(self, generator)

    def states(self, items: Tensor, valid: Tensor) -> Tensor:
        """States [B, T, d] after each item of B sequences; items int64 [B, T], n_items the begin sign; valid bool [B, T].

        Positions count the valid ones from the left, so a state depends neither on where the padding stands nor on how much there is.
        """
        at = (valid.long().cumsum(1) - 1).clamp(min=0)
        scale = self.item.shape[1] ** 0.5
        x = self.dropout(self.item[items.where(valid, 0)] * scale + self.position[at])
        before = valid[:, None, :] & (at[:, None, :] <= at[:, :, None])
        allowed = before | torch.eye(items.shape[1], dtype=torch.bool, device=items.device)  # padding looks at itself; nothing reads it
        for layer in self.layers:
            x = layer(x, allowed)
        return self.norm(x)

    def _window(self, user: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(first row of `sequence`, number of rows, position in them) of the window in which the item at `place` is foretold."""
        begin, n = self.start[user], self.start[user + 1] - self.start[user]
        back = (n - 1 - place) // self.length
        first = (n - (back + 1) * self.length).clamp(min=0)
        return begin + first, n - back * self.length - first, place - first

    def _read(self, first: Tensor, size: Tensor) -> Tensor:
        """States of windows, [B, T, d], T the longest."""
        step = torch.arange(int(size.max()), device=first.device)
        valid = step < size[:, None]
        return self.states(self.sequence[(first[:, None] + step).where(valid, 0)], valid)

    def score(self, user: Tensor, items: Tensor, event: Tensor) -> Tensor:
        """Scores [B, K] after what was taken before each event; each window is read once, however many of its events are asked for."""
        first, size, at = self._window(user, self.place[event])
        windows, which = torch.unique(first * (self.length + 1) + size, return_inverse=True)
        states = self._read(windows // (self.length + 1), windows % (self.length + 1))[which, at]
        return torch.einsum("bd,bkd->bk", states, self.item[items])

    def scores(self, user: Tensor) -> Tensor:
        """Scores [B, I] after everything that was taken."""
        first, size, at = self._window(user, self.start[user + 1] - self.start[user] - 1)
        return self._read(first, size)[torch.arange(len(user), device=user.device), at] @ self.item[: self.n_items].T


MODEL = SASRec
