"""What a reward of few features has learned, and how many labels it needs: weights with intervals, what each feature is worth, curves.

Collinear features share their worth: the sign of one of them alone says little. So beside single weights stand the condition number, the
accuracy lost without a feature, and the accuracy lost without all features that go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.margins import margins, wide
from cupel.learners.models.features import FeatureReward
from cupel.learners.models.few_weights import few_weights, groups_of, newton
from cupel.learners.models.types import Explanation
from cupel.votes.folds import group_folds
from cupel.votes.linear_head import LinearHead

#: condition number of the correlations above which signs of single weights are not to be read
COLLINEAR = 30.0


def accuracy(margin: np.ndarray, data: Comparisons) -> float:
    """Share of the weight of decided comparisons whose stated side has the larger reward; a margin of 0 is a tie and counts one half.

    >>> data = Comparisons.of(np.array([0, 0]), np.array([1, 1]), np.array([1.0, 0.0]))
    >>> accuracy(np.array([2.0, 0.0]), data)
    0.75
    """
    decided = (data.p != 0.5) & (data.w > 0)
    if not decided.any():
        raise InputError("no comparison is decided: accuracy needs a p other than 1/2")
    stated = np.sign(np.where(data.p > 0.5, margin, -margin)[decided])
    return float(np.average((stated + 1) / 2, weights=data.w[decided]))


def out_of_fold(values: np.ndarray, data: Comparisons, *, l2: float = 1.0, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Margins float64 [n] of linear rewards of the columns [sides, k] that saw no comparison of the row's group.

    Records whose label they contradict by much are the first to look at: sort by the margin in favour of the stated side.

    >>> values = np.array([[1.0], [0.0]])
    >>> bool((out_of_fold(values, Comparisons.of(np.zeros(10, int), np.ones(10, int))) > 0).all())
    True
    """
    d = np.asarray(values, np.float64)[data.first] - np.asarray(values, np.float64)[data.second]
    fold = group_folds(groups_of(data), folds, seed)
    w = np.stack([data.w * (fold != k) for k in range(fold.max() + 1)])
    found, _ = newton(d, data.p, w, l2)
    return (d * found[fold]).sum(axis=1)


def feature_report(
    model: FeatureReward, features: np.ndarray, data: Comparisons, *, l2: float = 1.0, draws: int = 200, folds: int = 5,
    together: float = 0.5, seed: int = 0,
) -> Explanation:  # fmt: skip
    """What the model makes of the features of these comparisons.

    Table `features`: weight, of one unit (of a network: the mean slope over the sides); linear with low and high, the weight of a linear
    reward fitted here and its 95 % bootstrap interval over groups; alone, the accuracy of the feature by itself; lost, the out-of-fold
    accuracy that a linear reward loses without it. Table `groups`: features whose differences correlate above `together` (chains
    count), and the accuracy lost without all of them. l2 is per unit of the features' spread.

    >>> from cupel.learners.models.types import Shape
    >>> x = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    >>> first, second = np.arange(0, 80, 2), np.arange(1, 80, 2)
    >>> data = Comparisons.of(first, second, (x[first, 0] > x[second, 0]).astype(float))
    >>> found = feature_report(FeatureReward(Shape(2, names=("use", "noise"))), x, data, draws=20)
    >>> found.tables["features"]["feature"], found.tables["features"]["alone"][0]
    (['use', 'noise'], 1.0)
    """
    used = np.flatnonzero(model.factor.numpy() != 0)
    rows = np.unique(np.concatenate([data.first, data.second]))
    raw = np.asarray(features, np.float64)[:, used]
    spread = raw[rows].std(axis=0)
    spread[spread == 0] = 1.0
    values = raw / spread
    fitted = few_weights(values, data, l2=l2, draws=draws, seed=seed)
    whole = accuracy(out_of_fold(values, data, l2=l2, folds=folds, seed=seed), data)
    d = values[data.first] - values[data.second]

    def lost(columns: Sequence[int]) -> float:
        rest = [k for k in range(len(used)) if k not in columns]
        margin = out_of_fold(values[:, rest], data, l2=l2, folds=folds, seed=seed) if rest else np.zeros(len(data))
        return whole - accuracy(margin, data)

    size = np.sqrt((d * d).sum(axis=0))
    likeness = (d.T @ d) / np.where(np.outer(size, size) > 0, np.outer(size, size), 1)
    condition = float(np.linalg.cond(likeness)) if len(used) > 1 else 1.0
    names = [model.column(int(k)) for k in used]
    slope = _slope(model, features, rows)[used]
    own = accuracy(margins([model], np.asarray(features, np.float32), data)[0], data)
    identical = int((np.abs(d).max(axis=1, initial=0) == 0).sum())
    words = [
        f"the model agrees with {own:.3f} of these labels; a linear reward of the features with {whole:.3f} out of fold",
        f"condition number of the features' differences: {condition:,.1f}"
        + ("; they are collinear, do not read the sign of a single weight" if condition > COLLINEAR else ""),
    ]
    if identical:
        words.append(f"{identical:,} comparisons have the same features on both sides: they are ties to any such reward")
    if fitted.separable:
        words.append("the labels are separable: the size of the weights is decided by l2 alone")
    groups = _chains(np.abs(likeness) > together)
    tables = {
        "features": {
            "feature": names, "weight": slope.tolist(), "linear": (fitted.value / spread).tolist(), "low": (fitted.low / spread).tolist(),
            "high": (fitted.high / spread).tolist(), "alone": [max(a, 1 - a) for a in (accuracy(d[:, k], data) for k in range(len(used)))],
            "lost": [lost([k]) for k in range(len(used))],
        },
        "groups": {"features": [", ".join(names[k] for k in group) for group in groups], "lost": [lost(group) for group in groups]},
    }  # fmt: skip
    return Explanation(tuple(words) + model.explain().words, tables)


