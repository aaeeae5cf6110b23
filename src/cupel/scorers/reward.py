"""Rewards of responses under a transformer with a head of one output: each prompt computed once, each response once, pads never read.

transformers pools the hidden state of the rightmost token that differs from `pad_token_id`, which is wrong without a sound where that
token is a real one (a closing token used as pad, most often). Here the last token of a response is known from its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cupel.objectives.types import Side
from cupel.scorers.anatomy import Anatomy, Head, ScorerError, causal_of
from cupel.scorers.check import TOLERANCE, quiet
from cupel.scorers.groups import Groups
from cupel.scorers.layouts import padded
from cupel.scorers.layouts.index import Hidden, places
from cupel.scorers.scorer import Scorer

#: names under which transformers' decoders keep the head of a sequence classifier
HEADS = ("score",)


class RewardScores(NamedTuple):
    """Scores of N responses: `score` float [N], `n_tokens` int64 [N], and where no gradient is taken `state` [N, H], what the head read."""

    score: Tensor
    n_tokens: Tensor
    state: Tensor | None = None

    def side(self, index: Tensor, reference: object = None) -> Side:
        """One side of C comparisons: `index` names its responses, [C]. A reward compares with no reference.

        >>> RewardScores(torch.tensor([0.5, -1.0]), torch.tensor([2, 3])).side(torch.tensor([1, 0])).score
        tensor([-1.0000,  0.5000])
        """
        return Side(score=self.score.index_select(0, index), n_tokens=self.n_tokens.index_select(0, index))

    def sides(self, groups: Groups, reference: object = None) -> tuple[Side, Side]:
        """The sides of the batch's pairs."""
        return self.side(groups.first), self.side(groups.second)


class RewardScorer(Scorer):
    """Scores of responses, from a decoder with a linear head of one output (AutoModelForSequenceClassification, peft around it or not).

    A score is read at the response's last token, found by lengths. Options, attributes and layouts as `Scorer`; at construction layouts
    are compared with plain rows, and scores with those of the model's own forward. Raises ScorerError where there is no such head.
    """

    def _check_head(self, parts: Anatomy, groups: Groups, twin: Hidden) -> None:
        del twin  # of responses without the token more
        longer = with_end(groups)
        ours = self._scores(groups, padded.hidden(parts, longer, places(longer))).score
        own = torch.cat([_own(parts.causal, row[None]) for row in rows_of(groups)])
        gap = float((own.double() - ours.double()).abs().max() / own.double().abs().max().clamp(min=1))
        if not gap <= 10 * TOLERANCE.get(ours.dtype, 1e-3):
            raise ScorerError(
                f"scores differ by up to {gap:.3g} from those of {type(parts.causal).__name__}'s own forward: its head does more than one "
                f"linear layer at the last token"
            )

    def head(self) -> Head:
        """A reward has no vocabulary head: ScorerError."""
        raise ScorerError("a reward model has no vocabulary: objectives of log-probabilities need a policy (cupel train policy)")

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]: rewards in the place of log-probabilities
        self, groups: Groups, needs: Iterable[str] = ("score",), reference: Callable[..., Any] | None = None, epsilon: float = 0.01
    ) -> RewardScores:  # fmt: skip
        """Scores of the responses of `groups`, with gradient where it is enabled. The other arguments are those of `Scorer`, not read."""
        return self._scores(groups, self.hidden(with_end(groups)))

    def _scores(self, groups: Groups, state: Hidden) -> RewardScores:
        """From hidden states of responses that are one token longer."""
        lengths = torch.tensor(groups.response_lengths, device=state.response.device)
        last = torch.cumsum(lengths + 1, 0) - 1
        head = score_head(causal_of(self.model))
        at_end = state.response.index_select(0, last)
        score = head(at_end.to(_dtype(head, at_end)))[:, 0].float()
        return RewardScores(score, lengths, None if torch.is_grad_enabled() else at_end)


