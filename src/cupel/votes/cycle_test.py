"""Is there more cycle than noise explains: what no rating explains of counted votes, against its distribution under Bradley-Terry.

Votes of a perfectly transitive public go in circles too, by chance, and the more so the fewer there are. So they are compared with votes
simulated from the fitted Bradley-Terry model, as many on every pair, and fitted anew (a parametric bootstrap).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.votes.counts import PairCounts
from cupel.votes.cycles import Cyclicity, cyclicity
from cupel.votes.ranking import RankingModel


@dataclass(frozen=True)
class CycleTest:
    """Votes against one rating per item.

    p                       (1 + simulated misfits >= the observed one) / (1 + draws)
    misfit, expected_misfit sum over pairs of (wins - expected)^2 / variance under the fitted ratings, and its mean over simulated votes
    share, expected, high   cyclic share of `cycle_scores`, its mean and its upper 5 % point over simulated votes
    excess                  share - expected: how much more goes round than by chance
    items, pairs, independent, votes   what was compared: loops that could be seen (`independent`), decided votes (ties are left out)
    slot                    advantage of the first side in log-odds, which the null has too; None where it was not asked for
    draws, seed, ridge      of the simulation, and the penalty of the fitted strengths
    """

    p: float
    misfit: float
    expected_misfit: float
    share: float
    expected: float
    high: float
    excess: float
    items: int
    pairs: int
    independent: int
    votes: int
    slot: float | None
    draws: int
    seed: int
    ridge: float

    def recorded(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @property
    def words(self) -> str:
        """The finding as a sentence.

        >>> cycle_test(np.array([[0, 40, 10], [10, 0, 40], [40, 10, 0]]), draws=99).words.partition(":")[0]
        'Preferences go round more than chance explains'
        """
        if self.p <= 0.05:
            what = "Preferences go round more than chance explains: no single rating per item describes them"
        else:
            what = "No more cycle than chance explains: one rating per item is not contradicted by these votes"
        return f"{what} (cyclic share {self.share:.3f}, by chance {self.expected:.3f}; p = {self.p:.3g})."


def cycle_test(counts: PairCounts | np.ndarray, *, slot: bool = False, draws: int = 199, ridge: float = 0.1, seed: int = 0) -> CycleTest:
    """Test of Bradley-Terry against cycles. counts: `PairCounts` without weights, or wins [n, n], wins_ij how often i beat j.

    Null: votes of every pair (of every ordered pair with slot=True) drawn from the strengths fitted by `RankingModel(ties="drop",
    ridge=ridge, slot=slot)`. Statistic: Pearson's sum over pairs of (wins - expected)^2 / variance, strengths fitted anew to each draw:
    it keeps its level where a pair has one vote, which the cyclic share does not (fitted strengths lie too far apart, and simulated votes
    then look too transitive). The share is given with its simulated mean as the size of the effect. Ties are left out: given that a vote
    is decided, Bradley-Terry holds under Davidson's model of ties too.

    A small p says that no scalar with independent votes made these counts. That may be a real circle, and also judges who differ,
    strengths that change over time, or votes that depend on each other (by one person, on one prompt).

    InputError for weighted or negative counts, without a loop of compared pairs, and for fewer than 19 draws.

    >>> found = cycle_test(np.array([[0, 40, 10], [10, 0, 40], [40, 10, 0]]), draws=99)
    >>> round(found.share, 6), found.p, found.independent
    (1.0, 0.01, 1)
    >>> cycle_test(np.array([[0, 40, 45], [10, 0, 42], [5, 8, 0]]), draws=99).p > 0.05
    True
    """
    if draws < 19:
        raise InputError(f"{draws} draws cannot show a p of 0.05: give at least 19 (199 are usual)")
    cells = _cells(counts)
    observed = _wins(cells)
    found = cycle_scores(observed)
    if not found.independent:
        raise InputError(
            f"{found.pairs:,} compared pairs of {len(found.ratings):,} items form no loop, so no cycle can be seen: compare items with "
            "each other, not all with one"
        )
    model = RankingModel(ties="drop", both_bad="exclude", ridge=ridge, slot=slot, intervals="none")
    chance, advantage = _chance(model, cells)
    misfit = _misfit(cells, chance)
    rng = np.random.default_rng([seed, 19])
    misfits, shares = np.empty(draws), np.empty(draws)
    for k in range(draws):
        drawn = _drawn(cells, chance, rng)
        misfits[k] = _misfit(drawn, _chance(model, drawn)[0])
        shares[k] = cycle_scores(_wins(drawn), most=0).share
    return CycleTest(
        p=(1 + int((misfits >= misfit * (1 - 1e-9)).sum())) / (1 + draws), misfit=misfit, expected_misfit=float(misfits.mean()),
        share=found.share, expected=float(shares.mean()), high=float(np.quantile(shares, 0.95)),
        excess=found.share - float(shares.mean()), items=int((observed + observed.T).any(axis=1).sum()), pairs=found.pairs,
        independent=found.independent, votes=int(observed.sum()), slot=advantage if slot else None, draws=draws, seed=seed, ridge=ridge,
    )  # fmt: skip


def cycle_scores(wins: np.ndarray, *, most: int = 20) -> Cyclicity:
    """Cyclicity of counted wins [n, n]: scores log((wins_ij + 1/2) / (wins_ji + 1/2)) with weights 1 over their variance.

    The variance of such an empirical log-odds is about 1 / (wins_ij + 1/2) + 1 / (wins_ji + 1/2) (Haldane's and Anscombe's half votes).

    >>> round(cycle_scores(np.array([[0, 8, 9], [2, 0, 7], [1, 3, 0]])).share, 4)
    0.0013
    """
    up, down = wins + 0.5, wins.T + 0.5
    return cyclicity(np.log(up / down), np.where(wins + wins.T > 0, 1 / (1 / up + 1 / down), 0.0), most=most)


def _cells(counts: PairCounts | np.ndarray) -> PairCounts:
    """Counts per ordered pair, with only decided votes."""
    if isinstance(counts, PairCounts):
        made = counts.pooled()
        votes = made.votes
    else:
        wins = np.asarray(counts, dtype=np.float64)
        if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or len(wins) < 2:
            raise InputError(f"wins are an n x n matrix of at least 2 items, not one of shape {wins.shape}")
        if np.diag(wins).any():
            raise InputError(f"item {int(np.flatnonzero(np.diag(wins))[0])} won against itself: the diagonal of wins is 0")
        first, second = np.nonzero(np.triu(wins + wins.T, 1))
        votes = np.zeros((len(first), 5))
        votes[:, 0], votes[:, 1] = wins[first, second], wins[second, first]
        made = PairCounts(len(wins), first, second, votes, votes, int(np.nansum(votes)))
    wrong = ~(np.isfinite(votes) & (votes >= 0) & (votes == np.round(votes))).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{int(wrong.sum()):,} of {len(votes):,} pairs have counts that are no whole numbers of votes (first: items "
            f"{int(made.first[wrong][0])} and {int(made.second[wrong][0])}): count votes without weights, whose noise is known"
        )
    decided = votes[:, :2].any(axis=1)
    if not decided.any():
        raise InputError("no vote is decided: ties alone say nothing about cycles")
    votes = votes * np.array([1, 1, 0, 0, 0])
    return PairCounts(made.n_items, made.first[decided], made.second[decided], votes[decided], votes[decided], int(votes.sum()))


def _wins(cells: PairCounts) -> np.ndarray:
    """[n, n] how often i beat j."""
    wins = np.zeros((cells.n_items, cells.n_items))
    np.add.at(wins, (cells.first, cells.second), cells.votes[:, 0])
    np.add.at(wins, (cells.second, cells.first), cells.votes[:, 1])
    return wins


def _chance(model: RankingModel, cells: PairCounts) -> tuple[np.ndarray, float]:
    """Probability that the first item of each cell wins, under strengths fitted to the cells, and the advantage of the first side."""
    fit = model.fit(cells).result_
    advantage = float(fit.controls.value[0]) if model.slot else 0.0
    strength = np.nan_to_num(fit.scores.value)
    return 1 / (1 + np.exp(-(strength[cells.first] - strength[cells.second] + advantage))), advantage


def _drawn(cells: PairCounts, chance: np.ndarray, rng: np.random.Generator) -> PairCounts:
    """The same cells with their votes drawn anew."""
    n = cells.votes.sum(axis=1)
    votes = np.zeros_like(cells.votes)
    votes[:, 0] = rng.binomial(n.astype(np.int64), chance)
    votes[:, 1] = n - votes[:, 0]
    return PairCounts(cells.n_items, cells.first, cells.second, votes, votes, cells.n_votes)


def _misfit(cells: PairCounts, chance: np.ndarray) -> float:
    """Pearson's statistic over unordered pairs; the two orders of a pair, which the first side's advantage tells apart, are summed."""
    turned = cells.first > cells.second
    key = np.minimum(cells.first, cells.second) * cells.n_items + np.maximum(cells.first, cells.second)
    index = np.unique(key, return_inverse=True)[1].reshape(-1)
    n = cells.votes.sum(axis=1)
    over = np.bincount(index, weights=np.where(turned, -1, 1) * (cells.votes[:, 0] - n * chance))
    return float((over**2 / np.bincount(index, weights=n * chance * (1 - chance))).sum())
