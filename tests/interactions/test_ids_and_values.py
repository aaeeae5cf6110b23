"""Ids, numbers, times and tags against loops that read one value at a time."""

from __future__ import annotations

import csv
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.interactions.log import Log
from cupel.interactions.reading import read_log
from cupel.interactions.texts import first_tags
from cupel.interactions.values import numbers, seconds
from cupel.interactions.writing import write_log

WORDS = st.one_of(
    st.integers(-20, 200).map(str),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6),
    st.sampled_from(["007", "07", "-0", "+1", "1.0", "a,b", 'say "hi"', "<b>", "٣"]),
)
#: in small letters: what a reader of CSV takes for a missing value, and so does cupel
MISSING = {"", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "n/a", "na", "null", "nan", "none"}


def ids_in_order(ids: list[str]) -> list[str]:
    distinct = set(ids)
    try:
        numeric = {x: int(x) for x in distinct}
        if all(str(number) == x for x, number in numeric.items()):
            return sorted(distinct, key=numeric.__getitem__)
    except ValueError:
        pass
    return sorted(distinct)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12))
def test_ids_of_a_csv_come_back_in_order(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    rows = [(u, i) for u, i in rows if not {u.strip().lower(), i.strip().lower()} & MISSING]
    path = tmp_path_factory.mktemp("ids") / "log.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerows([("user", "item"), *rows])
    if not rows:
        return
    log = read_log(path)
    assert list(zip(log.users[log.user].tolist(), log.items[log.item].tolist(), strict=True)) == rows
    assert log.users.tolist() == ids_in_order([u for u, _ in rows])
    assert log.items.tolist() == ids_in_order([i for _, i in rows])
    write_log(log, path.with_suffix(".parquet"))
    again = read_log(path.with_suffix(".parquet"))
    assert again.users.tolist() == log.users.tolist()
    assert again.pairs().tolist() == log.pairs().tolist()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.floats().map(repr), st.integers().map(str), st.sampled_from([" 1 ", "1e3", ".5", "5.", "1,5", "x", "--1"]))
    )
)
def test_numbers_are_read_one_by_one_alike(words: list[str | None]) -> None:
    values, bad = numbers(pa.array(words, pa.string()))
    for word, value, wrong in zip(words, values.tolist(), bad.tolist(), strict=True):
        try:
            expected = float(word) if word is not None else math.nan
        except ValueError:
            expected = math.nan
        assert wrong == (not math.isfinite(expected)), word
        assert value == (0.0 if wrong else expected), word


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), min_size=1, max_size=8),
    st.sampled_from(["", "Z", "+02:00", "-0530"]),
)
def test_dates_are_the_moments_that_python_reads(moments: list[datetime], zone: str) -> None:
    words = [moment.isoformat(sep=" ") + zone for moment in moments]
    expected = []
    for moment, word in zip(moments, words, strict=True):
        at = (
            moment.replace(tzinfo=UTC)
            if zone in ("", "Z")
            else datetime.strptime(word, f"%Y-%m-%d %H:%M:%S{'.%f' if '.' in word else ''}%z")
        )
        expected.append((at.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    values, bad, _ = seconds(pa.array(words))
    assert not bad.any()
    assert values.tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_first_tags_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 6, 80).tolist()
    tag = [None if k == 0 else " " if k == 1 else f" T{k}" if k % 2 else f"t{k}" for k in rng.integers(0, 15, 80)]
    slow: dict[str, list[str]] = {}
    for i, word in zip(item, tag, strict=True):
        small = (word or "").strip().lower()
        if small and small not in slow.setdefault(str(i), []) and len(slow[str(i)]) < 3:
            slow[str(i)].append(small)
    assert first_tags(pa.array(item), pa.array(tag, pa.string()), 3) == {i: words for i, words in slow.items() if words}


def test_a_time_in_thousandths_is_told_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\na,b,1600000000999\n")
    log: Log = read_log(path)
    assert np.asarray(log.time).tolist() == [1_600_000_000]
    assert "Times are thousandths of a second: divided by 1,000." in log.notes
