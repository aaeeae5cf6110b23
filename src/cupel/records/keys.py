"""Rows of integer columns numbered: what `np.unique(axis=0, return_inverse=True)` gives, from one integer per row instead of a record."""

from __future__ import annotations

import numpy as np

#: what one integer may hold
_MOST = 1 << 62


def dense(*columns: np.ndarray) -> np.ndarray:
    """int64 [n]: number of each row of integer columns [n]: equal rows share it, numbers follow the order of the rows without gaps.

    The columns are packed into one integer each row (a packed column is numbered first where it would not fit); where the packed range is
    small a table takes the place of the sort.

    >>> dense(np.array([2, 1, 2, 1]), np.array([5, 9, 5, 7])).tolist()
    [2, 1, 2, 0]
    """
    code, size = _shifted(columns[0])
    for column in columns[1:]:
        more, width = _shifted(column)
        if size * width > _MOST:
            code = _numbered(code, size)
            size = int(code.max(initial=-1)) + 1
        code = code * width + more
        size *= width
    return _numbered(code, size)


def _shifted(column: np.ndarray) -> tuple[np.ndarray, int]:
    """(the column as int64 from 0 on, its range)."""
    found = np.asarray(column).astype(np.int64, copy=False)
    low = int(found.min(initial=0))
    return (found - low if low else found), max(int(found.max(initial=0)) - low + 1, 1)


def _numbered(code: np.ndarray, size: int) -> np.ndarray:
    """Numbers of codes in 0 ... size - 1, in their order and without gaps."""
    if size <= 8 * len(code) + 1024:
        there = np.zeros(size, dtype=bool)
        there[code] = True
        return (np.cumsum(there) - 1)[code]
    order = np.argsort(code, kind="stable")  # rows of a file are often in order already, which this sort uses
    ordered = code[order]
    new = np.ones(len(code), dtype=np.int64)
    new[:1] = 0
    new[1:] = ordered[1:] != ordered[:-1]
    out = np.empty(len(code), dtype=np.int64)
    out[order] = np.cumsum(new)
    return out
