"""Lists of responses to one prompt, and objectives of them. A list has no swap: only the weight w of a target applies to it."""

# pyright: strict
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ListNeed = Literal["relevance", "logp", "length"]

#: 2^relevance above this is no longer a number in float32's whole range
MOST_RELEVANT = 30.0


@dataclass(frozen=True)
class RankedList:
    """N responses to each of B prompts. What an objective does not need may be absent.

    score      [B, N]  reward or item score, or the log-ratio to the reference; entries outside `mask` are ignored
    mask       [B, N]  which entries are responses; all if absent
    relevance  [B, N]  graded relevance, at least 0 and at most 30 (IRPO, LiPO), or a stated score (InfoNCA, NCA)
    position   [B, N]  place in the target order, 1 the best; by default from relevance (ties in the given order), else the given order
    weight     [B, N]  weight of an anchor, such as one over the propensity of being shown
    logp       [B, N]  log-probability of the response under the policy, summed
    n_tokens   [B, N]  number of its tokens
    """

    score: Float[Tensor, "B N"]
    mask: Bool[Tensor, "B N"] | None = None
    relevance: Float[Tensor, "B N"] | None = None
    position: Int[Tensor, "B N"] | None = None
    weight: Float[Tensor, "B N"] | None = None
    logp: Float[Tensor, "B N"] | None = None
    n_tokens: Int[Tensor, "B N"] | Float[Tensor, "B N"] | None = None

    def __post_init__(self) -> None:
        shapes = {f.name: tuple(value.shape) for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"the tensors of a list differ in shape: {shapes}")

    def __len__(self) -> int:
        """Number of lists B."""
        return len(self.score)

    @property
    def real(self) -> Tensor:
        """[B, N] bool: which entries are responses."""
        return torch.ones_like(self.score, dtype=torch.bool) if self.mask is None else self.mask

    @property
    def values(self) -> Tensor:
        """[B, N] scores in float32 or better, 0 outside the mask."""
        score = self.score.float() if self.score.dtype in (torch.bfloat16, torch.float16) else self.score
        return torch.where(self.real, score, torch.zeros_like(score))

    @property
    def counts(self) -> Tensor:
        """[B] number of responses of each list."""
        return self.real.sum(dim=1)

    @property
    def places(self) -> Tensor:
        """[B, N] place in the target order, 1 the best; entries outside the mask come last.

        >>> RankedList(torch.zeros(1, 3), relevance=torch.tensor([[0.0, 2.0, 0.0]])).places.tolist()
        [[2, 1, 3]]
        """
        if self.position is not None:
            return torch.where(self.real, self.position, torch.full_like(self.position, self.position.shape[1] + 1))
        if self.relevance is not None:
            return ranks(self.relevance, self.real)
        given = torch.arange(self.score.shape[1], device=self.score.device, dtype=torch.float32)
        return ranks(-given.expand_as(self.score), self.real)


def ranks(values: Tensor, real: Tensor) -> Tensor:
    """[B, N] rank of each value in its row, 1 for the largest, ties in the given order, entries that are not real last.

    >>> ranks(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, False]])).tolist()
    [[2, 1, 3]]
    """
    keys = torch.where(real, values, torch.full_like(values, -float("inf")))
    return keys.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1


class ListObjective(NamedTuple):
    """An objective of lists: per-list loss [B], never reduced. Made by a factory.

    needs     what a list must carry beside scores
    swap      always "none": a list makes no claim that could be flipped
    settings  the factory's arguments by name
    """

    name: str
    loss: Callable[[RankedList], Tensor]
    needs: frozenset[ListNeed] = frozenset()
    swap: Literal["none"] = "none"
    settings: Mapping[str, float | str | None] = {}


def make_list(
    name: str, loss: Callable[[RankedList], Tensor], settings: Mapping[str, float | str | None], needs: tuple[ListNeed, ...] = (),
    graded: bool = False,
) -> ListObjective:  # fmt: skip
    """A `ListObjective` whose loss checks its lists first; values on the CPU only, as `reading`. graded: relevances are exponents."""

    def checked(lists: RankedList) -> Tensor:
        for need in needs:
            field = "n_tokens" if need == "length" else need
            if getattr(lists, field) is None:
                raise ValueError(f"{name} needs {field} of a list")
        if lists.score.device.type == "cpu" and not torch.compiler.is_compiling():
            _check_values(name, lists, graded)
        return loss(lists)

    return ListObjective(name, checked, frozenset(needs), "none", dict(settings))


def _check_values(name: str, lists: RankedList, graded: bool) -> None:
    for field in ("score", "relevance", "weight", "logp"):
        value = getattr(lists, field)
        if value is not None:
            _refuse(name, field, lists.real & ~value.detach().isfinite(), "not finite")
    if lists.relevance is not None and graded:
        _refuse(name, "relevance", lists.real & ((lists.relevance < 0) | (lists.relevance > MOST_RELEVANT)), "outside [0, 30]")
    if lists.n_tokens is not None:
        _refuse(name, "n_tokens", lists.real & (lists.n_tokens < 1), "below 1")


def _refuse(name: str, field: str, bad: Tensor, what: str) -> None:
    rows = bad.any(dim=1).nonzero().flatten()
    if len(rows):
        raise ValueError(f"{name}: {field} is {what} in {len(rows)} of {len(bad)} lists (first: row {int(rows[0])})")
