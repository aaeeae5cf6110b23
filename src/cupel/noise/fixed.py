# pyright: strict
"""Targets that follow from numbers known beforehand: votes, soft labels, smoothing, the unbiased correction, reliabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from cupel.noise.lookup import By, Stated, by_id, check_values
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment

#: an unbiased correction divides by 1 - 2e; nearer to one half than this, a label says too little to be corrected
EXTREME = 0.45


def no_state(spec: DataSpec) -> State:
    """The state of a treatment that remembers nothing."""
    return {}


def unchanged(terms: Terms, state: State) -> State:
    """The state as it was: the update of a treatment that learns nothing."""
    return state


def identity() -> Treatment:
    """The target as it is: plain training.

    >>> from cupel.noise.types import bare_terms
    >>> identity().target(Target(torch.tensor([0.3]), torch.tensor([2.0])), bare_terms(torch.zeros(1)), {})
    Target(p=tensor([0.3000]), w=tensor([2.]))
    """

    def target(target: Target, terms: Terms, state: State) -> Target:
        return target

    return Treatment("identity", no_state, target, unchanged)


def conservative(flip: Stated = 0.1, *, by: By = "all") -> Treatment:
    """Target smoothed toward one half: p <- (1 - e) p + e (1 - p).

    Label smoothing of the label itself (cDPO; card 00-objectives-reference, row cDPO; card 03-rdpo). For the sigmoid the loss becomes
    softplus(-m) + e m. It does not undo flips: it shrinks margins that flips have shrunk already.

    flip: probability e that a label is wrong, in [0, 1/2), else ValueError; one number, or one by id (`by`).

    >>> from cupel.noise.types import bare_terms
    >>> conservative(0.1).target(Target(torch.tensor([1.0, 0.0]), torch.ones(2)), bare_terms(torch.zeros(2)), {}).p
    tensor([0.9000, 0.1000])
    """
    check_values("flip", flip, lambda e: 0 <= e < 0.5, "a flip rate lies in [0, 1/2); labels that are mostly wrong are swapped first")
    rate = by_id("flip", flip, by)

    def target(target: Target, terms: Terms, state: State) -> Target:
        e = rate.read(terms, state, target.p)
        return target._replace(p=(1 - e) * target.p + e * (1 - target.p))

    return Treatment(
        "conservative", rate.init, target, unchanged, touches=frozenset({"p"}), settings={"flip": rate.stated, "by": by}
    )  # fmt: skip


def unbiased(flip: Stated = 0.1, *, by: By = "all", rescale: bool = False, extreme: bool = False) -> Treatment:
    """Target whose expected loss under flips equals the clean loss.

    p <- (p - e) / (1 - 2e), which may leave [0, 1]: the recorded side weighs (1 - e) / (1 - 2e), the other -e / (1 - 2e).
    Chowdhury et al. 2024, "Provably Robust DPO", arXiv:2403.00409 (card 03-rdpo, 1). The loss is unbounded below: regularise.

    flip: probability e that a recorded label is wrong; 0 <= e < 1/2 for one number, in [0, 1] by id (beyond 1/2 the formula swaps the
    label by itself; within .05 of 1/2 the comparison weighs nothing). rescale: multiply w by |1 - 2e|, which keeps the scale of the
    learning rate and not the optimum of unequal rates. One number of .45 or more needs extreme=True.
    ValueError for rates outside these ranges.

    >>> from cupel.noise.types import bare_terms
    >>> labels = Target(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.ones(2))
    >>> unbiased(0.2).target(labels, bare_terms(torch.zeros(2)), {}).p.round(decimals=6).tolist()
    [1.333333, -0.333333]
    """
    if isinstance(flip, Mapping):
        check_values("flip", flip, lambda e: 0 <= e <= 1, "a rate is a probability, in [0, 1]")
    else:
        check_values("flip", flip, lambda e: 0 <= e < 0.5, "a flip rate lies in [0, 1/2); labels that are mostly wrong are swapped first")
        check_values(
            "flip", flip, lambda e: extreme or e < EXTREME,
            f"from {EXTREME} on the correction multiplies noise by 10 or more; if that is meant, say extreme=True",
        )  # fmt: skip
    rate = by_id("flip", flip, by)
    keep_extreme = extreme or not isinstance(flip, Mapping)

    def target(target: Target, terms: Terms, state: State) -> Target:
        e = rate.read(terms, state, target.p)
        scale = 1 - 2 * e
        w = target.w * scale.abs().to(target.w.dtype) if rescale else target.w
        if keep_extreme:
            return Target((target.p - e) / scale, w)
        empty = scale.abs() <= 2 * (0.5 - EXTREME)
        p = torch.where(empty, target.p, (target.p - e) / torch.where(empty, 1.0, scale))
        return Target(p, torch.where(empty, 0.0, w))

    touches: frozenset[Literal["p", "w"]] = frozenset({"p", "w"} if rescale or not keep_extreme else {"p"})
    return Treatment(
        "unbiased", rate.init, target, unchanged, touches=touches, corrects=True,
        settings={"flip": rate.stated, "by": by, "rescale": rescale, "extreme": extreme},
    )  # fmt: skip


def unbiased_by_side(first: float, second: float) -> Treatment:
    """Unbiased target where errors depend on which side is truly better: p <- (p - e2) / (1 - e1 - e2).

    e1 = P(second recorded | first is better), e2 = P(first recorded | second is better): a habit of naming one side. Class-conditional
    form of the same estimator (Natarajan et al. 2013; card 03-rdpo, 3). It means something only where `first` is a place (shown first,
    on the left), not "the chosen one".

    first, second: e1 and e2 in [0, 1) with e1 + e2 < .9, else ValueError.

    >>> from cupel.noise.types import bare_terms
    >>> labels = Target(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.ones(2))
    >>> p = unbiased_by_side(0.1, 0.3).target(labels, bare_terms(torch.zeros(2)), {}).p
    >>> [round(x.item(), 9) for x in (0.9 * p[0] + 0.1 * p[1], 0.3 * p[0] + 0.7 * p[1])]
    [1.0, 0.0]
    """
    if not (0 <= first < 1 and 0 <= second < 1 and first + second < 2 * EXTREME):
        raise ValueError(f"error rates {first!r} and {second!r} must lie in [0, 1) and add up to less than {2 * EXTREME:g}")

    def target(target: Target, terms: Terms, state: State) -> Target:
        return target._replace(p=(target.p - second) / (1 - first - second))

    return Treatment(
        "unbiased_by_side", no_state, target, unchanged, touches=frozenset({"p"}), corrects=True,
        settings={"first": first, "second": second},
    )  # fmt: skip


def soft_labels(p: Mapping[str, float]) -> Treatment:
    """Target p by record: shares of votes, a judge's probability, the posterior of an annotator model.

    p: record id -> probability that the first side is better, in [0, 1]; 1/2 is a tie. ValueError for other numbers, and at `init`
    where a record of the data is missing.

    >>> t = soft_labels({"r0": 0.8, "r1": 0.5})
    >>> state = t.init(DataSpec(records=("r1", "r0")))
    >>> from cupel.noise.types import bare_terms
    >>> t.target(Target(torch.ones(2), torch.ones(2)), bare_terms(torch.zeros(2)), state).p
    tensor([0.5000, 0.8000])
    """
    check_values("p", p, lambda x: 0 <= x <= 1, "a soft label is a probability, in [0, 1]")
    share = by_id("p", p, "record")

    def target(target: Target, terms: Terms, state: State) -> Target:
        return target._replace(p=share.read(terms, state, target.p))

    return Treatment("soft_labels", share.init, target, unchanged, touches=frozenset({"p"}), settings={"p": share.stated})


def votes(counts: Mapping[str, tuple[int | float, int | float, int | float]], *, weight: Literal["count", "one"] = "count") -> Treatment:
    """Target from votes: p = (a + t/2) / n and w <- w n, for a votes for the first side, b for the second, t ties, n = a + b + t.

    A tie is p = 1/2: with weight 2 it is Rao-Kupper's tie, with 1 Davidson's, up to a constant (docs/treatments.md).

    counts: record id -> (a, b, t), none negative; n = 0 gives p = 1/2 and w = 0. weight: "count" multiplies w by n, "one" leaves w.
    ValueError for negative counts, and at `init` where a record of the data is missing.

    >>> t = votes({"r0": (3, 1, 0), "r1": (0, 0, 2)})
    >>> state = t.init(DataSpec(records=("r0", "r1")))
    >>> from cupel.noise.types import bare_terms
    >>> t.target(Target(torch.ones(2), torch.ones(2)), bare_terms(torch.zeros(2)), state)
    Target(p=tensor([0.7500, 0.5000]), w=tensor([4., 2.]))
    """
    wrong = [key for key, count in counts.items() if min(count) < 0]
    if wrong:
        raise ValueError(f"{len(wrong):,} of {len(counts):,} records have negative counts of votes (first: {wrong[0]!r})")
    total = {key: float(sum(count)) for key, count in counts.items()}
    share = {key: (a + t / 2) / total[key] if total[key] else 0.5 for key, (a, _, t) in counts.items()}
    p, n = by_id("p", share, "record"), by_id("n", total, "record")

    def init(spec: DataSpec) -> State:
        return p.init(spec) | n.init(spec)

    def target(target: Target, terms: Terms, state: State) -> Target:
        count = n.read(terms, state, target.w)
        w = target.w * count if weight == "count" else torch.where(count > 0, target.w, 0.0)
        return Target(p.read(terms, state, target.p), w)

    return Treatment(
        "votes", init, target, unchanged, touches=frozenset({"p", "w"}),
        settings={"counts": p.stated, "weight": weight},
    )  # fmt: skip


def reliability_weights(flip: Stated, *, by: By = "annotator", power: float = 2.0) -> Treatment:
    """Weight by how much a label says: w <- w |1 - 2e|^power, e its flip rate.

    At power 2 the weight is the inverse of the variance that the unbiased correction adds at margin 0, up to a constant. Ours; labels
    that are mostly wrong keep their direction here, so give it rates below 1/2, or put `unbiased` or `em` in front.

    flip: rates in [0, 1/2] (an annotator model's `1 - accuracy`), one number or by id; power: at least 0. ValueError otherwise.

    >>> from cupel.noise.types import bare_terms
    >>> reliability_weights(0.25, by="all").target(Target(torch.ones(1), torch.ones(1)), bare_terms(torch.zeros(1)), {}).w
    tensor([0.2500])
    """
    check_values("flip", flip, lambda e: 0 <= e <= 0.5, "a weight needs a flip rate in [0, 1/2]")
    if power < 0:
        raise ValueError(f"power is at least 0, not {power!r}")
    rate = by_id("flip", flip, by)

    def target(target: Target, terms: Terms, state: State) -> Target:
        e: Tensor = rate.read(terms, state, target.w)
        return target._replace(w=target.w * (1 - 2 * e).abs() ** power)

    return Treatment(
        "reliability_weights", rate.init, target, unchanged, touches=frozenset({"w"}),
        settings={"flip": rate.stated, "by": by, "power": power},
    )  # fmt: skip
