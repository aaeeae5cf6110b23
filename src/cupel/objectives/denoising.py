"""Objectives of denoising errors l, mean squared errors of a diffusion model for the two images of a pair, same noise and same time."""

# pyright: strict
from __future__ import annotations

from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.build import make, one_of, positive
from cupel.objectives.numerics import decay, softplus
from cupel.objectives.types import Context, Objective, Side

VARIANTS = ("code", "paper-power", "paper-product")


def mapo(beta: float = 0.1, scale: float = 0.5, steps: float = 1000.0, variant: str = "code") -> Objective:
    """MaPO: l(first) + beta sp(-T (f(l_first) - f(l_second))), f(l) = s l / (e^(s l) - 1), without a reference. Margin: T (f - f).

    scale s; steps T, the number of training time steps of the scheduler, as in the authors' code. The paper's text has weight 1 / beta,
    T = 1, s = 1 and f raised to the power beta ("paper-power") or times beta ("paper-product"); its print decides neither. A flipped
    label moves the imitation term to the other image too. Hong et al. 2024, arXiv:2406.06424. ValueError unless all numbers are
    positive and the variant is known.

    >>> import torch
    >>> image = Side(error=torch.tensor([0.1]))
    >>> round(mapo().loss(image, image, {}).item(), 6)
    0.169315
    """
    positive(beta=beta, scale=scale, steps=steps)
    one_of(VARIANTS, variant=variant)

    def closeness(side: Side) -> Tensor:
        error = reading.there(side.error, "error")
        if variant == "code":
            return steps * decay(scale * error)
        if variant == "paper-product":
            return beta * decay(error)
        return decay(error).clamp(min=1e-30) ** beta

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return closeness(first) - closeness(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        weight = beta if variant == "code" else 1 / beta
        return reading.there(first.error, "error") + weight * softplus(-margin(first, second, context))

    settings = {"beta": beta, "scale": scale, "steps": steps, "variant": variant}
    return make("mapo", loss, margin, ("error",), settings)


def diffusion_dpo(beta: float = 5000.0) -> Objective:
    """Diffusion-DPO: sp((beta / 2) [(l - l_ref)(first) - (l - l_ref)(second)]). Margin: the negative of the argument.

    Wallace et al. 2023, arXiv:2311.12908, with mean errors as in the authors' code. ValueError unless beta > 0.

    >>> import torch
    >>> image = Side(error=torch.tensor([0.1]), reference_error=torch.tensor([0.1]))
    >>> round(diffusion_dpo().loss(image, image, {}).item(), 6)
    0.693147
    """
    positive(beta=beta)

    def excess(side: Side) -> Tensor:
        return reading.there(side.error, "error") - reading.there(side.reference_error, "reference_error")

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return -(beta / 2) * (excess(first) - excess(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return softplus(-margin(first, second, context))

    return make("diffusion_dpo", loss, margin, ("error", "reference_error"), {"beta": beta})
