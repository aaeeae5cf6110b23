"""EASE that also knows what items are about and which were taken one after another."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Rows
from cupel.learners.recommenders.linear import ItemWeights, without_self
from cupel.learners.recommenders.types import Known


class EaseSide(ItemWeights):
    """W_ij = -P_ij / P_jj, P = ((1 - near) X^T X + near N + content V V^T + l2)^-1, diagonal of W 0; score X W.

    A ridge regression of each item on all others, like `ease`, with two more kinds of rows to fit: the columns of V as if they were users
    who took items by what these are about (the additive form of side information for EASE, Jeunen et al. 2020), and, our own, windows
    over each user's list in the order of time: N_ij = sum over users of exp(-|rank_i - rank_j| / reach), so that items taken one after
    another count as more alike than items of one user taken years apart. Positive semi-definite, both. With near = content = 0 it is
    `ease`, bit for bit.

    l2       the penalty, positive
    content  weight of V V^T, V the `item_vectors` of `Known` [I, d], rows of any length, 0 where nothing is known; 0 leaves it out
    near     share of the windows in [0, 1]; reach: places in the list over which two items grow apart by a factor e
    """

    name: ClassVar[str] = "ease_side"

    def __init__(
        self, users: int, items: int, *, l2: float = 150.0, content: float = 0.0, near: float = 0.5, reach: float = 5.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(users, items)
        if not (l2 > 0 and math.isfinite(l2) and content >= 0 and math.isfinite(content) and 0 <= near <= 1 and 0 < reach < math.inf):
            raise InputError(
                f"ease_side: l2 and reach are positive, content is at least 0 and near in [0, 1], not {l2!r}, "
                f"{reach!r}, {content!r}, {near!r}"
            )
        self.l2, self.content, self.near, self.reach = l2, content, near, reach

    def solve(self, known: Known) -> None:
        """One inverse."""
        gram = self.together(known)
        if self.near:
            if known.log.time is None:
                raise InputError("ease_side: near reads the order in which items were taken, and the log has no times: say near=0")
            gram *= 1 - self.near
            gram += self.near * neighbours(known.rows, self.n_items, self.reach)
        if self.content:
            vectors = known.item_vectors
            if vectors is None:
                raise InputError("ease_side: content reads vectors of items, and there are none: give item_vectors, or say content=0")
            if vectors.shape[0] != self.n_items or not np.isfinite(vectors).all():
                raise InputError(f"ease_side: {self.n_items:,} items need as many vectors of finite numbers; given: {vectors.shape}")
            v = vectors.astype(np.float64)
            gram += self.content * (v @ v.T)
        gram[np.diag_indices_from(gram)] += self.l2
        self.keep(without_self(gram))


def neighbours(rows: Rows, items: int, reach: float) -> np.ndarray:
    """sum over users of exp(-|rank_i - rank_j| / reach), float64 [I, I], ranks being places in the user's list.

    Places further apart than 12 reach (e^-12 = 6e-6) count as infinitely far. An item that a user took several times counts each time.

    >>> neighbours(Rows(np.array([0, 3]), np.array([2, 0, 1]), np.arange(3)), 3, 1 / np.log(2)).tolist()
    [[1.0, 0.5, 0.5], [0.5, 1.0, 0.25], [0.5, 0.25, 1.0]]
    """
    owner = np.repeat(np.arange(len(rows)), rows.counts)
    found = np.zeros(items * items)
    item = rows.item.astype(np.int64)
    longest = int(rows.counts.max(initial=0))
    for apart in range(1, min(longest, math.ceil(12 * reach) + 1)):
        same = owner[apart:] == owner[:-apart]
        key = (item[apart:] * items + item[:-apart])[same]
        where, count = np.unique(key, return_counts=True)
        found[where] += count * math.exp(-apart / reach)
    table = found.reshape(items, items)
    table += table.T.copy()
    table[np.diag_indices_from(table)] += np.bincount(item, minlength=items)
    return table


MODEL = EaseSide
