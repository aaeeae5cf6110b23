"""Held-out comparisons: how often the policy ranks them as labelled, what became of both likelihoods, what the margins say of the labels.

Nothing here sees a gradient. Rows are scored once each, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cupel.learners.policy.batch import Data
from cupel.learners.policy.order import parts_of
from cupel.learners.policy.spread import correlation, standard_error
from cupel.learners.policy.step import Stepper
from cupel.noise.rate import NotIdentifiableError, estimate_flip_rate
from cupel.objectives.types import Context
from cupel.scorers.check import quiet

#: columns of `Margins`, in the order in which they travel between processes
_COLUMNS = ("margin", "keep", "flip", "logp_first", "logp_second", "moved_first", "moved_second", "tokens_first", "tokens_second")


@dataclass(frozen=True)
class Margins:
    """float64 [n] per comparison of an evaluation set; NaN where a side or a reference is missing.

    margin, keep, flip as the objective gives them; log-probability of both sides, how far it moved from the reference, and tokens
    """

    margin: np.ndarray
    keep: np.ndarray
    flip: np.ndarray
    logp_first: np.ndarray
    logp_second: np.ndarray
    moved_first: np.ndarray
    moved_second: np.ndarray
    tokens_first: np.ndarray
    tokens_second: np.ndarray

    @property
    def longer(self) -> np.ndarray:
        """Tokens of the first side minus those of the second."""
        return self.tokens_first - self.tokens_second


def score_set(
    stepper: Stepper, data: Data, context: Context, batch_tokens: int, progress: Callable[[int, int], None] | None = None, *,
    start: bool = False,
) -> Margins:  # fmt: skip
    """Every comparison of a data set under the policy as it is. `context`: the step's statistics of the last training step.

    start: the policy is its own reference still (`Stepper.sides`).
    """
    ranks = stepper.ranks
    parts = parts_of(np.arange(len(data)), data.prompt, data.cost, data.prompt_cost, batch_tokens, ranks.size)[ranks.rank]
    found: list[torch.Tensor] = []
    records: list[torch.Tensor] = []
    with quiet(stepper.scorer):
        for number, part in enumerate(parts):
            batch = data.batch(part.rows, part.counts)
            sides = stepper.sides(batch, stepper.scorer, start=start)
            if stepper.objective.context is not None and not context:
                first, second = sides[0]
                context = stepper.objective.context(first, second, {})
            keep, flip, margin = stepper.losses(sides, context)
            columns = {name: torch.full((len(keep),), float("nan"), dtype=torch.float64) for name in _COLUMNS}
            columns |= {"margin": margin.double().cpu(), "keep": keep.double().cpu(), "flip": flip.double().cpu()}
            at = 0
            for first, second in sides:
                rows = slice(at, at + len(first))
                for name, side in (("first", first), ("second", second)):
                    if not len(side):
                        continue
                    assert side.n_tokens is not None
                    columns[f"tokens_{name}"][rows] = side.n_tokens.double().cpu()
                    if side.logp is None:  # a reward model has none
                        continue
                    columns[f"logp_{name}"][rows] = side.logp.double().cpu()
                    if side.reference_logp is not None:
                        columns[f"moved_{name}"][rows] = (side.logp - side.reference_logp).double().cpu()
                at += len(first)
            if part.counts:
                found.append(torch.stack([columns[name] for name in _COLUMNS], dim=1))
                records.append(batch.record)
            if progress:
                progress(number + 1, len(parts))
    table = ranks.gather(torch.cat(found) if found else torch.zeros(0, len(_COLUMNS), dtype=torch.float64)).reshape(-1, len(_COLUMNS))
    order = torch.argsort(ranks.gather(torch.cat(records) if records else torch.zeros(0, dtype=torch.int64)))
    values = table[order].numpy()
    return Margins(**{name: values[:, n] for n, name in enumerate(_COLUMNS)})


def evaluate_sets(
    stepper: Stepper, sets: Mapping[str, Data], context: Context, batch_tokens: int,
    progress: Callable[[str, int, int], None] | None = None, *, start: bool = False,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The metrics (`summarise`) of each evaluation set under the policy as it is; start as in `score_set`."""
    found = {}
    for name, data in sets.items():
        shown = None if progress is None else lambda done, total, name=name: progress(f"evaluate {name}", done, total)
        margins = score_set(stepper, data, context, batch_tokens, shown, start=start)
        p, w = (np.concatenate([getattr(rows, key) for rows in data.rows]) for key in ("p", "w"))
        found[name] = summarise(margins, p, w, data.group, data.annotator)
    return found


