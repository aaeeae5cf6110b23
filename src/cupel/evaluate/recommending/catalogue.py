"""What a recommender shows to all users together: how much of the catalogue, how evenly, how popular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shown:
    """The lists of all judged users at one k, a mean over training seeds.

    coverage    share of the catalogue that is in at least one list
    gini        of the number of lists each item is in, over the whole catalogue: 0 where all are shown equally often, near 1 where few are
    popularity  mean number of training events of an item shown; percentile: mean share of items with fewer events than it (ties half)
    short       share of places in lists that no item was left for
    """

    coverage: float
    gini: float
    popularity: float
    percentile: float
    short: float

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts of at least 0: sum_i (2 i - n - 1) x_(i) / (n sum x), x sorted; 0 where all are 0.

    >>> gini(np.array([3, 3, 3])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    x = np.sort(np.asarray(counts, dtype=np.float64))
    n, total = len(x), float(x.sum())
    return float(((2 * np.arange(1, n + 1) - n - 1) * x).sum() / (n * total)) if total > 0 else 0.0


def shown(lists: Sequence[np.ndarray], places: int, popularity: np.ndarray) -> Shown:
    """What was shown.

    lists       how many lists each item is in, int [I], one array per training seed
    places      users times k
    popularity  training events of each item, [I]
    """
    order = np.sort(popularity)
    rank = (np.searchsorted(order, popularity, "left") + np.searchsorted(order, popularity, "right")) / (2 * len(order))
    rows = []
    for count in lists:
        total = max(int(count.sum()), 1)
        rows.append(((count > 0).mean(), gini(count), count @ popularity / total, count @ rank / total, 1 - count.sum() / places))
    return Shown(*(float(value) for value in np.mean(rows, axis=0)))
