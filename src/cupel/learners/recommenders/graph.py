"""The graph of users and items: vectors passed along its edges, edges left out for a step, and products with fast gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cupel.errors import InputError
from cupel.interactions.log import Log


class Weights(NamedTuple):
    """Weights of the edges [n], as a user hears of an item and as an item hears of a user; each in the order of users and of items."""

    to_user: Tensor
    to_user_turned: Tensor
    to_item: Tensor
    to_item_turned: Tensor


class Graph(nn.Module):
    """The normalised bipartite graph of a log: A = D^-1/2 A D^-1/2, an edge of weight 1 / sqrt(n_u n_i) for each distinct pair.

    n_u and n_i count distinct partners. Buffers are structure: they are not saved. InputError where the log has no events.
    """

    start: Tensor
    item: Tensor
    turned_start: Tensor
    turned_user: Tensor
    turn: Tensor
    weight: Tensor

    def __init__(self, log: Log) -> None:
        super().__init__()
        users, items = log.shape
        pairs = np.unique(log.pairs())
        if not len(pairs):
            raise InputError("a graph of users and items needs events, and the log has none")
        user, item = pairs // items, pairs % items
        n_u, n_i = np.bincount(user, minlength=users), np.bincount(item, minlength=items)
        turn = np.argsort(item, kind="stable")
        held = {
            "start": starts(n_u), "item": item, "turned_start": starts(n_i), "turned_user": user[turn], "turn": turn,
            "weight": (1 / np.sqrt(n_u[user] * n_i[item].astype(np.float64))).astype(np.float32),
        }  # fmt: skip
        for name, value in held.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def whole(self) -> Weights:
        """All edges."""
        return self._both(self.weight, self.weight)

    def dropped(self, keep: float, generator: torch.Generator) -> Weights:
        """Each edge kept with probability `keep`, both directions on their own; what is kept is not scaled up."""
        drawn = torch.rand(2, len(self.weight), generator=generator).to(self.weight.device) < keep
        return self._both(self.weight * drawn[0], self.weight * drawn[1])

    def step(self, user: Tensor, item: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """Vectors of users [U, d] and items [I, d] after one pass along the edges: each the weighted sum of its neighbours'."""
        by_user, by_item = (self.item, self.start), (self.turned_user, self.turned_start)
        return (
            product(item, *by_user, weights.to_user, *by_item, weights.to_user_turned),
            product(user, *by_item, weights.to_item_turned, *by_user, weights.to_item),
        )

    def _both(self, to_user: Tensor, to_item: Tensor) -> Weights:
        return Weights(to_user, to_user[self.turn], to_item, to_item[self.turn])


def starts(counts: np.ndarray) -> np.ndarray:
    """Where each row begins.

    >>> starts(np.array([2, 0, 3])).tolist()
    [0, 2, 2]
    """
    return np.concatenate([[0], np.cumsum(counts)[:-1]])


def bag(x: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """Row r: the sum over k from start[r] of weight_k x[index_k]."""
    return torch.nn.functional.embedding_bag(index, x, start, mode="sum", per_sample_weights=weight)


class _Product(torch.autograd.Function):
    """A sparse matrix, held by rows and by columns, times a dense one: the gradient is the product with its transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts[3:])
        return bag(x, *parts[:3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]: one output, one gradient
        return bag(grad.contiguous(), *ctx.saved_tensors), None, None, None, None, None, None


def product(x: Tensor, *parts: Tensor) -> Tensor:
    """`bag(x, index, start, weight)` of parts (index, start, weight, and the same three of the transposed matrix)."""
    return _Product.apply(x, *parts)  # pyright: ignore[reportReturnType]: one tensor in, one out