def _slope(model: FeatureReward, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean over sides of the derivative of the reward by each feature, [width]."""
    if len(model.layers) == 1:
        return model.weights()
    x = torch.from_numpy(np.asarray(features[rows], np.float64)).requires_grad_()
    (grad,) = torch.autograd.grad(wide(model).represent(x).sum(), x)
    return grad.mean(dim=0).numpy()


def _chains(near: np.ndarray) -> list[list[int]]:
    """Connected sets of columns, each sorted, by their first."""
    left, found = set(range(len(near))), []
    while left:
        group, edge = set(), {min(left)}
        while edge:
            group |= edge
            edge = {int(j) for k in edge for j in np.flatnonzero(near[k])} - group
        left -= group
        found.append(sorted(group))
    return found


@dataclass(frozen=True)
class Curve:
    """Accuracy on unseen comparisons by number of labels: sizes, and for each way of describing a response a matrix [splits, sizes]."""

    sizes: tuple[int, ...]
    accuracy: Mapping[str, np.ndarray]

    def table(self) -> dict[str, list[float]]:
        """Columns n, and per name the mean and the standard deviation over splits."""
        out: dict[str, list[float]] = {"n": [float(n) for n in self.sizes]}
        for name, values in self.accuracy.items():
            out |= {name: values.mean(axis=0).tolist(), f"{name} sd": values.std(axis=0, ddof=min(1, len(values) - 1)).tolist()}
        return out


def data_efficiency_curve(
    described: Mapping[str, np.ndarray], data: Comparisons, sizes: Sequence[int], *, test: int, splits: int = 20, l2: float = 1.0,
    seed: int = 0,
) -> Curve:  # fmt: skip
    """How many labels each description of a response needs: linear Bradley-Terry rewards on growing parts, the same for all.

    described  name -> features [sides, any]: a few scores beside the text's vector, say. l2: as `LinearHead`, 1 / C of scikit-learn
    In each split `test` comparisons are set aside, whole groups, and the first n of the rest are learned from. InputError where the largest
    size and the test do not fit.

    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> first, second = np.arange(0, 200, 2), np.arange(1, 200, 2)
    >>> data = Comparisons.of(first, second, (x[first, 0] > x[second, 0]).astype(float))
    >>> found = data_efficiency_curve({"both": x, "noise": x[:, 1:]}, data, [4, 50], test=40, splits=4)
    >>> bool(found.accuracy["both"][:, 1].mean() > 0.85 > found.accuracy["noise"].mean())
    True
    """
    if max(sizes) + test > len(data) or min(sizes) < 1 or test < 1:
        raise InputError(f"{max(sizes):,} comparisons to learn from and {test:,} to test on do not fit into {len(data):,}")
    by = groups_of(data)
    found = {name: np.empty((splits, len(sizes))) for name in described}
    for s in range(splits):
        rng = np.random.default_rng([seed, s])
        label, index = np.unique(by, return_inverse=True)
        order = np.argsort(rng.permutation(len(label))[index.reshape(-1)], kind="stable")
        held, rest = order[:test], order[test:]
        rest = rest[~np.isin(by[rest], by[held])]
        if len(rest) < max(sizes):
            raise InputError(f"split {s}: whole groups leave {len(rest):,} comparisons to learn from, not {max(sizes):,}")
        for name, x in described.items():
            for j, n in enumerate(sizes):
                some = rest[:n]
                head = LinearHead(ridge=l2).fit(x[data.first[some]], x[data.second[some]], data.p[some], data.w[some])
                found[name][s, j] = accuracy(head.margin(x[data.first[held]], x[data.second[held]]), data.take(held))
    return Curve(tuple(int(n) for n in sizes), found)
