"""The network that says an item's codes one after the other, each in view of those before it and of a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cupel.learners.recommenders.attention import Dropout, Keys, Layer


class Memory(NamedTuple):
    """What a decoder looks at: keys and values of each layer for B records, and which of their M slots there are, bool [B, M]."""

    keys: tuple[Keys, ...]
    there: Tensor

    def take(self, rows: slice) -> Memory:
        """Some of the records."""
        return Memory(tuple((k[rows], v[rows]) for k, v in self.keys), self.there[rows])


class Decoder(nn.Module):
    """log P(code | codes before, memory) by a causal transformer with attention over the memory.

    A record has P hypotheses (candidates of training, beams, nodes of the tree) that share its memory. The codes of a level have vectors of
    their own, which say the position as well, and the probabilities of a level sum to 1 over its codes.
    """

    def __init__(self, sizes: Sequence[int], dim: int, heads: int, layers: int, width: int, dropout: float) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.offsets = [1 + sum(self.sizes[:level]) for level in range(len(self.sizes))]  # token 0 begins
        self.token = nn.Parameter(torch.randn(1 + sum(self.sizes), dim) * dim**-0.5)
        self.layers = nn.ModuleList(Layer(dim, heads, width, dropout, cross=True) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(dim), Dropout(dropout)
        self.out = nn.ModuleList(nn.Linear(dim, size) for size in self.sizes)

    def memory(self, states: Tensor, there: Tensor) -> Memory:
        """The memory of states [B, M, d]; at least one slot of each record is there."""
        return Memory(tuple(layer.memory.keys(states) for layer in self._layers()), there)

    def forward(self, memory: Memory, codes: Tensor) -> Tensor:
        """log-probabilities [B, P, C] of each code of the hypotheses int64 [B, P, C], given those before it."""
        b, p, c = codes.shape
        offsets = torch.tensor(self.offsets, device=codes.device)
        tokens = torch.cat([torch.zeros_like(codes[..., :1]), (codes + offsets)[..., :-1]], dim=-1)
        x = self.dropout(self.token[tokens])  # [B, P, C, d]
        causal = torch.ones(c, c, dtype=torch.bool, device=codes.device).tril()
        for layer, keys in zip(self._layers(), memory.keys, strict=True):
            h = layer.norm(x).flatten(0, 1)
            x = x + layer.dropout(layer.attention(h, layer.attention.keys(h), causal)).unflatten(0, (b, p))
            h = layer.memory_norm(x).flatten(1, 2)
            x = x + layer.dropout(layer.memory(h, keys, memory.there[:, None, :])).unflatten(1, (p, c))
            x = layer.feed(x)
        x = self.norm(x)
        found = [self.out[level](x[:, :, level]).log_softmax(-1).gather(-1, codes[:, :, level, None])[..., 0] for level in range(c)]
        return torch.stack(found, dim=-1)

    def step(self, level: int, memory: Memory, code: Tensor | None, past: Sequence[Keys] | None) -> tuple[Tensor, list[Keys]]:
        """(log-probabilities [B, P, size] of the codes of `level`, keys and values so far).

        code  int64 [B, P], the code of the level before of each hypothesis; None at level 0, where there is one hypothesis
        past  of each layer the keys and values of those hypotheses, [B * P, heads, level, d / heads]; None at level 0
        """
        b = len(memory.there)
        token = torch.zeros(b, 1, dtype=torch.int64, device=memory.there.device) if code is None else code + self.offsets[level - 1]
        x, now = self.dropout(self.token[token]), []  # [B, P, d]
        p = token.shape[1]
        for number, (layer, keys) in enumerate(zip(self._layers(), memory.keys, strict=True)):
            h = layer.norm(x).flatten(0, 1)[:, None]
            own = layer.attention.keys(h)
            if past is not None:
                own = (torch.cat([past[number][0], own[0]], dim=2), torch.cat([past[number][1], own[1]], dim=2))
            now.append(own)
            x = x + layer.dropout(layer.attention(h, own)[:, 0].unflatten(0, (b, p)))
            x = x + layer.dropout(layer.memory(layer.memory_norm(x), keys, memory.there[:, None, :]))
            x = layer.feed(x)
        return self.out[level](self.norm(x)).log_softmax(-1), now

    def _layers(self) -> list[Layer]:
        return list(self.layers)  # pyright: ignore[reportReturnType]: the list holds layers alone
