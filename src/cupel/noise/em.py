# pyright: strict
"""Expectation maximisation on the labels: the posterior that a label is right, and the reliability that follows from it.

A recorded label is the clean one with probability eta (its reliability) and the reverse otherwise. Under the Gibbs likelihood of an
objective the log-odds that the first side is better are Z = flip - keep, so (card 02-lcpo; LCPO 2025, "RE-PO", equations 3-9)

    E   r = sigmoid(Z + logit eta)                       the posterior that the label "first" is right
    M   eta = (sum w r + a - 1) / (sum w + a + b - 2)    over the labels of one annotator, group, or all; Beta(a, b) prior

and the model takes a step on r keep + (1 - r) flip with r held fixed. With `likelihood(objective)` that step has the gradient of the
marginal likelihood -log(P eta + (1 - P)(1 - eta)), P = sigmoid(Z); with the objective itself it is the direct form, which keeps IPO's
target and CPO's anchor but climbs no likelihood. A soft label p is p labels "first" and 1 - p labels "second".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cupel.noise.lookup import By, Stated, check_values, digest, ids_of, index_of
from cupel.noise.reading import Source, check_schedule, log_odds, warm, wide
from cupel.noise.step import given_of
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment

#: reliabilities that were learned stay this far from 0 and 1
EDGE = 1e-4

Schedule = Literal["average", "full", "fixed"]


class ReliabilityFit(NamedTuple):
    """Reliability [K], its standard error [K] (nan without labels), the penalised marginal log likelihood after each iteration
    (the first entry is the start's), and whether the largest change of a reliability fell below the tolerance."""  # fmt: skip

    reliability: Tensor
    error: Tensor
    trace: tuple[float, ...]
    converged: bool


def posterior(p: Tensor, z: Tensor, reliability: Tensor) -> Tensor:
    """P(first is better | labels) = p sigmoid(z + logit eta) + (1 - p) sigmoid(z - logit eta), [B].

    p [B] share of the label that says "first", z [B] log-odds of the model, reliability eta in [0, 1]. At eta = 1 it is p exactly.

    >>> posterior(torch.tensor([1.0, 1.0, 0.5]), torch.tensor([0.0, 2.0, 2.0]), torch.tensor(0.9)).round(decimals=4)
    tensor([0.9000, 0.9852, 0.7180])
    """
    return _mixed(p, z, torch.logit(reliability))


def fit_reliability(
    z: Tensor, slot: Tensor, start: Tensor, *, p: Tensor | None = None, w: Tensor | None = None,
    prior: tuple[float, float] | None = None, iterations: int = 200, tolerance: float = 1e-8,
) -> ReliabilityFit:  # fmt: skip
    """Reliabilities by full-batch EM with the margins held fixed; the penalised marginal likelihood never falls.

    z float64 [n] log-odds of the model that the first side is better (cross-fitted, or the reliability reads too high), slot int [n] in
    0 ... K-1 whose label it is, start [K], p [n] what the label says (1 where None), w [n] weights. Strictly concave in each eta, so the
    limit does not depend on the start as long as it is inside (0, 1); convergence is linear, and slow near 0, 1 and one half.

    >>> p = torch.tensor([.9, .8, .7, .4, .1, .95], dtype=torch.float64)
    >>> fit = fit_reliability(torch.logit(p), torch.zeros(6, dtype=torch.long), torch.tensor([.9], dtype=p.dtype), iterations=1)
    >>> round(fit.reliability.item(), 8)
    0.87777537
    """
    z, p = z.double(), torch.ones_like(z, dtype=torch.float64) if p is None else p.double()
    w = torch.ones_like(z) if w is None else w.double()
    eta = start.double().clone()
    a, b = (1.0, 1.0) if prior is None else prior
    mass = torch.zeros_like(eta).index_add_(0, slot, w)
    weight = mass + a + b - 2

    def value(eta: Tensor) -> float:
        likelihood = w @ (p * _log_marginal(z, eta[slot]) + (1 - p) * _log_marginal(-z, eta[slot]))
        penalty = torch.xlogy(_double([a - 1]), eta) + torch.xlogy(_double([b - 1]), 1 - eta)
        return float(likelihood + penalty.sum())

    trace, converged = [value(eta)], False
    for _ in range(iterations):
        right, wrong = _responsibility(z, eta[slot])
        agreeing = torch.zeros_like(eta).index_add_(0, slot, w * (p * right + (1 - p) * wrong))
        new = torch.where(weight > 0, (agreeing + a - 1) / weight, eta).clamp(0, 1)
        change = float((new - eta).abs().max()) if len(eta) else 0.0
        eta = new
        trace.append(value(eta))
        if change < tolerance:
            converged = True
            break
    curvature = p * _curvature(z, eta[slot]) + (1 - p) * _curvature(-z, eta[slot])
    information = torch.zeros_like(eta).index_add_(0, slot, w * curvature)
    return ReliabilityFit(eta, torch.where(information > 0, information.rsqrt(), torch.nan), tuple(trace), converged)


def em(
    flip: Stated = 0.1, *, by: By = "all", schedule: Schedule = "average", share: float = 0.1, warmup: int | float = 0.1,
    prior: tuple[float, float] | None = (8.0, 2.0), evidence: Source = "own",
) -> Treatment:  # fmt: skip
    """Target replaced by the posterior that the first side is better, with a flip rate learned for all, per annotator or per group.

    p <- p sigmoid(Z + logit(1 - e)) + (1 - p) sigmoid(Z - logit(1 - e)), Z = flip - keep. Card 02-lcpo (LCPO / RE-PO). The state's
    `reliability` is 1 - e; labels of unknown annotators (groups) share one rate of their own.

    flip      the rate at the start, in [0, 1), one number or by id; 0 never changes a label
    by        "all", "annotator" or "group": whose labels share a rate ("record" is refused: one label says nothing about its own rate)
    schedule  "average": after each step eta <- (1 - share) eta + share * mean of the step's posteriors, for those in the step (Algorithm
              1 of the paper). It remembers its start for long: with fewer than 200 labels each prefer "full".
              "full": log-odds are stored as records go by, and when a pass begins, EM runs over those of the pass before (up to 200
              iterations, Beta prior); ask it where there are few labels per annotator.
              "fixed": the given rates stay
    share     weight of a step in the running mean, in (0, 1]
    warmup    steps (int) or share of the planned steps (float) before rates are learned: at the start Z is near 0 and says nothing
    prior     Beta(a, b) of a reliability, for "full"; None is plain maximum likelihood
    evidence  "own" log-odds, or those of the "peer" (a model that did not see the label): an own model that has fitted the labels makes
              every reliability 1

    The mirrored solution (all labels wrong, model reversed) fits equally well; rates are shifted so that their mean, weighted by labels
    seen, stays at or below one half. One annotator may be above. A rate read here is in-sample: report `estimate_flip_rate` instead.
    ValueError for arguments outside these ranges.

    >>> treatment = em(0.1)
    >>> state = treatment.init(DataSpec())
    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.2, 3.0]), torch.tensor([1.7, 0.1]))
    >>> treatment.target(Target(torch.ones(2), torch.ones(2)), terms, state).p.round(decimals=4)
    tensor([0.9758, 0.3312])
    """
    check_values("flip", flip, lambda e: 0 <= e < 1, "a flip rate at the start lies in [0, 1)")
    if by == "record":
        raise ValueError("one label cannot tell its own flip rate; choose by='all', 'annotator' or 'group'")
    if isinstance(flip, Mapping) and by == "all":
        raise ValueError("flip is given by id: say whose ids they are with by='annotator' or 'group'")
    if schedule not in ("average", "full", "fixed"):
        raise ValueError(f"there is no schedule {schedule!r}; choose average, full or fixed")
    if not 0 < share <= 1:
        raise ValueError(f"share is the weight of a step in the running mean, in (0, 1], not {share!r}")
    if prior is not None and (min(prior) < 1 or sum(prior) <= 2):
        raise ValueError(f"prior {prior!r} is a Beta(a, b) with a mode: a and b at least 1 and not both 1 (None for no prior)")
    check_schedule("warmup", warmup)
    axis = "" if by == "all" else f"@{by}"

    def init(spec: DataSpec) -> State:
        ids = ids_of(spec, by)
        rates = [flip.get(name, flip.get("", float("nan"))) for name in ids] if isinstance(flip, Mapping) else [flip] * len(ids)
        missing = [name for name, rate in zip(ids, rates, strict=True) if rate != rate]
        if missing:
            raise ValueError(
                f"flip is missing for {len(missing):,} of {len(ids):,} {by}s (first: {missing[0]!r}). Give it for each of them, or a "
                f"rate for all others under the id ''"
            )
        rest = flip.get("", sum(flip.values()) / len(flip)) if isinstance(flip, Mapping) else flip
        state = {"reliability": _double([1 - rest]), "labels": _double([0.0])}
        if by != "all":
            state |= {f"reliability{axis}": 1 - _double(rates), f"labels{axis}": torch.zeros(len(ids), dtype=torch.float64)}
        if schedule == "full":
            n = len(spec.records)
            state |= {name: torch.zeros(n, dtype=torch.float64) for name in ("log_odds@record", "p@record", "w@record")}
            state |= {"slot@record" + (f">{by}" if by != "all" else ""): torch.full((n,), -1), "epoch": torch.zeros(1, dtype=torch.long)}
        return state

    def table(state: State, name: str) -> Tensor:
        """[K + 1]: the values of the ids, and last the one of unknown ids (or of all)."""
        return state[name] if by == "all" else torch.cat([state[name + axis], state[name]])

    def slots(index: Tensor, n: int) -> Tensor:
        return torch.where(index < 0, n, index)

    def target(target: Target, terms: Terms, state: State) -> Target:
        z = log_odds(terms, evidence)
        odds = torch.logit(table(state, "reliability"))
        if by != "all":
            odds = odds[index_of(terms, by).cpu()]  # -1, unknown: the last
        return target._replace(p=_mixed(wide(target.p), z, odds.to(device=z.device, dtype=z.dtype)).to(target.p.dtype))

    def store(state: State, eta: Tensor, labels: Tensor) -> dict[str, Tensor]:
        eta = _guard(eta, table(state, "reliability"), labels)
        if by == "all":
            return {**state, "reliability": eta, "labels": labels}
        return {
            **state, f"reliability{axis}": eta[:-1], "reliability": eta[-1:], f"labels{axis}": labels[:-1], "labels": labels[-1:],
        }  # fmt: skip

    def average(terms: Terms, state: State) -> State:
        given, eta = given_of(terms), table(state, "reliability")
        z, p, w = (x.detach().cpu().double() for x in (log_odds(terms, evidence), given.p, given.w))
        slot = slots(index_of(terms, by).cpu(), len(eta) - 1)
        right, wrong = _responsibility(z, eta[slot])
        mass = torch.zeros_like(eta).index_add_(0, slot, w)
        agreeing = torch.zeros_like(eta).index_add_(0, slot, w * (p * right + (1 - p) * wrong))
        mean = agreeing / torch.where(mass > 0, mass, 1.0)
        return store(state, torch.where(mass > 0, (1 - share) * eta + share * mean, eta), table(state, "labels") + mass)

    def full(terms: Terms, state: State) -> State:
        key = "slot@record" + (f">{by}" if by != "all" else "")
        if terms.epoch > int(state["epoch"].item()):
            seen = state["w@record"] > 0
            eta = table(state, "reliability")
            slot = slots(state[key][seen], len(eta) - 1)
            if warm(terms, warmup) and bool(seen.any()):
                found = fit_reliability(
                    state["log_odds@record"][seen], slot, eta, p=state["p@record"][seen], w=state["w@record"][seen], prior=prior
                )
                mass = torch.zeros_like(eta).index_add_(0, slot, state["w@record"][seen])
                state = store(state, torch.where(mass > 0, found.reliability, eta), mass)
            state = {**state, "epoch": torch.tensor([terms.epoch])}
        given, row = given_of(terms), terms.record.cpu()
        new = {name: state[name].clone() for name in ("log_odds@record", "p@record", "w@record", key)}
        new["log_odds@record"][row] = log_odds(terms, evidence).detach().cpu().double()
        new["p@record"][row] = given.p.detach().cpu().double()
        new["w@record"][row] = given.w.detach().cpu().double()
        new[key][row] = index_of(terms, by).cpu()
        return {**state, **new}

    def update(terms: Terms, state: State) -> State:
        if schedule == "fixed" or (schedule == "average" and not warm(terms, warmup)):
            return state
        return average(terms, state) if schedule == "average" else full(terms, state)

    stated = f"{len(flip)} by {by}, sha256 {digest(flip)}" if isinstance(flip, Mapping) else flip
    return Treatment(
        "em", init, target, update, touches=frozenset({"p"}), corrects=True,
        settings={
            "flip": stated, "by": by, "schedule": schedule, "share": share, "warmup": warmup,
            "prior": None if prior is None else f"{prior[0]:g}/{prior[1]:g}", "evidence": evidence,
        },
        reads_flip=True, reads_peer=evidence == "peer",
    )  # fmt: skip


def _double(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _mixed(p: Tensor, z: Tensor, odds: Tensor) -> Tensor:
    """p sigmoid(z + odds) + (1 - p) sigmoid(z - odds): the posterior at log-odds `odds` of a label being right."""
    return p * torch.sigmoid(z + odds) + (1 - p) * torch.sigmoid(z - odds)


def _responsibility(z: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """(P(right | "first" was recorded), P(right | "second" was recorded)): sigmoid(z + logit eta) and sigmoid(-z + logit eta)."""
    odds = torch.logit(eta)
    return torch.sigmoid(z + odds), torch.sigmoid(odds - z)


def _log_marginal(z: Tensor, eta: Tensor) -> Tensor:
    """log(P eta + (1 - P)(1 - eta)) with P = sigmoid(z)."""
    return torch.logaddexp(torch.nn.functional.logsigmoid(z) + eta.log(), torch.nn.functional.logsigmoid(-z) + torch.log1p(-eta))


def _curvature(z: Tensor, eta: Tensor) -> Tensor:
    """(2P - 1)^2 / (P eta + (1 - P)(1 - eta))^2: what a label adds to the information about its reliability."""
    q = torch.sigmoid(z)
    return ((2 * q - 1) / (q * eta + (1 - q) * (1 - eta))) ** 2


def _guard(eta: Tensor, before: Tensor, labels: Tensor) -> Tensor:
    """Reliabilities inside [EDGE, 1 - EDGE], except those that were exactly 1 and stayed so; their mean over labels at least one half."""
    certain = (before == 1) & (eta == 1)
    eta = torch.where(certain, 1.0, eta.clamp(EDGE, 1 - EDGE))
    total = float(labels.sum())
    mean = float(labels @ eta) / total if total > 0 else 1.0
    if mean < 0.5:
        eta = torch.where(certain, 1.0, (eta + (0.5 - mean)).clamp(EDGE, 1 - EDGE))
    return eta
