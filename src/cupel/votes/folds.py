"""Folds that keep groups (prompts, pairs) together."""

from __future__ import annotations

import numpy as np

from cupel.errors import InputError


def group_folds(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold 0 ... folds-1 of every row, int64 [n]; rows of a group share a fold and folds are of similar size.

    Groups are shuffled by the seed, then dealt largest first to the smallest fold. With fewer groups than folds each group is a
    fold. InputError with one group only: it cannot be predicted from others.

    >>> fold = group_folds(np.array([5, 5, 5, 1, 1, 9]), 2, seed=0)
    >>> bool(fold[0] == fold[1] == fold[2]), bool(fold[3] == fold[4]), sorted(np.bincount(fold).tolist())
    (True, True, [3, 3])
    """
    label, index, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(label) < 2:
        raise InputError(
            f"{len(index):,} rows in {len(label)} group: out-of-fold prediction needs two groups or more. "
            "Give a group column that separates independent rows, or prompts that differ."
        )
    folds = min(folds, len(label))
    if folds < 2:
        raise InputError(f"at least 2 folds are needed, not {folds}")
    order = np.random.default_rng(seed).permutation(len(label))
    order = order[np.argsort(-size[order], kind="stable")]
    fold = np.empty(len(label), dtype=np.int64)
    if len(label) > 50 * folds and size.max() * 20 * folds < len(index):
        fold[order] = np.arange(len(label)) % folds  # many small groups: dealing in turn is as even
    else:
        load = np.zeros(folds, dtype=np.int64)
        for group in order:
            smallest = int(np.argmin(load))
            fold[group] = smallest
            load[smallest] += size[group]
    return fold[index.reshape(-1)]
