"""The ranking model: options, the fit from counts, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from cupel.errors import InputError
from cupel.votes.counts import PairCounts
from cupel.votes.intervals import expanded_percentile, normal_quantile
from cupel.votes.ranking.bootstrap import bootstrap
from cupel.votes.ranking.cells import Cells, cells_of
from cupel.votes.ranking.covariance import covariance, n_clusters
from cupel.votes.ranking.design import Design
from cupel.votes.ranking.graph import Connectivity, connectivity, ties_are_bounded
from cupel.votes.ranking.newton import Optimum, hessian, minimise, typical_curvature
from cupel.votes.ranking.result import Estimates, Ranking
from cupel.votes.ranking.ties import TIE_MODELS

Ties = Literal["half", "drop", "davidson", "rao_kupper"]
BothBad = Literal["tie", "exclude"]
Intervals = Literal["sandwich", "cluster", "fisher", "bootstrap", "none"]
Resample = Literal["votes", "poisson", "cluster"]

#: with more parameters no covariance is formed: inverting it would take minutes
COVARIANCE_SIZE = 3_000
#: bootstrap draws without a score that are worth a warning
_MANY_MISSING = 0.05
#: a control that keeps less than this of its curvature once strengths are fitted is determined by them
_COLLINEAR = 1e-9


@dataclass
class RankingModel:
    """Bradley-Terry strengths of items, with ties, controls, a ridge, and intervals, from counts of votes.

    Of items i and j with strengths s, d = s_i - s_j + x . beta is the log-odds that i wins; minimised is

        sum_votes -log P(outcome | d)  +  ridge/2 |s|^2  +  control_ridge/2 |beta|^2

    Bradley & Terry 1952, Biometrika 39. ridge = 0 is maximum likelihood: where the comparisons do not hold all items together it is
    infinite for some, and then scores are given within the groups that are held together, NaN to items alone, with the reason in
    `warnings`. A positive ridge makes every score finite.

    ties: "half" a win and half a loss; "drop" leaves them out; "davidson" and "rao_kupper" model them with a threshold
    both_bad: "both bad" counts as a "tie", or "exclude"
    pair_floor: weight each vote by 1 / max(votes on its pair, pair_floor); None for no weights
    slot: fit the advantage of the first side, too
    intervals: "sandwich" (robust to a wrong model), "cluster" (and to dependent votes of an annotator or a prompt; the counts carry
    one or two clusters; Student's t with one degree less than the fewest clusters), "fisher", "bootstrap" (percentiles), "none"
    resample, draws, seed: of the bootstrap: single "votes", "poisson" (the same up to 1/n), or whole "cluster"s

    `fit` raises InputError for unknown options, counts without a usable vote, controls that are determined by the items or
    separate outcomes, a tie model without ties or whose threshold is infinite, and intervals for more than 3,000 parameters.

    >>> from cupel.votes.counts import count_votes
    >>> counts = count_votes([0] * 6 + [1] * 4, [1] * 6 + [2] * 4, [0, 0, 0, 0, 1, 2, 0, 0, 1, 2], n_items=3)
    >>> ranking = RankingModel().fit(counts).result_
    >>> ranking.scores.value.round(3).tolist(), ranking.ranks().tolist(), ranking.converged
    ([0.903, -0.196, -0.707], [1, 1, 1], True)
    >>> ranking.elo().value.round(1).tolist(), round(ranking.contrast(0, 2).se, 2)
    ([1156.8, 966.0, 877.2], 1.21)
    """

    ties: Ties = "half"
    both_bad: BothBad = "tie"
    ridge: float = 0.0
    control_ridge: float = 0.0
    pair_floor: float | None = None
    slot: bool = False
    intervals: Intervals = "sandwich"
    level: float = 0.95
    resample: Resample = "votes"
    draws: int = 1000
    seed: int = 0
    result_: Ranking = field(init=False, repr=False, compare=False)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Options by name, as scikit-learn asks for them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def set_params(self, **options: Any) -> RankingModel:
        """Set options by name; InputError for an unknown one."""
        if unknown := sorted(set(options) - set(self.get_params())):
            raise InputError(f"no such option: {', '.join(unknown)}; there are {', '.join(self.get_params())}")
        for name, value in options.items():
            setattr(self, name, value)
        return self

    def fit(self, counts: PairCounts) -> RankingModel:
        """Fit to counts; the result is `result_`."""
        self._check()
        weighted = counts if self.pair_floor is None else counts.pair_weighted(self.pair_floor)
        cells = cells_of(weighted, ties=self.ties, both_bad=self.both_bad, slot=self.slot)
        if not len(cells.first):
            raise InputError(f"none of {counts.n_votes:,} votes can be used with ties={self.ties!r} and both_bad={self.both_bad!r}")
        found = connectivity(cells.first, cells.second, cells.votes, cells.n_items)
        group = found.component if self.ridge > 0 else found.group
        keep = group[cells.first] == group[cells.second]
        if not keep.any():
            raise InputError(
                "no score has a finite maximum likelihood: no two items beat or tied each other in both directions, directly or over "
                f"others ({'; '.join(found.sentences(False))}); set a ridge (0.1 to 1), or collect more votes"
            )
        items = np.unique(np.concatenate([cells.first[keep], cells.second[keep]]))
        part = cells.part(keep, items)
        design = self._design(part, group[items])
        if self.ridge == 0 and design.model.learned and not ties_are_bounded(part.first, part.second, part.votes):
            raise InputError(
                f"the threshold of ties={self.ties!r} has no finite maximum likelihood: no circle of results has more wins "
                'than ties; use ties="half", or set a ridge'
            )
        if self.control_ridge == 0 and part.x.shape[1]:
            _refuse_collinear(design, part.names, items)
        fit = minimise(design)
        if self.control_ridge == 0 and part.x.shape[1]:
            _refuse_separation(design, fit, part.names)
        self.result_ = self._result(counts, part, design, fit, items, group, found)
        return self

    def _check(self) -> None:
        for name, allowed in (("ties", Ties), ("both_bad", BothBad), ("intervals", Intervals), ("resample", Resample)):
            if getattr(self, name) not in get_args(allowed):
                raise InputError(f"{name} is one of {', '.join(get_args(allowed))}, not {getattr(self, name)!r}")
        for name in ("ridge", "control_ridge"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} is 0 (maximum likelihood) or a positive number, not {getattr(self, name)!r}")
        if self.intervals == "bootstrap" and self.draws < 2:
            raise InputError(f"a bootstrap needs at least 2 draws, not {self.draws!r} (1000 are usual)")
        normal_quantile(self.level)

    def _design(self, part: Cells, component: np.ndarray) -> Design:
        model, p = TIE_MODELS[self.ties], part.x.shape[1]
        win, loss, tie = (part.votes[:, k] for k in range(3))
        if model.learned and (not tie.any() or not (win.any() or loss.any())):
            what = "no ties" if not tie.any() else "nothing but ties"
            raise InputError(f'among the votes that can be used are {what}: ties={self.ties!r} has nothing to fit; use ties="half"')
        ridge = np.concatenate([np.full(part.n_items, self.ridge), np.full(p, self.control_ridge), np.zeros(int(model.learned))])
        component = np.unique(component, return_inverse=True)[1].reshape(-1)
        design = Design(part.n_items, part.first, part.second, win, loss, tie, part.squares, part.x, model, ridge, component)
        if design.size > COVARIANCE_SIZE and (p or self.intervals != "none"):
            raise InputError(
                f'{design.size:,} parameters are more than {COVARIANCE_SIZE:,}: fit them without controls and with intervals="none", '
                "or rank fewer items"
            )
        return design

    def _result(
        self, counts: PairCounts, part: Cells, design: Design, fit: Optimum, items: np.ndarray, group: np.ndarray, found: Connectivity
    ) -> Ranking:
        warnings = list(found.sentences(self.ridge > 0))
        if not fit.converged:
            warnings.append(
                f"the fit did not converge: largest gradient {np.abs(fit.gradient).max():.3g} after {fit.iterations} iterations"
            )
        quantile, matrix, low, high = normal_quantile(self.level), None, np.full(design.size, np.nan), np.full(design.size, np.nan)
        missing = np.zeros(design.size)
        if self.intervals == "bootstrap":
            drawn = bootstrap(design, fit.z, part, draws=self.draws, seed=self.seed, resample=self.resample)
            missing = np.isnan(drawn).mean(axis=0)
            matrix, low, high = _from_draws(drawn, fit.z, self.level, n_clusters(part) if self.resample == "cluster" else 0)
            if (many := int((missing[: design.n_items] > _MANY_MISSING).sum())) > 0:
                worst = items[int(np.argmax(missing[: design.n_items]))]
                warnings.append(
                    f"{many:,} items have no finite score in more than 5 % of bootstrap draws (most: item {worst}, {missing.max():.0%}): "
                    "their intervals are those of the other draws, and too narrow"
                )
        elif self.intervals != "none":
            matrix = covariance(design, fit.z, self.intervals, part)
            if self.intervals == "cluster":
                from scipy.special import stdtrit

                quantile = float(stdtrit(n_clusters(part) - 1, 0.5 + self.level / 2))
            half = quantile * np.sqrt(np.maximum(np.diag(matrix), 0))
            low, high = fit.z - half, fit.z + half
        se = np.full(design.size, np.nan) if matrix is None else np.sqrt(np.maximum(np.diag(matrix), 0))
        n, k = design.n_items, counts.n_items
        own = slice(n, n + design.n_controls)

        def spread(values: np.ndarray, fill: float = np.nan) -> np.ndarray:
            out = np.full(k, fill)
            out[items] = values[:n]
            return out

        whole = None
        if matrix is not None:
            whole = np.full((k, k), np.nan)
            whole[np.ix_(items, items)] = matrix[:n, :n]
        threshold = None
        if design.model.learned:
            threshold = Estimates(fit.z[-1:], se[-1:], low[-1:], high[-1:], ("eta",))
            if self.ties == "davidson":  # nu = e^tau: interval ends by the same map, its standard error by the delta method
                nu = np.exp(fit.z[-1:])
                threshold = Estimates(nu, nu * se[-1:], np.exp(low[-1:]), np.exp(high[-1:]), ("nu",))
        total = counts.votes.sum(axis=0)
        return Ranking(
            scores=Estimates(spread(fit.z), spread(se), spread(low), spread(high)), covariance=whole,
            controls=Estimates(fit.z[own], se[own], low[own], high[own], part.names), threshold=threshold,
            group=group, connectivity=found, results=counts.per_item(), shares=total / max(float(total.sum()), 1e-300),
            n_votes=counts.n_votes, used=float(part.votes.sum()), log_likelihood=-design.likelihood(fit.z),
            gradient=float(np.abs(fit.gradient).max()), converged=fit.converged, iterations=fit.iterations, level=self.level,
            quantile=quantile, intervals=self.intervals, ties=self.ties, ridge=self.ridge, missing=spread(missing, 1.0),
            warnings=tuple(warnings),
        )  # fmt: skip


def _from_draws(drawn: np.ndarray, z: np.ndarray, level: float, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(covariance, low, high) of bootstrap draws; percentiles, expanded for few clusters."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a parameter without two draws has no spread: NaN, and said so
        low, high = np.nanquantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    there = ~np.isnan(drawn)
    filled = np.where(there, drawn - z, 0.0)
    n = there.T.astype(np.float64) @ there
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (filled.T @ there) / n  # mean of one parameter over the draws that have the other
        matrix = np.where(n > 1, (filled.T @ filled - n * mean * mean.T) / (n - 1), np.nan)
    if groups:
        ends = [expanded_percentile(float(z[k]), drawn[:, k], groups, level) for k in range(len(z))]
        low, high = np.array([e.low for e in ends]), np.array([e.high for e in ends])
    return matrix, low, high


def _controls_curvature(design: Design, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(curvature of the controls left once all else is fitted [p, p], before [p], what else would replace them [rest, p])."""
    full = hessian(design, z)
    full = full + typical_curvature(full, design) * design.shifts
    controls = np.arange(design.n_items, design.n_items + design.n_controls)
    rest = np.setdiff1d(np.arange(design.size), controls)
    swap = np.linalg.solve(full[np.ix_(rest, rest)], full[np.ix_(rest, controls)])
    inner = full[np.ix_(controls, controls)]
    return inner - full[np.ix_(controls, rest)] @ swap, np.diag(inner), swap


def _refuse_collinear(design: Design, names: tuple[str, ...], items: np.ndarray) -> None:
    left, before, swap = _controls_curvature(design, design.start())
    if not (before > 0).all():
        name = names[int(np.argmin(before))]
        raise InputError(f"the control {name!r} is 0 in every vote that can be used; leave it out")
    scale = np.sqrt(before)
    values, vectors = np.linalg.eigh(left / np.outer(scale, scale))
    if values[0] < _COLLINEAR:
        direction = vectors[:, 0] / scale
        involved = [names[k] for k in np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3)]
        replaced = swap[: design.n_items] @ direction
        which = int(np.argmax(np.abs(replaced - np.median(replaced))))
        other = f" and the strength of item {items[which]}" if np.abs(replaced).max() * scale.max() > 1e-6 else ""
        raise InputError(
            f"the effects of {', '.join(map(repr, involved))}{other} cannot be told apart: one is a sum of the others in every vote; "
            "leave a control out, or set control_ridge"
        )


def _refuse_separation(design: Design, fit: Optimum, names: tuple[str, ...]) -> None:
    before = _controls_curvature(design, design.start())[0]
    share = np.diag(_controls_curvature(design, fit.z)[0]) / np.diag(before)
    if not fit.converged or share.min() < 1e-7:
        raise InputError(
            f"the control {names[int(np.argmin(share))]!r} separates the outcomes, so its effect has no finite maximum likelihood; "
            "set control_ridge (1 is usual), or leave it out"
        )
