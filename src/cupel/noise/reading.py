# pyright: strict
"""What treatments read off the terms of a step: log-odds, losses of labels as stated, progress of a schedule."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cupel.noise.types import Target, Terms

#: whose losses a treatment goes by: this model's, or those of `Terms.peer_keep` and `Terms.peer_flip`
Source = Literal["own", "peer"]


def losses(terms: Terms, source: Source = "own") -> tuple[Tensor, Tensor]:
    """(keep, flip) of this model or its peer, [B], at least float32. ValueError where the peer is asked for and there is none."""
    if source == "own":
        return wide(terms.keep), wide(terms.flip)
    if terms.peer_keep is None or terms.peer_flip is None:
        raise ValueError("this treatment goes by the losses of a peer; fill peer_keep and peer_flip of the terms")
    return wide(terms.peer_keep), wide(terms.peer_flip)


def log_odds(terms: Terms, source: Source = "own") -> Tensor:
    """Z = flip - keep, [B]: log-odds that the first side is the better one under the Gibbs likelihood of the objective.

    P(first is better) = e^-keep / (e^-keep + e^-flip) (card 02-lcpo, equations 8-9 of the paper).

    >>> ones = torch.full((1,), -1)
    >>> log_odds(Terms(torch.tensor([0.25]), torch.tensor([1.0]), ones, ones, ones)).tolist()
    [0.75]
    """
    keep, flip = losses(terms, source)
    return flip - keep


def stated_loss(target: Target, terms: Terms, source: Source = "own") -> Tensor:
    """Loss of the label as the target states it, p keep + (1 - p) flip, [B]; keep alone where there is no flipped loss."""
    keep, flip = losses(terms, source)
    p = target.p.to(keep.dtype)
    return torch.where(torch.isnan(flip) | (p == 1), keep, p * keep + (1 - p) * flip)


def stated_margin(target: Target, terms: Terms, source: Source = "own") -> Tensor:
    """(2p - 1) (flip - keep), [B]: log-odds in favour of what the label says; positive where the model agrees."""
    z = log_odds(terms, source)
    return (2 * target.p.to(z.dtype) - 1) * z


def wide(x: Tensor) -> Tensor:
    """x in float32 at least: half precision cannot hold a posterior near 0 or 1."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def progress(terms: Terms, ramp: int | float) -> float:
    """How far a schedule has come, in [0, 1]. ramp: an int counts epochs, a float below 1 is a share of the planned steps; 0 is done.

    Where the planned number of steps is unknown (`total` 0) a share means nothing, and the schedule counts as done: give epochs.

    >>> ones = torch.full((1,), -1)
    >>> terms = Terms(torch.zeros(1), torch.zeros(1), ones, ones, ones, step=10, epoch=2, total=200)
    >>> progress(terms, 5), progress(terms, 0.2), progress(terms, 0)
    (0.4, 0.25, 1.0)
    """
    if ramp <= 0:
        return 1.0
    if isinstance(ramp, int):
        return min(1.0, terms.epoch / ramp)
    return min(1.0, terms.step / terms.total / ramp) if terms.total > 0 else 1.0


def warm(terms: Terms, warmup: int | float) -> bool:
    """Whether the warm-up is over. warmup: an int counts steps, a float below 1 is a share of the planned steps (done if unknown)."""
    if isinstance(warmup, int):
        return terms.step >= warmup
    return terms.total <= 0 or terms.step >= warmup * terms.total


def check_share(name: str, value: float, *, below: float = 1.0) -> float:
    """`value` if it lies in [0, below), else ValueError."""
    if not 0 <= value < below:
        raise ValueError(f"{name} is a share in [0, {below:g}), not {value!r}")
    return float(value)


def check_schedule(name: str, value: int | float) -> int | float:
    """`value` if it is a whole number of epochs or steps, or a share below 1; else ValueError."""
    if value < 0 or (not isinstance(value, int) and value >= 1):
        raise ValueError(f"{name} is a whole number (int, 0 or more) or a share of all steps (float in [0, 1)), not {value!r}")
    return value
