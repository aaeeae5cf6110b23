"""The data of a comparison as arrays: features of unique sides, who won, who is right, and what holds rows together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cupel.errors import InputError
from cupel.records.schema import Votes
from cupel.votes.folds import group_folds

if TYPE_CHECKING:
    from cupel.learners.sides import RawSides

#: fewer decided rows than this cannot be split in three
FEWEST = 60


@dataclass(frozen=True)
class Data:
    """Decided comparisons of one data set.

    sides     unscaled features of unique sides; votes: the n decided rows, whose `sign` says who won as recorded
    truth     int8 [n]: +1 the first side is better, -1 the second, 0 unknown; None where the data has no truth
    group     int64 [n]: rows that stay together in splits and in intervals
    words     float64 [m] of each unique side
    """

    name: str
    votes: Votes
    sides: RawSides
    truth: np.ndarray | None
    group: np.ndarray
    words: np.ndarray

    @property
    def reference(self) -> np.ndarray:
        """int8 [n]: the truth where it is known, else the recorded label before anything is planted: what test rows are judged by."""
        sign = self.votes.sign
        return sign if self.truth is None else np.where(self.truth != 0, self.truth, sign).astype(np.int8)


def prepare(name: str, votes: Votes, sides: RawSides, truth: np.ndarray | None = None) -> Data:
    """The rows with a preference, a weight above 0 and two different sides; the rest is left out. InputError where too few remain.

    truth int [n] (+1, -1, 0 unknown), aligned with `votes`; sides as `cupel.learners.sides.raw_sides` gives them for `votes`.
    """
    keep = (votes.sign != 0) & (votes.w > 0) & (sides.first != sides.second)
    if int(keep.sum()) < FEWEST:
        raise InputError(f"{int(keep.sum()):,} of {len(votes):,} rows have a preference between two sides; a comparison needs {FEWEST}")
    votes = votes.take(keep)
    words = np.ones(len(sides.length))
    counts = np.array([max(1, len(text.split())) for text in votes.response_texts()], dtype=np.float64)
    for node, response in ((sides.first[keep], votes.first), (sides.second[keep], votes.second)):
        words[node] = counts[response]
    parts = type(sides)(sides.embedding, sides.facts, sides.length, sides.first[keep], sides.second[keep])
    return Data(name, votes, parts, None if truth is None else np.asarray(truth)[keep].astype(np.int8), _groups(votes), words)


def _groups(votes: Votes) -> np.ndarray:
    """Groups, or prompts or pairs where there are fewer than 10 of them or one holds more than half of the rows."""
    for label in (votes.group, votes.prompt):
        found, size = np.unique(label, return_inverse=True)[1].reshape(-1), np.unique(label, return_counts=True)[1]
        if len(size) >= 10 and size.max() * 2 <= len(votes):
            return found
    return np.unique(votes.pair, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class Split:
    """Positions of training, validation and test rows, int [.]; no group is in two of them. `fold` int of each training row."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fold: np.ndarray


def split(data: Data, seed: int, parts: int, validation: float, folds: int) -> Split:
    """Seed s tests part s mod `parts` of the groups, dealt anew every `parts` seeds; of the rest a share is the validation part.

    So `parts` consecutive seeds test every row once.
    """
    part = group_folds(data.group, parts, 1000 + seed // parts)
    test = part == seed % (int(part.max()) + 1)
    inside = np.flatnonzero(~test)
    many = max(2, round(1 / validation))
    dealt = group_folds(data.group[inside], many, 2000 + seed)
    held = dealt == 0
    train = inside[~held]
    return Split(train, inside[held], np.flatnonzero(test), group_folds(data.group[train], folds, 3000 + seed))
