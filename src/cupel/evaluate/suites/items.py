"""The neutral form of a benchmark: items of right and wrong responses to a prompt, and each (prompt, response) to be scored once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cupel.records.text import render


@dataclass(frozen=True)
class Item:
    """Right and wrong responses to one prompt, which is a text, or a chat list as canonical JSON.

    subset  the published name of the part it belongs to; group: what resampling keeps together (items of one prompt)
    id      the item's own id, "" where it has none
    In suites whose responses come in styles, the position in `right` and in `wrong` is the style.
    """

    prompt: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    subset: str
    group: str
    id: str = ""


class Scored(NamedTuple):
    """An item with the scores of its right and of its wrong responses."""

    item: Item
    right: np.ndarray
    wrong: np.ndarray


@dataclass(frozen=True)
class Row:
    """A number that is reported: the sum of weight * (sum of hits / sum of counts) over cells.

    level   "overall", "section", "subset", "part" (a summand of a subset's score) or "cell" (one field of a matrix)
    subsets whose items it rests on; at: (matrix, row, column) of a cell; bottom, top: the ends of its scale
    """

    name: str
    level: str
    subsets: tuple[str, ...]
    weights: Mapping[str, float]
    at: tuple[str, int, int] | None = None
    top: float = 1.0
    bottom: float = 0.0


#: cell -> (hits, count)
Cells = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Suite:
    """A benchmark: how it is recognised and read, how an item is scored, and how its numbers are weighted.

    fits      whether rows with these columns and this first row are of the suite
    item      one row (and the subset that its folder names, "" where none) -> Item; raises `Bad`
    cells     the scored items of one group -> hits and counts per cell; counts do not depend on scores
    rows      number of items per subset -> the rows to report, the headline first, and what has to be said about them
    check     all items -> (position, why) of those that do not belong
    folders   names of folders that are subsets; axes: the names along both sides of a matrix
    """

    name: str
    description: str
    weighting: str
    ties: str
    columns: tuple[str, ...]
    fits: Callable[[Mapping[str, Any]], bool]
    item: Callable[[Mapping[str, Any], str], Item]
    cells: Callable[[Sequence[Scored]], Cells]
    rows: Callable[[Mapping[str, int]], tuple[list[Row], list[str]]]
    check: Callable[[Sequence[Item]], list[tuple[int, str]]] = field(default=lambda items: [])
    folders: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requests:
    """Each different (prompt, response) of a suite, to be scored once, and where the items' responses are among them."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    right: tuple[np.ndarray, ...]
    wrong: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def keys(self) -> list[str]:
        """The name of each request in files of recorded scores: `request_key` of its prompt and response."""
        return [request_key(prompt, response) for prompt, response in zip(self.prompts, self.responses, strict=True)]


def request_key(prompt: str, response: str) -> str:
    """The name of a (prompt, response) in files of scores: SHA-256 of both in UTF-8 with a zero byte between, 32 hexadecimal digits.

    A chat list counts as its plain text, so that a file of scores may hold either.

    >>> request_key("Why?", "Because.") == request_key("Why?", "Because."), len(request_key("", ""))
    (True, 32)
    """
    joined = render(prompt).encode("utf-8", "surrogatepass") + b"\0" + response.encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:32]


def score_requests(items: Sequence[Item]) -> Requests:
    """What has to be scored: every different (prompt, response) of the items once, in the order of first appearance.

    >>> twice = [Item("p", ("a",), ("b", "c"), "s", "p"), Item("p", ("a",), ("c",), "s", "p")]
    >>> found = score_requests(twice)
    >>> len(found), found.responses, found.wrong[1].tolist()
    (3, ('a', 'b', 'c'), [2])
    """
    place: dict[tuple[str, str], int] = {}

    def at(prompt: str, texts: Sequence[str]) -> np.ndarray:
        return np.array([place.setdefault((prompt, text), len(place)) for text in texts], dtype=np.int64)

    pairs = [(at(item.prompt, item.right), at(item.prompt, item.wrong)) for item in items]
    return Requests(
        tuple(prompt for prompt, _ in place), tuple(response for _, response in place),
        tuple(right for right, _ in pairs), tuple(wrong for _, wrong in pairs),
    )  # fmt: skip
