# pyright: strict
"""The weight of what was not chosen: by a constant (WMF), or by the posterior that it was seen at all (ExpoMF).

Where the label says p, the loss is w (p keep + (1 - p) a flip), a the weight of a "no". Written as a target, that is
(p, w) <- (p / t, w t) with t = p + (1 - p) a. For p of 0 and 1 only w changes; for a soft label p has to change too, because w alone
would weigh the share of the label that says "yes" as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from cupel.noise.fixed import unchanged
from cupel.noise.lookup import By, Stated, by_id, check_values
from cupel.noise.reading import check_schedule, warm, wide
from cupel.noise.step import given_of
from cupel.noise.table import table
from cupel.noise.types import State, Target, Terms, Treatment


def unobserved(weight: Stated = 1.0, *, by: By = "all") -> Treatment:
    """Weight of a recorded "no" times c: w <- w t, p <- p / t, t = p + c (1 - p). Weighted matrix factorisation (WMF).

    Hu, Koren & Volinsky 2008; on the card (32-unbiased-mnar) mean[Y d1 + c (1 - Y) d0]. Which of the two is weighed is a convention, up
    to the scale of the loss. Biased for any c unless every item is shown alike.

    weight  c at least 0, one number or by id (`by`: group for items, which may be weighed by how popular they are). ValueError otherwise.

    >>> from cupel.noise.types import bare_terms
    >>> unobserved(0.25).target(Target(torch.tensor([1.0, 0.0, 0.5]), torch.ones(3)), bare_terms(torch.zeros(3)), {})
    Target(p=tensor([1.0000, 0.0000, 0.8000]), w=tensor([1.0000, 0.2500, 0.6250]))
    """
    check_values("weight", weight, lambda c: 0 <= c < math.inf, "the weight of what was not chosen is a number of at least 0")
    given = by_id("weight", weight, by)

    def target(target: Target, terms: Terms, state: State) -> Target:
        return _weighed(target, given.read(terms, state, wide(target.p)))

    return Treatment(
        "unobserved", given.init, target, unchanged, touches=frozenset({"p", "w"}), settings={"weight": given.stated, "by": by},
    )  # fmt: skip


def exposed(
    seen: Stated = 0.01, *, by: By = "group", form: Literal["bernoulli", "gaussian"] = "bernoulli", precision: float = 1.0,
    learn: float = 0.1, prior: tuple[float, float] = (1.0, 1.0), warmup: int | float = 0,
) -> Treatment:  # fmt: skip
    """Weight of a recorded "no" times the posterior that it was seen, a = mu n / (mu n + 1 - mu): ExpoMF (card 32-unbiased-mnar).

    n is the likelihood of a "no" that was seen, mu the chance that an item is seen. What was chosen was seen. For a "no" w <- w a.

    form   "bernoulli"  n = e^-flip = 1 - s of a log-loss (`bpo`). P(chosen) = mu s is then the likelihood of `missed(1 - mu)`, whose exact
                        form has the same gradient; the two differ in what is averaged to learn the rate
           "gaussian"   n = sqrt(L / 2 pi) e^(-L / 2 flip), L the `precision`, for `squared_score`: Liang et al. 2016 as on the card, with
                        the constant of the density (the published code's is pi times too large)
    seen   mu in (0, 1], one number, or by id (`by`: all, annotator, group; then learn=0). 1 is plain training
    learn  weight of a step in a running mean of mu = (a0 - 1 + sum w a) / (a0 + b0 - 2 + sum w), Beta(a0, b0) = `prior`; 1 on steps that
           hold all pairs is the card's M-step, 0 keeps mu. Where a "no" is drawn by chance its weight w has to say for how many it
           stands, or mu reads too high
    warmup steps (int) or share of planned steps (float) before mu is learned

    ValueError for arguments outside these ranges.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.49]), torch.tensor([0.09]))
    >>> exposed(0.1, by="all", form="gaussian", learn=0).target(Target(torch.zeros(1), torch.ones(1)), terms, {}).w
    tensor([0.0407])
    """
    check_values("seen", seen, lambda m: 0 < m <= 1, "the chance of being seen lies in (0, 1]")
    if form not in ("bernoulli", "gaussian") or not 0 < precision < math.inf:
        raise ValueError(f"form is 'bernoulli' or 'gaussian' and precision a positive number, not {form!r} and {precision!r}")
    if not 0 <= learn <= 1 or min(prior) < 1:
        raise ValueError(f"learn is the weight of a step in [0, 1] and prior a Beta with both at least 1, not {learn!r} and {prior!r}")
    if learn and (by == "record" or isinstance(seen, Mapping)):
        raise ValueError("the chance of being seen is learned from one number, for all, by annotator or by group; with a table say learn=0")
    check_schedule("warmup", warmup)
    given = by_id("seen", seen, by)
    first = 1.0 if isinstance(seen, Mapping) else float(seen)
    rates = table("exposed", by, first, extra=(prior[0] - 1, prior[0] + prior[1] - 2))
    source = rates if learn else given

    def posterior(terms: Terms, state: State, like: Tensor) -> Tensor:
        flip = wide(terms.flip).to(like.dtype)
        density = -flip if form == "bernoulli" else 0.5 * math.log(precision / (2 * math.pi)) - precision / 2 * flip
        return torch.sigmoid(density + torch.logit(source.read(terms, state, like)))

    def target(target: Target, terms: Terms, state: State) -> Target:
        return _weighed(target, posterior(terms, state, wide(target.p)))

    def update(terms: Terms, state: State) -> State:
        if not learn or not warm(terms, warmup):
            return state
        label = given_of(terms)
        p, w = label.p.double(), label.w.double()
        return rates.mean(terms, state, learn, w * (p + (1 - p) * posterior(terms, state, p)), w)

    return Treatment(
        "exposed", source.init, target, update, touches=frozenset({"p", "w"}), corrects=True,
        settings={
            "seen": given.stated, "by": by, "form": form, "precision": precision, "learn": learn, "prior": f"{prior[0]:g}/{prior[1]:g}",
            "warmup": warmup,
        },
        reads_flip=True,
    )  # fmt: skip


def _weighed(target: Target, a: Tensor) -> Target:
    """The target whose "no" weighs a times."""
    p = wide(target.p)
    total = p + (1 - p) * a
    share = torch.where(total > 0, p / torch.where(total > 0, total, 1.0), p)
    return Target(share.to(target.p.dtype), (target.w * total).to(target.w.dtype))
