# pyright: strict
"""Weights that bound what a single comparison can do: worst-case mixtures, tempered and bounded losses, trimming, ROPO."""

from __future__ import annotations

import math

import torch

from cupel.noise.fixed import no_state, unchanged
from cupel.noise.reading import check_share, log_odds, stated_loss
from cupel.noise.types import State, Target, Terms, Treatment


def distributionally_robust(temperature: float = 1.0) -> Treatment:
    """Weight w <- W w e^(-loss / t) / sum_j w_j e^(-loss_j / t) over the step, W the step's sum of w: losses far above the rest fade.

    The gradient of Dr. DPO's scalar -t log mean e^(-loss / t) (card 00-objectives-reference, batch-coupled row; repository
    junkangwu/Dr_DPO); the value of (1) is another one by design. With labels p between 0 and 1 the loss is p keep + (1 - p) flip.

    temperature: t > 0, else ValueError; infinity is plain training, small ones look at the easiest comparison only.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    >>> distributionally_robust(1.0).target(Target(torch.ones(2), torch.ones(2)), terms, {}).w
    tensor([1.4621, 0.5379])
    """
    if not temperature > 0:
        raise ValueError(f"temperature is above 0, not {temperature!r}")

    def target(target: Target, terms: Terms, state: State) -> Target:
        if math.isinf(temperature):
            return target
        score = -stated_loss(target, terms) / temperature
        share = torch.softmax(score + target.w.to(score.dtype).log(), dim=0) if bool((target.w > 0).any()) else target.w
        return target._replace(w=(target.w.sum() * share).to(target.w.dtype))

    return Treatment(
        "distributionally_robust", no_state, target, unchanged, scope="step", touches=frozenset({"w"}),
        settings={"temperature": temperature},
    )  # fmt: skip


def tempered(power: float = 0.7) -> Treatment:
    """Weight w <- w e^(-q loss): the gradient of the bounded loss (1 - e^(-q loss)) / q.

    With a likelihood loss it is the generalised cross entropy (Zhang & Sabuncu 2018; not on a card): q = 0 is plain training, q = 1 the
    mean absolute error, whose sum over the two labels is constant and which symmetric flips therefore cannot move (the noise-tolerant
    part of ROPO). Unlike `distributionally_robust` it looks at one comparison at a time.

    power: q in [0, 1], else ValueError. Losses should be at least 0.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    >>> tempered(1.0).target(Target(torch.ones(2), torch.ones(2)), terms, {}).w
    tensor([1.0000, 0.3679])
    """
    if not 0 <= power <= 1:
        raise ValueError(f"power lies in [0, 1], not {power!r}")

    def target(target: Target, terms: Terms, state: State) -> Target:
        weight = torch.exp(-power * stated_loss(target, terms))
        return target._replace(w=target.w * weight.to(target.w.dtype))

    return Treatment("tempered", no_state, target, unchanged, touches=frozenset({"w"}), settings={"power": power})


def bounded(ceiling: float) -> Treatment:
    """Weight 0 where the loss of the label as stated lies above `ceiling`: the gradient of min(loss, ceiling).

    ceiling: in units of the objective's loss, not NaN, else ValueError; infinity is plain training. A clipped loss forgets a comparison
    for good once it is above: begin it after a warm-up.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.5, 4.0]), torch.tensor([4.0, 0.5]))
    >>> bounded(2.0).target(Target(torch.ones(2), torch.ones(2)), terms, {}).w
    tensor([1., 0.])
    """
    if math.isnan(ceiling):
        raise ValueError("ceiling is a number, or infinity")

    def target(target: Target, terms: Terms, state: State) -> Target:
        return target._replace(w=torch.where(stated_loss(target, terms) > ceiling, 0.0, target.w))

    return Treatment("bounded", no_state, target, unchanged, touches=frozenset({"w"}), settings={"ceiling": ceiling})


def trimmed(share: float = 0.1) -> Treatment:
    """Weight 0 for the `share` of the step's comparisons with the highest loss; the rest are scaled so that the sum of w stays.

    A trimmed mean. Of n comparisons with w > 0 the floor(share n + 1/2) highest go, ties by record, at least one stays.
    ROPO's second half (drop the highest 20 % of losses) is `chain(ropo(), trimmed(0.2))` [its 20 % unverified, card 03-rdpo].

    share: in [0, 1), else ValueError; 0 is plain training.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.5, 9.0, 0.1, 0.2]), torch.zeros(4))
    >>> trimmed(0.25).target(Target(torch.ones(4), torch.ones(4)), terms, {}).w
    tensor([1.3333, 0.0000, 1.3333, 1.3333])
    """
    from cupel.noise.selection import keep_best

    check_share("share", share)

    def target(target: Target, terms: Terms, state: State) -> Target:
        return keep_best(target, -stated_loss(target, terms), terms, 1 - share)

    return Treatment("trimmed", no_state, target, unchanged, scope="step", touches=frozenset({"w"}), settings={"share": share})


def ropo(alpha: float = 14.0) -> Treatment:
    """Weight of each side times c (1 + a sigmoid(Z)) for the label that favours it, c = 4a / (1 + a)^2, Z = flip - keep.

    With DPO the gradient of ROPO's loss c (softplus(-m) + a sigmoid(-m)), whose weight sigmoid(-m)(1 + a sigmoid(m)) c is at most 1 and
    small where a label is contradicted with confidence (card 03-rdpo; the form was re-derived and a = 14 is [unverified] there).
    With labels p between 0 and 1: p and w of the mixture of both labels' losses.

    alpha: a > 1, else ValueError.

    >>> from cupel.noise.types import bare_terms
    >>> terms = bare_terms(torch.tensor([0.5]), torch.tensor([0.5]))
    >>> ropo(2.0).target(Target(torch.ones(1), torch.ones(1)), terms, {}).w
    tensor([1.7778])
    """
    if not alpha > 1:
        raise ValueError(f"alpha is above 1, not {alpha!r}: at or below it the weight has no interior maximum")
    scale = 4 * alpha / (1 + alpha) ** 2

    def target(target: Target, terms: Terms, state: State) -> Target:
        z = log_odds(terms)
        p = target.p.to(z.dtype)
        first, second = p * scale * (1 + alpha * torch.sigmoid(z)), (1 - p) * scale * (1 + alpha * torch.sigmoid(-z))
        total = first + second
        return Target((first / total).to(target.p.dtype), (target.w * total).to(target.w.dtype))

    return Treatment(
        "ropo", no_state, target, unchanged, touches=frozenset({"p", "w"}), settings={"alpha": alpha}, reads_flip=True,
    )  # fmt: skip
