"""Ranked lists from a model, asked for in blocks of users and checked; and a model made from scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Rows
from cupel.interactions.metrics import best, tie_order

#: the k items that each of those users [B] should be shown, best first, int [B, k], -1 where a list ends; items of `seen` left out
Top = Callable[[np.ndarray, int, Rows], np.ndarray]
#: users whose lists are asked for at once
BLOCK = 1024


def from_scores(scores: np.ndarray | Callable[[np.ndarray], np.ndarray], *, seed: int = 0) -> Top:
    """The lists of a table of scores [U, I], or of a function of users [B] that gives scores [B, I].

    Equal scores are ordered by a permutation of the items that the seed draws. InputError (when asked) for scores that are not a number.

    >>> from_scores(np.array([[3.0, 1.0, 2.0]]))(np.array([0]), 2, Rows(np.array([0, 1]), np.array([0]), np.array([0]))).tolist()
    [[2, 1]]
    """

    def top(users: np.ndarray, k: int, seen: Rows) -> np.ndarray:
        found = np.array(scores[users] if isinstance(scores, np.ndarray) else scores(users), dtype=np.float64)
        if np.isnan(found).any():
            first = int(np.argmax(np.isnan(found).any(axis=1)))
            raise InputError(f"{int(np.isnan(found).sum()):,} scores are not a number (first: user {int(users[first])})")
        found[np.repeat(np.arange(len(users)), seen.counts[users]), np.concatenate([*seen.lists(users), np.zeros(0, np.int32)])] = -np.inf
        return best(found, k, tie_order(found.shape[1], seed))

    return top


def lists(top: Top, name: str, users: np.ndarray, k: int, seen: Rows, items: int) -> np.ndarray:
    """Lists of all users, int64 [B, k], -1 where they end.

    InputError, with the model's name, for lists of another shape, items that are not there, items listed twice, items that are left out.
    """
    out = np.full((len(users), k), -1, dtype=np.int64)
    for at in range(0, len(users), BLOCK):
        part = users[at : at + BLOCK]
        found = np.asarray(top(part, k, seen))
        if found.ndim != 2 or len(found) != len(part) or found.shape[1] > k or found.dtype.kind not in "iu":
            raise InputError(
                f"{name} gave {found.dtype} {found.shape} for {len(part):,} users: lists are whole numbers [users, at most {k}]"
            )
        out[at : at + BLOCK, : found.shape[1]] = found
    ordered = np.sort(out, axis=1)
    keys = np.repeat(np.arange(len(seen)), seen.counts) * items + seen.item
    faults = {
        f"names items outside the {items:,} there are": ((out >= items) | (out < -1)).any(axis=1),
        "lists an item twice": ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1),
        "lists items that are left out of rankings (those of `seen`)": (np.isin(users[:, None] * items + out, keys) & (out >= 0)).any(
            axis=1
        ),
    }
    for words, wrong in faults.items():
        if wrong.any():
            first = int(users[np.argmax(wrong)])
            raise InputError(f"{name} {words} for {int(wrong.sum()):,} of {len(users):,} users (first: user {first})")
    return out
