"""Recommenders judged by a test log: all items ranked for every user, metrics with intervals over users and seeds, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.paired import Share
from cupel.evaluate.recommending.catalogue import shown
from cupel.evaluate.recommending.intervals import Draws, Measured
from cupel.evaluate.recommending.lists import Top, lists
from cupel.evaluate.recommending.relevant import rare_items, relevant
from cupel.evaluate.recommending.result import Part, Recommending
from cupel.evaluate.recommending.weighing import Judge, propensities, weigh
from cupel.interactions.log import Log, Rows
from cupel.interactions.metrics import METRICS, ranked


def evaluate_recommenders(
    models: Mapping[str, Top | Sequence[Top]],
    test: Log,
    train: Log,
    *,
    ks: Sequence[int] = (10, 20),
    metrics: Sequence[str] = ("ndcg", "recall", "map", "f1"),
    masks: Sequence[Log] = (),
    propensity: str | np.ndarray | None = None,
    clip: float = 0.01,
    rare: int | None = None,
    at_least: float | None = None,
    drop_seen: bool = False,
    reference: str | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> Recommending:
    """Metrics of each model and paired differences to the reference (by default the first), 95 % intervals over users.

    Every item is ranked for every user with a test event, but for those of the training log and of `masks`: no metric is sampled.

    models      {name: callable}; a sequence of callables is one model trained with several seeds: its metrics are averaged over them, and
                intervals hold what seeds add
    ks, metrics lengths of lists, and names of `cupel.interactions.metrics.METRICS`; the first at the largest k carries the verdicts
    propensity  None, or where the chance with which test events were seen comes from: `weighing.propensities` says; then metrics also come
                by inverse propensity with weights 1 / max(theta, clip), self-normalised within users (snips) and over all (pooled)
    rare        items with at most so many training events are rare and also judged by themselves, still ranked among all; by default the
                80 % with the fewest
    at_least, drop_seen   which test events count: `relevant`

    Intervals are bootstraps over users (expanded percentile), the same draws for all numbers. InputError for what cannot be judged.

    >>> from cupel.evaluate.recommending.lists import from_scores
    >>> whole = Log.of(["a", "a", "b", "b", "c", "c"], ["x", "y", "y", "z", "z", "x"])
    >>> found = evaluate_recommenders(
    ...     {"right": from_scores(np.array([[0.0, 9, 0], [0, 0, 9], [9, 0, 0]])), "level": from_scores(np.zeros((3, 3)))},
    ...     whole.take(np.array([1, 3, 5])), whole.take(np.array([0, 2, 4])), ks=[1], draws=200)
    >>> found.parts[0].value["recall@1"]["right"].estimate, found.parts[0].events, found.shown["right"].coverage
    (1.0, 3, 1.0)
    """
    lengths, names = _asked(models, ks, metrics, reference)
    base = names[0] if reference is None else reference
    several = {name: [one] if callable(one) else list(one) for name, one in models.items()}
    asked = relevant(test, train, masks, at_least=at_least, drop_seen=drop_seen)
    users = np.flatnonzero(asked.rows.counts)
    counts = train.counts()
    is_rare, most = rare_items(counts, rare)
    weights, weighing = None, None
    if propensity is not None:
        theta, source = propensities(propensity, test, train, asked.rows, clip)
        weights, weighing = weigh(theta, clip, source)
    slices = [("all items", np.ones(len(asked.rows.item), dtype=bool))]
    of_rare = is_rare[asked.rows.item]
    notes = list(asked.notes)
    if of_rare.any():
        slices.append((f"items with at most {most:,} training events", of_rare))
    else:
        notes.append(f"No test event is of an item with at most {most:,} training events: rare items are not judged.")
    judges = [
        _Judged(asked.only(kept), None if weights is None else weights[kept], len(test.items), metrics, lengths) for _, kept in slices
    ]
    measured: list[dict[tuple[str, ...], Measured]] = [{} for _ in slices]
    exposure = {}
    for name, tops in several.items():
        found = [lists(top, name, users, max(lengths), asked.seen, len(test.items)) for top in tops]
        exposure[name] = shown([np.bincount(top[top >= 0], minlength=len(test.items)) for top in found], found[0].size, counts)
        for judge, into in zip(judges, measured, strict=True):
            per_seed = [judge.metrics(top, users) for top in found]
            for metric, (_, below) in per_seed[0].items():
                into[metric, name] = Measured(np.stack([one[metric][0] for one in per_seed]), below)
    parts = [_part(label, into, names, base, int(kept.sum()), seed, draws) for (label, kept), into in zip(slices, measured, strict=True)]
    return Recommending(
        names=names, reference=base, headline=f"{metrics[0]}@{max(lengths)}", parts=tuple(parts), shown=exposure, weighing=weighing,
        seeds={name: len(tops) for name, tops in several.items()}, ranked=len(test.items),
        left_out=float(asked.seen.counts[users].mean()), rare=most, ks=lengths, seed=seed, draws=draws, notes=tuple(notes),
    )  # fmt: skip


class _Judged:
    """Metrics per user of one slice of the test events, weighted ones included."""

    def __init__(self, rows: Rows, weights: np.ndarray | None, items: int, metrics: Sequence[str], ks: Sequence[int]) -> None:
        self.rows, self.names, self.ks = rows, metrics, ks
        self.judge = None if weights is None else Judge(rows, weights, items)

    def metrics(self, top: np.ndarray, users: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Numerators and denominators [B] by name of the metric."""
        found = ranked(top, self.rows, users, self.ks)
        counted = (self.rows.counts[users] > 0).astype(np.float64)
        plain = {f"{name}@{k}": (np.nan_to_num(found[f"{name}@{k}"]), counted) for k in self.ks for name in self.names}
        return plain if self.judge is None else {**plain, **self.judge.of(top, users, self.ks)}


def _part(
    label: str, measured: Mapping[tuple[str, ...], Measured], names: Sequence[str], base: str, events: int, seed: int, draws: int
) -> Part:
    made = Draws.make(measured, seed=seed, draws=draws)
    metrics = list(dict.fromkeys(metric for metric, _ in measured))
    value: dict[str, dict[str, Share]] = {m: {name: made.of((m, name), events) for name in names} for m in metrics}
    gap = {m: {name: made.between((m, name), (m, base), events) for name in names if name != base} for m in metrics}
    users = value[metrics[0]][names[0]].groups
    return Part(label, events, users, value, gap)


def _asked(
    models: Mapping[str, Top | Sequence[Top]], ks: Sequence[int], metrics: Sequence[str], reference: str | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    names = tuple(models)
    if not names or any(not callable(one) and not len(one) for one in models.values()):
        raise InputError("evaluate_recommenders needs at least one model, and at least one seed of each")
    if reference is not None and reference not in models:
        raise InputError(f"the reference {reference!r} is none of the models: {', '.join(names)}")
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise InputError(f"metrics are {', '.join(METRICS)}, not {unknown[0]!r}" if unknown else "name at least one metric")
    if not ks or min(ks) < 1:
        raise InputError(f"k is at least 1, not {list(ks)}")
    return tuple(sorted({int(k) for k in ks})), names
