"""Models whose score is linear in what a user has taken: one number per pair of items, and the history it is applied to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.types import Known, Recommender

#: bytes that the table of item pairs may take; solving holds about three of them
MOST = 4 << 30


class ItemWeights(Recommender):
    """Score of item j for user u: the sum over the items i that u took of W_ij, each item once.

    W [I, I] float32 is saved with the model: I^2 x 4 bytes, and up to three times as much in float64 while it is solved. InputError above
    4 GiB (32,768 items).
    """

    kind = "solved"
    weights: Tensor
    taken: Tensor
    start: Tensor

    def __init__(self, users: int, items: int) -> None:
        super().__init__(users, items)
        if 4 * items * items > MOST:
            raise InputError(
                f"{self.name} keeps a number for each of {items:,} x {items:,} pairs of items, {4 * items * items / 2**30:,.1f} GiB, and "
                f"{MOST >> 30} GiB is the most: leave out rare items (k-core), or take als, mf or lightgcn"
            )
        self.register_buffer("weights", torch.zeros(items, items))
        self.register_buffer("taken", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("start", torch.zeros(users, dtype=torch.int64), persistent=False)

    def prepare(self, known: Known) -> None:
        """The distinct items of each user."""
        pairs = np.unique(known.log.pairs())
        device = self.weights.device
        counts = np.bincount(pairs // max(self.n_items, 1), minlength=self.n_users)
        self.taken = torch.from_numpy(pairs % max(self.n_items, 1)).to(device)
        self.start = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])[: self.n_users]).to(device)

    def together(self, known: Known) -> np.ndarray:
        """X^T X, float64 [I, I]: users who took both items, and on the diagonal those who took one."""
        from scipy.sparse import csr_matrix

        pairs = np.unique(known.log.pairs())
        if not len(pairs):
            raise InputError(f"{self.name}: the log has no events, so there is nothing to solve")
        taken = csr_matrix((np.ones(len(pairs)), (pairs // self.n_items, pairs % self.n_items)), shape=(self.n_users, self.n_items))
        return (taken.T @ taken).toarray()

    def keep(self, weights: np.ndarray) -> None:
        """W as the model holds it."""
        self.weights = torch.from_numpy(np.ascontiguousarray(weights, np.float32)).to(self.weights.device)

    def scores(self, user: Tensor) -> Tensor:
        """Sums of the rows of W that belong to what each user took, [B, I]."""
        end = torch.cat([self.start[1:], self.start.new_tensor([len(self.taken)])])
        counts = end[user] - self.start[user]
        first = torch.cumsum(counts, 0) - counts
        at = torch.repeat_interleave(self.start[user] - first, counts) + torch.arange(int(counts.sum()), device=user.device)
        return torch.nn.functional.embedding_bag(self.taken[at], self.weights, first, mode="sum")


def without_self(gram: np.ndarray) -> np.ndarray:
    """The weights of a ridge regression of each item on all others, from a Gram matrix with its penalty: -P_ij / P_jj, 0 on the diagonal.

    P is the inverse of `gram`, a symmetric matrix [I, I] that may be overwritten. InputError where it is not positive definite.

    >>> without_self(np.array([[3.0, 1.0], [1.0, 2.0]])).round(4)
    array([[0.    , 0.3333],
           [0.5   , 0.    ]])
    """
    from scipy.linalg import lapack as found_lapack

    lapack: Any = found_lapack  # its functions are made when it is loaded

    factor, wrong = lapack.dpotrf(gram, lower=1, overwrite_a=1)
    if not wrong:
        factor, wrong = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if wrong or not np.isfinite(factor[-1]).all():
        raise InputError("the matrix of items is not positive definite: raise l2")
    inverse = np.tril(factor) + np.tril(factor, -1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights
