# pyright: strict
"""Treatments one after the other: each maps the target that the one before it left."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from cupel.noise.fixed import identity
from cupel.noise.step import given_of
from cupel.noise.types import DataSpec, State, Target, Terms, Treatment


def chain(*treatments: Treatment) -> Treatment:
    """The treatments in order: the target of one is the input of the next, and each keeps its own state under `i.name/`.

    At most one may correct p for noise (unbiased, em, propensity, missed, exposed): two compound, since the second would correct what
    the first has already (em recovers p = .8, unbiased at .2 makes it 1, and margins diverge). ValueError then. A chain that changes p
    is refused with an objective whose sides cannot be swapped by `cupel.noise.loss.check`. Without treatments it is the identity.

    >>> import torch
    >>> from cupel.noise.fixed import conservative, reliability_weights
    >>> both = chain(conservative(0.1), reliability_weights(0.25, by="all"))
    >>> both.name, sorted(both.touches)
    ('conservative + reliability_weights', ['p', 'w'])
    >>> from cupel.noise.types import bare_terms
    >>> both.target(Target(torch.ones(1), torch.ones(1)), bare_terms(torch.zeros(1)), {})
    Target(p=tensor([0.9000]), w=tensor([0.2500]))
    """
    if not treatments:
        return identity()
    if len(treatments) == 1:
        return treatments[0]
    correcting = [t.name for t in treatments if t.corrects]
    if len(correcting) > 1:
        raise ValueError(
            f"{len(correcting)} treatments of this chain correct p for noise ({', '.join(correcting)}): the later ones would correct what "
            f"{correcting[0]} has corrected already. Keep one of them"
        )
    places = [f"{i}.{t.name}/" for i, t in enumerate(treatments)]

    def part(state: State, place: str) -> State:
        return {name[len(place) :]: tensor for name, tensor in state.items() if name.startswith(place)}

    def init(spec: DataSpec) -> State:
        return {
            place + name: tensor for t, place in zip(treatments, places, strict=True) for name, tensor in t.init(spec).items()
        }  # fmt: skip

    def target(target: Target, terms: Terms, state: State) -> Target:
        for t, place in zip(treatments, places, strict=True):
            target = t.target(target, terms, part(state, place))
        return target

    def update(terms: Terms, state: State) -> State:
        """Each treatment learns from the labels as it met them: after those in front of it."""
        given, out = given_of(terms), dict[str, Tensor]()
        for t, place in zip(treatments, places, strict=True):
            before = part(state, place)
            seen = terms._replace(given=given)
            out |= {place + name: tensor for name, tensor in t.update(seen, before).items()}
            given = t.target(given, seen, before)
        return out

    touches: frozenset[Literal["p", "w"]] = frozenset[Literal["p", "w"]]().union(*(t.touches for t in treatments))
    return Treatment(
        name=" + ".join(t.name for t in treatments), init=init, target=target, update=update,
        scope="step" if any(t.scope == "step" for t in treatments) else "comparison", touches=touches, corrects=bool(correcting),
        settings={place + name: value for t, place in zip(treatments, places, strict=True) for name, value in t.settings.items()},
        reads_flip=any(t.reads_flip for t in treatments), reads_peer=any(t.reads_peer for t in treatments),
    )  # fmt: skip
