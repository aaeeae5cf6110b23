"""Votes as arrays for the annotator models, and the result that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cupel.errors import InputError

#: annotators below are shrunk to the prior and flagged
FEW_VOTES = 5


@dataclass(frozen=True)
class VoteTable:
    """Votes: item, annotator, label (0 ... n_classes-1) and weight [n]; indices are dense. Build it with `vote_table`."""

    item: np.ndarray
    annotator: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    n_items: int
    n_annotators: int
    n_classes: int

    def per_item(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n] or [n, k] over items."""
        return _add(self.item, values, self.n_items)

    def per_annotator(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n] or [n, k] over annotators."""
        return _add(self.annotator, values, self.n_annotators)

    def shares(self) -> np.ndarray:
        """Share of each label among an item's votes, float64 [items, classes]; uniform where nobody voted."""
        one_hot = np.zeros((len(self.item), self.n_classes))
        one_hot[np.arange(len(self.item)), self.label] = self.weight
        counts = self.per_item(one_hot)
        total = counts.sum(axis=1, keepdims=True)
        return np.where(total > 0, counts / np.where(total > 0, total, 1), 1 / self.n_classes)


@dataclass(frozen=True)
class AnnotatorFit:
    """What an annotator model says about items and annotators.

    posterior [items, classes]: probability of each label; prior [classes]; accuracy [annotators]: P(vote is right) under the model;
    confusion [annotators, classes, classes] or None: P(votes k | truth c); spammer [annotators] in [0, 1] or NaN: 0 means that
    votes do not depend on the truth; counts [annotators]: votes; parameters: the model's own arrays; trace: marginal log
    likelihood (crowd models: objective) per iteration; few [annotators]: fewer than 5 votes; alone [items]: one vote, so that the
    posterior is the prior times that vote; warnings: in words.
    """

    model: str
    posterior: np.ndarray
    prior: np.ndarray
    accuracy: np.ndarray
    confusion: np.ndarray | None
    spammer: np.ndarray
    counts: np.ndarray
    trace: tuple[float, ...]
    converged: bool
    few: np.ndarray
    alone: np.ndarray
    warnings: tuple[str, ...]
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)

    def flip_rate(self, annotator: np.ndarray) -> np.ndarray:
        """1 - accuracy of the annotator of each row."""
        return 1 - self.accuracy[annotator]

    def clean_probability(self, item: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Probability that the label recorded in each row is the item's true one."""
        return self.posterior[item, label]


def vote_table(
    item: np.ndarray,
    annotator: np.ndarray,
    label: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    n_items: int | None = None,
    n_annotators: int | None = None,
    n_classes: int | None = None,
    keep: Literal["error", "last", "all"] = "error",
) -> VoteTable:
    """Checked votes. Indices are 0, 1, ...; a person's second vote on an item is an error where it differs from the first.

    keep: "error" refuses differing repeats and counts equal ones once, "last" keeps the last vote, "all" counts every row.
    InputError for unequal lengths, negative or fractional indices, labels outside the classes, bad weights.

    >>> votes = vote_table(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([1, 1, 0]))
    >>> votes.n_items, votes.n_annotators, votes.n_classes, votes.shares()[:, 1].tolist()
    (2, 2, 2, [1.0, 0.0])
    """
    arrays = {"item": np.asarray(item), "annotator": np.asarray(annotator), "label": np.asarray(label)}
    n = len(arrays["item"])
    if n == 0 or any(x.shape != (n,) for x in arrays.values()):
        shapes = [x.shape for x in arrays.values()]
        raise InputError(f"votes need one item, annotator and label per row and at least one row, not {shapes}")
    for name, values in arrays.items():
        if values.dtype.kind not in "iub":
            raise InputError(f"{name} holds {values.dtype}: give integers 0, 1, ... (np.unique with return_inverse makes them)")
        unknown = values < 0
        if unknown.any():
            first = int(np.argmax(unknown))
            raise InputError(f"{int(unknown.sum()):,} of {n:,} votes have an unknown {name} (first: row {first}); leave them out")
        arrays[name] = values.astype(np.int64)
    sizes = (n_items, n_annotators, n_classes)
    limits = [int(x.max()) + 1 if size is None else size for x, size in zip(arrays.values(), sizes, strict=True)]
    limits[2] = max(limits[2], 2)
    for (name, values), size in zip(arrays.items(), limits, strict=True):
        if values.max() >= size:
            raise InputError(f"{int((values >= size).sum()):,} of {n:,} votes have a {name} outside 0 ... {size - 1}")
    mass = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    if mass.shape != (n,) or not np.isfinite(mass).all() or mass.min() < 0:
        raise InputError("a vote's weight is finite and not negative, one per vote")
    rows = np.arange(n) if keep == "all" else _once(arrays["item"], arrays["annotator"], arrays["label"], keep)
    who, what, said = (arrays[name][rows] for name in ("annotator", "item", "label"))
    return VoteTable(what, who, said, mass[rows], limits[0], limits[1], limits[2])


def spammer_score(confusion: np.ndarray) -> np.ndarray:
    """Dependence of votes on the truth, 0 (none) to 1, per annotator: sum over c < c' and k of squared row differences / (K (K-1)).

    Raykar & Yu 2012, JMLR 13. confusion [annotators, K, K]: P(votes k | truth c).

    >>> spammer_score(np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.5, 0.5]]])).round(2).tolist()
    [0.49, 0.0]
    """
    k = confusion.shape[1]
    difference = confusion[:, :, None, :] - confusion[:, None, :, :]
    return (difference**2).sum(axis=(1, 2, 3)) / 2 / (k * (k - 1))


def one_coin_confusion(accuracy: np.ndarray, n_classes: int) -> np.ndarray:
    """Confusion matrices of annotators who are right at one rate and otherwise pick any other label."""
    out = np.repeat(((1 - accuracy) / (n_classes - 1))[:, None], n_classes * n_classes, axis=1).reshape(-1, n_classes, n_classes)
    out[:, np.arange(n_classes), np.arange(n_classes)] = accuracy[:, None]
    return out


def normalised(log_joint: np.ndarray) -> tuple[np.ndarray, float]:
    """(posterior, marginal log likelihood) from log P(truth, votes) [items, classes]."""
    top = log_joint.max(axis=1, keepdims=True)
    weight = np.exp(log_joint - top)
    total = weight.sum(axis=1, keepdims=True)
    return weight / total, float((top + np.log(total)).sum())


def finish(
    votes: VoteTable, model: str, posterior: np.ndarray, prior: np.ndarray, accuracy: np.ndarray, confusion: np.ndarray | None,
    trace: list[float], converged: bool, **parameters: np.ndarray,
) -> AnnotatorFit:  # fmt: skip
    """The result of a model, with its counts, flags and warnings."""
    counts = votes.per_annotator(votes.weight)
    few, alone = counts < FEW_VOTES, votes.per_item(np.ones(len(votes.item))) == 1
    return AnnotatorFit(
        model=model, posterior=posterior, prior=prior, accuracy=accuracy, confusion=confusion,
        spammer=np.full(len(counts), np.nan) if confusion is None else spammer_score(confusion), counts=counts, trace=tuple(trace),
        converged=converged, few=few, alone=alone, warnings=warnings_of(counts, few, alone, accuracy, converged),
        parameters=parameters,
    )  # fmt: skip


def warnings_of(counts: np.ndarray, few: np.ndarray, alone: np.ndarray, accuracy: np.ndarray, converged: bool) -> tuple[str, ...]:
    """What a reader of the fit must know, in words."""
    out = []
    voted = counts > 0
    if (few & voted).any():
        share = f"{int((few & voted).sum()):,} of {int(voted.sum()):,} annotators"
        out.append(f"{share} have fewer than {FEW_VOTES} votes: what is said of them is mostly the prior")
    if len(alone) and alone.any():
        out.append(f"{int(alone.sum()):,} of {len(alone):,} items have one vote: their truth is not identifiable from votes")
    mean = float(np.average(accuracy, weights=counts)) if counts.sum() else float("nan")
    if mean < 0.6:
        out.append(f"mean accuracy is {mean:.2f}: the mirrored solution may be the right one; only checked items can tell")
    if not converged:
        out.append("the fit stopped before it converged: raise max_iterations")
    return tuple(out)


def _add(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    if values.ndim == 1:
        return np.bincount(index, weights=values, minlength=size)
    return np.stack([np.bincount(index, weights=values[:, j], minlength=size) for j in range(values.shape[1])], axis=1)


def _once(item: np.ndarray, annotator: np.ndarray, label: np.ndarray, keep: str) -> np.ndarray:
    """Rows that remain when each person votes once on an item, in their order."""
    key = item * (annotator.max() + 1) + annotator
    values, last = np.unique(key[::-1], return_index=True)
    last = len(key) - 1 - last
    if keep == "error":
        conflict = label != label[last][np.searchsorted(values, key)]
        if conflict.any():
            raise InputError(
                f"{int(conflict.sum()):,} votes differ from a later vote of the same annotator on the same item "
                f"(first: row {int(np.argmax(conflict))}); choose keep='last' or keep='all'"
            )
    return np.sort(last)
