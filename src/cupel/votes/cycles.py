"""Cycles in preferences: how much of a matrix of scores no rating explains, which triples go round, and whether chance would do the same.

S_ij is by how much i is preferred to j (log-odds), S_ij = -S_ji. Least squares over the observed pairs splits it into a gradient r_i - r_j,
which one number per item explains, and the rest, whose sums at every item are zero: it flows in loops. On a complete matrix with equal
weights r is the mean of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cupel.errors import InputError

#: a set of items that lie on common cycles is put into its best order exactly up to this size (2^n states)
EXACT = 16


class Triangle(NamedTuple):
    """Three items, each preferred to the next and the last to the first: their numbers, the three margins, the weakest of these."""

    items: tuple[int, int, int]
    margins: tuple[float, float, float]
    strength: float


@dataclass(frozen=True)
class Cyclicity:
    """The split of a score matrix into what ratings explain and what goes in loops.

    ratings [n]    least squares of S_ij = r_i - r_j, of sum zero in each component; 0 for an item without a pair
    loops [n, n]   S_ij - (r_i - r_j) at observed pairs, 0 elsewhere; skew-symmetric
    share          sum w loops^2 / sum w S^2, in [0, 1]; 0 where all scores are 0
    component [n]  items that chains of observed pairs join; ratings of different components cannot be compared
    pairs          observed pairs;  independent: pairs - items + components, the loops that could be seen at all (0: share is 0 always)
    triangles      the strongest 3-cycles, by their weakest margin;  n_triangles: how many there are
    """

    ratings: np.ndarray
    loops: np.ndarray
    share: float
    component: np.ndarray
    pairs: int
    independent: int
    triangles: tuple[Triangle, ...]
    n_triangles: int

    def recorded(self) -> dict[str, Any]:
        """As JSON holds it: share, counts, triangles; what `cupel.report.cycles.figure` draws."""
        found = [{"items": list(x.items), "margins": list(x.margins), "strength": x.strength} for x in self.triangles]
        return {
            "items": len(self.ratings), "share": self.share, "pairs": self.pairs, "independent": self.independent, "triangles": found,
            "n_triangles": self.n_triangles,
        }  # fmt: skip


@dataclass(frozen=True)
class Order:
    """The order of items that agrees with most of the (weight of) observed pairs that are not tied.

    accuracy  that share: no scalar reward has more;  items: the order, best first;  pairs: how many pairs are not tied
    exact     False: a local search found it, and a better order may exist
    """

    accuracy: float
    items: tuple[int, ...]
    pairs: int
    exact: bool


def skew(scores: Any, *, symmetrise: bool = False, observed: np.ndarray | None = None) -> np.ndarray:
    """A checked float64 [n, n] matrix with S_ij = -S_ji; pairs that are not `observed` (bool [n, n]) are 0 and are not looked at.

    symmetrise: take (S - S^T) / 2 of a matrix that is not skew-symmetric. InputError for another shape, n < 2, values that are not
    finite, and, without `symmetrise`, for |S_ij + S_ji| above 10^-6 of the largest score.

    >>> skew([[0, 2], [-2, 0]]).tolist()
    [[0.0, 2.0], [-2.0, 0.0]]
    >>> skew([[0, 2], [-1, 0]])
    Traceback (most recent call last):
    cupel.errors.InputError: 1 of 1 pairs have S_ij other than -S_ji (first: 2 at (0, 1), -1 at (1, 0)); symmetrise=True takes half the difference
    """  # noqa: E501
    made = np.array(scores, dtype=np.float64)
    if made.ndim != 2 or made.shape[0] != made.shape[1]:
        raise InputError(f"scores of n items against each other are an n x n matrix, not one of shape {made.shape}")
    n = len(made)
    if n < 2:
        raise InputError(f"{n} item has nothing to be compared with: give at least 2")
    if observed is not None:
        made[~observed] = 0
    bad = ~np.isfinite(made)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise InputError(
            f"{int(bad.sum()):,} of {made.size:,} scores are not finite (first: row {i}, column {j}); a pair without one has weight 0"
        )
    apart = np.abs(made + made.T)
    if not symmetrise and apart.max() > 1e-6 * np.abs(made).max():
        wrong = np.argwhere(np.triu(apart) > 1e-6 * np.abs(made).max())
        i, j = wrong[0]
        raise InputError(
            f"{len(wrong):,} of {n * (n - 1) // 2:,} pairs have S_ij other than -S_ji (first: {made[i, j]:g} at ({i}, {j}), {made[j, i]:g} "
            f"at ({j}, {i})); symmetrise=True takes half the difference"
        )
    return (made - made.T) / 2


def cyclicity(scores: Any, weight: Any = None, *, symmetrise: bool = False, most: int = 20) -> Cyclicity:
    """The part of a score matrix that no rating explains, and the strongest `most` of its 3-cycles.

    Minimised over r: sum over pairs of w_ij (S_ij - (r_i - r_j))^2. weight [n, n], symmetric and at least 0; 0: not observed; None: all
    observed alike. After the combinatorial Hodge split (curl and harmonic part together). Where pairs are missing, loops longer than
    three count in `share` and are not among the triangles. InputError as `skew`, and for weights of another shape or sign.

    >>> found = cyclicity([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])  # a circle
    >>> found.share, found.triangles
    (1.0, (Triangle(items=(0, 1, 2), margins=(1.0, 1.0, 1.0), strength=1.0),))
    >>> r = np.array([0.3, -0.2, 1.0])
    >>> found = cyclicity(r[:, None] - r)
    >>> round(found.share, 12), (found.ratings + r.mean()).round(6).tolist()
    (0.0, [0.3, -0.2, 1.0])
    """
    w = _weight(scores, weight)
    s = skew(scores, symmetrise=symmetrise, observed=(w > 0) | np.eye(len(w), dtype=bool))
    ratings, component = _ratings(s, w)
    loops = np.where(w > 0, s - (ratings[:, None] - ratings), 0.0)
    total = float((w * s**2).sum())
    pairs = int((w > 0).sum()) // 2
    triangles, count = _triangles(s, most)
    share = min(float((w * loops**2).sum()) / total, 1.0) if total > 0 else 0.0
    independent = pairs - len(s) + int(component.max()) + 1
    return Cyclicity(ratings, loops, share, component, pairs, independent, triangles, count)


def agreement(ratings: Any, scores: Any, weight: Any = None) -> float:
    """Share of the (weight of) observed pairs that ratings order as the scores do; equal ratings count one half, equal scores not at all.

    A reward that is the same for all items, which is where Bradley-Terry ends on a balanced cycle, therefore has 1/2. InputError as
    `cyclicity`, and where no pair is left.

    >>> agreement([0, 0, 0], [[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    0.5
    """
    w = _weight(scores, weight)
    s = skew(scores, observed=(w > 0) | np.eye(len(w), dtype=bool))
    r = np.asarray(ratings, dtype=np.float64)
    if r.shape != (len(s),) or not np.isfinite(r).all():
        raise InputError(f"ratings are {len(s)} finite numbers, one for each item")
    wins = np.where(s > 0, w, 0.0)
    if not wins.any():
        raise InputError("no pair has a score other than 0: nothing to agree with")
    d = r[:, None] - r
    return float((wins * ((d > 0) + 0.5 * (d == 0))).sum() / wins.sum())


def best_transitive_accuracy(scores: Any, weight: Any = None, *, exact: int = EXACT) -> Order:
    """The best that any scalar reward can do: the order of items that agrees with most of the weight of the pairs that are not tied.

    Items that beat each other in no circle are ordered at once; each set that circles join (a strongly connected component) by dynamic
    programming over its subsets up to `exact` items, beyond that by moving single items while that helps (`exact` is False then).
    InputError as `cyclicity`, where no pair is left, and for `exact` above 20.

    >>> best_transitive_accuracy([[0, 1, -1], [-1, 0, 1], [1, -1, 0]]).accuracy  # two of three
    0.6666666666666666
    """
    from scipy.sparse.csgraph import connected_components

    if not 1 <= exact <= 20:
        raise InputError(f"exact orders are found for 1 to 20 items at a time (2^n states), not {exact!r}")
    w = _weight(scores, weight)
    s = skew(scores, observed=(w > 0) | np.eye(len(w), dtype=bool))
    wins = np.where(s > 0, w, 0.0)
    pairs = int((wins > 0).sum())
    if not pairs:
        raise InputError("no pair has a score other than 0: nothing to put in order")
    count, group = connected_components(wins > 0, directed=True, connection="strong")
    order: list[int] = []
    sure = True
    for k in _downwards(wins, group, count):
        members = np.flatnonzero(group == k)
        sub = wins[np.ix_(members, members)]
        small = len(members) <= exact
        sure &= small
        order += members[_best_order(sub) if small else _searched_order(sub)].tolist()
    place = np.empty(len(s), dtype=np.int64)
    place[order] = np.arange(len(s))
    right = float(wins[place[:, None] < place].sum())
    return Order(right / float(wins.sum()), tuple(order), pairs, sure)


def _weight(scores: Any, weight: Any) -> np.ndarray:
    """Weights of the pairs, symmetric, with a diagonal of 0."""
    shape = np.shape(scores)
    w = np.ones(shape) if weight is None else np.array(weight, dtype=np.float64)
    if w.shape != shape or w.ndim != 2 or shape[0] != shape[1]:
        raise InputError(f"scores and weights are two n x n matrices, not of shape {shape} and {w.shape}")
    bad = ~(np.isfinite(w) & (w >= 0)) | (w != w.T)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise InputError(f"{int(bad.sum()):,} weights are negative, not finite, or differ from that of (j, i) (first: row {i}, column {j})")
    np.fill_diagonal(w, 0.0)
    return w


def _ratings(s: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares on the graph, and its components: the Laplacian, made regular by the mean of each component."""
    from scipy.sparse.csgraph import connected_components

    degree = w.sum(axis=1)
    component = connected_components(w > 0, directed=False)[1]
    together = component[:, None] == component
    unit = degree[degree > 0].mean() if degree.any() else 1.0
    laplacian = np.diag(degree) - w + unit * together / together.sum(axis=1)[:, None]
    return np.linalg.solve(laplacian, (w * s).sum(axis=1)), component


def _triangles(s: np.ndarray, most: int) -> tuple[tuple[Triangle, ...], int]:
    """The 3-cycles with the largest weakest margins, and the number of all: each is found at its smallest item."""
    count, kept = 0, np.zeros((0, 4))
    for i in range(len(s) - 2):
        out, back, rest = s[i, i + 1 :], s[i + 1 :, i], s[i + 1 :, i + 1 :]
        weakest = np.minimum(np.minimum(out[:, None], rest), back[None, :])  # i > j, j > k, k > i
        j, k = np.nonzero(weakest > 0)
        count += len(j)
        if most > 0 and len(j):
            new = np.column_stack([weakest[j, k], np.full(len(j), i), j + i + 1, k + i + 1])
            both = np.concatenate([kept, new])
            kept = both[np.lexsort((both[:, 3], both[:, 2], both[:, 1], -both[:, 0]))[:most]]
    found = []
    for strength, *items in kept.tolist():
        a, b, c = (int(x) for x in items)
        found.append(Triangle((a, b, c), (float(s[a, b]), float(s[b, c]), float(s[c, a])), strength))
    return tuple(found), count


def _downwards(wins: np.ndarray, group: np.ndarray, count: int) -> list[int]:
    """Strongly connected sets so that each comes before those that it beats; ties by the smallest item."""
    tail, head = np.nonzero(wins > 0)
    above = np.zeros((count, count), dtype=bool)
    above[group[tail], group[head]] = True
    np.fill_diagonal(above, False)
    first = [int(np.flatnonzero(group == k)[0]) for k in range(count)]
    left, order = set(range(count)), []
    while left:
        ready = [k for k in left if not any(above[j, k] for j in left)]
        order.append(min(ready, key=first.__getitem__))
        left.remove(order[-1])
    return order


def _best_order(wins: np.ndarray) -> np.ndarray:
    """The order, best first, with most weight of wins from earlier to later items; f(A) = max_j f(A - j) + wins of A - j over j."""
    n = len(wins)
    over = np.zeros((n, 1 << n))  # over[j, A]: weight of the wins of A's members over j
    for b in range(n):
        over[:, 1 << b : 2 << b] = over[:, : 1 << b] + wins[b][:, None]
    mask = np.arange(1 << n)
    size = np.array([bin(m).count("1") for m in mask])
    value, last = np.full(1 << n, -np.inf), np.zeros(1 << n, dtype=np.int64)
    value[0] = 0
    for layer in range(1, n + 1):
        at = mask[size == layer]
        for j in range(n):
            mine = at[(at >> j) & 1 == 1]
            rest = mine ^ (1 << j)
            new = value[rest] + over[j, rest]
            better = new > value[mine]
            value[mine[better]] = new[better]
            last[mine[better]] = j
    order, left = [], (1 << n) - 1
    while left:
        order.append(int(last[left]))
        left ^= 1 << order[-1]
    return np.array(order[::-1])


def _searched_order(wins: np.ndarray) -> np.ndarray:
    """A good order: by wins minus losses, then single items are moved to their best places until no move helps."""
    order = list(np.argsort(-(wins.sum(axis=1) - wins.sum(axis=0)), kind="stable"))
    moved = True
    while moved:
        moved = False
        for item in list(order):
            at = order.index(item)
            rest = order[:at] + order[at + 1 :]
            before = np.concatenate([[0.0], np.cumsum(wins[rest, item])])  # wins of those in front of a place over the item
            after = np.concatenate([np.cumsum(wins[item, rest][::-1])[::-1], [0.0]])  # wins of the item over those behind
            gain = before + after
            best = int(np.argmax(gain))
            if gain[best] > gain[at] * (1 + 1e-12) + 1e-12:
                order = [*rest[:best], item, *rest[best:]]
                moved = True
    return np.array(order)
