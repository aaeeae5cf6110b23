"""Preference under a stated criterion: r(y, z) of a response y in a context z, and what of it needs no context.

Card "Improving Context-Aware Preference Modeling for Language Models" (Pitis et al. 2024, arXiv:2407.14916): q_z = s(r(z, y1) - r(z, y2)),
equation (2). The two-step mixture over contexts, its error and the aggregation are in `cupel.votes.contexts`. The published model puts the
context as text before a language model; the forms for frozen vectors below are the bilinear and FiLM ones [unverified].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape, linear, normal
from cupel.votes.contexts import ContextGap, context_gap

if TYPE_CHECKING:
    from cupel.learners.heads.data import Comparisons

MODES = ("bilinear", "film", "cosine")
#: pairs of contexts that `explain` says in words, and the similarity below which it says that they reverse each other
_SAID, _REVERSED = 5, -0.25


class NoContextError(InputError):
    """A model that was trained with contexts alone is asked without one."""


class ContextReward(PreferenceModel):
    """r(y, z), with h = tanh(y W + b); an all-zero z is "no context", and what is left is a general reward.

    mode      bilinear: h . (theta + z G)     film: tanh((1 + z gain) (y W + b) + z shift) . theta
              cosine: scale cos(y, z) + y/|y| . theta, which untrained is the zero-shot similarity; widths of y and z are equal
    dim       entries of h; 0: h is y itself (bilinear alone)
    residual  the trained term begins at 0 and scale cos(y, z) is added to it; widths of y and z are equal
    allow_empty  a model that saw contexts alone answers without one too, which otherwise is an error: what it then says was never trained

    With one context it is plain Bradley-Terry on h with weights theta + z G. Contexts are vectors of any width: one-hot, or of a text.

    >>> model = ContextReward(Shape(width=2, context=2), mode="cosine")
    >>> y, z = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> model.score(model.represent(y), Given(context=z)).tolist()
    [1.0, 0.0]
    """

    name = "context"
    summary = "a reward under a context, and a general one without (ContextAware)"
    reads = frozenset({"context"})

    def __init__(
        self, shape: Shape, *, mode: str = "bilinear", dim: int = 32, residual: bool = False, allow_empty: bool = False, seed: int = 0
    ) -> None:  # fmt: skip
        super().__init__(shape)
        if mode not in MODES:
            raise InputError(f"context: mode is {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")
        if dim < 0 or (dim == 0 and mode == "film"):
            raise InputError(f"context: dim is at least {int(mode == 'film')} with mode={mode}, not {dim}")
        if residual and mode == "cosine":
            raise InputError("context: residual adds the cosine to a trained mode: give mode=bilinear or mode=film with it")
        self.mode, self.near, self.allow_empty = mode, residual or mode == "cosine", allow_empty
        if self.near and shape.width != shape.context:
            raise InputError(
                f"context: the cosine of a response and a context needs vectors of one encoder: responses have {shape.width} columns, "
                f"contexts {shape.context}. Leave surface facts out, or take mode=bilinear without residual"
            )
        draw = torch.Generator().manual_seed(seed)
        size = shape.width if mode == "cosine" or not dim else dim
        if mode != "cosine" and dim:
            self.inner = linear(draw, shape.width, dim)
        #: without context; 0 at first where the cosine leads
        self.theta = nn.Parameter(torch.zeros(size)) if self.near else normal(draw, size, scale=size**-0.5)
        for key in {"bilinear": ("turn",), "film": ("gain", "shift"), "cosine": ()}[mode]:
            blank = residual and mode == "bilinear"
            self.register_parameter(
                key, nn.Parameter(torch.zeros(shape.context, size)) if blank else normal(draw, shape.context, size, scale=size**-0.5)
            )
        if self.near:
            self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))  # sides with and without a context in training
        self.register_buffer("one_hot", torch.tensor(False))  # whether training's contexts were names, one entry each

    def prepare(self, features: np.ndarray, data: Comparisons) -> None:
        """Note whether contexts are one-hot, so that `explain` may speak of them by name."""
        if data.contexts is not None:
            x = data.contexts
            self.get_buffer("one_hot").fill_(bool(((x == 0) | (x == 1)).all() and ((x != 0).sum(axis=1) <= 1).all()))

    def represent(self, x: Tensor) -> Tensor:
        """h (for film: before tanh), and the response at length 1 where a cosine is taken: [m, dim (+ width)]."""
        near = [nn.functional.normalize(x, dim=1)] if self.near else []
        if self.mode == "cosine":
            return near[0]
        h = self.inner(x) if hasattr(self, "inner") else x
        if self.mode == "bilinear" and hasattr(self, "inner"):
            h = torch.tanh(h)
        return torch.cat([h, *near], dim=1)

    def score(self, z: Tensor, given: Given) -> Tensor:
        """r, [m]. InputError without context vectors, or where one is empty and training saw contexts alone."""
        context = given.context
        if context is None:
            raise InputError("the model context reads the context of each comparison: give context vectors, all-zero where there is none")
        self._look(context)
        size = len(self.theta)
        h, near = (z, z) if self.mode == "cosine" else (z[:, :size], z[:, size:])
        if self.mode == "bilinear":
            r = (h * (self.theta + context @ self.get_parameter("turn"))).sum(dim=1)
        elif self.mode == "film":
            r = torch.tanh((1 + context @ self.get_parameter("gain")) * h + context @ self.get_parameter("shift")) @ self.theta
        else:
            r = h @ self.theta
        if self.near:
            r = r + self.log_scale.exp() * (near * nn.functional.normalize(context, dim=1)).sum(dim=1)
        return r

    def _look(self, context: Tensor) -> None:
        """Count contexts and empty ones in training; refuse empty ones later where none was seen."""
        empty = int((context == 0).all(dim=1).sum())
        seen = self.get_buffer("seen")
        if self.training and torch.is_grad_enabled():
            seen += torch.tensor([len(context) - empty, empty])
        elif empty and not self.allow_empty and int(seen[0]) and not int(seen[1]):
            raise NoContextError(
                f"{empty:,} of {len(context):,} responses have no context, and the model was trained with contexts alone. Train it on "
                f"comparisons without context too (about as many as with), or set allow_empty=true"
            )

    def decayed(self, name: str) -> bool:
        """All but biases and the scale of the cosine."""
        return super().decayed(name) and name != "log_scale"

    def pace(self, name: str) -> float:
        """The logarithm of the scale moves ten times as fast: cosines of texts differ by a tenth, log-odds by several."""
        return 10.0 if name == "log_scale" else 1.0

    def directions(self, contexts: np.ndarray) -> np.ndarray:
        """Gradient of r in the response's vector at 0 (of the cosine: the context at length 1, scaled), float64 [C, width]."""
        z = torch.from_numpy(np.atleast_2d(np.asarray(contexts, np.float64)))
        if z.shape[1] != self.shape.context:
            raise InputError(f"contexts are vectors of {self.shape.context} entries, not {z.shape[1]}")
        own = {key: x.detach().double() for key, x in self.named_parameters()}
        slope = own["theta"].expand(len(z), -1)
        if self.mode == "bilinear":
            slope = slope + z @ own["turn"]
        if self.mode == "film":
            gain = 1 + z @ own["gain"]
            slope = slope * gain * (1 - torch.tanh(gain * own["inner.bias"] + z @ own["shift"]) ** 2)
        if "inner.weight" in own:
            if self.mode == "bilinear":
                slope = slope * (1 - torch.tanh(own["inner.bias"]) ** 2)
            slope = slope @ own["inner.weight"]
        if self.near:
            slope = slope + own["log_scale"].exp() * nn.functional.normalize(z, dim=1)
        return slope.numpy()

    def compare(self, contexts: np.ndarray, names: Sequence[str]) -> Explanation:
        """How alike the contexts' directions are, which pairs reverse each other, and each one's strongest columns where they have names.

        contexts: vectors [C, c]; names: C of them. Similarity: cosine of `directions`; below -0.25 a pair is said to reverse.
        """
        if len(contexts) != len(names):
            raise InputError(f"{len(contexts)} contexts have {len(names)} names")
        found = self.directions(contexts)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        unit = found / np.where(length > 0, length, 1)
        alike = unit @ unit.T
        i, j = np.triu_indices(len(names), 1)
        order = np.argsort(alike[i, j], kind="stable")
        i, j = i[order], j[order]
        near = {
            "first": [names[k] for k in i], "second": [names[k] for k in j], "similarity": [round(float(x), 6) for x in alike[i, j]],
        }  # fmt: skip
        tables: dict[str, dict[str, list[object]]] = {"similarity": near}  # type: ignore[dict-item]
        turned = [(names[a], names[b], alike[a, b]) for a, b in zip(i, j, strict=True) if alike[a, b] < _REVERSED]
        words = [f"{a} and {b} reverse each other (similarity {x:.2f})" for a, b, x in turned[:_SAID]]
        if not words and len(names) > 1:
            words = ["no two contexts reverse each other"]
        if len(turned) > _SAID:
            words.append(f"{len(turned)} of {len(i)} pairs of contexts reverse each other")
        columns = self.shape.names
        if columns:
            top = np.argsort(-np.abs(found), axis=1, kind="stable")[:, :_SAID]
            tables["columns"] = {
                "context": [names[c] for c, row in enumerate(top) for _ in row], "column": [columns[k] for row in top for k in row],
                "slope": [round(float(found[c, k]), 6) for c, row in enumerate(top) for k in row],
            }  # fmt: skip
        return Explanation(tuple(words), tables)

    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """`compare` for contexts that are one-hot, by their names; for contexts of a text give the vectors to `compare`."""
        if contexts and len(contexts) == self.shape.context and bool(self.get_buffer("one_hot")):
            return self.compare(np.eye(self.shape.context), contexts)
        return Explanation((f"contexts are vectors of {self.shape.context} entries: compare(vectors, names) says how they differ",))


