"""Rating matrices in text, one row per user and one number per item, 0 where there is none: train.ascii and test.ascii, as of Coat.

A folder is read as its train.ascii; the test is read by its own path and joined by `uniform_test`. Users and items are numbered from 0.
Where propensities.ascii of the same shape lies beside train.ascii, it is the chance with which each cell was seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cupel.errors import RecordError
from cupel.interactions.places import Place, head
from cupel.interactions.raw import Raw

NAME = "matrix"
DESCRIPTION = "a rating matrix in text, one row per user: train.ascii, test.ascii"


def detect(place: Place) -> tuple[float, str]:
    """A file that ends in .ascii, or a folder with train.ascii."""
    if place.path.is_dir():
        return (0.95, "there is train.ascii") if place.has("train.ascii") else (0.0, "")
    return (0.95, "its name ends in .ascii") if place.path.suffix == ".ascii" else (0.0, "")


def read(place: Place) -> Raw:
    """The cells that are not zero, row by row."""
    path = place.path / "train.ascii" if place.path.is_dir() else place.path
    values = _matrix(path)
    user, item = np.nonzero(values)
    chances = place.folder / "propensities.ascii"
    propensity = None
    notes = (f"A matrix of {values.shape[0]:,} users and {values.shape[1]:,} items, numbered from 0; zero is no rating.",)
    if path.name == "train.ascii" and chances.is_file():
        seen = _matrix(chances)
        if seen.shape != values.shape:
            raise RecordError(f"{chances} has shape {seen.shape}, {path.name} has {values.shape}: they are not of one data set")
        propensity = seen[user, item]
    return Raw(user, item, values[user, item], propensity=propensity, notes=notes)


def _matrix(path: Path) -> np.ndarray:
    lines = head(path)
    if not lines:
        raise RecordError(f"{path} is empty or no text: a matrix has one row of numbers per user")
    try:
        found = np.loadtxt(path, dtype=np.float64, ndmin=2, delimiter="," if "," in lines[0] else None)
    except (ValueError, OSError) as error:
        raise RecordError(f"{path} is no matrix of numbers with rows of one length: {str(error).splitlines()[0]}") from error
    if not np.isfinite(found).all():
        row = int(np.argmax(~np.isfinite(found).all(1)))
        raise RecordError(
            f"{path}: {int((~np.isfinite(found)).sum()):,} cells are no numbers (first: line {row + 1}); write 0 for no rating"
        )
    return found
