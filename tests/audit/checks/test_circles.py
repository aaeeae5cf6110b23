"""The strongest circles are those that counting one by one finds."""

from itertools import combinations

import numpy as np
import pytest

from cupel.audit.checks._circles import strongest_circles, through


def tournament(seed, n, density, highest):
    rng = np.random.default_rng(seed)
    i, j = np.array(list(combinations(range(n), 2))).T
    kept = rng.random(len(i)) < density
    turned = rng.random(len(i)) < 0.5
    order = rng.permutation(int(kept.sum()))
    return (*(np.where(turned, a, b)[kept][order] for a, b in ((i, j), (j, i))), rng.integers(1, highest + 1, len(order)))


def one_by_one(winner, loser, margin):
    edge = {(w, x): e for e, (w, x) in enumerate(zip(winner.tolist(), loser.tolist(), strict=True))}
    nodes = sorted({node for pair in edge for node in pair})
    found = {}
    for a, b, c in combinations(nodes, 3):
        for x, y, z in ((a, b, c), (a, c, b)):
            if {(x, y), (y, z), (z, x)} <= set(edge):
                circle = frozenset((edge[x, y], edge[y, z], edge[z, x]))
                found[circle] = min(margin[e] for e in circle)
    return found


@pytest.mark.parametrize("highest", [1, 3, 50])
@pytest.mark.parametrize("most", [1, 5, 40, 10_000])
def test_the_strongest_are_those_of_all(most, highest):
    for seed in range(6):
        winner, loser, margin = tournament(seed, 12, 0.6, highest)
        slow = one_by_one(winner, loser, margin)
        got = strongest_circles(winner, loser, margin, most)
        assert [margin[circle].min() for circle in got] == sorted(slow.values(), reverse=True)[:most]
        sets = [frozenset(circle) for circle in got.tolist()]
        assert len(set(sets)) == len(sets)
        assert set(sets) <= set(slow)
        for circle in got:
            assert (loser[circle] == winner[np.roll(circle, -1)]).all()
            assert circle.min() == circle[0]


def test_counts_of_circles_through_edges():
    winner, loser, margin = tournament(0, 14, 0.7, 1)
    slow = one_by_one(winner, loser, margin)
    assert through(winner, loser).tolist() == [sum(e in circle for circle in slow) for e in range(len(winner))]


def test_none_without_circles():
    chain = np.arange(5)
    assert strongest_circles(chain, chain + 1, np.ones(5, int), 3).shape == (0, 3)
    assert strongest_circles(chain[:0], chain[:0], chain[:0], 3).shape == (0, 3)
