"""Sides and objectives: what a scorer gives for one response, and a pure function of two of them.

A comparison has a `first` and a `second` side; an objective gives its loss *if the first is the better one*. Swapping the sides is
flipping the label, so `loss(first, second)` and `loss(second, first)` are all that a noise treatment ever needs.
"""

# pyright: strict
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

#: statistics of a batch or of the run so far that an objective depends on (beta-DPO, BCO, KTO), computed without gradient
Context = Mapping[str, Tensor]

#: what a side may have to carry; a scorer computes no more, a learner refuses less
Need = Literal[
    "logp", "length", "reference", "tokens", "reference_tokens", "score", "rating", "divergence", "collision", "tilt", "masks",
    "prompt", "target", "online", "mismatch", "embedding", "error", "reference_error",
]  # fmt: skip

Swap = Literal["comparison", "none", "same"]


@dataclass(frozen=True)
class Side:
    """One response of each of B comparisons, as a scorer sees it. Logarithms are natural; what an objective does not need may be absent.

    logp            [B]     log-probability of the response's tokens under the policy, summed
    n_tokens        [B]     number of those tokens, at least 1
    reference_logp  [B]     the same log-probability under the frozen reference
    token_logp      [B, T]  log-probability of each token; entries outside `mask` are ignored
    reference_token_logp [B, T]
    mask            [B, T]  which positions are tokens of the response
    score           [B]     a reward or the score of an item
    rating          [B]     a stated quality of the response (offsets, graded lists); not a model's output
    divergence      [B, T]  KL(reference || policy) at each position, over the whole vocabulary
    collision       [B, T]  log sum_v policy(v)^2 at each position: the weight that makes confident positions comparable
    tilt_up, tilt_down [B]  log-probability under logits (1 + e) f - e g and (1 - e) f + e g of policy f and reference g
    mask_reward, mask_divergence [B, T]  weights of a position in the reward and in the divergence, at least 0
    prompt_logp, reference_prompt_logp [B]  log-probability of the prompt itself, for comparisons across prompts
    target_logp, target_n_tokens [B]  a third response to the same prompt that is to be imitated; the same on both sides
    online_logp, online_reference_logp [B, S]  S samples of the policy for this prompt, scored under both; the same on both sides
    mismatch_log_ratio [B]  log policy/reference of a response to *another* prompt: a baseline; no gradient
    embedding       [B, D]  preference vector, D even: plane l is columns 2l and 2l + 1
    gate            [B, K]  weight of each of the D / 2 planes, from the prompt alone
    error, reference_error [B]  mean squared error of denoising under the model and the reference, same noise and time on both sides
    """

    logp: Float[Tensor, " B"] | None = None
    n_tokens: Int[Tensor, " B"] | Float[Tensor, " B"] | None = None
    reference_logp: Float[Tensor, " B"] | None = None
    token_logp: Float[Tensor, "B T"] | None = None
    reference_token_logp: Float[Tensor, "B T"] | None = None
    mask: Bool[Tensor, "B T"] | None = None
    score: Float[Tensor, " B"] | None = None
    rating: Float[Tensor, " B"] | None = None
    divergence: Float[Tensor, "B T"] | None = None
    collision: Float[Tensor, "B T"] | None = None
    tilt_up: Float[Tensor, " B"] | None = None
    tilt_down: Float[Tensor, " B"] | None = None
    mask_reward: Float[Tensor, "B T"] | None = None
    mask_divergence: Float[Tensor, "B T"] | None = None
    prompt_logp: Float[Tensor, " B"] | None = None
    reference_prompt_logp: Float[Tensor, " B"] | None = None
    target_logp: Float[Tensor, " B"] | None = None
    target_n_tokens: Int[Tensor, " B"] | Float[Tensor, " B"] | None = None
    online_logp: Float[Tensor, "B S"] | None = None
    online_reference_logp: Float[Tensor, "B S"] | None = None
    mismatch_log_ratio: Float[Tensor, " B"] | None = None
    embedding: Float[Tensor, "B D"] | None = None
    gate: Float[Tensor, "B K"] | None = None
    error: Float[Tensor, " B"] | None = None
    reference_error: Float[Tensor, " B"] | None = None

    def __post_init__(self) -> None:
        lengths = {f.name: len(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the tensors of a side describe different numbers of responses: {lengths}")

    def __len__(self) -> int:
        """Number of responses B; 0 of an empty side."""
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                return len(value)
        return 0

    def map(self, function: Callable[[Tensor], Tensor]) -> Side:
        """The side with `function` applied to each tensor that is there (to move, detach, cast or take rows).

        >>> import torch
        >>> Side(logp=torch.tensor([-1.0, -2.0])).map(lambda x: x[:1]).logp
        tensor([-1.])
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Side(**{name: function(value) for name, value in values.items() if value is not None})


class Objective(NamedTuple):
    """A preference objective: per-comparison loss of B comparisons if the first side is the better one. Made by a factory.

    loss(first, second, context)    [B], never reduced, pure; `context` is {} for objectives that need none
    margin(first, second, context)  [B], what reports call the margin: positive where the model agrees with the recorded label
    needs     what a side must carry
    swap      "comparison" if the sides of one comparison may be swapped alone; "none" if the loss couples comparisons (AOT), "same" if it
              reads no label, so that swapping changes nothing (GPO): of a target only the weight w means anything then
    context   (first, second, previous) -> statistics of the step, without gradient, computed once per optimiser step and frozen while
              the swapped loss is computed; `previous` is {} at the first step. None if the objective needs none
    settings  the factory's arguments by name, for records and messages
    saturated (first, second, context) -> bool [B]: comparisons whose loss was continued past a documented clamp, for a learner to
              count; None if the objective has no clamp
    """

    name: str
    loss: Callable[[Side, Side, Context], Tensor]
    margin: Callable[[Side, Side, Context], Tensor]
    needs: frozenset[Need]
    swap: Swap = "comparison"
    context: Callable[[Side, Side, Context], Context] | None = None
    settings: Mapping[str, float | str | None] = {}
    saturated: Callable[[Side, Side, Context], Tensor] | None = None
