# pyright: strict
"""Peer review: two models judge each other's labels, batch by batch or epoch by epoch, and learn from what the other believes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cupel.noise.fixed import no_state, unchanged
from cupel.noise.reading import check_schedule, check_share, progress, stated_loss, stated_margin
from cupel.noise.selection import keep_best, kept_share
from cupel.noise.step import given_of
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment


def peer_review(
    drop: float = 0.2, *, ramp: int | float = 5, rank: Literal["margin", "loss"] = "margin", level: Literal["step", "epoch"] = "step"
) -> Treatment:
    """Weight 0 for the comparisons that the *peer* believes least; each of two models is trained with the other's losses as the peer's.

    CRM, "Two Minds Better Than One" 2025 (card 09-crm): keep k = max(1, floor(rho n + 1/2)) of n by the peer's margin in favour of the
    stated label, rho = 1 - drop min(1, t / T) [schedule unverified]; kept weights are scaled so that the sum of w stays.

    drop   share dropped in the end, about the flip rate, in [0, 1/2); 0 is plain training
    ramp   T, an int in epochs, a float below 1 as a share of the planned steps
    rank   "margin": (2p - 1)(flip - keep) of the peer; "loss": minus its loss, for objectives whose sides cannot be swapped
    level  "step": selection within a step. "epoch": selection among all records by the peer's margins of the pass before, from which
           every record begins kept. Only this form may be fed easy to hard (`curriculum_order`): in sorted batches, hard ones are
           almost all noise, and a fixed share of each would be kept (measured on the card: worse than no selection at 20 %).

    The epoch form keeps in its state both models' margins and how often each record was kept. ValueError for bad arguments, and where
    the terms carry no peer.

    >>> peer = torch.tensor([1.0, .3, -.7, .2, -2.0, 2.5])
    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(6))._replace(peer_keep=-peer / 2, peer_flip=peer / 2)
    >>> peer_review(1 / 3, ramp=0).target(Target(torch.ones(6), torch.ones(6)), terms, {}).w
    tensor([1.5000, 1.5000, 0.0000, 1.5000, 0.0000, 1.5000])
    """
    check_share("drop", drop, below=0.5)
    check_schedule("ramp", ramp)
    settings = {"drop": drop, "ramp": ramp, "rank": rank, "level": level}

    def belief(target: Target, terms: Terms, source: Literal["own", "peer"]) -> Tensor:
        return stated_margin(target, terms, source) if rank == "margin" else -stated_loss(target, terms, source)

    def select(target: Target, terms: Terms, state: State) -> Target:
        return keep_best(target, belief(target, terms, "peer"), terms, kept_share(drop, ramp, terms))

    def init(spec: DataSpec) -> State:
        n = len(spec.records)
        nothing = torch.full((n,), math.nan, dtype=torch.float64)
        count = torch.zeros(n, dtype=torch.long)
        return {
            "own@record": nothing, "peer@record": nothing, "kept@record": torch.ones(n, dtype=torch.float64),
            "times_kept@record": count, "times_seen@record": count, "epoch": torch.zeros(1, dtype=torch.long),
        }  # fmt: skip

    def scaled(target: Target, terms: Terms, state: State) -> Target:
        factor = state["kept@record"][terms.record.cpu()].to(device=target.w.device, dtype=target.w.dtype)
        return target._replace(w=target.w * factor)

    def update(terms: Terms, state: State) -> State:
        if terms.epoch > int(state["epoch"].item()):
            state = {**state, "kept@record": _weights(state["peer@record"], 1 - drop * progress(terms, ramp))}
            state["epoch"] = torch.tensor([terms.epoch])
        given, row = given_of(terms), terms.record.cpu()
        new = {name: state[name].clone() for name in ("own@record", "peer@record", "times_kept@record", "times_seen@record")}
        new["own@record"][row] = belief(given, terms, "own").detach().cpu().double()
        new["peer@record"][row] = belief(given, terms, "peer").detach().cpu().double()
        new["times_seen@record"][row] += 1
        new["times_kept@record"][row] += (state["kept@record"][row] > 0).long()
        return {**state, **new}

    if level == "step":
        return Treatment(
            "peer_review", no_state, select, unchanged, scope="step", touches=frozenset({"w"}), settings=settings,
            reads_flip=rank == "margin", reads_peer=True,
        )  # fmt: skip
    if level != "epoch":
        raise ValueError(f"level is 'step' or 'epoch', not {level!r}")
    return Treatment(
        "peer_review", init, scaled, update, touches=frozenset({"w"}), settings=settings, reads_flip=rank == "margin", reads_peer=True
    )


def curriculum_order(state: State, *, prefix: str = "") -> Tensor:
    """Records from easy to hard by the mean margin of both models in the pass before, int [n]; records not seen yet come last.

    For `peer_review(level="epoch")`, whose selection is made before the order. ValueError for another state. prefix: of its tensors
    inside a chain ("0.peer_review/").

    >>> own, peer = torch.tensor([0.1, 2.0, float("nan")]), torch.tensor([0.3, 1.0, float("nan")])
    >>> curriculum_order({"own@record": own, "peer@record": peer}).tolist()
    [1, 0, 2]
    """
    names = [f"{prefix}own@record", f"{prefix}peer@record"]
    if any(name not in state for name in names):
        raise ValueError(f"this state holds no margins by record ({', '.join(names)}); train with peer_review(level='epoch')")
    mean = (state[names[0]] + state[names[1]]) / 2
    return torch.argsort(torch.where(torch.isnan(mean), -math.inf, mean), descending=True, stable=True)


def _weights(margin: Tensor, share: float) -> Tensor:
    """n / k for the best k of the n known margins, 0 for the rest, 1 where unknown; ties to the smaller record."""
    known = ~torch.isnan(margin)
    n = int(known.sum())
    k = max(1, math.floor(share * n + 0.5)) if n else 0
    out = torch.ones_like(margin)
    if k < n:
        ranked = torch.argsort(torch.where(known, margin, -math.inf), descending=True, stable=True)[:n]
        out[ranked[:k]], out[ranked[k:]] = n / k, 0.0
    return out
