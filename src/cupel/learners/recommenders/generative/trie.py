"""Which code may follow which: the tree of all items' semantic ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Level(NamedTuple):
    """The distinct beginnings of ids up to one level, sorted.

    code    int64 [P]: their last code; parent int64 [P]: the beginning they continue, at the level before (0 at the first)
    first   int64 [Q + 1], Q beginnings at the level before: the continuations of beginning q are first[q] ... first[q + 1] - 1
    """

    code: Tensor
    parent: Tensor
    first: Tensor

    @property
    def widest(self) -> int:
        """Most continuations of one beginning."""
        return int((self.first[1:] - self.first[:-1]).max())


class Trie(NamedTuple):
    """Levels of the tree; item int64 [I']: the item of each leaf."""

    levels: tuple[Level, ...]
    item: Tensor

    @classmethod
    def of(cls, codes: Tensor, items: Tensor | None = None) -> Trie:
        """The tree of the ids [I, C] of all items, or of some.

        >>> trie = Trie.of(torch.tensor([[1, 0], [0, 1], [1, 2]]))
        >>> trie.levels[1].code.tolist(), trie.levels[1].parent.tolist(), trie.item.tolist()
        ([1, 0, 2], [0, 1, 1], [1, 0, 2])
        """
        chosen = np.arange(len(codes)) if items is None else items.cpu().numpy()
        table = codes.cpu().numpy()[chosen]
        turn = np.lexsort(table.T[::-1])
        table, chosen = table[turn], chosen[turn]
        levels, before, n = [], np.zeros(len(table), np.int64), 1
        new = np.zeros(len(table), bool)
        new[:1] = True
        for level in range(table.shape[1]):
            new[1:] |= table[1:, level] != table[:-1, level]
            at, parent = np.flatnonzero(new), before[new]
            first = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=n))])
            levels.append(Level(*(torch.from_numpy(np.ascontiguousarray(x)).to(codes.device) for x in (table[at, level], parent, first))))
            before, n = np.cumsum(new) - 1, len(at)
        return cls(tuple(levels), torch.from_numpy(chosen).to(codes.device))

    @property
    def nodes(self) -> int:
        """Beginnings at all levels."""
        return sum(len(level.code) for level in self.levels)