class WholeModelReward(nn.Module):
    """Scores of responses by the model's own forward on plain rows: encoders, and heads of more than one layer.

    The rows are padded at the right and masked; the model is one whose pooling does not look for a pad token (ScorerError otherwise).
    """

    layouts: tuple[str, ...] = ("padded",)
    last_layout = "padded"

    def __init__(self, model: nn.Module, *, longest: int | None = None) -> None:
        super().__init__()
        self.model, self.longest = model, longest
        draw = torch.Generator().manual_seed(0)
        groups = Groups.of([[5, 6]], [(0, torch.randint(7, 100, (n,), generator=draw).tolist()) for n in (3, 9)])
        device = next(model.parameters()).device
        with quiet(model), torch.autocast(device.type, enabled=False):
            groups = groups.to(device)
            own = torch.cat([_own(model, row[None]) for row in rows_of(groups)])
            gap = float((own.double() - self(groups).score.double()).abs().max())
        if not gap <= 10 * TOLERANCE.get(own.dtype, 1e-3):
            raise ScorerError(f"the scores of {type(model).__name__} change by {gap:.3g} with padding: they are not trusted")

    def forward(
        self, groups: Groups, needs: Iterable[str] = ("score",), reference: Callable[..., Any] | None = None, epsilon: float = 0.01
    ) -> RewardScores:  # fmt: skip
        """Scores of the responses of `groups`, one row each."""
        rows = rows_of(groups)
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(rows[0][0]))
        sizes = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = torch.arange(ids.shape[1], device=ids.device)[None] < sizes[:, None]
        lengths = torch.tensor(groups.response_lengths, device=ids.device)
        with _last_input(self.model) as seen:
            score = _logits(self.model(input_ids=ids, attention_mask=mask.long()))
        return RewardScores(score, lengths, seen[0] if len(seen) == 1 and seen[0].ndim == 2 else None)


@contextmanager
def _last_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """What goes into layers of one output while the block runs; nothing where gradients are taken."""
    seen: list[Tensor] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1] if not torch.is_grad_enabled() else []
    hooks = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def reward_scorer(model: nn.Module, layout: str = "auto", *, longest: int | None = None) -> RewardScorer | WholeModelReward:
    """The scorer that fits a model with one output: shared prompts for decoders with a linear head, the model's own forward for others.

    Raises ScorerError for models with several outputs, and for heads nobody could be sure of.
    """
    inner = inner_model(model)
    labels = getattr(inner.config, "num_labels", None)
    if labels != 1:
        raise ScorerError(f"{type(inner).__name__} gives {labels} numbers for a response; a reward is one (num_labels=1)")
    if any(isinstance(getattr(inner, name, None), nn.Module) for name in HEADS):
        return RewardScorer(model, layout, longest=None if longest is None else longest + 1)
    return WholeModelReward(model, longest=longest)


def inner_model(model: nn.Module) -> Any:
    """The transformers model behind adapters."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def score_head(causal: Any) -> nn.Module:
    """The module that turns a hidden state into a score. ScorerError where there is none."""
    for name in HEADS:
        head = getattr(causal, name, None)
        if isinstance(head, nn.Module):
            return head
    raise ScorerError(f"{type(causal).__name__} has no head for a score ({' or '.join(HEADS)}): load it as a sequence classifier")


def with_end(groups: Groups) -> Groups:
    """Each response with one token more: the position that would predict it is the response's last, which is where a score is read."""
    ids = list(groups.response_ids.split(list(groups.response_lengths)))
    longer = torch.cat([torch.cat([part, part[-1:]]) for part in ids])
    return replace(groups, response_ids=longer, response_lengths=tuple(n + 1 for n in groups.response_lengths), counted=None)


def rows_of(groups: Groups) -> list[Tensor]:
    """Prompt and response of each response, one after the other."""
    prompts = groups.prompt_ids.split(list(groups.prompt_lengths))
    parts = groups.response_ids.split(list(groups.response_lengths))
    return [torch.cat([prompts[g], ids]) for g, ids in zip(groups.prompt_index, parts, strict=True)]


def _own(model: Any, ids: Tensor) -> Tensor:
    """[rows] by the model's own forward on rows without padding."""
    return _logits(model(input_ids=ids, attention_mask=torch.ones_like(ids)))


def _logits(out: Any) -> Tensor:
    return out.logits[:, 0].float()


def _dtype(head: nn.Module, state: Tensor) -> torch.dtype:
    weight = next(iter(head.parameters()), None)
    return state.dtype if weight is None or torch.is_autocast_enabled(state.device.type) else weight.dtype
