"""A small real file: some votes of the bundled debates, as JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).parents[2] / "examples" / "data" / "ukp_votes.parquet"


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 votes of eight debates, about 150 each, whole pairs."""
    rows = pq.read_table(DATA).to_pylist()
    kept, count, whole = [], {}, {}
    for row in rows:
        count.setdefault(row["topic"], 0)
        if len(count) > 8 and row["topic"] not in list(count)[:8]:
            continue
        if row["item_id"] in whole or count[row["topic"]] < 150:
            whole[row["item_id"]] = True
            count[row["topic"]] += 1
            kept.append(row)
    path = tmp_path_factory.mktemp("small") / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of vectors shared by the tests."""
    return tmp_path_factory.mktemp("cache")
