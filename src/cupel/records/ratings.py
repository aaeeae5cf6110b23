"""The rating of each side of a comparison: what somebody or something said of one response, out of the columns of the file."""

from __future__ import annotations

from typing import Any

import numpy as np

from cupel.records.schema import Votes

#: canonical names of the two columns
NAMES = ("rating_first", "rating_second")


def rating_columns(votes: Votes) -> tuple[str, ...]:
    """Names of the source columns that hold ratings of the first and of the second side; () where the source has none.

    >>> from cupel.records import read
    >>> rating_columns(read([{"prompt": "p", "chosen": "x", "rejected": "y", "chosen_rating": 1, "rejected_rating": 0}], heldout=0))
    ('chosen_rating', 'rejected_rating')
    """
    names = votes.meta.get("columns", {})
    there = () if votes.source is None else votes.source.column_names
    found = tuple(names.get(name, "") for name in NAMES)
    return found if all(name in there for name in found) else ()


def side_ratings(votes: Votes) -> np.ndarray | None:
    """float64 [n, 2] ratings of the first and of the second side; NaN where a value is missing or no finite number, None without columns.

    The sides are those of `votes`: which one was preferred plays no part.

    >>> from cupel.records import read
    >>> row = {"prompt": "p", "response_a": "x", "response_b": "y", "vote": "b", "rating_a": 1, "rating_b": "2.5"}
    >>> side_ratings(read([row], heldout=0)).tolist()
    [[1.0, 2.5]]
    """
    columns = rating_columns(votes)
    if not columns:
        return None
    assert votes.source is not None
    return np.stack([_numbers(votes.source[name]) for name in columns], axis=1)


def _numbers(values: Any) -> np.ndarray:
    """float64 [n]; numbers written as text are read, and what is none is NaN."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found = values.cast(pa.float64(), safe=False).to_numpy()
    else:
        found = np.array([_number(value) for value in values.to_pylist()], dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _number(value: Any) -> float:
    try:
        return np.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return np.nan
