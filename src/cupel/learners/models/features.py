"""A reward of a few nameable properties of a response, linear or through a small network: few weights need few labels, and can be read.

DomainRM: Nath et al. 2024, arXiv:2402.15473, as the method card gives it: a language model scores each summary on seven properties that
experts chose, and a network [6, 4, 2] or smaller learns a scalar from 800 human preferences. As in the published code the activation stands
after the first layer only; layers after it are linear. Unlike there, none stands on the output: with ReLU on it many runs end in the
network that says 0 to everything, loss exactly ln 2. ReLU after a last hidden layer of two units dies the same death in some runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape, linear

if TYPE_CHECKING:
    from cupel.learners.heads.data import Comparisons

Activation = Literal["relu", "tanh", "sigmoid"]
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
#: a column that spreads less than this share of its size is constant
FLAT = 1e-6


class FeatureReward(PreferenceModel):
    """r(x) = W_L ... W_2 a(W_1 u + b_1), u the features; without hidden layers r(x) = w . u. No bias and no activation at the output.

    hidden       sizes of the hidden layers, e.g. 6/4/2; empty or 0: linear
    activation   relu, tanh or sigmoid, after the first layer
    monotone     more of a feature is never worse: every weight is |v| of a free v, so that this holds whatever is learned
    standardise  u is the feature minus its mean, over its spread, both of the sides that are trained on (never of labels)
    A feature with one value in all training sides is dropped, with a warning: it could say nothing there. InputError for other settings,
    and for features that are not finite.

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = FeatureReward(Shape(width=2), monotone=True)
    >>> _ = model.layers[0].weight.data.copy_(torch.tensor([[-2.0, 0.5]]))
    >>> model.score(model.represent(torch.tensor([[1.0, 1.0]])), Given()).tolist()
    [2.5]
    """

    name = "features"
    named = True
    summary = "a few nameable features, linear or through a small network; weights can be kept at 0 and above"

    def __init__(
        self, shape: Shape, *, hidden: str = "", activation: Activation = "relu", monotone: bool = False, standardise: bool = False,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(shape)
        if activation not in _ACTIVATIONS:
            raise InputError(f"features:activation is one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
        self.hidden, self.activation, self.monotone, self.standardise = hidden, activation, monotone, standardise
        sizes = [shape.width, *_sizes(hidden), 1]
        generator = torch.Generator().manual_seed(seed)
        last = len(sizes) - 2
        self.layers = nn.ModuleList(linear(generator, a, b, bias=k < last) for k, (a, b) in enumerate(pairwise(sizes)))
        self.centre: Tensor
        self.factor: Tensor
        self.register_buffer("centre", torch.zeros(shape.width))
        self.register_buffer("factor", torch.ones(shape.width))

    def prepare(self, features: np.ndarray, data: Comparisons) -> None:
        """Mean and spread of the sides that are compared; constant features get factor 0."""
        rows = np.unique(np.concatenate([data.first, data.second]))
        x = np.asarray(features[rows], np.float64)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise InputError(
                f"{len(bad):,} of {len(x):,} sides have a feature that is not finite (first: row {rows[bad[0]]} of the features)"
            )
        mean, spread = x.mean(axis=0), x.std(axis=0)
        flat = spread <= FLAT * np.maximum(np.abs(mean), 1e-30)
        if flat.any():
            names = ", ".join(self.column(int(k)) for k in np.flatnonzero(flat))
            warnings.warn(
                f"{int(flat.sum())} of {len(flat)} features have one value in all {len(x):,} sides and are dropped: {names}", stacklevel=2
            )
        factor = 1 / np.where(flat, 1.0, spread) if self.standardise else np.ones_like(spread)
        self.centre.copy_(torch.from_numpy(mean if self.standardise else np.zeros_like(mean)))
        self.factor.copy_(torch.from_numpy(np.where(flat, 0.0, factor)))

    def column(self, k: int) -> str:
        """The name of a feature, or its number."""
        return self.shape.names[k] if k < len(self.shape.names) else f"feature {k}"

    def represent(self, x: Tensor) -> Tensor:
        """The reward of each response, [m, 1]."""
        z = (x - self.centre) * self.factor
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            z = nn.functional.linear(z, layer.weight.abs() if self.monotone else layer.weight, layer.bias)
            if k == 0 < len(self.layers) - 1:
                z = _ACTIVATIONS[self.activation](z)
        return z

    def score(self, z: Tensor, given: Given) -> Tensor:
        """[m], which `represent` has made."""
        return z[:, 0]

    def weights(self) -> np.ndarray:
        """Weight of one unit of each feature in the reward, float64 [width], 0 for what was dropped. InputError with hidden layers."""
        if len(self.layers) > 1:
            raise InputError("a network has no single weight per feature: feature_report measures what each is worth")
        (layer,) = self.layers
        assert isinstance(layer, nn.Linear)
        w = layer.weight.detach().double()[0]
        return ((w.abs() if self.monotone else w) * self.factor.double()).numpy()

    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """The weight per unit of each feature of a linear reward; of a network its shape. `feature_report` has intervals and importance."""
        dropped = [self.column(int(k)) for k in np.flatnonzero(self.factor.numpy() == 0)]
        words = [f"dropped, one value in all of the training: {', '.join(dropped)}"] if dropped else []
        if self.monotone:
            words.append("no feature can lower the reward: its weights were kept at 0 and above")
        if len(self.layers) > 1:
            return Explanation(
                (*words, f"a network {self.shape.width}-{self.hidden.replace('/', '-')}-1: feature_report measures its features")
            )
        names = [self.column(k) for k in range(self.shape.width)]
        return Explanation(tuple(words), {"features": {"feature": names, "weight": self.weights().tolist()}})


def naive_mean(shape: Shape, *, high: float = 1.0) -> FeatureReward:
    """The scorer without learning: the mean of the features, over the top of their scale.

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = naive_mean(Shape(width=2), high=5)
    >>> round(model.score(model.represent(torch.tensor([[5.0, 0.0]])), Given()).item(), 6)
    0.5
    """
    model = FeatureReward(shape)
    (layer,) = model.layers
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.fill_(1 / (shape.width * high))
    return model


def _sizes(text: str | None) -> list[int]:
    parts = [part.strip() for part in (text or "").split("/")]
    if parts in ([""], ["0"]):
        return []
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"features:hidden holds the sizes of the hidden layers, e.g. 6/4/2 (0: linear), not {text!r}")
    return [int(part) for part in parts]


MODEL = FeatureReward
