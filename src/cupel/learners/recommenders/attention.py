"""The transformer parts that sequence models share: attention over what a mask allows, layers, and dropout without global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cupel.errors import InputError

#: keys and values of one attention, both [B, heads, M, d / heads]
Keys = tuple[Tensor, Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Parameters made inside come from the seed; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class Dropout(nn.Module):
    """Inverted dropout whose masks come from the generator that `reseed` gave: no step depends on what else drew random numbers."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise InputError(f"dropout is a share in [0, 1), not {rate}")
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x / (1 - rate) where kept, 0 elsewhere; x itself outside training."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


def reseed(model: nn.Module, generator: torch.Generator) -> None:
    """Give every `Dropout` of a model one generator on the model's device, seeded by the next draw of `generator`."""
    parts = [part for part in model.modules() if isinstance(part, Dropout)]
    if parts:
        seed = int(torch.randint(1 << 62, (1,), generator=generator, device=generator.device))
        draws = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        for part in parts:
            part.generator = draws


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d / heads)) v over the allowed keys, by heads, and a linear map of the result.

    A row that may look at nothing has no value: callers allow each row at least one key.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise InputError(f"a width of {dim} does not divide into {heads} heads")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def keys(self, x: Tensor) -> Keys:
        """Keys and values of x [B, M, d]."""
        return self._split(self.key(x)), self._split(self.value(x))

    def forward(self, x: Tensor, keys: Keys, allowed: Tensor | None = None) -> Tensor:
        """[B, Q, d] from queries x [B, Q, d]; allowed bool, broadcasts to [B, Q, M], None allows all."""
        mask = None if allowed is None else allowed.unsqueeze(-3)
        found = F.scaled_dot_product_attention(self._split(self.query(x)), *keys, attn_mask=mask)
        return self.out(found.transpose(-2, -3).flatten(-2))


class Layer(nn.Module):
    """One transformer layer, normalised before each part: x + A(LN x), then x + W2 relu(W1 LN x); all dropped out before they are added.

    cross: whether an attention over a memory (`memory`, after `memory_norm`) stands between the two; a decoder calls it.
    """

    memory: Attention
    memory_norm: nn.LayerNorm

    def __init__(self, dim: int, heads: int, width: int, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
        self.attention, self.norm = Attention(dim, heads), nn.LayerNorm(dim)
        if cross:
            self.memory, self.memory_norm = Attention(dim, heads), nn.LayerNorm(dim)
        self.first, self.second, self.forward_norm = nn.Linear(dim, width), nn.Linear(width, dim), nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def feed(self, x: Tensor) -> Tensor:
        """The last part: x + W2 relu(W1 LN x)."""
        return x + self.dropout(self.second(self.dropout(torch.relu(self.first(self.forward_norm(x))))))

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        """[B, T, d] from [B, T, d], each row looking at the rows of its sequence that `allowed` [B, T, T] names."""
        h = self.norm(x)
        return self.feed(x + self.dropout(self.attention(h, self.attention.keys(h), allowed)))
