"""What lay before a person besides the choice: lists of candidates, how they are interleaved, and what an exposure may not be.

Method card 20-usersim (arXiv:2508.18142, as in the authors' code). A log that records choices without exposures gets distractors from
several lists, each the items of highest score for the occasion, interleaved at random in an order that each list keeps. A scorer is any
function of an `Occasion` to scores [items]; minus infinity leaves an item out.

    random         uniform numbers
    collaborative  r_u V V^T with V = sqrt(item degree) times the right singular vectors (64) of D_u^-1/2 R D_i^-1/2, and r_u what the user
                   met strictly before the occasion (the code takes all of R's row, the choice itself included)
    content        inner product of an item's vector with that of the item that was chosen

That V does not hold the singular values a second time is how the card reads [unverified].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.curate.rationale_pairs import LETTERS
from cupel.errors import InputError
from cupel.interactions.log import Log


@dataclass(frozen=True)
class Occasion:
    """One choice as a scorer sees it: user and item by index, the items the user met strictly before (oldest first), draws of its own."""

    user: int
    item: int
    earlier: np.ndarray
    rng: np.random.Generator


#: scores of all items for an occasion, float [items]; higher first, -inf never
Scorer = Callable[[Occasion], np.ndarray]


@dataclass(frozen=True)
class Random:
    """Every item with the same chance."""

    items: int

    def __call__(self, occasion: Occasion) -> np.ndarray:
        """float64 [items]."""
        return occasion.rng.random(self.items)


@dataclass(frozen=True)
class Content:
    """Items whose vectors lie near that of the chosen item; with `nearest`, those alone, in random order.

    vectors: float [items, dim], e.g. of `cupel.encode.load_encoder("static").encode(log.texts)`.
    """

    vectors: np.ndarray
    nearest: int | None = None

    def __call__(self, occasion: Occasion) -> np.ndarray:
        """float64 [items]."""
        scores = np.asarray(self.vectors @ self.vectors[occasion.item], np.float64)
        if self.nearest is None:
            return scores
        scores[occasion.item] = -np.inf
        return shuffled_top(scores, self.nearest, occasion.rng)


class Collaborative:
    """Items near those that the user met before, by the singular vectors of the normalised matrix of users and items.

    log: what V is made from, each (user, item) once; leave the events that are to be simulated out where that matters. InputError for
    fewer users or items than two.
    """

    def __init__(self, log: Log, dims: int = 64) -> None:
        from scipy.sparse import csr_matrix
        from scipy.sparse.linalg import svds

        users, items = log.shape
        most = min(users, items) - 1
        if most < 1:
            raise InputError(f"{users:,} users and {items:,} items: singular vectors need two of each at least")
        pairs = np.unique(log.pairs())
        u, i = pairs // items, pairs % items
        of_user, of_item = np.bincount(u, minlength=users), np.bincount(i, minlength=items)
        matrix = csr_matrix((1 / np.sqrt(of_user[u] * of_item[i]), (u, i)), shape=(users, items))
        found: Any = svds(matrix, k=min(dims, most), v0=np.ones(min(users, items)), solver="arpack")
        self.vectors = np.ascontiguousarray(found[2].T) * np.sqrt(of_item)[:, None]

    def __call__(self, occasion: Occasion) -> np.ndarray:
        """float64 [items]."""
        return self.vectors @ self.vectors[occasion.earlier].sum(axis=0)


def shuffled_top(scores: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Scores that put the k highest in random order and leave the rest out (-inf).

    >>> found = shuffled_top(np.array([0.3, 0.9, 0.5]), 2, np.random.default_rng(0))
    >>> bool(np.isinf(found[0])), bool(np.isfinite(found[1:]).all())
    (True, True)
    """
    out = np.full(len(scores), -np.inf)
    top = np.argsort(-scores, kind="stable")[:k]
    top = top[np.isfinite(scores[top])]
    out[top] = rng.random(len(top))
    return out


def top_list(scores: np.ndarray, allowed: np.ndarray, most: int) -> np.ndarray:
    """The `most` allowed items of highest score, best first; equal scores in the order of the items. int64.

    >>> top_list(np.array([0.1, 0.9, 0.5, 0.7]), np.array([True, False, True, True]), 2).tolist()
    [3, 2]
    """
    scores = np.where(allowed & ~np.isnan(scores), scores, -np.inf)
    if len(scores) > 4 * most:  # sort what may be among them, ties at the edge included
        edge = np.partition(scores, len(scores) - most)[len(scores) - most]
        there = np.flatnonzero((scores >= edge) & (scores > -np.inf))
    else:
        there = np.flatnonzero(scores > -np.inf)
    return there[np.argsort(-scores[there], kind="stable")[:most]]


def interleave(lists: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One list in which every given list keeps its order, the turns drawn at random; what occurs again is left out. int64.

    >>> interleave([np.array([1, 2]), np.array([2, 3])], np.random.default_rng(0)).tolist() in ([1, 2, 3], [2, 3, 1], [2, 1, 3])
    True
    """
    turn = rng.permutation(np.repeat(np.arange(len(lists)), [len(one) for one in lists]))
    merged = np.empty(len(turn), np.int64)
    for n, one in enumerate(lists):
        merged[turn == n] = one
    _, first = np.unique(merged, return_index=True)
    return merged[np.sort(first)]


def check_exposure(options: np.ndarray, item: int, name: str = "the exposure") -> int:
    """The position of the chosen item. InputError for fewer than 2 options, more than 26, one that occurs twice, or a choice not there.

    >>> check_exposure(np.array([7, 3, 9]), 3)
    1
    """
    if not 2 <= len(options) <= len(LETTERS):
        why = "nothing was chosen" if len(options) < 2 else "options are labelled by single letters"
        raise InputError(f"{name} has {len(options)} options, and 2 to {len(LETTERS)} are possible: {why}")
    values, count = np.unique(options, return_counts=True)
    if (count > 1).any():
        raise InputError(f"{name} has {int((count > 1).sum())} options more than once (first: item {values[count > 1][0]})")
    at = np.flatnonzero(options == item)
    if not len(at):
        raise InputError(f"{name} does not hold the item that was chosen (item {item})")
    return int(at[0])