def gap(
    model: PreferenceModel, features: np.ndarray, data: Comparisons, *, opposed: np.ndarray | None = None,
    row: np.ndarray | None = None, seed: int = 0,
) -> ContextGap:  # fmt: skip
    """Accuracy with the right context, with none, with those of other rows, and with the opposed one: whether the model uses its context.

    opposed  int64 [n], rows of `data.contexts` under which the label would be the other one; None: that control is left out
    row      int64 [n], the reversal row of each comparison: reversal accuracy counts rows whose two comparisons are both right
    Labels of p = 1/2 are left out. A model that refuses empty contexts has no number for "none".
    """
    from cupel.learners.heads.margins import margins

    if data.contexts is None or data.context is None:
        raise InputError("these comparisons have no context")
    kept = np.flatnonzero(data.p != 0.5)
    if not len(kept):
        raise InputError(f"all {len(data):,} comparisons are ties (p = 1/2): there is no accuracy to speak of")
    part = data.take(kept)
    assert part.context is not None
    table = np.concatenate([data.contexts, np.zeros((1, data.contexts.shape[1]), np.float32)])
    sign = np.where(part.p > 0.5, 1.0, -1.0)

    def under(index: np.ndarray) -> np.ndarray:
        return margins([model], features, replace(part, context=index, contexts=table))[0] * sign

    try:
        none = under(np.full(len(part), len(table) - 1, np.int64))
    except NoContextError:
        none = None
    other = np.random.default_rng([seed, 23]).permutation(part.context)
    wrong = None if opposed is None else under(np.asarray(opposed, np.int64)[kept])
    return context_gap(
        under(part.context), none=none, wrong=wrong, shuffled=under(other), row=None if row is None else np.asarray(row)[kept],
        group=part.group if bool((part.group >= 0).all()) else None, seed=seed,
    )  # fmt: skip


MODEL = ContextReward
