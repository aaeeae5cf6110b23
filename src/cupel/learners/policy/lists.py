"""Lists of responses to one prompt as comparisons of the loop: a record is a list, judged whole by an objective of lists.

A list has no two sides and no label. What stands for its first side (`Listed`) holds all its responses, so that steps, micro-batches,
treatments of the weight, evaluations and checkpoints are those of pairs; its second side is empty and its margin NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.objectives.lists import RankedList
from cupel.objectives.names import ALIASES, LISTS, list_by_name, split_text
from cupel.objectives.steering import effective_size, steer_list
from cupel.objectives.types import Context, Need, Objective, Side
from cupel.scorers.scores import Scores

#: the objective whose lists were drawn from a proposal
STEER = "steer"


class ListIndex(NamedTuple):
    """B lists of a batch, padded to N. response int64 [B, N] into its responses; mask bool; relevance and proposal float64.

    proposal: log-probability under the model the list was drawn from, NaN where the data do not state it (the reference is that model).
    """

    response: Tensor
    mask: Tensor
    relevance: Tensor
    proposal: Tensor

    def to(self, device: torch.device) -> ListIndex:
        """The same on another device."""
        return ListIndex(*(x.to(device) for x in self))


@dataclass(frozen=True)
class Listed(Side):
    """The responses of B lists. As a side: their mean log-probability, reference and number of tokens, without gradient, for the log.

    each, proposal, relevance, tokens [B, N], mask bool [B, N]: log-probability of each response, with gradient; that under the model it
    was drawn from; what the data say of it; its number of tokens; and which entries are responses.
    """

    each: Tensor | None = None
    proposal: Tensor | None = None
    relevance: Tensor | None = None
    tokens: Tensor | None = None
    real: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Listed:
        """The side with `function` applied to each tensor that is there."""
        return replace(self, **{f.name: function(x) for f in fields(self) if (x := getattr(self, f.name)) is not None})

    def lists(self, name: str) -> RankedList:
        """Lists as the objective `name` reads them: log-ratios as scores; for `steer`, relevance as log-weights of the target."""
        each, proposal, relevance, tokens, real = self.each, self.proposal, self.relevance, self.tokens, self.real
        assert each is not None
        assert proposal is not None
        assert relevance is not None
        if name == STEER:
            return steer_list(each, relevance, torch.zeros_like(relevance), proposal, mask=real, n_tokens=tokens)
        return RankedList(each - proposal, mask=real, relevance=relevance, logp=each, n_tokens=tokens)


def is_list(text: str) -> bool:
    """Whether an objective's text names an objective of lists.

    >>> is_list("steer:reduction=token"), is_list("pro"), is_list("sigmoid:beta=0.1")
    (True, True, False)
    """
    name = text.strip().partition(":")[0]
    return ALIASES.get(name, name) in LISTS


def list_objective(text: str, *, stated: bool) -> Objective:
    """The objective of lists that a text names, in the form of the loop: `loss` of a `Listed` first side.

    stated: proposals come from the data (`reference: none`), which only `steer` has; else they are the reference's. InputError there,
    ValueError as `list_by_name`.

    >>> list_objective("steer", stated=False).needs == {"logp", "reference"}
    True
    """
    name, settings = split_text(text)
    found = list_by_name(name, **settings)
    if stated and found.name != STEER:
        raise InputError(f"{found.name} scores responses by their log-ratio to a reference: choose reference: start, or another")

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        assert isinstance(first, Listed)
        return found.loss(first.lists(found.name))

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return torch.full((len(first),), float("nan"))

    needs: frozenset[Need] = frozenset({"logp"} if stated else {"logp", "reference"})
    return Objective(found.name, loss, margin, needs, "same", None, found.settings)


def listed(scores: Scores, reference: Scores | None, of: ListIndex) -> Listed:
    """The lists of a batch under the policy's scores; proposals are the reference's where there is one, else what the data state."""
    of = of.to(scores.logp.device)
    each, tokens = scores.logp[of.response], scores.n_tokens[of.response]
    proposal = of.proposal.to(each) if reference is None else reference.logp.detach().to(each)[of.response]
    proposal = torch.where(of.mask, proposal, torch.zeros_like(proposal))
    count = of.mask.sum(dim=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(of.mask, values.detach(), torch.zeros_like(values)).sum(dim=1) / count

    return Listed(
        logp=mean(each), reference_logp=mean(proposal), n_tokens=mean(tokens.to(each)), each=each, proposal=proposal,
        relevance=of.relevance.to(each), tokens=tokens, real=of.mask,
    )  # fmt: skip


def effective(side: Side, name: str) -> Tensor | None:
    """[B] how many responses of a list carry the target of `steer` (`effective_size`); None for anything else."""
    return effective_size(side.lists(name)) if isinstance(side, Listed) and name == STEER else None
