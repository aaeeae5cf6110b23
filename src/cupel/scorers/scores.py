"""What a scorer gives for the responses of a batch, and how it becomes the two sides of comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cupel.objectives.types import Side

if TYPE_CHECKING:
    from cupel.scorers.groups import Groups


class Scores(NamedTuple):
    """Scores of N responses with M tokens in all; fields that nobody asked for are None.

    logp         [N]  log-probability of the response's tokens, summed
    n_tokens     int64 [N]
    token_logp, collision, entropy, divergence  [M], response after response
    tilt_up, tilt_down, prompt_logp  [N]
    """

    logp: Tensor
    n_tokens: Tensor
    token_logp: Tensor | None = None
    collision: Tensor | None = None
    entropy: Tensor | None = None
    divergence: Tensor | None = None
    tilt_up: Tensor | None = None
    tilt_down: Tensor | None = None
    prompt_logp: Tensor | None = None

    def side(self, index: Tensor, reference: Scores | None = None) -> Side:
        """One side of C comparisons: `index` names its responses, [C]. The reference's scores, of the same batch, are without gradient.

        >>> scores = Scores(torch.tensor([-3.0, -5.0]), torch.tensor([2, 3]))
        >>> scores.side(torch.tensor([1, 1])).logp
        tensor([-5., -5.])
        """
        whole = {"logp": self.logp, "tilt_up": self.tilt_up, "tilt_down": self.tilt_down, "prompt_logp": self.prompt_logp}
        tokens = {"token_logp": self.token_logp, "collision": self.collision, "divergence": self.divergence}
        if reference is not None:
            if len(reference.logp) != len(self.logp):
                raise ValueError(f"the reference scores {len(reference.logp)} responses, the policy {len(self.logp)}")
            whole["reference_logp"] = reference.logp.detach().to(self.logp.device)
            whole["reference_prompt_logp"] = _moved(reference.prompt_logp, self.logp.device)
            tokens["reference_token_logp"] = _moved(reference.token_logp, self.logp.device)
        values: dict[str, Tensor] = {name: value.index_select(0, index) for name, value in whole.items() if value is not None}
        values["n_tokens"] = self.n_tokens.index_select(0, index)
        if any(value is not None for value in tokens.values()):
            at, mask = _padded(self.n_tokens, index)
            values["mask"] = mask
            zero = torch.zeros((), dtype=self.logp.dtype, device=self.logp.device)
            values |= {name: torch.where(mask, value[at], zero) for name, value in tokens.items() if value is not None}
        return Side(**values)

    def sides(self, groups: Groups, reference: Scores | None = None) -> tuple[Side, Side]:
        """The sides of the batch's pairs; reference as `side`."""
        return self.side(groups.first, reference), self.side(groups.second, reference)


def _moved(value: Tensor | None, device: torch.device) -> Tensor | None:
    return None if value is None else value.detach().to(device)


def _padded(n_tokens: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """[C, T] places of tokens among all tokens (0 where there is none), and which are there; T the longest response of the side."""
    begin = torch.cumsum(n_tokens, 0) - n_tokens
    length = n_tokens.index_select(0, index)
    step = torch.arange(int(length.max()) if len(length) else 0, device=index.device)
    mask = step < length[:, None]
    return torch.where(mask, begin.index_select(0, index)[:, None] + step, 0), mask


def by_response(values: Tensor, n_tokens: tuple[int, ...]) -> Tensor:
    """[N]: values at tokens [M], summed over each response; a prefix or response without positions sums to 0.

    >>> by_response(torch.tensor([1.0, 2.0, 3.0]), (1, 0, 2))
    tensor([1., 0., 5.])
    """
    owner = torch.repeat_interleave(torch.tensor(n_tokens, device=values.device), output_size=len(values))
    return torch.zeros(len(n_tokens), dtype=values.dtype, device=values.device).index_add(0, owner, values)
