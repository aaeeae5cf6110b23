"""Power: would this audit see label errors in these data at all? Errors are planted in copies of them and looked for.

In each copy a known set of labels is reversed and suspicion is computed again (ridges stay as they were tuned on the data). The raw area
under the curve, planted rows against the others, understates what the audit sees where the data hold errors already: with a share e of
labels wrong, a planted flip repairs one in e of the rows it hits, and a share e of the rows it is compared with is wrong too,

    raw = (1 - 2 e) auc + e,        so        auc = (raw - e) / (1 - 2 e),

rising in e where raw > 1/2. e is not known from one vote per pair, but a part of it is: edge-disjoint cycles (`cupel.votes.lower_bound`)
must each hold an error if true preferences are transitive. Correcting by that part alone errs on the low side where errors hit rows
alike; where they gather on close calls it can err on the high side, so the raw area is always reported beside. Without recurring
responses the part is 0 and auc is raw. Pure coin flips have raw = 1/2, which no e can move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cupel.audit.areas import area, areas
from cupel.audit.combine import fit_logits
from cupel.audit.features import Features
from cupel.audit.problem import Problem, prepare
from cupel.audit.suspicion import parts_of
from cupel.audit.types import Power
from cupel.errors import InputError
from cupel.records.schema import Votes
from cupel.votes.intervals import expanded_percentile
from cupel.votes.lower_bound import lower_bound

#: cannot tell: lower 95 % end below the first, or interval wider than the second
LEAST_AUC = 0.65
WIDEST = 0.30
#: comparisons on which power is measured; of larger data whole groups (or pairs) are drawn
MAX_ROWS = 20_000
#: resamplings of groups
RESAMPLES = 400
SHARES = (0.05, 0.10)


def measure_power(
    votes: Votes, features: Features, *, rate: float = 0.2, seed: int, draws: int = 6, progress: Callable[[int, int], None] | None = None
) -> Power:
    """How well planted flips are found in copies of these data; `verdict` is what the audit may claim.

    rate: share of the votes with a preference that is reversed, 0 < rate < 1/2. Symmetric plants hit rows at random; length-biased
    ones only votes for the shorter response, as many as there are up to `rate`. draws: copies of each kind. auc is corrected for
    errors that are certainly in the data already (see the module), auc_low and auc_high its 95 % interval for one such set of errors
    (groups resampled, one draw taken in each resample); caught_at and precision_at are raw: the share of the planted flips that is
    among the most suspicious 5 and 10 % of rows, and the share of these rows that was planted.
    "cannot_tell" if and only if auc_low < .65, or the interval is wider than .30, or too few pairs exist to fit anything.
    n: rows used. raw_auc: before the correction. `length_biased` holds raw figures: auc, planted_rate (lower than `rate` where too few
    votes favour the shorter side), caught_0.05, precision_0.05, caught_0.10, precision_0.10.
    progress: called with (copies done, copies in all). Raises InputError for a rate outside (0, 1/2) or fewer than one draw.
    """
    if not 0 < rate < 0.5:
        raise InputError(f"a planted rate lies between 0 and 1/2, not {rate!r} (0.2 is usual)")
    if draws < 1:
        raise InputError(f"at least one draw is needed, not {draws}")
    rows = _part(votes, seed)
    votes, features = votes.take(rows), features.take(rows)
    problem = prepare(votes, features, seed=seed)
    if problem is None:
        nothing = {f"{share:.2f}": float("nan") for share in SHARES}
        return Power(float("nan"), float("nan"), float("nan"), rate, nothing, nothing, "cannot_tell", {}, len(votes))
    scorer = _Scorer.fit(problem)
    unit = problem.pairs.unit[problem.pairs.row]
    total, fewer = draws + max(1, draws // 2), max(1, draws // 2)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, total)

    symmetric = _Planted.measure(problem, scorer, unit, rate, np.random.default_rng([seed, 1]), draws, tell, longer=None)
    longer = np.sign(features.length_first - features.length_second)
    biased = _Planted.measure(
        problem, scorer, unit, rate, np.random.default_rng([seed, 2]), fewer, lambda k: tell(draws + k), longer=longer
    )
    certain = lower_bound(*votes.node, votes.sign)
    e = certain.cycles / max(certain.n, 1)
    auc, low, high = (_corrected(value, e) for value in symmetric.interval(seed))
    sees = low >= LEAST_AUC and high - low <= WIDEST
    extra = {"auc": biased.auc, "planted_rate": biased.planted_rate}
    for share in SHARES:
        extra[f"caught_{share:.2f}"] = biased.caught[share]
        extra[f"precision_{share:.2f}"] = biased.precision[share]
    return Power(
        auc=auc, auc_low=low, auc_high=high, planted_rate=rate,
        caught_at={f"{share:.2f}": symmetric.caught[share] for share in SHARES},
        precision_at={f"{share:.2f}": symmetric.precision[share] for share in SHARES},
        verdict="can_see" if sees else "cannot_tell", length_biased=extra, n=len(votes), raw_auc=symmetric.auc,
        cyclic_errors=e,
    )  # fmt: skip


def _corrected(raw: float, e: float) -> float:
    """(raw - e) / (1 - 2 e) where raw > 1/2, at most 1; a raw area of 1/2 or less, or an unknown one, stays."""
    return float(min(1.0, (raw - e) / (1 - 2 * e))) if raw > 0.5 else float(raw)


def _part(votes: Votes, seed: int) -> np.ndarray:
    """At most about `MAX_ROWS` rows: whole groups in seeded order, whole pairs where one group is larger than that."""
    n = len(votes)
    if n <= MAX_ROWS:
        return np.arange(n)
    rng = np.random.default_rng([seed, 3])
    unit = votes.group if np.bincount(votes.group).max() <= MAX_ROWS // 4 else votes.pair
    code, index, size = np.unique(unit, return_inverse=True, return_counts=True)
    order = rng.permutation(len(code))
    kept = np.zeros(len(code), dtype=bool)
    kept[order[np.cumsum(size[order]) <= MAX_ROWS]] = True
    return np.flatnonzero(kept[index.reshape(-1)])


@dataclass(frozen=True)
class _Scorer:
    """Suspicion for any labels of one problem, with the ridges that its recorded labels chose."""

    problem: Problem
    solver: list[np.ndarray]
    graph_ridge: float | None

    @classmethod
    def fit(cls, problem: Problem) -> _Scorer:
        t = problem.pairs.labels(problem.votes)[0]
        solver = problem.content.solver(problem.content.nested(t).ridges)
        ridges = problem.graph_ridges if problem.graph.used.any() else ()
        if not ridges:
            return cls(problem, solver, None)
        content = _heads(problem, solver, t)
        losses = [fit_logits(_parts(problem, content, t, ridge), (1 + t) / 2, problem.w)[1] for ridge in ridges]
        return cls(problem, solver, ridges[int(np.argmin(losses))])

    def margin(self, sign: np.ndarray) -> np.ndarray:
        """Margins oriented to `sign` int8 [n], out of fold; the weights of the parts are learned on other folds."""
        problem = self.problem
        pairs, fold = problem.pairs, problem.fold
        t = pairs.labels(problem.votes, sign)[0]
        parts = _parts(problem, _heads(problem, self.solver, t), t, self.graph_ridge)
        others = problem.others(sign)
        row_fold, oriented = fold[pairs.row], sign * pairs.turn
        p = (1 + t) / 2
        z = np.zeros(len(sign))
        for k in range(len(self.solver)):
            train = fold != k
            joint = parts @ fit_logits(parts[train], p[train], problem.w[train])[0]
            rows = row_fold == k
            if others.any():
                teach = (row_fold != k) & (sign != 0)
                both = np.stack([joint[pairs.row], others], axis=1)
                z[rows] = both[rows] @ fit_logits(both[teach], (oriented[teach] + 1) / 2, np.ones(int(teach.sum())))[0]
            else:
                z[rows] = joint[pairs.row[rows]]
        return oriented * z


def _heads(problem: Problem, solver: list[np.ndarray], t: np.ndarray) -> np.ndarray:
    """Content differences of all pairs by the head of each left-out fold: float64 [P, K]."""
    moments = problem.content.moments(t)
    total = np.sum(moments, axis=0)
    theta = np.stack([matrix @ (total - moment) for matrix, moment in zip(solver, moments, strict=True)], axis=1)
    return (problem.x @ theta.astype(np.float32)).astype(np.float64)


def _parts(problem: Problem, heads: np.ndarray, t: np.ndarray, ridge: float | None) -> np.ndarray:
    """What the combination weighs, each pair by the head without its fold."""
    at = np.arange(len(t))
    content = heads[at, problem.fold]
    if ridge is None:
        return content[:, None]
    smooth = problem.graph.left_out(heads, ridge)[at, problem.fold]
    return parts_of(content, problem.graph.left_out(t, ridge), smooth, problem.graph.used)


@dataclass(frozen=True)
class _Planted:
    """Figures over draws, and what the bootstrap needs: area per (resample, draw) is computed from sorted rows."""

    auc: float
    planted_rate: float
    caught: dict[float, float]
    precision: dict[float, float]
    unit: np.ndarray  # [n'] of the rows with a preference
    scores: list[np.ndarray]  # suspicion of these rows, per draw
    masks: list[np.ndarray]  # planted, per draw

    @classmethod
    def measure(
        cls, problem: Problem, scorer: _Scorer, unit: np.ndarray, rate: float, rng: np.random.Generator, draws: int,
        tell: Callable[[int], None], *, longer: np.ndarray | None,
    ) -> _Planted:  # fmt: skip
        sign = problem.votes.sign
        decided = np.flatnonzero(sign != 0)
        order = _by_content(problem)
        order = order[sign[order] != 0]
        able = order if longer is None else order[longer[order] == -sign[order]]
        size = min(round(rate * len(decided)), len(able))
        scores, masks = [], []
        for k in range(draws):
            tell(k)
            planted = np.zeros(len(sign), dtype=bool)
            planted[rng.choice(able, size=size, replace=False)] = True
            margin = scorer.margin(np.where(planted, -sign, sign))
            scores.append(-margin[decided])
            masks.append(planted[decided])
        tell(draws)
        caught, precision = {}, {}
        for share in SHARES:
            count = max(1, round(share * len(decided)))
            found = [mask[np.argsort(-score, kind="stable")[:count]].sum() for score, mask in zip(scores, masks, strict=True)]
            caught[share] = float(np.mean(found) / size) if size else float("nan")
            precision[share] = float(np.mean(found) / count)
        aucs = [area(score, mask) for score, mask in zip(scores, masks, strict=True)]
        return cls(float(np.mean(aucs)), size / max(len(decided), 1), caught, precision, unit[decided], scores, masks)

    def interval(self, seed: int) -> tuple[float, float, float]:
        """(area, low, high): 95 % by resampling groups, with one draw at random in each resample."""
        code = np.unique(self.unit, return_inverse=True)[1].reshape(-1)
        groups = int(code.max()) + 1
        rng = np.random.default_rng([seed, 4])
        counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)
        drawn = np.stack([areas(score, mask, code, counts) for score, mask in zip(self.scores, self.masks, strict=True)], axis=1)
        values = drawn[np.arange(RESAMPLES), rng.integers(0, drawn.shape[1], size=RESAMPLES)]
        found = expanded_percentile(self.auc, values, groups, clip=(0.0, 1.0))
        return self.auc, found.low, found.high


def _by_content(problem: Problem) -> np.ndarray:
    """Rows in an order that depends on the texts (and on the given order only among votes on one pair)."""
    return np.argsort(problem.pairs.row, kind="stable")
