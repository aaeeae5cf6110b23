"""TIGER: the next item's semantic id, code by code, from the semantic ids of the items before it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cupel.learners.recommenders.attention import Dropout, Layer, seeded
from cupel.learners.recommenders.generative.base import Generative, Wish


class Tiger(Generative):
    """An encoder over the codes of the history and a decoder of the next item's codes.

    Rajput et al. 2023, arXiv:2305.05065, as card 40-mender gives it: there T5 with relative positions, here learned positions of items (the
    latest first) and vectors of their own for each level's codes. A begin slot stands for an empty history. Settings: `Generative`.
    """

    name: ClassVar[str] = "tiger"

    def __init__(
        self, users: int, items: int, *, levels: int = 3, codes: int = 32, last: int = 32, quantiser: str = "kmeans", dim: int = 64,
        heads: int = 4, layers: int = 2, encoder_layers: int = 2, width: int = 256, length: int = 20, dropout: float = 0.2, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            users, items, levels=levels, codes=codes, last=last, quantiser=quantiser, dim=dim, heads=heads, layers=layers, width=width,
            length=length, dropout=dropout, seed=seed,
        )  # fmt: skip
        with seeded(seed + 1):
            self.token = nn.Parameter(torch.randn(1 + sum(self.sizes), dim) * dim**-0.5)  # token 0 begins
            self.position = nn.Parameter(torch.randn(length, dim) * dim**-0.5)
            self.layers = nn.ModuleList(Layer(dim, heads, width, dropout) for _ in range(encoder_layers))
        self.norm, self.dropout = nn.LayerNorm(dim), Dropout(dropout)

    def states(self, history: Tensor, wish: Wish) -> tuple[Tensor, Tensor]:
        """States of the begin slot and of every code of every item; a wish is not read."""
        there = history >= 0
        offsets = torch.tensor(self.decoder.offsets, device=history.device)
        tokens = self.codes[history.clamp(min=0)] + offsets  # [B, T, C]
        back = there.flip(1).long().cumsum(1).flip(1) - 1  # 0 is the latest
        x = self.token[tokens] + self.position[back.clamp(min=0)][:, :, None]
        x = torch.cat([self.token[:1].expand(len(x), 1, -1), x.flatten(1, 2)], dim=1)
        valid = torch.cat([there.new_ones(len(x), 1), there.repeat_interleave(len(self.sizes), dim=1)], dim=1)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, valid[:, None, :])
        return self.norm(x), valid


MODEL = Tiger
