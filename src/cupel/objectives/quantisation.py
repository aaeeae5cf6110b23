"""The loss of a residual quantiser: reconstruction, codebooks that follow what they stand for, and commitment to them."""

# pyright: strict
from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from cupel.objectives.build import not_negative


def residual_quantisation(
    x: Float[Tensor, "B D"], back: Float[Tensor, "B D"], left: Float[Tensor, "L B d"], chosen: Float[Tensor, "L B d"], beta: float = 0.25
) -> Float[Tensor, ""]:
    """MSE(back, x) + MSE(sg(left), chosen) + beta MSE(left, sg(chosen)), means over levels, components and the batch: a scalar.

    x what was encoded and `back` its reconstruction; left what each level had to quantise and `chosen` the vector it took. sg: without
    gradient. RQ-VAE of TIGER, Rajput et al. 2023, arXiv:2305.05065, as card 40-mender gives it. ValueError unless beta >= 0.

    >>> import torch
    >>> one, zero = torch.ones(1, 2), torch.zeros(1, 2)
    >>> residual_quantisation(one, zero, one[None], zero[None], beta=0.5).item()
    2.5
    """
    not_negative(beta=beta)
    reconstruction = (back - x).square().mean()
    return reconstruction + (left.detach() - chosen).square().mean() + beta * (left - chosen.detach()).square().mean()
