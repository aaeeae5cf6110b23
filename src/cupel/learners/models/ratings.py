"""Attributes learned from ratings, some of which are missing, and goal weights learned from comparisons on the attributes so found.

    minimise over W, b   sum_ia w_i m_ia (W_a . x_i + b_a - y_ia)^2 + l2 |W|^2,   m_ia = 1 where rating a of response i is there

HelpSteer2: Wang et al. 2024, arXiv:2406.08673, section 3, where a missing rating is -100 and the loss is divided by the number of ratings.
Each attribute is a ridge regression of its own on the responses that have it; the bias is not penalised.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.network import one_torch_thread
from cupel.learners.models.attributes import GOAL, HELPSTEER, AttributeReward
from cupel.learners.models.few_weights import Weights, few_weights
from cupel.learners.models.types import Shape
from cupel.votes.folds import group_folds

#: stands for a missing rating, beside NaN
MISSING = -100.0


@dataclass(frozen=True)
class Goal:
    """Goal weights [A] on the predicted attributes, with bootstrap intervals, as `few_weights` gives them; names of the attributes."""

    attributes: tuple[str, ...]
    weights: Weights


def masked_mse(predicted: Tensor, ratings: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error over the ratings that are there (not NaN, not -100), [m, A] both; weight [m]. Scalar with gradient.

    InputError where none is there.

    >>> said, stated = torch.tensor([[1.0, 2, 3], [0, 4, 1]]), torch.tensor([[2.0, -100, 3], [1, 3, -100]])
    >>> masked_mse(said, stated).item()
    0.75
    """
    there = ~(ratings.isnan() | (ratings == MISSING))
    if not bool(there.any()):
        raise InputError(f"all {ratings.numel():,} ratings are missing: there is nothing to learn from")
    mask = there.to(predicted.dtype) if weight is None else there * weight[:, None]
    apart = torch.where(there, predicted - ratings, torch.zeros_like(predicted))
    return (mask * apart**2).sum() / mask.sum()


def check_attributes(ratings: np.ndarray, names: Sequence[str], low: float, high: float, whole: bool) -> np.ndarray:
    """The ratings float64 [m, A] with NaN for what is missing; InputError for values off the scale and attributes without any rating.

    >>> check_attributes(np.array([[4, -100]]), ("use", "tone"), 0, 4, True)
    Traceback (most recent call last):
    cupel.errors.InputError: no response has a rating of tone: there is nothing to learn it from; leave the attribute out
    """
    y = np.asarray(ratings, np.float64)
    if y.ndim != 2 or y.shape[1] != len(names) or not len(y):
        raise InputError(f"ratings are a matrix [responses, {len(names)}] for {', '.join(names)}, not of shape {y.shape}")
    y = np.where(y == MISSING, np.nan, y)
    bad = ~np.isnan(y) & ~((y >= low) & (y <= high) & ((y == np.floor(y)) | (not whole)))
    if bad.any():
        row, k = np.argwhere(bad)[0]
        raise InputError(
            f"{int(bad.sum()):,} of {y.size:,} ratings are no {'whole ' if whole else ''}number from {low:g} to {high:g} "
            f"(first: row {row}, {names[k]} {y[row, k]:g}); give the ends of your scale, or NaN for what is missing"
        )
    empty = [name for name, column in zip(names, y.T, strict=True) if np.isnan(column).all()]
    if empty:
        raise InputError(f"no response has a rating of {', '.join(empty)}: there is nothing to learn it from; leave the attribute out")
    return y


def fit_ratings(
    features: np.ndarray, ratings: np.ndarray, *, names: Sequence[str] = HELPSTEER, goal: Sequence[float] | None = None,
    weight: np.ndarray | None = None, group: np.ndarray | None = None, l2: float = 1.0, method: Literal["ridge", "minibatch"] = "ridge",
    low: float = 0, high: float = 4, whole: bool = True, folds: int = 5, epochs: int = 60, batch_size: int = 256,
    learning_rate: float = 0.02, seed: int = 0,
) -> AttributeReward:  # fmt: skip
    """The model `attributes` fitted to ratings [m, A] (NaN or -100: missing) of responses with vectors features [m, d].

    goal    weights of goodness; None: the published ones for HelpSteer's names, else 1 / A each. `fit_goal` learns them
    weight  float [m] of each response; group int [m]: kept together in the folds that R^2 on unseen responses is measured with
    method  ridge: in closed form; minibatch: Adam on the same objective, for features that no matrix of d^2 fits
    low, high, whole  the scale, and whether ratings are whole numbers
    A constant attribute has no R^2 and is named in a warning. InputError for ratings off the scale and lengths that differ.

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = np.clip(np.rint(2 + x[:, :1]), 0, 4)
    >>> model = fit_ratings(x, y, names=("use",), goal=(1.0,), l2=0.1)
    >>> bool(model.r2[0] > 0.8)
    True
    """
    x = np.asarray(features, np.float64)
    y = check_attributes(ratings, names, low, high, whole)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    if not len(x) == len(y) == len(w) or not np.isfinite(x).all() or not (np.isfinite(w) & (w >= 0)).all():
        raise InputError(f"features, ratings and weights are finite and of one length, not {len(x):,}, {len(y):,} and {len(w):,}")
    if goal is None:
        goal = GOAL if tuple(names) == HELPSTEER else [1 / len(names)] * len(names)
    text = "/".join(repr(float(g)) for g in goal)
    model = AttributeReward(Shape(x.shape[1]), attributes="/".join(names), goal=text, seed=seed)
    if method == "ridge":
        solved = ridge(x, y, w, l2)
        with torch.no_grad():
            model.head.weight.copy_(torch.from_numpy(solved[:, :-1]))
            model.head.bias.copy_(torch.from_numpy(solved[:, -1]))
    elif method == "minibatch":
        _minibatch(model, x, y, w, l2, epochs, batch_size, learning_rate, seed)
    else:
        raise InputError(f"method is ridge or minibatch, not {method!r}")
    model.r2.copy_(torch.from_numpy(_unseen(x, y, w, l2, np.arange(len(x)) if group is None else group, folds, seed)))
    constant = [name for name, r2 in zip(names, model.r2.tolist(), strict=True) if r2 != r2]
    if constant:
        warnings.warn(f"ratings of {', '.join(constant)} are all the same, or too few: R^2 is undefined", stacklevel=2)
    model.share.copy_(torch.from_numpy(_shares(_attributes(model, x), model.goal.detach().double().numpy())))
    return model


def fit_goal(
    model: AttributeReward, features: np.ndarray, data: Comparisons, *, l2: float = 1e-3, draws: int = 200, seed: int = 0
) -> Goal:  # fmt: skip
    """Goal weights by the likelihood of comparisons on predicted attributes; written into the model with intervals and shares of variance.

    The attributes stay as they are. l2 is per unit of an attribute; intervals resample the comparisons' groups.

    >>> x = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    >>> model = fit_ratings(x, np.clip(2 + x, 0, 4), names=("use", "tone"), whole=False)
    >>> first, second = np.arange(0, 400, 2), np.arange(1, 400, 2)
    >>> p = 1 / (1 + np.exp(-2 * (x[first, 0] - x[second, 0])))
    >>> found = fit_goal(model, x, Comparisons.of(first, second, p), draws=20)
    >>> bool(found.weights.value[0] > 1.5), bool(abs(found.weights.value[1]) < 0.2)
    (True, True)
    """
    attributes = _attributes(model, np.asarray(features, np.float64))
    found = few_weights(attributes, data, l2=l2, draws=draws, seed=seed)
    with torch.no_grad():
        for buffer, values in ((model.goal, found.value), (model.goal_low, found.low), (model.goal_high, found.high)):
            buffer.copy_(torch.from_numpy(values))
    model.share.copy_(torch.from_numpy(_shares(attributes[data.first] - attributes[data.second], found.value)))
    return Goal(model.attributes, found)


