"""Open Bandit: what was recommended, at which position, clicked or not, and the chance with which it was (the logging policy's).

The release is POLICY/CAMPAIGN/CAMPAIGN.csv with timestamp, item_id, position, click, propensity_score and user features; as one Parquet
it has columns policy, campaign, order, propensity. It names no persons: the `user` of an event is the combination of its user features, a
kind of user. `event` is "POLICY position P" (or "position P"); items of several campaigns in one table are "CAMPAIGN/ITEM".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.interactions.places import Place, columns
from cupel.interactions.raw import Raw
from cupel.interactions.tables import table

NAME = "open_bandit"
DESCRIPTION = "Open Bandit: CAMPAIGN.csv or Parquet with item_id, position, click, propensity and user_feature_0 ..."
POLICIES = ("bts", "random")


def detect(place: Place) -> tuple[float, str]:
    """By its columns; a folder by its only file that has them."""
    path = _file(place)
    return (0.97, f"{path.name} has clicks, positions, propensities and user features") if path else (0.0, "")


def read(place: Place) -> Raw:
    """Every display is an event: value 1 where it was clicked, 0 where not."""
    path = _file(place)
    if path is None:
        raise RecordError(f"{place.path} has no file with item_id, position, click, propensity and user features. {place.described()}")
    there = columns(path)
    features = [name for name in there if name.startswith("user_feature_")]
    theta = "propensity_score" if "propensity_score" in there else "propensity"
    clock = next((name for name in ("timestamp", "order") if name in there), None)
    more = [name for name in ("policy", "campaign") if name in there]
    wanted = ["item_id", "position", "click", theta, *features, *more, *([clock] if clock else [])]
    rows, skipped, first = table(path, wanted=wanted, ids=[*features, *more, "item_id"])
    item = _joined([rows["campaign"], rows["item_id"]], "/") if "campaign" in more else rows["item_id"]
    place_of = _joined([rows["position"]], "", "position ")
    policy = next((part for part in reversed(path.resolve().parts[:-1]) if part in POLICIES), "")
    event = _joined([rows["policy"], place_of], " ") if "policy" in more else _joined([place_of], "", f"{policy} " if policy else "")
    notes = ("A user is a combination of user features, not a person: what is said per user is said per kind of user.",)
    time = rows[clock] if clock else None
    return Raw(_joined([rows[name] for name in features], "/"), item, rows["click"], time, rows[theta], event,
               skipped=skipped, first_line=first, notes=notes)  # fmt: skip


def _file(place: Place) -> Any:
    for name in place.files:
        path = place.folder / name
        if name.endswith((".csv", ".csv.gz", ".parquet")):
            there = set(columns(path))
            if {"item_id", "position", "click", "user_feature_0"} <= there and {"propensity", "propensity_score"} & there:
                return path
    return None


def _joined(parts: list[Any], mark: str, start: str = "") -> Any:
    """Values of several columns as one word each row, spelt once per distinct combination."""
    codes, words = np.zeros(len(parts[0]), np.int64), [start]
    for k, part in enumerate(parts):
        array = part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        names = ["" if name is None else str(name) for name in coded.dictionary.to_pylist()] + [""]
        index = coded.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
        both, codes = np.unique(codes * len(names) + index, return_inverse=True)
        words = [words[pair // len(names)] + (mark if k else "") + names[pair % len(names)] for pair in both.tolist()]
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))
