# pyright: strict
"""UPO: labels believed as far as an uncertain estimator, asked several times, agrees with itself."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from cupel.noise.fixed import unchanged
from cupel.noise.lookup import By, Stated, by_id, check_values
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment


def bald(probability: Tensor) -> Tensor:
    """B = H(mean_t p_t) - mean_t H(p_t), in nats, [n]: what passes of an estimator disagree about; 0 where all agree, at most ln 2.

    probability [T, n]: P(first is better) in pass t (dropout, or the members of an ensemble). Card 01-upo, 3. ValueError for fewer than
    two passes, and where all passes are the same (dropout was off).

    >>> bald(torch.tensor([[.9, .6], [.8, .5], [.95, .3], [.85, .9]], dtype=torch.float64)).round(decimals=8).tolist()
    [0.01509273, 0.10632808]
    """
    if probability.ndim != 2 or len(probability) < 2:
        raise ValueError(f"uncertainty needs two passes or more, as [T, n], not a tensor of shape {tuple(probability.shape)}")
    if probability.numel() and bool((probability == probability[0]).all()):
        raise ValueError(f"all {len(probability)} passes agree to the last bit: was dropout off, or one model asked again and again?")
    return _entropy(probability.mean(0)) - _entropy(probability).mean(0)


def sampling_share(doubt: Tensor, power: float = 1.0) -> Tensor:
    """P_j = (1 - B_j)^mu / sum_k (1 - B_k)^mu, [n] (card 01-upo, 4; the exponent's place is reconstructed there).

    >>> sampling_share(torch.tensor([0.01509273, 0.10632808, 0.00128927], dtype=torch.float64)).round(decimals=7).tolist()
    [0.3423038, 0.310595, 0.3471012]
    """
    weight = (1 - doubt) ** power
    return weight / weight.sum()


def certainty(doubt: Stated = 0.0, *, by: By = "record", alpha: Literal["bald", "estimator", "paper"] = "bald") -> Treatment:
    """Target smoothed by doubt: p <- (1 - a) p + a (1 - p), with a per comparison.

    alpha  "bald"       a = B / (2 ln 2), B in [0, ln 2] the estimator's uncertainty: 0 certain, 1/2 no information (ours, the default)
           "estimator"  a = min(1/2, B) where B is one minus the estimator's mean probability of the stated label
           "paper"      a = 1 / (B + 1) with B the sampling share, as printed (UPO 2024, equation 14). It exceeds 1/2 and pushes every
                        margin *down*; kept to be measured, and warned about (card 01-upo, pitfalls)
    doubt  B, one number or by id. ValueError outside its range, and at `init` where an id is missing.

    >>> from cupel.noise.types import bare_terms
    >>> certainty(math.log(2) / 2, by="all").target(Target(torch.ones(1), torch.ones(1)), bare_terms(torch.zeros(1)), {}).p
    tensor([0.7500])
    """
    top = {"bald": math.log(2) + 1e-9, "estimator": 1.0, "paper": 1.0}.get(alpha)
    if top is None:
        raise ValueError(f"alpha is 'bald', 'estimator' or 'paper', not {alpha!r}")
    check_values("doubt", doubt, lambda b: 0 <= b <= top, f"for alpha {alpha!r} it lies in [0, {top:.4g}]")
    if alpha == "paper":
        warnings.warn("alpha='paper' smooths by more than one half, as printed: margins are pushed down", stacklevel=2)
    given = by_id("doubt", doubt, by)

    def target(target: Target, terms: Terms, state: State) -> Target:
        b = given.read(terms, state, target.p)
        a = {"bald": b / (2 * math.log(2)), "estimator": b, "paper": 1 / (b + 1)}[alpha]
        a = a if alpha == "paper" else a.clamp(max=0.5)
        return target._replace(p=(1 - a) * target.p + a * (1 - target.p))

    return Treatment(
        "certainty", given.init, target, unchanged, touches=frozenset({"p"}),
        settings={"doubt": given.stated, "by": by, "alpha": alpha},
    )  # fmt: skip


def certainty_weights(doubt: Stated = 0.0, *, by: By = "record", power: float = 1.0) -> Treatment:
    """Weight w <- w (1 - B)^mu / mean (1 - B)^mu: expectation of UPO's sampling, for those who rather weigh than draw.

    doubt: B in [0, ln 2] nats, one number or by id; power: mu, at least 0. The mean is over all ids. ValueError otherwise.

    >>> from cupel.noise.types import bare_terms
    >>> certainty_weights(0.3, by="all").target(Target(torch.ones(1), torch.ones(1)), bare_terms(torch.zeros(1)), {}).w
    tensor([1.])
    """
    check_values("doubt", doubt, lambda b: 0 <= b <= math.log(2) + 1e-9, "it lies in [0, ln 2]")
    if power < 0:
        raise ValueError(f"power is at least 0, not {power!r}")
    given = by_id("doubt", doubt, by)
    key = f"doubt@{by}"

    def init(spec: DataSpec) -> State:
        return given.init(spec)

    def target(target: Target, terms: Terms, state: State) -> Target:
        weight = (1 - given.read(terms, state, target.w)) ** power
        mean = ((1 - state[key]) ** power).mean().to(target.w) if key in state else weight
        return target._replace(w=target.w * weight / mean)

    return Treatment(
        "certainty_weights", init, target, unchanged, touches=frozenset({"w"}),
        settings={"doubt": given.stated, "by": by, "power": power},
    )  # fmt: skip


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p)
