"""Margins of the held-out rows, from a head that the training rows gave: their own labels only orient the margin."""

from __future__ import annotations

import numpy as np

from cupel.audit.features import Features
from cupel.records.keys import dense
from cupel.records.schema import Votes

#: comparisons that the head is fitted on at most (whole groups, drawn by the seed)
MAX_FIT = 20_000
_CHUNK = 1 << 14


def heldout_margin(train: Votes, train_features: Features, rows: Votes, features: Features, *, seed: int) -> np.ndarray:
    """Content margin of `rows`, float64 [n], oriented to their recorded labels (0 without a preference).

    The head is fitted on the training pairs, votes on a pair summed, its ridge tuned by cross-validation over groups; of more than
    `MAX_FIT` pairs whole groups are drawn. Zeros where the training rows state no preference or share one group: nothing can be
    predicted then.
    """
    from cupel.votes.linear_head import fit_tuned

    stated = np.flatnonzero(train.sign != 0)
    if len(stated) == 0 or len(np.unique(train.group[stated])) < 2:
        return np.zeros(len(rows))
    stated = stated[_drawn(train.group[stated], seed)]
    pair = dense(train.pair[stated])
    head_rows = np.zeros(int(pair.max()) + 1, dtype=np.int64)
    head_rows[pair[::-1]] = stated[::-1]  # the first row of each pair gives its features and its orientation
    w = np.bincount(pair).astype(np.float64)
    same = train.first[stated] == train.first[head_rows][pair]
    up = np.bincount(pair, weights=(np.where(same, train.sign[stated], -train.sign[stated]) > 0).astype(np.float64))
    sides = train_features.take(head_rows)
    head = fit_tuned(sides.first, sides.second, up / w, w, train.group[head_rows], seed=seed)
    margin = np.empty(len(rows))
    if 2 * len(rows) >= len(features.sides):
        score = features.sides.scores(head.theta_[:, None])[:, 0]
        margin[:] = score[features.row[0]] - score[features.row[1]]
        return margin * rows.sign
    for start in range(0, len(rows), _CHUNK):
        part = features.take(np.arange(start, min(start + _CHUNK, len(rows))))
        margin[start : start + len(part)] = head.margin(part.first, part.second)
    return margin * rows.sign


def _drawn(group: np.ndarray, seed: int) -> np.ndarray:
    """All positions, or those of whole groups in seeded order, at most `MAX_FIT` (one group at least)."""
    if len(group) <= MAX_FIT:
        return np.arange(len(group))
    index, size = np.unique(group, return_inverse=True, return_counts=True)[1:]
    order = np.random.default_rng([seed, 5]).permutation(len(size))
    kept = np.zeros(len(size), dtype=bool)
    kept[order[: max(2, int(np.searchsorted(np.cumsum(size[order]), MAX_FIT, side="right")))]] = True
    return np.flatnonzero(kept[index.reshape(-1)])
