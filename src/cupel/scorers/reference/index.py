"""Stored responses by key: sorted runs in memory that are merged as they grow, so that n responses cost n log n however they come.

Of each key 128 bits are kept: two of 10^9 responses share them with a probability below 10^-20.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Columns = dict[str, np.ndarray]


class Index:
    """Rows of numbers by the first 16 bytes of a key; of rows with one key the first that was added stays.

    >>> index = Index()
    >>> keys = np.arange(96, dtype=np.uint8).reshape(3, 32)
    >>> index.add(columns_of(keys, logp=np.float32([-1, -2, -3])))
    >>> there, found = index.find([keys[2].tobytes(), bytes(32)])
    >>> len(index), there.tolist(), found["logp"].tolist()
    (3, [True, False], [-3.0, 0.0])
    """

    def __init__(self) -> None:
        self._runs: list[Columns] = []

    def __len__(self) -> int:
        return sum(len(run["high"]) for run in self._runs)

    def add(self, rows: Columns) -> None:
        """Add rows, made by `columns_of`, and empty them; runs of like size are merged into one."""
        if not len(rows["high"]):
            return
        self._runs.append(_sorted(rows))
        while len(self._runs) > 1 and len(self._runs[-2]["high"]) <= 2 * len(self._runs[-1]["high"]):
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted({name: np.concatenate([before.pop(name), last.pop(name)]) for name in tuple(before)}))

    def find(self, keys: Sequence[bytes]) -> tuple[np.ndarray, Columns]:
        """bool [n]: which keys are there; their numbers by name, 0 where they are not."""
        high, low = _words(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32))
        there = np.zeros(len(keys), bool)
        names = [name for name in (self._runs[0] if self._runs else ()) if name not in ("high", "low")]
        values = {name: np.zeros(len(keys), self._runs[0][name].dtype) for name in names}
        for run in self._runs:
            at = np.searchsorted(run["high"], high)
            while True:  # keys that agree in 64 bits and differ in the next
                other = np.flatnonzero(at < len(run["high"]))
                other = other[(run["high"][at[other]] == high[other]) & (run["low"][at[other]] != low[other])]
                if not len(other):
                    break
                at[other] += 1
            hit = np.flatnonzero((at < len(run["high"])) & ~there)
            hit = hit[run["high"][at[hit]] == high[hit]]
            there[hit] = True
            for name in names:
                values[name][hit] = run[name][at[hit]]
        return there, values


def columns_of(keys: np.ndarray, **values: np.ndarray) -> Columns:
    """Rows for `Index.add` from keys, uint8 [n, 32], and numbers [n] by name."""
    high, low = _words(keys)
    return {"high": high, "low": low, **values}


def _words(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    words = np.ascontiguousarray(keys[:, :16]).view("<u8")
    return words[:, 0].copy(), words[:, 1].copy()


def _sorted(rows: Columns) -> Columns:
    """Rows by key, of equal keys the first; `rows` is emptied column by column, so that no more than one column is there twice."""
    order = np.argsort(rows["high"], kind="stable").astype(np.int32 if len(rows["high"]) < 1 << 31 else np.int64)
    high = rows.pop("high")[order]
    if (same := high[1:] == high[:-1]).any():  # rows with one key, or keys that agree in 64 bits and differ in the next
        mixed = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        order[mixed] = order[mixed][np.lexsort((rows["low"][order[mixed]], high[mixed]))]
        low = rows["low"][order]
        keep = np.concatenate([[True], ~(same & (low[1:] == low[:-1]))])
        order, high = order[keep], high[keep]
    return {"high": high, **{name: rows.pop(name)[order] for name in tuple(rows)}}
