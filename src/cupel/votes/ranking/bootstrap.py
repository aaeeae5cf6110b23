"""Bootstrap draws of fitted parameters, from counts: votes or whole clusters drawn again, every draw fitted.

Drawing n votes with replacement is drawing the counts of the cells from a multinomial; votes never come back. Draws are fitted many at a
time by Newton's iteration with the Hessian of the full fit, which converges fast because draws lie near it; a draw that does not
arrive is fitted by itself. Without a ridge, a draw in which the comparisons no longer hold a group together has no finite fit for
the items that came loose: they are missing (NaN) in that draw, and the others are aligned with the full fit. Efron 1979, Annals
of Statistics 7; whole clusters: Davison & Hinkley 1997, section 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cupel.errors import InputError
from cupel.votes.ranking.cells import Cells
from cupel.votes.ranking.design import Design
from cupel.votes.ranking.graph import connectivity, ties_are_bounded
from cupel.votes.ranking.newton import bread, minimise

#: values of one array over cells and draws held at once
_CHUNK = 1 << 20
#: a draw has arrived when no parameter moves by more
_STILL = 1e-9


def bootstrap(design: Design, z: np.ndarray, cells: Cells, *, draws: int, seed: int, resample: str) -> np.ndarray:
    """Parameters fitted to each draw: float64 [draws, parameters], NaN where a draw does not determine them.

    resample: "votes" draws n votes (a multinomial over cells and outcomes; weighted votes as many votes of equal weight as have the same
    sum and sum of squares), "poisson" gives every cell a Poisson number (the same up to 1/n, n not fixed), "cluster" draws whole
    clusters. Same seed, same draws, whatever the memory.
    """
    rng = np.random.default_rng(seed)
    inverse = np.linalg.inv(bread(design, z))
    tree = None if design.ridge[: design.n_items].all() else _Tree.of(design)
    sample = _sampler(cells, resample, rng)
    out = np.empty((draws, design.size))
    step = max(1, _CHUNK // max(3 * len(design.first), 1))
    for start in range(0, draws, step):
        votes = sample(min(step, draws - start))  # [3, m, draws of the chunk]
        sure = np.ones(votes.shape[2], dtype=bool) if tree is None else tree.holds(votes)
        fitted = np.full((votes.shape[2], design.size), np.nan)
        if sure.any():
            fitted[sure] = _together(design, z, inverse, votes[:, :, sure])
        for k in np.flatnonzero(np.isnan(fitted).any(axis=1)):
            fitted[k] = _alone(design, z, votes[:, :, k])
        out[start : start + len(fitted)] = fitted
    return out


def _sampler(cells: Cells, resample: str, rng: np.random.Generator):
    """A function of a number of draws that returns weights of wins, losses and ties: float64 [3, m, draws]."""
    if resample == "cluster":
        if cells.cluster is None or cells.cluster.shape[1] != 1:
            raise InputError("a bootstrap of clusters needs counts that carry one cluster column: count_votes(..., cluster=...)")
        return _cluster_sampler(cells, rng)
    votes, squares = cells.votes.T.reshape(-1), cells.squares.T.reshape(-1)  # [3 m]
    used = np.flatnonzero(votes > 0)
    count = votes[used] ** 2 / squares[used]
    unit = squares[used] / votes[used]
    total = round(float(count.sum()))
    share = count / count.sum()

    def sample(draws: int) -> np.ndarray:
        if resample == "poisson":
            drawn = rng.poisson(count, size=(draws, len(used)))
        else:
            drawn = rng.multinomial(total, share, size=draws)
        out = np.zeros((len(votes), draws))
        out[used] = drawn.T * unit[:, None]
        return out.reshape(3, -1, draws)

    return sample


def _cluster_sampler(cells: Cells, rng: np.random.Generator):
    from scipy.sparse import coo_array

    assert cells.cluster is not None
    label = np.unique(cells.cluster[:, 0], return_inverse=True)[1].reshape(-1)
    size, m = int(label.max(initial=-1)) + 1, len(cells.first)
    if size < 2:
        raise InputError("a bootstrap of clusters needs at least two clusters among the votes that are fitted")
    row = np.concatenate([cells.index + k * m for k in range(3)])
    matrix = coo_array((cells.fine_votes.T.reshape(-1), (row, np.tile(label, 3))), shape=(3 * m, size)).tocsr()

    def sample(draws: int) -> np.ndarray:
        return (matrix @ rng.multinomial(size, np.full(size, 1 / size), size=draws).T.astype(np.float64)).reshape(3, m, draws)

    return sample


def _together(design: Design, z: np.ndarray, inverse: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Fits of many draws with one fixed Hessian: [draws, parameters], NaN where the iteration did not settle."""
    matrix, end = design.incidence, design.n_items + design.n_controls
    turned = matrix.T.tocsr()
    out = np.full((votes.shape[2], design.size), np.nan)
    active = np.arange(votes.shape[2])
    at = np.repeat(z[:, None], len(active), axis=1)
    last = np.full(len(active), np.inf)
    for _ in range(60):
        tau = at[-1] if design.model.learned else 0.0
        with np.errstate(all="ignore"):  # a threshold that left its range is NaN here and fitted alone
            by_d, by_tau = design.model.gradient(matrix @ at[:end], tau, *votes)
            gradient = turned @ by_d
            if design.model.learned:
                gradient = np.vstack([gradient, by_tau.sum(axis=0)])
            move = inverse @ (gradient + design.ridge[:, None] * at)
            at = at - move
        size = np.abs(move).max(axis=0)
        done = size <= _STILL
        if design.model.name == "rao_kupper":
            size = np.where(at[-1] > 0, size, np.nan)
            done &= at[-1] > 0
        out[active[done]] = at[:, done].T
        going = ~done & (size < 4 * last)
        if not going.any():
            break
        if not going.all():
            active, at, size, votes = active[going], at[:, going], size[going], votes[:, :, going]
        last = size
    return out


