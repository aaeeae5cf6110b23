"""The columns of a data set that say what its labels are worth, as numbers that pass through TRL's tokenisation and collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError, RecordError
from cupel.noise.types import DataSpec, Target, Terms

#: what is read: weight at least 0, p in [0, 1] the probability that chosen is the better one, and three columns of ids
COLUMNS = ("weight", "p", "annotator", "group", "id")
#: what is carried: numbers for each row, under names that no data set has
PREFIX = "cupel_"
CODED = ("cupel_record", "cupel_annotator", "cupel_group", "cupel_p", "cupel_weight")


def spec_of(dataset: Any) -> DataSpec:
    """The ids of the rows, annotators and groups of a training set; rows without an `id` are named by their position.

    RecordError where ids are missing or occur twice; InputError for a stream, whose ids nobody knows before the end.
    """
    _refuse_stream(dataset, "train_dataset")
    dataset = dataset.with_format(None)
    records = tuple(str(i) for i in range(len(dataset)))
    if "id" in dataset.column_names:
        values = list(dataset["id"])
        absent = [i for i, value in enumerate(values) if value is None]
        if absent:
            raise RecordError(_rows("id", "is missing", absent, len(values)) + ". Fill the column, or remove it")
        records = tuple(str(value) for value in values)
        if len(set(records)) < len(records):
            first: dict[str, int] = {}
            twice = [i for i, name in enumerate(records) if first.setdefault(name, i) != i]
            raise RecordError(
                _rows("id", "has been there before", twice, len(records)) + f" ({records[twice[0]]!r}). An id names one row: make it "
                f"unique, or rename the column, and rows are named by their position"
            )
    return DataSpec(records, _ids(dataset, "annotator"), _ids(dataset, "group"))


def coded(dataset: Any, spec: DataSpec, name: str, *, training: bool) -> Any:
    """The data set with the columns CODED: int record, annotator and group (-1 where unknown to `spec`), float p and weight.

    RecordError naming the first row where a weight is negative or p is no probability. Already coded data sets are left as they are.
    """
    _refuse_stream(dataset, name)
    there = set(dataset.column_names)
    if set(CODED) <= there:
        return dataset
    plain, n = dataset.with_format(None), len(dataset)
    p = _numbers(plain, "p", lambda x: (x >= 0) & (x <= 1), "is not a probability in [0, 1]")
    weight = _numbers(plain, "weight", lambda x: (x >= 0) & (x < np.inf), "is not a finite number of at least 0")
    columns = {
        "cupel_record": np.arange(n) if training else np.full(n, -1),
        "cupel_annotator": _codes(plain, "annotator", spec.annotators),
        "cupel_group": _codes(plain, "group", spec.groups),
        "cupel_p": p,
        "cupel_weight": weight,
    }
    for key, values in columns.items():
        dataset = dataset.add_column(key, values)
    return dataset


@dataclass
class Collator:
    """TRL's collator, with the columns CODED put beside what it makes of the rest."""

    inner: Callable[[list[dict[str, Any]]], MutableMapping[str, Any]]

    def __call__(self, examples: list[dict[str, Any]]) -> MutableMapping[str, Any]:
        """A batch of B comparisons: the inner collator's tensors, and for each of CODED int64 [B], or the bits of float32 as int32 [B].

        Bits, because a trainer under DeepSpeed casts every floating tensor of a batch to the precision of the model.
        """
        batch = self.inner([{key: value for key, value in row.items() if key not in CODED} for row in examples])
        for key in CODED:
            values = [row[key] for row in examples]
            real = key in ("cupel_p", "cupel_weight")
            batch[key] = torch.tensor(values, dtype=torch.float32).view(torch.int32) if real else torch.tensor(values, dtype=torch.int64)
        return batch


def split(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what TRL knows of a batch, what it does not)."""
    ours = {key for key in inputs if key.startswith(PREFIX)}
    return {key: inputs[key] for key in inputs if key not in ours}, {key: inputs[key] for key in ours}


def target_of(extra: Mapping[str, Tensor]) -> Target:
    """The target that the data state, before any treatment."""
    return Target(extra["cupel_p"].view(torch.float32), extra["cupel_weight"].view(torch.float32))


def terms_of(extra: Mapping[str, Tensor], step: int, epoch: int, total: int) -> Terms:
    """The names of a batch's comparisons; keep and flip are for the model to fill in."""
    unknown = torch.full_like(extra["cupel_p"], float("nan"), dtype=torch.float32)
    return Terms(unknown, unknown, extra["cupel_record"], extra["cupel_annotator"], extra["cupel_group"], step, epoch, total)


def _refuse_stream(dataset: Any, name: str) -> None:
    if not hasattr(dataset, "add_column") or not hasattr(dataset, "__len__"):
        raise InputError(
            f"{name} is a {type(dataset).__name__}: weights, p and annotators are read before training, from a datasets.Dataset as a "
            f"whole (datasets.Dataset.from_generator makes one of a stream, on disk)"
        )


def _ids(dataset: Any, column: str) -> tuple[str, ...]:
    """Ids in the order of their names: the same whatever the order of the rows."""
    if column not in dataset.column_names:
        return ()
    return tuple(sorted({str(value) for value in dataset[column] if value is not None}))


def _codes(dataset: Any, column: str, ids: Sequence[str]) -> np.ndarray:
    if column not in dataset.column_names:
        return np.full(len(dataset), -1)
    place = {name: index for index, name in enumerate(ids)}
    return np.array([-1 if value is None else place.get(str(value), -1) for value in dataset[column]], dtype=np.int64)


def _numbers(dataset: Any, column: str, valid: Callable[[np.ndarray], np.ndarray], rule: str) -> np.ndarray:
    if column not in dataset.column_names:
        return np.ones(len(dataset))
    raw = list(dataset[column])
    try:
        values = np.array([np.nan if value is None else float(value) for value in raw])
    except (TypeError, ValueError) as error:
        raise RecordError(f"the column {column!r} does not hold numbers ({error}). Convert it, or rename it") from error
    wrong = np.flatnonzero(~valid(values))
    if len(wrong):
        raise RecordError(_rows(column, rule, wrong.tolist(), len(raw)) + ". Correct it, or rename the column if it means something else")
    return values


def _rows(column: str, rule: str, rows: Sequence[int], n: int) -> str:
    return f"{column} {rule} in {len(rows):,} of {n:,} rows (first: row {rows[0]})"
