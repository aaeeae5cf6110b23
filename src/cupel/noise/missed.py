# pyright: strict
"""A true preference that was not recorded: what the model learns from a "no" that may be a missed "yes", in four forms.

A yes is recorded with probability 1 - g and a no always as a no. NBPO's g (a missed positive) and Rel-MF's 1 - theta (relevant, and not
shown) are this one number; `propensity` says the same by exposure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from cupel.noise.fixed import unchanged
from cupel.noise.lookup import By, Stated, by_id, check_values
from cupel.noise.pair_rate import Slope, pair_rate
from cupel.noise.propensity import propensity
from cupel.noise.reading import check_schedule, log_odds, warm, wide
from cupel.noise.step import given_of
from cupel.noise.table import table
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment

Form = Literal["exact", "surrogate", "inverse", "nonnegative"]
Init = Callable[[DataSpec], State]
Read = Callable[[Terms, State, Tensor], Tensor]
FORMS: tuple[Form, ...] = ("exact", "surrogate", "inverse", "nonnegative")


def missed(
    rate: Stated = 0.5, *, by: By | Literal["pair"] = "all", form: Form = "exact", clip: float = 0.0, learn: float = 0.0,
    warmup: int | float = 0.1, strength: float = 20.0, dim: int = 16, l2: float = 1.0, start: float | None = None, decay: float = 1.0,
    seed: int = 0,
) -> Treatment:  # fmt: skip
    """Target of a label that may hide a missed "yes", g = P(recorded no | yes). With s = sigmoid(flip - keep) the model's P(yes):

    "exact"        p <- p + (1 - p) q, q = g s / (1 - s + g s) the posterior that a "no" is a missed "yes" (NBPOo on the card): EM, with the
                   gradient of the likelihood log(1 - (1 - g) s) of a "no". Calibrated
    "surrogate"    keep weighs 1 - g for a "yes" and g for a "no", flip 1 for a "no" (NBPO, the published method). It ranks well and is
                   no likelihood: a pure "no" settles at s = g / (1 + g). With the objective `bpo_probability` it is NBPOs
    "inverse"      p <- p / max(1 - g, clip): `propensity(1 - g)` (Rel-MF). Unbiased, reads no model, unbounded below: few steps only
    "nonnegative"  the same without the part of an item that goes negative in a step: `propensity(1 - g, nonnegative=True)`

    For p = 1 recorded and pointwise losses (keep if liked, flip if not). Yu & Qin 2020, arXiv:2007.07204 (card 05-nbpo), and Saito et al.
    2020, WSDM (card 32-unbiased-mnar). g and the preferences are identified together only by low rank, regularisation or side
    information: show a constant rate beside a learned one.

    rate   g in [0, 1), one number or by id (`by`: all, annotator = user, group = item, record); 0 is plain training
    clip   smallest 1 - g that is divided by, in [0, 1] (the two inverse forms)
    learn  0 keeps g. With "exact" and by all, annotator or group: the weight of a step in a running mean of g = E[missed] / E[yes], pulled
           toward its start as by `strength` more "yes" labels in the step. With by="pair" ("exact" or "surrogate"): step size of
           gradient ascent on logit g_ui = logit(rate) + <P_u, Q_i> with `dim` columns (0: one offset per item), sums over the step,
           times decay^epoch; `l2` pulls to `rate`. start: mean rate at the first step, None the rate itself; seed: of P and Q.
           The published form is rate=.5, start=.00193, decay=.99: its l2 pulls every rate to one half
    warmup steps (int) or share of planned steps (float) before g is learned

    ValueError for arguments outside these ranges, or that do not go together.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(2), torch.tensor([0.7, -0.3]))
    >>> labels = Target(torch.tensor([1.0, 0.0]), torch.ones(2))
    >>> missed(0.4).target(labels, terms, {}).p
    tensor([1.0000, 0.2286])
    >>> missed(0.75, form="inverse").target(labels, terms, {}).p
    tensor([4., 0.])
    """
    check_values("rate", rate, lambda g: 0 <= g < 1, "the chance that a yes was recorded as no lies in [0, 1)")
    if form not in FORMS:
        raise ValueError(f"form is one of {', '.join(FORMS)}, not {form!r}")
    inverse = form in ("inverse", "nonnegative")
    if learn < 0 or strength < 0 or l2 < 0 or dim < 0 or not 0 < decay <= 1:
        raise ValueError(f"learn ({learn!r}), strength, l2 and dim are at least 0 and decay lies in (0, 1]")
    if clip and not inverse:
        raise ValueError(f"nothing is divided by 1 - g in form {form!r}; clip belongs to 'inverse' and 'nonnegative'")
    if learn and inverse:
        raise ValueError("an inverse propensity is not learned beside the model: its loss is lowest where the rate is 1. Use form='exact'")
    check_schedule("warmup", warmup)
    settings: dict[str, float | str | None] = {
        "by": by, "form": form, "clip": clip, "learn": learn, "warmup": warmup, "strength": strength, "dim": dim, "l2": l2,
        "start": start, "decay": decay, "seed": seed,
    }  # fmt: skip
    if by == "pair":
        if isinstance(rate, Mapping) or inverse or not learn:
            raise ValueError("by='pair' learns a rate from one prior number: say learn=0.01 or so, with form 'exact' or 'surrogate'")
        if not 0 < rate < 1 or not (start is None or 0 < start < 1) or learn * l2 >= 1:
            raise ValueError(f"rate and start lie inside (0, 1) and learn * l2 is below 1, not {rate}, {start} and {learn * l2:g}")
        return _by_pair(float(rate), form, learn, dim, l2, start, decay, seed, warmup, settings)
    if start is not None:
        raise ValueError("start goes with by='pair'; elsewhere a learned rate starts at `rate`")
    given = by_id("rate", rate, by)
    settings = {"rate": given.stated, **settings}
    if inverse:
        theta = {key: 1 - g for key, g in rate.items()} if isinstance(rate, Mapping) else 1 - rate
        return propensity(theta, by=by, clip=clip, nonnegative=form == "nonnegative")._replace(name="missed", settings=settings)
    if not learn:
        return _treatment(form, settings, given.init, given.read)
    if form != "exact" or by == "record" or isinstance(rate, Mapping) or learn > 1:
        raise ValueError(
            "a running mean of a rate is learned with form='exact' and learn in [0, 1], from one number at the start, for all, by "
            "annotator or by group; by='pair' learns with form='surrogate' too"
        )
    first = float(rate)
    rates = table("missed", by, first, extra=(strength * first, strength))

    def update(terms: Terms, state: State) -> State:
        if not warm(terms, warmup):
            return state
        label = given_of(terms)
        z = log_odds(terms).double()
        p, w = label.p.to(z), label.w.to(z)
        hidden = w * (1 - p) * hidden_positive(z, rates.read(terms, state, z))
        return rates.mean(terms, state, learn, hidden, hidden + w * p)

    return _treatment(form, settings, rates.init, rates.read)._replace(update=update)


def _by_pair(
    prior: float, form: Form, learn: float, dim: int, l2: float, start: float | None, decay: float, seed: int, warmup: int | float,
    settings: Mapping[str, float | str | None],
) -> Treatment:  # fmt: skip
    rates = pair_rate(prior, dim, learn, l2, start, decay, seed)

    def moved(terms: Terms, state: State, climb: Callable[[Terms, State, Slope], State]) -> State:
        if not warm(terms, warmup):
            return state
        label = given_of(terms)

        def slope(g: Tensor) -> Tensor:
            z = log_odds(terms).double()
            yes, no = slopes(z, g.to(z), form)
            p = label.p.to(z)
            return label.w.to(z) * (p * yes + (1 - p) * no)

        return climb(terms, state, slope)

    def update(terms: Terms, state: State) -> State:
        return moved(terms, state, rates.climb)

    def renew(terms: Terms, state: State) -> State:
        return moved(terms, state, rates.climb_)

    return _treatment(form, {"rate": prior, **settings}, rates.init, rates.read)._replace(update=update, renew=renew)


def slopes(z: Tensor, g: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """d objective / d logit(g) of a recorded "yes" and of a recorded "no", [B] each: d_i and d_j of the card.

    exact: -g and q (1 - g); surrogate: -g s and (1 - g) s, with s = sigmoid(z).

    >>> z, g = torch.tensor([0.7, -0.3]), torch.tensor([0.2, 0.4])
    >>> [(round(a[0].item(), 6), round(b[1].item(), 6)) for a, b in (slopes(z, g, "exact"), slopes(z, g, "surrogate"))]
    [(-0.2, 0.137154), (-0.133638, 0.255334)]
    """
    if form == "exact":
        return -g, hidden_positive(z, g) * (1 - g)
    s = torch.sigmoid(z)
    return -g * s, (1 - g) * s


def _treatment(form: Form, settings: Mapping[str, float | str | None], init: Init, read: Read) -> Treatment:
    """The treatment of a form under rates that are read as `read` says, learning nothing."""

    def target(target: Target, terms: Terms, state: State) -> Target:
        p = wide(target.p)
        g = read(terms, state, p)
        if form == "surrogate":
            first, second = p * (1 - g) + (1 - p) * g, 1 - p
            total = first + second
            share = torch.where(total > 0, first / torch.where(total > 0, total, 1.0), p)
            return Target(share.to(target.p.dtype), (target.w * total).to(target.w.dtype))
        return target._replace(p=(p + (1 - p) * hidden_positive(log_odds(terms).to(p.dtype), g)).to(target.p.dtype))

    touches: frozenset[Literal["p", "w"]] = frozenset({"p", "w"} if form == "surrogate" else {"p"})
    return Treatment(
        "missed", init, target, unchanged, touches=touches, corrects=True, settings=settings, reads_flip=form == "exact",
    )  # fmt: skip


def hidden_positive(z: Tensor, g: Tensor) -> Tensor:
    """P(a recorded "no" is a missed "yes"), q = g s / (1 - s + g s) with s = sigmoid(z): sigmoid(z + log g). Pairs for review, by q.

    >>> hidden_positive(torch.tensor([-0.3]), torch.tensor([0.4]))
    tensor([0.2286])
    """
    return torch.sigmoid(z + g.log())


def negative_weight(z: Tensor, g: Tensor, form: Form = "exact") -> Tensor:
    """How much a recorded "no" is pushed down, relative to BPO's push s = sigmoid(z): 1 at g = 0, negative where it is used as a "yes".

    exact: 1 - q / s; surrogate: (s - g (1 - s)) / s, which crosses zero at g = s / (1 - s). The sampler's view of NBPO (card 05-nbpo).

    >>> negative_weight(torch.tensor([-0.3, -3.0]), torch.tensor([0.4, 0.4]), "surrogate")
    tensor([ 0.4601, -7.0342])
    """
    s = torch.sigmoid(z)
    return 1 - hidden_positive(z, g) / s if form == "exact" else (s - g * (1 - s)) / s
