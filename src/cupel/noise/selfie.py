# pyright: strict
"""Selfie (SPA): labels on which the model is least confident, a fixed share of the recent ones, are smoothed."""

from __future__ import annotations

import math

import torch

from cupel.noise.reading import Source, check_schedule, check_share, stated_margin, warm
from cupel.noise.step import given_of
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment


def selfie(
    alpha: float = 0.1, share: float = 0.1, *, evidence: Source = "own", warmup: int | float = 0.2, buffer: int = 2000
) -> Treatment:
    """Target smoothed where confidence is low: p <- (1 - a z) p + a z (1 - p), z = 1 if the margin is below the share's quantile.

    SPA, "Aligning LLMs with self-generated preference data", arXiv:2406.04412 (card 08-selfie-spa, 3). The margin is (2p - 1)(flip - keep),
    the threshold the exact quantile of the last `buffer` margins seen (the official code's heuristic is not copied).

    alpha     a in [0, 1/2]; 0 is plain training
    share     of margins below the threshold, in [0, 1); 0 is plain training
    evidence  "own" margins, or those of the "peer": the policy moved away from its reference, whose losses the scorer computes
              (de-coupled noise detection). For a policy over whole responses both order comparisons alike; token by token they differ
    warmup    steps (int) or share of the planned steps (float) without smoothing
    buffer    margins remembered; no smoothing until it holds 1 / share of them

    ValueError for arguments outside these ranges.

    >>> treatment = selfie(0.1, 0.5, warmup=0, buffer=4)
    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.zeros(4), torch.tensor([2.0, -2.0, -0.25, 7.0]))
    >>> state = treatment.update(terms, treatment.init(DataSpec()))
    >>> treatment.target(Target(torch.ones(4), torch.ones(4)), terms, state).p
    tensor([1.0000, 0.9000, 0.9000, 1.0000])
    """
    if not 0 <= alpha <= 0.5:
        raise ValueError(f"alpha lies in [0, 1/2], not {alpha!r}")
    check_share("share", share)
    check_schedule("warmup", warmup)
    if buffer < 1 or share * buffer < (1 if share else 0):
        raise ValueError(f"a buffer of {buffer} margins cannot tell the lowest {share:.3g} of them; remember at least {1 / share:.0f}")

    def init(spec: DataSpec) -> State:
        return {"margins": torch.full((buffer,), math.nan, dtype=torch.float64), "seen": torch.zeros(1, dtype=torch.long)}

    def threshold(state: State) -> float:
        """The margin that `share` of the remembered ones lie below; minus infinity while there are too few."""
        known = state["margins"][: min(int(state["seen"].item()), buffer)]
        count = math.floor(share * len(known) + 1e-9)
        return float(known.kthvalue(count + 1).values) if count else -math.inf

    def target(target: Target, terms: Terms, state: State) -> Target:
        if not alpha or not share or not warm(terms, warmup):
            return target
        low = stated_margin(target, terms, evidence) < threshold(state)
        a = low.to(target.p) * alpha
        return target._replace(p=(1 - a) * target.p + a * (1 - target.p))

    def update(terms: Terms, state: State) -> State:
        margin = stated_margin(given_of(terms), terms, evidence).detach().cpu().double()
        seen = int(state["seen"].item()) + len(margin)
        margin = margin[-buffer:]
        place = torch.arange(seen - len(margin), seen) % buffer
        margins = state["margins"].clone()
        margins[place] = margin
        return {**state, "margins": margins, "seen": torch.tensor([seen])}

    return Treatment(
        "selfie", init, target, update, touches=frozenset({"p"}),
        settings={"alpha": alpha, "share": share, "evidence": evidence, "warmup": warmup, "buffer": buffer},
        reads_flip=True, reads_peer=evidence == "peer",
    )  # fmt: skip
