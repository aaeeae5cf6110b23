"""From scores to numbers: cells of hits and counts, the suite's weighting, and intervals by resampling prompts within subsets.

Every reported number is a weighted sum of ratios hits / counts over cells. Groups (prompts) are resampled within strata, a stratum being
the groups whose first subset by name is the same: a prompt that occurs in several subsets is drawn as one. Of G groups G - 1 are drawn
and counted G / (G - 1) times, so that the variance of the draws is that of the sample (Rao & Wu 1988, JASA 83), and the percentiles'
distances from the estimate are multiplied by t / z at groups - strata degrees of freedom. A stratum of one group is not resampled. All
runs share the draws, so differences are paired.

A run may be several training seeds: its numbers are means over them, and what a choice of seeds adds to the variance (analysis of
variance of groups crossed with seeds, within strata) widens the intervals, as `cupel.evaluate.crossed` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.crossed import SeedVariance, seed_variances, widened
from cupel.evaluate.outside import Outside
from cupel.evaluate.paired import Share
from cupel.evaluate.suites.items import Item, Requests, Row, Scored, Suite
from cupel.votes.intervals import normal_quantile, wilson

LEVEL = 0.95
#: at most this many counts of drawn groups are held in memory at once
AT_ONCE = 1_000_000


@dataclass(frozen=True)
class RowResult:
    """One reported number of all runs: accuracy {run: Share}; length_only: of the longer response; difference {run: Share} to the first
    run, over_length {run: Share} to the longer response. n counts items, groups prompts."""

    name: str
    level: str
    at: tuple[str, int, int] | None
    n: int
    groups: int
    accuracy: Mapping[str, Share]
    length_only: Share
    difference: Mapping[str, Share]
    over_length: Mapping[str, Share]

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in evaluation.json."""
        shares = {
            key: {name: share.to_json() for name, share in getattr(self, key).items()} for key in ("accuracy", "difference", "over_length")
        }
        return {
            "name": self.name, "level": self.level, "at": self.at, "n": self.n, "groups": self.groups, **shares,
            "length_only": self.length_only.to_json(),
        }  # fmt: skip


