"""The survival table: what every cell reached on held-out prompts, against tuned plain training, and what noisy validation recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cupel.compare.intervals import Differences, differences
from cupel.compare.select import recommended
from cupel.compare.spec import CompareOptions, as_json


@dataclass(frozen=True)
class About:
    """What is compared: name, number of records, the group int [n] of each row that may be tested, who judges, and words.

    rows, groups   what a record and a group are called; measure: what a cell reaches, in [0, 1]; beside: the baseline that looks at no
                   content; strength: what noisy validation tunes; method: how it was measured, one sentence
    """

    name: str
    n: int
    group: np.ndarray
    judged_by: str
    rows: str = "decided votes"
    groups: str = "groups"
    measure: str = "accuracy"
    beside: str = "the longer side"
    strength: str = "ridge"
    method: str = ""


#: a recovered share is a ratio of noise where clean minus tuned plain is below this (accuracy)
RECOVERABLE = 0.02
REFUSED = 255


@dataclass(frozen=True)
class Cell:
    """One objective under one treatment in one case, or what was recommended.

    accuracy       on test rows, by the reference labels
    gain           accuracy minus that of tuned plain training with the same objective; low, high: 95 % by itself; all_low, all_high: 95 %
                   for all cells of the data set at once
    wins, losses   seeds in which it was better and worse than tuned plain
    recovered      gain / (clean - tuned plain), None where that difference is below 2 points
    flip_rate      mean over seeds of the rate read from margins that did not see the labels (plain: of validation labels), None where
                   it is not identified
    ridge          median of the ridges that noisy validation chose
    chosen         of recommendations: how often each treatment was recommended
    """

    objective: str
    treatment: str
    case: str
    accuracy: float
    gain: float
    low: float
    high: float
    all_low: float
    all_high: float
    wins: int
    losses: int
    recovered: float | None
    flip_rate: float | None = None
    ridge: float | None = None
    chosen: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return dict(vars(self))


@dataclass(frozen=True)
class Baseline:
    """What stands beside the treatments of one objective in one case; planted: share of labels exchanged."""

    objective: str
    case: str
    tuned_plain: float
    untuned_plain: float
    clean: float
    length_only: float
    planted: float

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return dict(vars(self))


@dataclass(frozen=True)
class Hits:
    """What every cell's accuracy is the mean of: value {(objective, treatment, case): float [N]} in {0, 1/2, 1}, and of each of the N test
    rows its group and the position of the seed that tested it. "clean" is a treatment and a case here."""  # fmt: skip

    value: Mapping[tuple[str, str, str], np.ndarray]
    group: np.ndarray
    seed_of: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The whole table. `cells` has a cell per objective, treatment and case, plain training included (gain 0); `recommendations` one
    per objective and case, and per case one over the whole grid (objective "any", against plain training with the first objective)."""

    about: About = field(repr=False)
    n_test: int
    groups: int
    options: CompareOptions
    cells: tuple[Cell, ...]
    recommendations: tuple[Cell, ...]
    baselines: tuple[Baseline, ...]
    refused: tuple[Mapping[str, str], ...]
    diverged: int
    hits: Hits = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Of the data."""
        return self.about.name

    @property
    def n(self) -> int:
        """Number of records."""
        return self.about.n

    @property
    def judged_by(self) -> str:
        """Who says what is right on test rows."""
        return self.about.judged_by

    def cell(self, objective: str, treatment: str, case: str) -> Cell:
        """The cell of that name. KeyError where the pair was refused or never asked for."""
        for cell in self.cells:
            if (cell.objective, cell.treatment, cell.case) == (objective, treatment, case):
                return cell
        raise KeyError((objective, treatment, case))

    def baseline(self, objective: str, case: str) -> Baseline:
        """The baselines of an objective in a case. KeyError where it was never asked for."""
        for row in self.baselines:
            if (row.objective, row.case) == (objective, case):
                return row
        raise KeyError((objective, case))

    def to_json(self) -> dict[str, Any]:
        """What `compare.json` holds."""
        return {
            "name": self.name, "n": self.n, "n_test": self.n_test, "groups": self.groups, "judged_by": self.judged_by,
            "measure": self.about.measure, "beside": self.about.beside,
            "options": self.options.recorded(), "cases": [as_json(case) for case in self.options.cases],
            "cells": [cell.to_json() for cell in self.cells],
            "recommendations": [cell.to_json() for cell in self.recommendations],
            "baselines": [row.to_json() for row in self.baselines], "refused": [dict(r) for r in self.refused],
            "diverged_columns": self.diverged, "level": 0.95,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """What the screen says: per case the baselines, the recommendation, and the cells that are better or worse than plain for sure."""
        first = self.options.objectives[0]
        out = [
            f"{self.n:,} {self.about.rows} in {self.groups:,} {self.about.groups}, {self.n_test:,} of them tested by {self.judged_by}; "
            f"{len(self.options.seeds)} seeds. Differences in points of {self.about.measure} against tuned plain training."
        ]
        for case in (case.label for case in self.options.cases):
            base = self.baseline(first, case)
            out.append(
                f"{case}: tuned plain {base.tuned_plain:.3f}, untuned {base.untuned_plain:.3f}, clean labels {base.clean:.3f}, "
                f"{self.about.beside} {base.length_only:.3f}."
            )
            pick = next(c for c in self.recommendations if c.objective == "any" and c.case == case)
            chosen = ", ".join(f"{name} {count}x" for name, count in (pick.chosen or {}).items())
            out.append(f"  recommended by noisy validation ({chosen}): {points(pick)}")
            others = [c for c in self.cells if c.case == case and c.treatment != self.options.treatments[0]]
            sure = [c for c in others if c.all_low > 0]
            worse = [c for c in others if c.all_high < 0]
            for word, found in (("better", sure), ("worse", worse)):
                best = sorted(found, key=lambda c: -abs(c.gain))[:3]
                names = "; ".join(f"{c.objective} + {c.treatment} {points(c)}" for c in best)
                if found:
                    out.append(f"  {len(found)} of {len(others)} cells are {word} with all intervals at once: {names}")
        if self.refused:
            out.append(f"{len(self.refused)} pairs of objective and treatment were refused; the first: {self.refused[0]['reason']}")
        if self.diverged:
            out.append(f"{self.diverged} columns did not stay finite; they count as undecided and are never chosen.")
        return out


def points(cell: Cell) -> str:
    """The gain in words, in points with its own interval."""
    return f"{100 * cell.gain:+.1f} [{100 * cell.low:+.1f}, {100 * cell.high:+.1f}]"


def assemble(
    about: About, options: CompareOptions, blocks: Mapping[tuple[int, str], Mapping[str, np.ndarray]], refused: Sequence[Mapping[str, str]]
) -> Comparison:
    """The table from its blocks: of each seed and objective the arrays hits [T, J, n] (codes 0, 1, 2 and REFUSED, or floats in [0, 1] and
    NaN), untuned [J, n], clean and beside [n], losses [T, J, m], ridge and flip_rate [T, J], planted [J], test [n] and validation [m]
    (rows of `about.group`), and the number of `diverged` runs."""
    seeds, objectives, treatments = options.seeds, options.objectives, options.treatments
    cases = [case.label for case in options.cases]
    tests = [blocks[seed, objectives[0]]["test"] for seed in seeds]
    rows, seed_of = np.concatenate(tests), np.repeat(np.arange(len(seeds)), [len(t) for t in tests])
    group = about.group[rows]

    def hits(objective: str, name: str) -> np.ndarray:
        """Hits in [0, 1] of all seeds side by side; NaN where the pair was refused."""
        found = np.concatenate([blocks[seed, objective][name] for seed in seeds], axis=-1)
        return np.where(found == REFUSED, np.nan, found / 2.0) if found.dtype == np.uint8 else found.astype(np.float64)

    table = {objective: hits(objective, "hits") for objective in objectives}  # [T, J, N] each
    beside = np.concatenate([blocks[seed, objectives[0]]["beside"] for seed in seeds])
    picks, chosen = _recommendations(about.group, options, blocks, table, [len(t) for t in tests])
    keys, values, kept = [], [], {}
    for objective in objectives:
        for t, treatment in enumerate(treatments):
            for j, case in enumerate(cases):
                if not np.isnan(table[objective][t, j, 0]):
                    keys.append((objective, treatment, case, t, j))
                    values.append(table[objective][t, j] - table[objective][0, j])
                    kept[objective, treatment, case] = table[objective][t, j]
    for (objective, case), hit in picks.items():
        base = objectives[0] if objective == "any" else objective
        keys.append((objective, "recommended", case, -1, cases.index(case)))
        values.append(hit - table[base][0, cases.index(case)])
    value = np.stack(values)
    found = differences(value, group, seed_of, draws=options.draws)
    kept.update({(objective, "clean", "clean"): hits(objective, "clean") for objective in objectives})
    kept.update({(objective, "recommended", case): hit for (objective, case), hit in picks.items()})
    clean = {objective: float(kept[objective, "clean", "clean"].mean()) for objective in objectives}
    cells, recommendations = [], []
    for i, (objective, treatment, case, t, j) in enumerate(keys):
        base = objectives[0] if objective == "any" else objective
        plain = float(table[base][0, j].mean())
        by_seed = [float(value[i, seed_of == s].mean()) for s in range(len(seeds))]
        extra: dict[str, Any] = {"chosen": chosen[objective, case]} if t < 0 else _facts(blocks, seeds, objective, t, j)
        room = clean[base] - plain
        cell = Cell(
            objective, treatment, case, plain + float(found.estimate[i]), *_gains(found, i), sum(x > 0 for x in by_seed),
            sum(x < 0 for x in by_seed), float(found.estimate[i]) / room if room >= RECOVERABLE else None, **extra,
        )  # fmt: skip
        (recommendations if t < 0 else cells).append(cell)
    baselines = [
        Baseline(
            objective, case, float(table[objective][0, j].mean()), float(hits(objective, "untuned")[j].mean()), clean[objective],
            float(beside.mean()), float(np.mean([blocks[seed, objective]["planted"][j] for seed in seeds])),
        )
        for objective in objectives
        for j, case in enumerate(cases)
    ]
    return Comparison(
        about, len(np.unique(rows)), len(np.unique(about.group)), options, tuple(cells), tuple(recommendations),
        tuple(baselines), tuple(dict(r) for r in refused),
        int(sum(int(block["diverged"].sum()) for block in blocks.values())), Hits(kept, group, seed_of),
    )  # fmt: skip


def _gains(found: Differences, i: int) -> tuple[float, float, float, float, float]:
    return tuple(float(x[i]) for x in (found.estimate, found.low, found.high, found.all_low, found.all_high))  # type: ignore[return-value]


def _facts(blocks: Mapping, seeds: Sequence[int], objective: str, t: int, j: int) -> dict[str, Any]:
    rates = np.array([blocks[seed, objective]["flip_rate"][t, j] for seed in seeds])
    known = rates[~np.isnan(rates)]
    return {
        "flip_rate": float(known.mean()) if len(known) else None,
        "ridge": float(np.median([blocks[seed, objective]["ridge"][t, j] for seed in seeds])),
    }


def _recommendations(
    group: np.ndarray, options: CompareOptions, blocks: Mapping, table: Mapping[str, np.ndarray], sizes: Sequence[int]
) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str], dict[str, int]]]:
    """Hits [N] of what noisy validation recommended in each seed, and how often each treatment was, by (objective or "any", case)."""
    ends = np.cumsum([0, *sizes])
    picks: dict[tuple[str, str], np.ndarray] = {}
    chosen: dict[tuple[str, str], dict[str, int]] = {}
    grids = {objective: [objective] for objective in options.objectives} | {"any": list(options.objectives)}
    for name, objectives in grids.items():
        for j, case in enumerate(c.label for c in options.cases):
            parts, counts = [], dict[str, int]()
            for s, seed in enumerate(options.seeds):
                losses = np.concatenate([blocks[seed, o]["losses"][:, j] for o in objectives]).astype(np.float64)
                known = np.flatnonzero(~np.isnan(losses[:, 0]))
                best = int(known[recommended(losses[known], group[blocks[seed, objectives[0]]["validation"]])])
                objective, t = objectives[best // len(options.treatments)], best % len(options.treatments)
                parts.append(table[objective][t, j, ends[s] : ends[s + 1]])
                label = options.treatments[t] if name != "any" else f"{objective} + {options.treatments[t]}"
                counts[label] = counts.get(label, 0) + 1
            picks[name, case] = np.concatenate(parts)
            chosen[name, case] = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return picks, chosen
