"""Comparisons as arrays, and the rows of a feature matrix that a batch of them needs, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from cupel.errors import InputError

_COLUMNS = ("first", "second", "p", "w", "annotator", "group")
_OPTIONAL = ("prompt", "context", "strength")


@dataclass(frozen=True)
class Comparisons:
    """n comparisons of rows of a feature matrix. Made by `of`, which checks.

    first, second     int64 [n], rows of the features
    p, w              float64 [n], probability that `first` is better, weight at least 0
    annotator, group  int64 [n], index into `annotators` and `groups`, -1 unknown
    ids               n names, for treatments that keep a table by record
    length            float32 [rows of the features], tokens or words of each side; None where no objective asks
    prompt, context   int64 [n], rows of `prompts` and `contexts`, float32 matrices; None where no model reads them
    strength          float32 [n], stated strength of preference, the gap of the two sides' ratings; None where no objective asks
    columns           names of the features' columns, where a model speaks of them
    """

    first: np.ndarray
    second: np.ndarray
    p: np.ndarray
    w: np.ndarray
    annotator: np.ndarray
    group: np.ndarray
    ids: Sequence[str]
    annotators: Sequence[str] = ()
    groups: Sequence[str] = ()
    length: np.ndarray | None = None
    prompt: np.ndarray | None = None
    prompts: np.ndarray | None = None
    context: np.ndarray | None = None
    contexts: np.ndarray | None = None
    columns: Sequence[str] = ()
    strength: np.ndarray | None = None

    @classmethod
    def of(
        cls, first: np.ndarray, second: np.ndarray, p: np.ndarray | None = None, w: np.ndarray | None = None, *,
        annotator: np.ndarray | None = None, group: np.ndarray | None = None, ids: Sequence[str] | None = None,
        annotators: Sequence[str] = (), groups: Sequence[str] = (), length: np.ndarray | None = None,
        prompt: np.ndarray | None = None, prompts: np.ndarray | None = None, context: np.ndarray | None = None,
        contexts: np.ndarray | None = None, columns: Sequence[str] = (), strength: np.ndarray | None = None,
    ) -> Comparisons:  # fmt: skip
        """Comparisons from what is known of them: p and w are 1 where they are left out. InputError where lengths or values are wrong.

        >>> Comparisons.of(np.array([0, 2]), np.array([1, 1])).p.tolist()
        [1.0, 1.0]
        """
        n = len(first)
        unknown = np.full(n, -1, np.int64)
        numbers = cast("Sequence[str]", range(n))  # only how many there are is read, unless a treatment has a table by name
        found = cls(
            np.asarray(first, np.int64), np.asarray(second, np.int64), np.ones(n) if p is None else np.asarray(p, np.float64),
            np.ones(n) if w is None else np.asarray(w, np.float64), unknown if annotator is None else np.asarray(annotator, np.int64),
            unknown if group is None else np.asarray(group, np.int64), numbers if ids is None else ids, annotators, groups, length,
            *(None if x is None else np.asarray(x, np.int64 if x.ndim == 1 else np.float32) for x in (prompt, prompts, context, contexts)),
            columns=columns, strength=None if strength is None else np.asarray(strength, np.float32),
        )  # fmt: skip
        columns = [*_COLUMNS, "ids", *(name for name in _OPTIONAL if getattr(found, name) is not None)]
        sizes = {name: len(getattr(found, name)) for name in columns}
        if len(set(sizes.values())) > 1:
            raise InputError(f"the columns of the comparisons have different lengths: {sizes}")
        bad = np.flatnonzero(~((found.p >= 0) & (found.p <= 1) & (found.w >= 0) & np.isfinite(found.w)))
        if len(bad):
            raise InputError(f"{len(bad):,} of {n:,} comparisons have a p outside [0, 1] or a weight below 0 (first: row {bad[0]})")
        if found.strength is not None and not (np.isfinite(found.strength) & (found.strength >= 0)).all():
            row = int(np.argmin(np.isfinite(found.strength) & (found.strength >= 0)))
            raise InputError(f"a strength of preference is a number of at least 0 (first otherwise: row {row}, {found.strength[row]:g})")
        for name, table in (("prompt", found.prompts), ("context", found.contexts)):
            index = getattr(found, name)
            if (index is None) != (table is None):
                raise InputError(f"{name}s are rows of a matrix: give both {name} and {name}s, or neither")
            if index is not None and table is not None and len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(table):
                raise InputError(f"{name} points at rows {index.min():,} to {index.max():,} of {len(table):,} vectors")
        return found

    def __len__(self) -> int:
        """Number of comparisons."""
        return len(self.first)

    def take(self, rows: np.ndarray) -> Comparisons:
        """Some of the comparisons; features, annotators and groups are shared."""
        columns = {name: getattr(self, name)[rows] for name in (*_COLUMNS, *(x for x in _OPTIONAL if getattr(self, x) is not None))}
        ids = self.ids if isinstance(self.ids, range) else [self.ids[int(row)] for row in rows]
        return replace(self, **columns, ids=range(len(rows)) if isinstance(ids, range) else ids)

    def check(self, features: np.ndarray) -> None:
        """InputError unless the features are a float32 matrix with the rows that are pointed at."""
        if features.ndim != 2 or features.dtype != np.float32:
            raise InputError(f"features are a float32 matrix [sides, d], not {features.dtype} of shape {features.shape}")
        if not len(self):
            raise InputError("there are no comparisons to learn from")
        low = int(min(self.first.min(), self.second.min()))
        high = int(max(self.first.max(), self.second.max()))
        if low < 0 or high >= len(features):
            raise InputError(f"comparisons point at rows {low:,} to {high:,} of {len(features):,} feature rows")


class Gather:
    """The distinct sides of a batch, copied out of the features into one buffer that every batch uses again.

    Calling it with rows of the comparisons gives (x [u, d], first [B], second [B]); x is valid until the next call.
    """

    def __init__(self, features: np.ndarray, data: Comparisons, batch_size: int) -> None:
        data.check(features)
        self.features, self.data = features, data
        self.place = np.zeros(len(features), np.int64)
        self.buffer = np.empty((min(2 * batch_size, len(features)), features.shape[1]), np.float32)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features of the distinct sides of these comparisons, and where among them each comparison's two sides are."""
        both = np.concatenate([self.data.first[rows], self.data.second[rows]])
        mention = np.arange(len(both))
        self.place[both] = mention  # of several mentions of a side, one stays and speaks for it; no sort, no search
        owner = self.place[both]
        mine = owner == mention
        rank = np.cumsum(mine) - 1
        used = both[mine]
        x = self.buffer[: len(used)]
        np.take(self.features, used, axis=0, out=x, mode="clip")  # indices are checked; "raise" would copy through another buffer
        at = rank[owner]
        return x, at[: len(rows)], at[len(rows) :]