def summarise(margins: Margins, p: np.ndarray, w: np.ndarray, group: np.ndarray, annotator: np.ndarray) -> dict[str, Any]:
    """Metrics of an evaluation set as JSON holds them: n, accuracy with its interval, loss, margins, likelihoods, the flip rate.

    accuracy counts comparisons whose label prefers a side (a margin of 0 counts one half), weighted by w, its 95 % interval by
    resampling groups. length_difference: tokens of the side that the label prefers minus the other's. margin_se, length_difference_se:
    standard errors over groups. length_correlation with _low and _high: of margin and length difference, both towards the label; null where
    one does not vary or there are fewer than 20 groups. The flip rate is read from held-out margins together with their slope
    (`cupel.noise.rate`), null with the reason where they do not identify it.
    """
    decided = p != 0.5
    toward = np.where(p > 0.5, margins.margin, -margins.margin)
    right = np.where(toward > 0, 1.0, np.where(toward == 0, 0.5, 0.0))[decided]
    low, high = _interval(right, w[decided], group[decided])
    loss = np.where(np.isnan(margins.flip), margins.keep, p * margins.keep + (1 - p) * margins.flip)  # without a swap: w alone counts
    out: dict[str, Any] = {
        "n": len(p), "n_decided": int(decided.sum()), "accuracy": _mean(right, w[decided]), "accuracy_low": low, "accuracy_high": high,
        "loss": _mean(loss, w), "margin": _mean(toward[decided], w[decided]),
    }  # fmt: skip
    for name in _COLUMNS[3:]:
        values = getattr(margins, name)
        there = np.isfinite(values)
        if there.any():
            out[name] = _mean(values[there], w[there])
    out |= _lengths(toward[decided], np.where(p > 0.5, 1, -1)[decided] * margins.longer[decided], w[decided], group[decided])
    evidence = np.where(p > 0.5, margins.flip - margins.keep, margins.keep - margins.flip)[decided]
    if np.isnan(evidence).any():
        evidence = toward[decided]
    out["flip_rate"] = flip_rate(evidence, w[decided])
    if (annotator >= 0).any():
        out["n_annotators"] = len(np.unique(annotator[annotator >= 0]))
    return out


def flip_rate(evidence: np.ndarray, weights: np.ndarray | None = None) -> dict[str, Any]:
    """The share of wrong labels that held-out margins say there is, with slope and interval; or null and why not.

    >>> flip_rate(np.zeros(10))["rate"] is None
    True
    """
    if len(evidence) < 2:
        return {"rate": None, "why": "there are no labels to speak of", "basis": "held-out"}
    try:
        fit = estimate_flip_rate(evidence, weights=weights)
    except NotIdentifiableError as error:
        return {"rate": None, "why": str(error), "basis": "held-out"}
    return {"rate": fit.rate, "low": fit.low, "high": fit.high, "slope": fit.slope, "n": fit.n, "basis": "held-out"}


def _lengths(margin: np.ndarray, longer: np.ndarray, w: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """What the spread of margins is, and how far they go with length; of single responses nothing."""
    there = np.isfinite(margin) & np.isfinite(longer)
    margin, longer, w, group = margin[there], longer[there], w[there], group[there]
    if not len(margin):
        return {}
    found = correlation(margin, longer, w, group)
    value, low, high = found or (None, None, None)
    return {
        "margin_se": standard_error(margin, w, group), "length_difference": _mean(longer, w),
        "length_difference_se": standard_error(longer, w, group), "length_correlation": value, "length_correlation_low": low,
        "length_correlation_high": high,
    }  # fmt: skip


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    total = float(weights.sum())
    return float(values @ weights / total) if total > 0 else float("nan")


def _interval(right: np.ndarray, weights: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """95 % interval of a weighted mean by resampling groups; Wilson's where every group has one row and all weigh the same."""
    from cupel.votes.intervals import cluster_bootstrap, wilson

    if not len(right):
        return float("nan"), float("nan")
    if len(np.unique(group)) == len(group) and np.all(weights == weights[0]):
        return wilson(float(right.sum()), len(right))
    found = cluster_bootstrap(right * weights, group, seed=0, denominator=weights, clip=(0, 1))
    return found.low, found.high
