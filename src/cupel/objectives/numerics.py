"""Elementary functions that stay finite, with finite gradients, at any margin a run can produce."""

# pyright: strict
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

#: exp(x) is continued by its tangent for x above this (exp(30) = 1.1e13): the gradient stops growing there, and never overflows
EXPONENT_LIMIT = 30.0
#: a mean log-probability is taken to be at most this: log-odds of a probability of exactly 1 do not exist
CERTAIN = -1e-6


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), exact to rounding on both sides (torch's default is linear from 20 on, an error of 2e-9; here from 50 on).

    >>> [round(y, 6) for y in softplus(torch.tensor([-1e4, 0.0, 1e4])).tolist()]
    [0.0, 0.693147, 10000.0]
    """
    return functional.softplus(x, threshold=50.0)


def bounded_exp(x: Tensor) -> Tensor:
    """e^x up to `EXPONENT_LIMIT` = L, then its tangent e^L (1 + x - L): increasing and convex, gradient at most e^L.

    >>> bounded_exp(torch.tensor([-1e4, 0.0])).tolist(), bool(bounded_exp(torch.tensor(1e4)).isfinite())
    ([0.0, 1.0], True)
    """
    below = x.clamp(max=EXPONENT_LIMIT)
    return below.exp() * (1 + (x - below))


def bounded_expm1(x: Tensor) -> Tensor:
    """`bounded_exp` minus 1, exact near 0.

    >>> f"{bounded_expm1(torch.tensor(1e-9, dtype=torch.float64)).item():.10e}"
    '1.0000000005e-09'
    """
    below = x.clamp(max=EXPONENT_LIMIT)
    return torch.expm1(below) + below.exp() * (x - below)


def past_limit(x: Tensor) -> Tensor:
    """Which exponents are above `EXPONENT_LIMIT`, bool, without gradient.

    >>> past_limit(torch.tensor([0.0, 31.0])).tolist()
    [False, True]
    """
    return x.detach() > EXPONENT_LIMIT


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, by expm1 above -ln 2 and by log1p below (Maechler 2012). x is first brought to at most `CERTAIN`.

    >>> [round(abs(x), 9) for x in log1mexp(torch.tensor([-1e4, -1.0], dtype=torch.float64)).tolist()]
    [0.0, 0.458675145]
    """
    x = x.clamp(max=CERTAIN)
    near = torch.log(-torch.expm1(x.clamp(min=-math.log(2))))
    far = torch.log1p(-torch.exp(x.clamp(max=-math.log(2))))
    return torch.where(x > -math.log(2), near, far)


def decay(u: Tensor) -> Tensor:
    """u / (e^u - 1) for u >= 0: from 1 at 0 down to 0, slope -1/2 at 0; its series 1 - u/2 + u^2/12 below 1e-4.

    >>> [round(x, 6) for x in decay(torch.tensor([0.0, 0.1, 1e4], dtype=torch.float64)).tolist()]
    [1.0, 0.950833, 0.0]
    """
    small = u < 1e-4
    safe = torch.where(small, torch.ones_like(u), u)
    near = torch.where(small, u, torch.zeros_like(u))
    return torch.where(small, 1 - near / 2 + near * near / 12, safe * torch.exp(-safe) / -torch.expm1(-safe))