def ridge(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> np.ndarray:
    """[A, d + 1] weights and bias of each attribute: the minimiser of the module's first lines, y NaN where missing.

    >>> ridge(np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]]), np.ones(2), 0.0).round(6).tolist()
    [[2.0, 1.0]]
    """
    one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    penalty = l2 * np.diag([*np.ones(x.shape[1]), 0.0])
    out = np.empty((y.shape[1], one.shape[1]))
    for a, column in enumerate(y.T):
        m = np.where(np.isnan(column), 0.0, w)
        out[a] = np.linalg.lstsq(one.T @ (m[:, None] * one) + penalty, one.T @ (m * np.nan_to_num(column)), rcond=None)[0]
    return out


def _minibatch(
    model: AttributeReward, x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float, epochs: int, size: int, rate: float, seed: int
) -> None:  # fmt: skip
    """Adam on `masked_mse` plus l2 |W|^2 over the total weight of the ratings; the rate falls to 0."""
    total = float((w[:, None] * ~np.isnan(y)).sum())
    data, stated, weights = (torch.from_numpy(np.asarray(v, np.float32)) for v in (x, y, w))
    share = torch.from_numpy((w[:, None] * ~np.isnan(y)).sum(axis=1) / total * len(x)).float()  # weight of a row in the mean over rows
    optimiser = torch.optim.Adam(model.head.parameters(), lr=rate)
    steps = -(-len(x) // size) * epochs
    step = 0
    with one_torch_thread():
        with torch.no_grad():
            model.head.bias.copy_(torch.from_numpy(np.nanmean(y, axis=0)))
        for epoch in range(epochs):
            order = np.random.default_rng([seed, epoch, 46]).permutation(len(x))
            for start in range(0, len(order), size):
                rows = torch.from_numpy(order[start : start + size])
                for part in optimiser.param_groups:
                    part["lr"] = rate * (1 - step / steps)
                optimiser.zero_grad()
                step += 1
                if float(share[rows].sum()) == 0:
                    continue
                loss = masked_mse(model.head(data[rows]), stated[rows], weights[rows]) * share[rows].mean()
                (loss + l2 / total * (model.head.weight**2).sum()).backward()
                optimiser.step()


def _unseen(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """R^2 [A] of ridge regressions on responses of groups they did not see; NaN where ratings do not vary or one group is all there is."""
    if len(np.unique(group)) < 2:
        return np.full(y.shape[1], np.nan)
    fold = group_folds(group, folds, seed)
    said = np.full(y.shape, np.nan)
    for k in range(fold.max() + 1):
        seen = fold != k
        enough = (~np.isnan(y[seen])).any(axis=0)
        solved = ridge(x[seen], y[seen][:, enough], w[seen], l2)
        said[np.ix_(~seen, enough)] = x[~seen] @ solved[:, :-1].T + solved[:, -1]
    out = np.full(y.shape[1], np.nan)
    for a in range(y.shape[1]):
        rows = np.flatnonzero(~np.isnan(y[:, a]) & ~np.isnan(said[:, a]) & (w > 0))
        if len(rows) < 2:
            continue
        spread = np.average((y[rows, a] - np.average(y[rows, a], weights=w[rows])) ** 2, weights=w[rows])
        out[a] = 1 - np.average((y[rows, a] - said[rows, a]) ** 2, weights=w[rows]) / spread if spread > 1e-12 else np.nan
    return out


def _attributes(model: AttributeReward, x: np.ndarray) -> np.ndarray:
    w, b = (v.detach().double().numpy() for v in (model.head.weight, model.head.bias))
    return x @ w.T + b


def _shares(attributes: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """[A] g_a cov(attribute a, goodness) / var(goodness): shares of the variance of goodness, summing to 1; NaN where it does not vary."""
    centred = attributes - attributes.mean(axis=0)
    good = centred @ goal
    total = float((good * good).mean())
    return goal * (centred * good[:, None]).mean(axis=0) / total if total > 1e-15 else np.full(len(goal), np.nan)
