"""What preference models say of comparisons: their margins, computed in float64 and in blocks, each side of a block represented once."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cupel.learners.heads.data import Comparisons
from cupel.learners.models.types import Given, PreferenceModel, Shape

#: comparisons at a time
BLOCK = 1 << 13


class Reader:
    """What a model reads of comparisons beside their responses, as tensors, by rows."""

    def __init__(self, data: Comparisons, model: PreferenceModel) -> None:
        self.data, self.reads = data, model.reads

    def __call__(self, rows: np.ndarray) -> Given:
        """What is given of these comparisons; None for what the model does not read."""
        data = self.data
        found: dict[str, Tensor] = {}
        for name, index, table in (("prompt", data.prompt, data.prompts), ("context", data.context, data.contexts)):
            if name in self.reads and index is not None and table is not None:
                found[name] = torch.from_numpy(table[index[rows]])
        if "person" in self.reads:
            found["person"] = torch.from_numpy(data.annotator[rows])
        return Given(**found)


def shape_of(features: np.ndarray, data: Comparisons) -> Shape:
    """The shape of models for these comparisons."""
    people = len(data.annotators) or int(data.annotator.max(initial=-1)) + 1
    wide = [0 if table is None else table.shape[1] for table in (data.prompts, data.contexts)]
    return Shape(features.shape[1], prompt=wide[0], people=people, context=wide[1], names=tuple(data.columns))


def wide(model: PreferenceModel) -> PreferenceModel:
    """The model in float64, without gradient and not in training: a copy."""
    return copy.deepcopy(model).double().requires_grad_(False).eval()


def doubled(given: Given) -> Given:
    """What is given, with numbers in float64."""
    return given.map(lambda x: x.double() if x.is_floating_point() else x)


def margins(models: Sequence[PreferenceModel], features: np.ndarray, data: Comparisons) -> np.ndarray:
    """Margin of each comparison in favour of its first side under each model, float64 [K, n]; memory is bounded by a block.

    features: float32 [sides, d]; data: as models are trained on. The result does not depend on what else is compared, to 1e-12.

    >>> from cupel.learners.models.names import build
    >>> data = Comparisons.of(np.array([0, 1]), np.array([1, 0]))
    >>> found = margins([build("scalar", Shape(width=2), 0)], np.eye(2, dtype=np.float32), data)
    >>> bool(abs(found.sum()) < 1e-12), found.shape
    (True, (1, 2))
    """
    out = np.empty((len(models), len(data)))
    place = np.zeros(len(features), np.int64)
    with torch.no_grad():
        for k, model in enumerate(map(wide, models)):
            reader = Reader(data, model)
            for start in range(0, len(data), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(data)))
                used = np.unique(np.concatenate([data.first[rows], data.second[rows]]))
                place[used] = np.arange(len(used))
                z = model.represent(torch.from_numpy(np.asarray(features[used], np.float64)))
                first, second = (z[torch.from_numpy(place[side[rows]])] for side in (data.first, data.second))
                out[k, rows] = model.margin(first, second, doubled(reader(rows))).numpy()
    return out


def scores(models: Sequence[PreferenceModel], features: np.ndarray, data: Comparisons, side: np.ndarray) -> np.ndarray:
    """Score of one side of each comparison under each model, float64 [K, n]; side: int64 [n], rows of the features.

    InputError where the models give no score to a response alone.
    """
    out = np.empty((len(models), len(data)))
    with torch.no_grad():
        for k, model in enumerate(map(wide, models)):
            reader = Reader(data, model)
            for start in range(0, len(data), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(data)))
                z = model.represent(torch.from_numpy(np.asarray(features[side[rows]], np.float64)))
                out[k, rows] = model.score(z, doubled(reader(rows))).numpy()
    return out
