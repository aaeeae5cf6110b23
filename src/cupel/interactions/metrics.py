"""How good ranked lists are: recall, precision, F1, NDCG, MAP, MRR and hit rate at k, per user, from the items at the top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Rows

METRICS = ("recall", "precision", "f1", "ndcg", "map", "mrr", "hit")


def ranked(top: np.ndarray, relevant: Rows, users: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Metrics per user at each k, float64 [B], under the names "recall@20", "ndcg@20" and so on; NaN for users without relevant items.

    top       int [B, K]: items of each user from the best down, K at least the largest k; -1 where a list ends early
    relevant  the items that each user should have been shown (`by_user` of the test log)
    users     int [B]: the users of the rows of `top`

    With hits h_r in {0, 1} at rank r and R relevant items: recall = sum h / R; precision = sum h / k; f1 = 2 P R / (P + R) (0 where both
    are); ndcg = sum h_r / log2(r + 1) over the same sum for min(k, R) hits at the top; map = sum_r h_r precision@r / min(k, R);
    mrr = 1 / rank of the first hit (0 without one); hit = 1 if there is a hit. InputError where k is below 1 or above K.

    >>> from cupel.interactions.log import Rows
    >>> found = ranked(np.array([[1, 2, 0]]), Rows(np.array([0, 1]), np.array([0]), np.array([0])), np.array([0]), [3])
    >>> {name: round(float(value[0]), 4) for name, value in found.items()}
    {'recall@3': 1.0, 'precision@3': 0.3333, 'f1@3': 0.5, 'ndcg@3': 0.5, 'map@3': 0.3333, 'mrr@3': 0.3333, 'hit@3': 1.0}
    """
    wrong = [k for k in ks if not 1 <= k <= top.shape[1]]
    if wrong:
        raise InputError(f"k lies between 1 and the {top.shape[1]} items of a list, not {wrong[0]}")
    hits = hits_of(top, relevant, users)
    total = relevant.counts[users].astype(np.float64)
    total[total == 0] = np.nan
    rank = np.arange(1, top.shape[1] + 1)
    discount = 1 / np.log2(rank + 1)
    gain = np.cumsum(hits * discount, axis=1)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    found = np.cumsum(hits, axis=1)
    running = np.cumsum(hits * found / rank, axis=1)
    first = np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)
    out: dict[str, np.ndarray] = {}
    for k in ks:
        known = ~np.isnan(total)
        most = np.minimum(k, np.where(known, total, 1)).astype(int)
        here = found[:, k - 1]
        recall, precision = here / total, np.where(known, here / k, np.nan)
        both = recall + precision
        values = {
            "recall": recall, "precision": precision,
            "f1": np.where(both > 0, 2 * recall * precision / np.where(both > 0, both, 1), np.where(known, 0.0, np.nan)),
            "ndcg": np.where(known, gain[:, k - 1] / ideal[most], np.nan),
            "map": np.where(known, running[:, k - 1] / most, np.nan),
            "mrr": np.where(known, np.where(first * k >= 1, first, 0.0), np.nan),
            "hit": np.where(known, here > 0, np.nan).astype(np.float64),
        }  # fmt: skip
        out |= {f"{name}@{k}": values[name] for name in METRICS}
    return out


def hits_of(top: np.ndarray, relevant: Rows, users: np.ndarray) -> np.ndarray:
    """Whether each item of a list is relevant to its user, float64 [B, K]."""
    n = int(max(relevant.item.max(initial=-1), top.max(initial=-1))) + 1
    owner = np.repeat(np.arange(len(relevant)), relevant.counts)
    wanted = np.unique(owner * n + relevant.item)
    asked = np.asarray(users, np.int64)[:, None] * n + top
    at = np.minimum(np.searchsorted(wanted, asked), max(len(wanted) - 1, 0))
    return ((wanted[at] == asked) & (top >= 0)).astype(np.float64) if len(wanted) else np.zeros(top.shape)


def best(scores: np.ndarray, k: int, order: np.ndarray) -> np.ndarray:
    """The k items with the highest scores of each row, best first, int64 [B, k]; equal scores in the order of `order` (int [I], a rank).

    Items that score -inf (masked) come as -1.

    >>> best(np.array([[1.0, 3.0, 3.0, -np.inf]]), 4, np.array([0, 2, 1, 3])).tolist()
    [[2, 1, 0, -1]]
    """
    k = min(k, scores.shape[1])
    keys = np.lexsort((np.broadcast_to(order, scores.shape), -scores), axis=1)[:, :k]
    masked = np.take_along_axis(scores, keys, axis=1) == -np.inf
    return np.where(masked, -1, keys)


def tie_order(n_items: int, seed: int = 0) -> np.ndarray:
    """A rank for each item, by which equal scores are ordered: a permutation of the seed, int64 [I]."""
    return np.random.default_rng([seed, 11]).permutation(n_items)