@dataclass(frozen=True)
class SuiteResult:
    """What runs score on a suite; the first row is the headline.

    to_best  {run: Share} of the headline, each other run minus the highest; the highest is found on the same prompts, so it looks
             further ahead than it is
    tied     share of (right, wrong) comparisons with equal scores
    training_seeds  how many models each run is; its numbers are means over them
    outside  are the responses like those a run was trained on, where its folder says (`cupel.evaluate.outside`)
    """

    suite: str
    description: str
    weighting: str
    ties: str
    axes: tuple[str, ...]
    names: tuple[str, ...]
    n: int
    requests: int
    rows: tuple[RowResult, ...]
    to_best: Mapping[str, Share]
    tied: Mapping[str, float]
    notes: tuple[str, ...]
    seed: int
    draws: int
    training_seeds: Mapping[str, int] = field(default_factory=dict)
    outside: Mapping[str, Outside] = field(default_factory=dict)

    def row(self, name: str) -> RowResult:
        """The row of a name. KeyError where there is none."""
        return {row.name: row for row in self.rows}[name]

    @property
    def ranking(self) -> list[str]:
        """The runs by their headline score, best first; among equal ones in the order given."""
        found = {name: share.estimate for name, share in self.rows[0].accuracy.items()}
        score = {name: -1.0 if estimate is None else estimate for name, estimate in found.items()}
        return sorted(self.names, key=lambda name: -score[name])

    @property
    def level_with_best(self) -> list[str]:
        """The runs that cannot be told apart from the highest, by their score."""
        return [name for name in self.ranking if name in self.to_best and not decided(self.to_best[name])]

    def to_json(self) -> dict[str, Any]:
        """What `evaluation.json` holds."""
        verdicts = {name: verdict(share, self.names[0]) for name, share in self.rows[0].difference.items()}
        return {
            "suite": self.suite, "description": self.description, "weighting": self.weighting, "equal_scores": self.ties,
            "axes": list(self.axes), "models": list(self.names), "ranking": self.ranking, "level_with_best": self.level_with_best,
            "to_best": {name: share.to_json() for name, share in self.to_best.items()}, "verdicts": verdicts, "n": self.n,
            "requests": self.requests, "rows": [row.to_json() for row in self.rows], "tied": dict(self.tied), "notes": list(self.notes),
            "seed": self.seed, "draws": self.draws, "level": LEVEL, "training_seeds": dict(self.training_seeds),
            "outside": {name: found.to_json() for name, found in self.outside.items()},
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The result in words, one fact a line: headline and sections (subsets where there are none); the page has the rest."""
        out = [f"{self.suite}: {self.n:,} items, {self.requests:,} different (prompt, response) to score."]
        out += [f"{name}: the mean over {count} training seeds." for name, count in self.training_seeds.items() if count > 1]
        second = "section" if any(row.level == "section" for row in self.rows) else "subset"
        for row in self.rows:
            if row.level in ("overall", second):
                out += [f"{row.name}, {name}: {share}" for name, share in row.accuracy.items()]
                out.append(f"{row.name}, the longer response: {row.length_only}")
        for name, share in self.rows[0].difference.items():
            out.append(f"{name} minus {self.names[0]}, {self.rows[0].name}: {share}: {verdict(share, self.names[0])}")
        out += [f"{name}: {line}" for name, found in self.outside.items() for line in found.words]
        return [*out, *self.notes]


def verdict(difference: Share, first: str) -> str:
    """A paired difference to a run in words.

    >>> verdict(Share(0.02, -0.01, 0.05, 100, 100), "a"), verdict(Share(0.04, 0.01, 0.07, 100, 100), "a")
    ('cannot be told apart from a', 'better than a')
    """
    if not decided(difference):
        return f"cannot be told apart from {first}"
    return f"better than {first}" if (difference.estimate or 0) > 0 else f"worse than {first}"


def decided(difference: Share) -> bool:
    """Whether there is an interval and it leaves out 0."""
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high


def summarise(
    suite: Suite, items: Sequence[Item], requests: Requests, scores: Mapping[str, np.ndarray], *, seed: int = 0, draws: int = 2000
) -> SuiteResult:
    """The suite's numbers of each run, from one score per request: float64 [number of requests], or [training seeds, number of requests].

    Differences pair the k-th seeds of two runs that have as many; otherwise seeds are independent. The longer response, by number of
    characters, is scored beside the runs. InputError for scores of another length or not finite.
    """
    runs = {name: _checked(name, values, requests) for name, values in scores.items()}
    table = _Table.of(suite, items, requests, [*runs.values(), np.array([[len(response) for response in requests.responses]], np.float64)])
    counts: dict[str, int] = {}
    for item in items:
        counts[item.subset] = counts.get(item.subset, 0) + 1
    rows, notes = suite.rows(counts)
    lonely = [name for name, size in zip(table.strata, table.sizes, strict=True) if size == 1]
    if lonely:
        notes.append(f"One prompt only, so nothing says how prompts differ: {', '.join(lonely)}. Wider intervals would be right with more.")
    drawn = table.draw(seed, draws)
    found = tuple(_result(row, table, drawn, list(runs)) for row in rows)
    to_best = _to_best(rows[0], table, drawn, list(runs), found[0])
    tied = {name: float(np.mean([_tied(requests, values) for values in several])) for name, several in runs.items()}
    return SuiteResult(
        suite.name, suite.description, suite.weighting, suite.ties, suite.axes, tuple(runs), len(items), len(requests), found, to_best,
        tied, tuple(notes), seed, draws, {name: len(several) for name, several in runs.items()},
    )  # fmt: skip


def _checked(name: str, values: np.ndarray, requests: Requests) -> np.ndarray:
    """float64 [seeds, number of requests]."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim not in (1, 2) or not found.size or found.shape[-1] != len(requests):
        raise InputError(
            f"{name}: {len(requests):,} scores are needed, one for each (prompt, response), not an array of shape {found.shape}"
        )
    found = np.atleast_2d(found)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        which, first = bad[0]
        raise InputError(
            f"{name}: {len(bad):,} of {found.size:,} scores are not finite (first: {found[which, first]} for the prompt "
            f"{requests.prompts[first][:60]!r}); a response without a score cannot be ranked"
        )
    return found


def _tied(requests: Requests, values: np.ndarray) -> float:
    equal = [values[right][:, None] == values[wrong][None, :] for right, wrong in zip(requests.right, requests.wrong, strict=True)]
    return float(sum(int(e.sum()) for e in equal) / sum(e.size for e in equal))


@dataclass(frozen=True)
class _Table:
    """Hits [seeds, groups, cells] of each run, counts [groups, cells]; the stratum of each group; the subsets each group has items of."""

    cells: dict[str, int]
    hits: list[np.ndarray]
    counts: np.ndarray
    stratum: np.ndarray
    strata: list[str]
    sizes: np.ndarray
    members: list[dict[str, int]]

    @classmethod
    def of(cls, suite: Suite, items: Sequence[Item], requests: Requests, runs: Sequence[np.ndarray]) -> _Table:
        inside: dict[str, list[int]] = {}
        for i, item in enumerate(items):
            inside.setdefault(item.group, []).append(i)
        order = sorted(inside)
        found = [
            [
                suite.cells([Scored(items[i], values[requests.right[i]], values[requests.wrong[i]]) for i in inside[group]])
                for group in order
            ]
            for several in runs
            for values in several
        ]
        cells = {name: k for k, name in enumerate(sorted({cell for held in found[0] for cell in held}))}
        hits, counts = np.zeros((len(found), len(order), len(cells))), np.zeros((len(order), len(cells)))
        for r, per_group in enumerate(found):
            for g, named in enumerate(per_group):
                for cell, (hit, count) in named.items():
                    hits[r, g, cells[cell]] = hit
                    counts[g, cells[cell]] = count
        members: list[dict[str, int]] = []
        for group in order:
            held: dict[str, int] = {}
            for i in inside[group]:
                held[items[i].subset] = held.get(items[i].subset, 0) + 1
            members.append(held)
        strata, stratum, sizes = np.unique([min(held) for held in members], return_inverse=True, return_counts=True)
        by_run = np.split(hits, np.cumsum([len(several) for several in runs])[:-1])
        return cls(cells, by_run, counts, stratum.reshape(-1), strata.tolist(), sizes, members)

    def draw(self, seed: int, draws: int) -> np.ndarray:
        """Ratios of each run and cell, the estimate before the draws: float64 [1 + draws, runs, cells], NaN where nothing was drawn."""
        runs, width = len(self.hits), self.counts.shape[1]
        flat = np.concatenate([self.counts, *(several.mean(axis=0) for several in self.hits)], axis=1)  # [groups, (1 + runs) * cells]
        sums = np.zeros((1 + draws, flat.shape[1]))
        for s, size in enumerate(self.sizes):
            rows = flat[self.stratum == s]
            whole = rows.sum(axis=0)
            sums[0] += whole
            sums[1:] += whole if size == 1 else _resampled(rows, np.random.default_rng([seed, s]), draws)
        split = sums.reshape(1 + draws, 1 + runs, width)
        with np.errstate(divide="ignore", invalid="ignore"):
            return split[:, 1:] / split[:, :1]


def _resampled(rows: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Sums over G - 1 of G rows drawn with replacement, times G / (G - 1): [draws, columns]."""
    size = len(rows)
    used = np.flatnonzero(np.any(rows != 0, axis=0))
    out = np.zeros((draws, rows.shape[1]))
    step = max(1, AT_ONCE // size)
    for start in range(0, draws, step):
        stop = min(draws, start + step)
        counts = np.stack([np.bincount(rng.integers(0, size, size - 1), minlength=size) for _ in range(stop - start)])
        out[start:stop, used] = counts @ rows[:, used]
    return out * (size / (size - 1))


@dataclass(frozen=True)
class _Drawn:
    """Values of a row, [1 + draws, runs and the longer response], and what their intervals rest on.

    cells  what each group under each seed moves a run's value by, times the number of groups: [groups, seeds] (ratios linearised)
    """

    values: np.ndarray
    n: int
    groups: int
    freedom: int
    cells: list[np.ndarray]
    stratum: np.ndarray

    @classmethod
    def of(cls, row: Row, table: _Table, drawn: np.ndarray) -> _Drawn:
        at = [table.cells[cell] for cell in row.weights]
        inside = [g for g, held in enumerate(table.members) if any(subset in held for subset in row.subsets)]
        n = sum(table.members[g].get(subset, 0) for g in inside for subset in row.subsets)
        freedom = len(inside) - len(set(table.stratum[inside].tolist()))
        weight = np.array(list(row.weights.values()))
        counts = table.counts[:, at]
        with np.errstate(divide="ignore", invalid="ignore"):
            per_count = weight / counts.mean(axis=0)
            cells = [((several[:, :, at] - drawn[0, r, at] * counts) @ per_count).T for r, several in enumerate(table.hits)]
        return cls(drawn[:, :, at] @ weight, n, len(inside), freedom, cells, table.stratum)

    def share(self, r: int, low: float, high: float) -> Share:
        """The value of run r, whose scale ends at low and high."""
        return self._share(self.values[:, r], [self.cells[r]], self.cells[r].mean(axis=1), low, high)

    def between(self, r: int, base: int) -> Share:
        """The value of run r minus that of another: as many seeds are paired one by one."""
        one, two = self.cells[r], self.cells[base]
        tables = [one - two] if one.shape == two.shape else [one, two]
        return self._share(self.values[:, r] - self.values[:, base], tables, one.mean(axis=1) - two.mean(axis=1), -np.inf, np.inf)

    def _share(self, column: np.ndarray, tables: Sequence[np.ndarray], over: np.ndarray, low: float, high: float) -> Share:
        seeds = seed_variances(tables, self.stratum)
        return _share(column, self.n, self.groups, self.freedom, low, high, seeds, over, self.stratum)


def _result(row: Row, table: _Table, drawn: np.ndarray, names: Sequence[str]) -> RowResult:
    made = _Drawn.of(row, table, drawn)
    length = len(names)
    return RowResult(
        name=row.name, level=row.level, at=row.at, n=made.n, groups=made.groups,
        accuracy={name: made.share(r, row.bottom, row.top) for r, name in enumerate(names)},
        length_only=made.share(length, row.bottom, row.top),
        difference={name: made.between(r, 0) for r, name in enumerate(names) if r > 0},
        over_length={name: made.between(r, length) for r, name in enumerate(names)},
    )  # fmt: skip


def _to_best(row: Row, table: _Table, drawn: np.ndarray, names: Sequence[str], found: RowResult) -> dict[str, Share]:
    """Each run minus the run with the highest estimate (the first of several)."""
    made = _Drawn.of(row, table, drawn)
    scores = [found.accuracy[name].estimate or 0.0 for name in names]
    best = scores.index(max(scores)) if scores else 0
    return {name: made.between(r, best) for r, name in enumerate(names) if r != best}


def _share(
    column: np.ndarray, n: int, groups: int, freedom: int, low: float, high: float, seeds: Sequence[SeedVariance],
    over: np.ndarray, stratum: np.ndarray,
) -> Share:  # fmt: skip
    """The estimate column[0] with the interval of the draws column[1:]; low and high are the ends of the scale.

    seeds: what a choice of training seeds adds to the variance, as `widened` reads it; over [groups]: cells, means over seeds.
    """
    from scipy.special import stdtrit

    estimate, values = float(np.clip(column[0], low, high)), column[1:]  # sums of weights are 1 up to rounding
    values = values[np.isfinite(values)]
    if freedom < 1 or not len(values):
        return Share(estimate, None, None, n, groups)
    if np.ptp(values) < 1e-9 and low == 0 and min(estimate, abs(1 - estimate)) < 1e-9:  # all right or all wrong: no draw differs
        ends = wilson(round(estimate) * groups, groups, LEVEL)
        return Share(estimate, ends[0], ends[1], n, groups)
    widen = float(stdtrit(freedom, 0.5 + LEVEL / 2)) / normal_quantile(LEVEL)
    ends = estimate + (np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]) - estimate) * widen
    ends = widened((ends[0], ends[1]), estimate, _between(over, stratum), freedom, seeds, LEVEL)
    ends = np.clip(ends, low, high)
    return Share(estimate, float(ends[0]), float(ends[1]), n, groups)


def _between(over: np.ndarray, stratum: np.ndarray) -> float:
    """Variance of the mean over groups drawn within strata."""
    total = 0.0
    for label in np.unique(stratum):
        part = over[stratum == label]
        total += len(part) * float(part.var(ddof=1)) if len(part) > 1 else 0.0
    return total / len(over) ** 2
