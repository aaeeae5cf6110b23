"""What is said about an item, in one line: its title, genres and the tags that users gave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

compute: Any = pc
#: tags of one item that its text names
TAGS = 8


def item_text(title: str, genres: Sequence[str] = (), tags: Sequence[str] = ()) -> str:
    """An item in words: "{title}. Genres: {g1, g2}. Tags: {t1, t2}."; what is not there is left out; "" without a title.

    >>> item_text("Heat (1995)", ["Crime", "Drama"], ["heist"])
    'Heat (1995). Genres: Crime, Drama. Tags: heist.'
    """
    said = [title.strip()] if title.strip() else []
    if genres:
        said.append(f"Genres: {', '.join(genres)}")
    if tags:
        said.append(f"Tags: {', '.join(tags)}")
    return f"{'. '.join(said)}." if said else ""


def first_tags(item: Any, tag: Any, most: int = TAGS) -> dict[str, list[str]]:
    """The first distinct tags of each item in the order of the rows, in small letters, by item id as a string.

    >>> first_tags(pa.array([1, 1, 2, 1]), pa.array(["Fun", "fun", "sad", "old"]), 2)
    {'1': ['fun', 'old'], '2': ['sad']}
    """
    known = compute.and_(compute.is_valid(item), compute.is_valid(tag))
    items, tags = (_encoded(x.filter(known)) for x in (item, compute.utf8_lower(compute.utf8_trim_whitespace(tag.cast(pa.string())))))
    (i, item_names), (t, tag_names) = items, tags
    filled = np.array([bool(name) for name in tag_names], dtype=bool)[t] if len(tag_names) else np.zeros(0, dtype=bool)
    i, t = i[filled], t[filled]
    first = np.sort(np.unique(i.astype(np.int64) * max(len(tag_names), 1) + t, return_index=True)[1])
    turn = first[np.argsort(i[first], kind="stable")]
    start = np.r_[0, np.flatnonzero(np.diff(i[turn])) + 1] if len(turn) else np.zeros(0, np.int64)
    return {
        str(item_names[i[turn[a]]]): [str(tag_names[k]) for k in t[turn[a:b][:most]]]
        for a, b in zip(start, [*start[1:], len(turn)], strict=True)
    }


def _encoded(column: Any) -> tuple[np.ndarray, list[Any]]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    return coded.indices.to_numpy(zero_copy_only=False), coded.dictionary.to_pylist()
