"""Votes of known people between two items each, as models of reliability and taste read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from cupel.errors import InputError


@dataclass(frozen=True)
class Ballots:
    """Votes of known people between two items each; no ties.

    first, second int64 [n] in 0 ... items-1; won bool [n]: the first side won; person int64 [n] in 0 ... people-1; ordered: `first` was
    shown first (else nothing is said of places); traits float64 [items, k], standardised.
    """

    first: np.ndarray
    second: np.ndarray
    won: np.ndarray
    person: np.ndarray
    items: int
    people: int
    ordered: bool = False
    traits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: np.ndarray) -> Ballots:
        """The votes at the given positions or of a mask; items and people keep their numbers."""
        return replace(self, first=self.first[rows], second=self.second[rows], won=self.won[rows], person=self.person[rows])


def ballots(
    first: np.ndarray,
    second: np.ndarray,
    won: np.ndarray,
    person: np.ndarray,
    *,
    items: int | None = None,
    people: int | None = None,
    ordered: bool = False,
    traits: np.ndarray | None = None,
) -> Ballots:
    """Checked votes. won [n]: 1 or True where the first side won; traits [items, k] are centred and brought to unit variance.

    InputError for unequal lengths, indices outside, a comparison of an item with itself, an outcome that is neither 0 nor 1 (leave ties
    out), traits that are not finite.

    >>> ballots(np.array([0, 1]), np.array([1, 2]), np.array([1, 0]), np.array([0, 0])).items
    3
    """
    a, b, who, outcome = (np.asarray(x) for x in (first, second, person, won))
    n = len(a)
    if n == 0 or any(x.shape != (n,) for x in (a, b, who, outcome)):
        shapes = [x.shape for x in (a, b, who, outcome)]
        raise InputError(f"votes need two items, a person and an outcome each, and at least one vote, not {shapes}")
    items = int(max(a.max(), b.max())) + 1 if items is None else items
    people = int(who.max()) + 1 if people is None else people
    for what, bad in (
        (f"name an item outside 0 ... {items - 1}", (np.minimum(a, b) < 0) | (np.maximum(a, b) >= items)),
        (f"have an unknown person (outside 0 ... {people - 1})", (who < 0) | (who >= people)),
        ("compare an item with itself", a == b),
        ("are neither won nor lost", ~np.isin(outcome, (0, 1))),
    ):
        if bad.any():
            raise InputError(f"{int(bad.sum()):,} of {n:,} votes {what} (first: row {int(np.argmax(bad))}); leave them out")
    t = np.zeros((items, 0)) if traits is None else np.asarray(traits, dtype=np.float64)
    if t.ndim != 2 or len(t) != items:
        raise InputError(f"traits need a row for each of {items:,} items, not the shape {t.shape}")
    bad = ~np.isfinite(t).all(axis=1)
    if bad.any():
        raise InputError(f"the traits of {int(bad.sum()):,} of {items:,} items are not finite (first: item {int(np.argmax(bad))})")
    spread = t.std(axis=0)
    t = ((t - t.mean(axis=0)) / np.where(spread > 0, spread, 1.0))[:, spread > 0]
    return Ballots(a.astype(np.int64), b.astype(np.int64), outcome.astype(bool), who.astype(np.int64), items, people, ordered, t)