def _alone(design: Design, z: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The fit of one draw [3, m], of the largest part of each component that the draw holds together; NaN for the rest."""
    out = np.full(design.size, np.nan)
    items, keep, component = np.arange(design.n_items), votes.any(axis=0), design.component
    free = not design.ridge[: design.n_items].all()
    if free:
        found = connectivity(design.first, design.second, votes.T, design.n_items)
        largest = np.zeros(design.n_items, dtype=bool)
        for k in np.unique(design.component):
            members = np.flatnonzero(design.component == k)
            name, size = np.unique(found.group[members], return_counts=True)
            if size.max() > 1:
                largest[members[found.group[members] == name[np.argmax(size)]]] = True
        items = np.flatnonzero(largest)
        keep &= largest[design.first] & largest[design.second] & (found.group[design.first] == found.group[design.second])
        component = found.group[items]
        if not keep.any():
            return out
    number = np.zeros(design.n_items, dtype=np.int64)
    number[items] = np.arange(len(items))
    first, second = number[design.first[keep]], number[design.second[keep]]
    win, loss, tie = votes[:, keep]
    if design.model.learned and (not tie.any() or not (win.any() or loss.any())):
        return out
    if free and design.model.learned and not ties_are_bounded(first, second, votes[:, keep].T):
        return out
    rest = np.arange(design.n_items, design.size)
    position = np.concatenate([items, rest])
    part = replace(
        design, n_items=len(items), first=first, second=second, win=win, loss=loss, tie=tie, squares=np.zeros((len(win), 3)),
        x=design.x[keep], ridge=design.ridge[position], component=component,
    )  # fmt: skip
    try:
        fit = minimise(part, tolerance=1e-10)
    except np.linalg.LinAlgError:  # controls that this draw does not determine
        return out
    if not fit.converged:
        return out
    out[position] = fit.z
    if free:  # the mean of those that are left is that of the same items in the full fit
        for k in np.unique(component):
            members = items[component == k]
            out[members] += z[members].mean() - out[members].mean()
    return out


@dataclass(frozen=True)
class _Tree:
    """A spanning tree of pairs with results in both directions: while it holds in a draw, so does strong connectivity.

    The tree that is hardest to lose: each edge as many results in its weaker direction as possible. cells: sparse sums over the cells of
    each edge, those of turned orientation apart; whole: the tree spans every component of the design.
    """

    up: object
    down: object
    whole: bool
    both: np.ndarray  # a cell with wins and losses, which bounds the threshold of a tie model; empty if there is none
    learned: bool

    @classmethod
    def of(cls, design: Design) -> _Tree:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

        n, turned = design.n_items, design.first > design.second
        low, high = np.minimum(design.first, design.second), np.maximum(design.first, design.second)
        key, index = np.unique(low * n + high, return_inverse=True)
        index = index.reshape(-1)
        up = np.bincount(index, weights=np.where(turned, design.loss, design.win) + design.tie)
        down = np.bincount(index, weights=np.where(turned, design.win, design.loss) + design.tie)
        weak = np.minimum(up, down)
        good = weak > 0
        graph = coo_array((1 / weak[good], (key[good] // n, key[good] % n)), shape=(n, n)).tocsr()
        tree = minimum_spanning_tree(graph).tocoo()
        chosen = np.searchsorted(key, np.sort(tree.row.astype(np.int64) * n + tree.col))
        whole = connected_components(tree, directed=False)[0] == len(np.unique(design.component))
        edge = np.full(len(key), -1)
        edge[chosen] = np.arange(len(chosen))
        cell = np.flatnonzero(edge[index] >= 0)
        m = len(design.first)
        # columns: wins, then losses, then ties of all cells
        row = np.tile(edge[index[cell]], 2)
        one = np.ones(2 * len(cell))
        forward = np.concatenate([np.where(turned[cell], cell + m, cell), cell + 2 * m])
        backward = np.concatenate([np.where(turned[cell], cell, cell + m), cell + 2 * m])
        shape = (len(chosen), 3 * m)
        both = np.minimum(design.win, design.loss)
        best = np.argsort(-both, kind="stable")[:1]
        return cls(
            coo_array((one, (row, forward)), shape=shape).tocsr(), coo_array((one, (row, backward)), shape=shape).tocsr(),
            bool(whole), best[both[best] > 0], design.model.learned,
        )  # fmt: skip

    def holds(self, votes: np.ndarray) -> np.ndarray:
        """Draws [3, m, draws] that are certainly strongly connected (and determine the threshold): bool [draws]."""
        if not self.whole:
            return np.zeros(votes.shape[2], dtype=bool)
        flat = votes.reshape(-1, votes.shape[2])
        found = ((self.up @ flat) > 0).all(axis=0) & ((self.down @ flat) > 0).all(axis=0)  # type: ignore[operator]
        if self.learned:
            found &= votes[2].any(axis=0)
            found &= (votes[0][self.both] > 0).any(axis=0) & (votes[1][self.both] > 0).any(axis=0)
        return found
