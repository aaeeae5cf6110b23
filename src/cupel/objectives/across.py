"""Comparisons across prompts: (prompt, response) against (prompt, response)."""

# pyright: strict
from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import make, one_of, plus
from cupel.objectives.margin import sigmoid
from cupel.objectives.types import Context, Objective, Side

PRIORS = ("trained", "reference")


def joint(objective: Objective, prior: str = "trained") -> Objective:
    """`objective` on joint log-probabilities log p(prompt) + log p(response | prompt), for sides with different prompts.

    prior "trained": the prompt's tokens count in policy and reference, which also teaches the policy to write preferred prompts;
    "reference": the policy's prior is frozen, so prompts cancel and only responses count. Equal prompts give `objective` itself up to
    rounding. Bansal et al. 2024 (DOVE), arXiv:2404.00530; the second prior is ours. ValueError unless the objective reads summed
    log-probabilities of policy and reference, and nothing else.

    >>> joint(sigmoid(0.1)).name
    'joint sigmoid'
    """
    one_of(PRIORS, prior=prior)
    if objective.needs != plus((), "logp", "reference"):
        raise ValueError(f"joint reads logp and reference alone; {objective.name} needs {', '.join(sorted(objective.needs))}")
    if prior == "reference":
        return objective._replace(name=f"joint {objective.name}", settings={**objective.settings, "prior": prior})

    def whole(side: Side) -> Side:
        if len(side) == 0:
            return side
        return replace(
            side, logp=reading.logp(side) + reading.there(side.prompt_logp, "prompt_logp"),
            reference_logp=reading.there(side.reference_logp, "reference_logp")
            + reading.there(side.reference_prompt_logp, "reference_prompt_logp"),
        )  # fmt: skip

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return objective.loss(whole(first), whole(second), context)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return objective.margin(whole(first), whole(second), context)

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        assert objective.context is not None
        return objective.context(whole(first), whole(second), previous)

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        assert objective.saturated is not None
        return objective.saturated(whole(first), whole(second), context)

    return make(
        f"joint {objective.name}", loss, margin, plus(objective.needs, "prompt"), {**objective.settings, "prior": prior},
        swap=objective.swap,
        context=None if objective.context is None else statistics, saturated=None if objective.saturated is None else saturated,
        either_empty=True,
    )  # fmt: skip


def dove(beta: float = 0.1, prior: str = "trained") -> Objective:
    """DOVE: DPO on the joint log-ratios of (prompt, response), sp(-beta (h_response + h_prompt)). See `joint`.

    >>> import torch
    >>> def side(*values):
    ...     names = ("logp", "reference_logp", "prompt_logp", "reference_prompt_logp")
    ...     return Side(**{name: torch.tensor([value]) for name, value in zip(names, values)})
    >>> round(dove(beta=0.1).loss(side(-20.0, -22.0, -40.0, -41.0), side(-30.0, -27.0, -55.0, -53.0), {}).item(), 6)
    0.371101
    """
    return joint(sigmoid(beta), prior)._replace(name="dove", settings={"beta": beta, "prior": prior})
