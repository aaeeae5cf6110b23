# pyright: strict
"""One learned number for all, per annotator or per group, in a state: unknown ids share one of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cupel.noise.lookup import By, ids_of, index_of
from cupel.noise.types import DataSpec, State, Terms

#: numbers that are learned stay this far from 0 and 1, unless they started there
EDGE = 1e-4


class Table(NamedTuple):
    """init(spec) -> tensors of the state; read(terms, state, like) -> the numbers of comparisons, [B], of dtype and device of `like`;
    mean(terms, state, share, above, below): each number moved by `share` toward sum of above / sum of below over its comparisons, [B] each
    (with what `extra` adds to both), where there are any."""  # fmt: skip

    init: Callable[[DataSpec], dict[str, Tensor]]
    read: Callable[[Terms, State, Tensor], Tensor]
    mean: Callable[[Terms, State, float, Tensor, Tensor], dict[str, Tensor]]


def table(name: str, by: By, start: float, extra: tuple[float, float] = (0.0, 0.0)) -> Table:
    """Numbers in (0, 1) called `name`, all of them `start` at first. extra: pseudo-counts added to both sums of `mean`.

    >>> rates = table("rate", "group", 0.5)
    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(3))._replace(group=torch.tensor([0, 1, 0]))
    >>> state = rates.init(DataSpec(groups=("x", "y", "z")))
    >>> rates.mean(terms, state, 1.0, torch.tensor([0.0, 0.25, 0.5]), torch.ones(3))["rate@group"].tolist()
    [0.25, 0.25, 0.5]
    """
    key = f"{name}@{by}"

    def init(spec: DataSpec) -> dict[str, Tensor]:
        state = {name: torch.tensor([start], dtype=torch.float64)}
        return state if by == "all" else state | {key: torch.full((len(ids_of(spec, by)),), start, dtype=torch.float64)}

    def values(state: State) -> Tensor:
        """[K + 1]: those of the ids, and last that of unknown ids (or of all)."""
        return state[name] if by == "all" else torch.cat([state[key], state[name]])

    def slots(terms: Terms, n: int) -> Tensor:
        index = index_of(terms, by).cpu()
        return torch.where(index < 0, n - 1, index)

    def read(terms: Terms, state: State, like: Tensor) -> Tensor:
        found = values(state)
        return found[slots(terms, len(found))].to(device=like.device, dtype=like.dtype)

    def mean(terms: Terms, state: State, share: float, above: Tensor, below: Tensor) -> dict[str, Tensor]:
        old = values(state)
        slot = slots(terms, len(old))
        top = torch.zeros_like(old).index_add_(0, slot, above.detach().cpu().double()) + extra[0]
        bottom = torch.zeros_like(old).index_add_(0, slot, below.detach().cpu().double()) + extra[1]
        here = torch.zeros_like(old).index_add_(0, slot, torch.ones_like(slot, dtype=old.dtype)) > 0
        moved = ((1 - share) * old + share * top / torch.where(bottom > 0, bottom, 1.0)).clamp(EDGE, 1 - EDGE)
        new = torch.where(here & (bottom > 0) & (old > 0) & (old < 1), moved, old)
        return {**state, name: new} if by == "all" else {**state, key: new[:-1], name: new[-1:]}

    return Table(init, read, mean)
