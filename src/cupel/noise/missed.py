# pyright: strict
"""Missed positives: what was recorded as "not chosen" and yet is liked, by its posterior (NBPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from cupel.noise.lookup import By, Stated, by_id, check_values, ids_of, index_of
from cupel.noise.reading import check_schedule, log_odds, warm, wide
from cupel.noise.step import given_of
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment

EDGE = 1e-4


def missed(
    rate: Stated = 0.5, *, by: By = "all", form: Literal["exact", "surrogate"] = "exact", learn: float = 0.0, warmup: int | float = 0.1,
    strength: float = 20.0,
) -> Treatment:  # fmt: skip
    """Target of a recorded "no" becomes the posterior that it is a missed "yes": p <- p + (1 - p) q, q = g s / (1 - s + g s).

    s = sigmoid(flip - keep) is the model's P(yes), g = P(recorded no | yes); a "no" is never recorded as "yes". For p = 1 recorded and
    pointwise losses (keep if liked, flip if not). NBPO, Yu & Qin 2020, arXiv:2007.07204 (card 05-nbpo).

    form   "exact"      the likelihood's own EM (NBPOo on the card): gradient of log(1 - (1 - g) s) for a "no"; calibrated
           "surrogate"  the published method: keep weighs 1 - g for a "yes" and g for a "no", flip 1 for a "no". It ranks well and is no
                        likelihood: a pure "no" settles at s = g / (1 + g)
    rate   g in [0, 1), one number or by id (`by`); 0 is plain training. g and the preferences are identified together only by low
           rank, regularisation or side information: show a constant rate beside a learned one
    learn  0 keeps g. Above 0 (with form "exact"): the weight of a step in a running mean of g = E[missed] / E[yes], by `by`
           ("all", "annotator", "group"), pulled toward its start as by `strength` more "yes" labels in the step
    warmup steps (int) or share of planned steps (float) before g is learned

    ValueError for arguments outside these ranges.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(2), torch.tensor([0.7, -0.3]))
    >>> missed(0.4).target(Target(torch.tensor([1.0, 0.0]), torch.ones(2)), terms, {"missed": torch.tensor([0.4])}).p
    tensor([1.0000, 0.2286])
    """
    check_values("rate", rate, lambda g: 0 <= g < 1, "the chance that a yes was recorded as no lies in [0, 1)")
    if form not in ("exact", "surrogate"):
        raise ValueError(f"form is 'exact' or 'surrogate', not {form!r}")
    if not 0 <= learn <= 1 or strength < 0:
        raise ValueError(f"learn is the weight of a step in [0, 1] and strength at least 0, not {learn!r} and {strength!r}")
    if learn and (form != "exact" or by == "record" or isinstance(rate, Mapping)):
        raise ValueError("a rate is learned with form='exact', from one number at the start, for all, by annotator or by group")
    check_schedule("warmup", warmup)
    given = by_id("rate", rate, by)
    start = float(rate) if not isinstance(rate, Mapping) else 0.0
    axis = "" if by == "all" else f"@{by}"

    def init(spec: DataSpec) -> State:
        if not learn:
            return given.init(spec)
        state = {"missed": torch.tensor([start], dtype=torch.float64)}
        return state if by == "all" else state | {f"missed{axis}": torch.full((len(ids_of(spec, by)),), start, dtype=torch.float64)}

    def table(state: State) -> torch.Tensor:
        return state["missed"] if by == "all" else torch.cat([state[f"missed{axis}"], state["missed"]])

    def slots(terms: Terms, n: int) -> torch.Tensor:
        index = index_of(terms, by).cpu()
        return torch.where(index < 0, n, index)

    def read(terms: Terms, state: State, like: torch.Tensor) -> torch.Tensor:
        if not learn:
            return given.read(terms, state, like)
        rates = table(state)
        return rates[slots(terms, len(rates) - 1)].to(device=like.device, dtype=like.dtype)

    def target(target: Target, terms: Terms, state: State) -> Target:
        p = wide(target.p)
        g = read(terms, state, p)
        if form == "surrogate":
            first, second = p * (1 - g) + (1 - p) * g, 1 - p
            total = first + second
            share = torch.where(total > 0, first / torch.where(total > 0, total, 1.0), p)
            return Target(share.to(target.p.dtype), (target.w * total).to(target.w.dtype))
        return target._replace(p=(p + (1 - p) * _posterior(log_odds(terms).to(p.dtype), g)).to(target.p.dtype))

    def update(terms: Terms, state: State) -> State:
        if not learn or not warm(terms, warmup):
            return state
        label, rates = given_of(terms), table(state)
        p, w, z = (x.detach().cpu().double() for x in (label.p, label.w, log_odds(terms)))
        slot = slots(terms, len(rates) - 1)
        hidden = torch.zeros_like(rates).index_add_(0, slot, w * (1 - p) * _posterior(z, rates[slot]))
        liked = hidden.index_add(0, slot, w * p)
        here = torch.zeros_like(rates).index_add_(0, slot, w) > 0
        mean = (hidden + strength * start) / (liked + strength).clamp(min=1e-300)
        new = torch.where(here & (rates > 0), ((1 - learn) * rates + learn * mean).clamp(EDGE, 1 - EDGE), rates)
        if by == "all":
            return {**state, "missed": new}
        return {**state, f"missed{axis}": new[:-1], "missed": new[-1:]}

    touches: frozenset[Literal["p", "w"]] = frozenset({"p", "w"} if form == "surrogate" else {"p"})
    return Treatment(
        "missed", init, target, update, touches=touches, corrects=True,
        settings={"rate": given.stated, "by": by, "form": form, "learn": learn, "warmup": warmup, "strength": strength},
        reads_flip=form == "exact",
    )  # fmt: skip


def _posterior(z: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """g s / (1 - s + g s) with s = sigmoid(z): sigmoid(z + log g)."""
    return torch.sigmoid(z + g.log())
