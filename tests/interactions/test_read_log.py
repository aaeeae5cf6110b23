"""Every layout read as it was written; every bad file refused with what, how many, where first, and a way out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cupel.errors import RecordError
from cupel.interactions.formats import readers
from cupel.interactions.log import Log
from cupel.interactions.raw import LONG_AGO
from cupel.interactions.reading import read_log
from cupel.interactions.writing import write_log

EVENTS = [("1", "10", 4.0, 100), ("2", "9", 3.5, 50), ("1", "9", 5.0, 90)]
TEXTS = ("Nine (1990). Genres: Drama.", "Ten: The Film (1991). Genres: Comedy, Drama. Tags: dry, fun.")


def rows_of(log: Log) -> list[tuple[Any, ...]]:
    value = np.asarray(log.value).tolist() if log.value is not None else [None] * len(log)
    time = np.asarray(log.time).tolist() if log.time is not None else [None] * len(log)
    return list(zip(log.users[log.user].tolist(), log.items[log.item].tolist(), value, time, strict=True))


def hundred_k(at: Path) -> Path:
    (at / "u.data").write_text("".join(f"{u}\t{i}\t{v:g}\t{t}\n" for u, i, v, t in EVENTS))
    (at / "u.genre").write_text("unknown|0\nComedy|1\nDrama|2\n\n")
    (at / "u.item").write_bytes(
        "9|Nine (1990)|01-Jan-1990||http://x|0|0|1\n10|Ten: The Film (1991)|13-Feb-1991||http://é|1|1|1\n11|Never (1999)||||0|0|0\n".encode(
            "latin-1"
        )
    )
    return at


def colons(at: Path) -> Path:
    (at / "ratings.dat").write_text("".join(f"{u}::{i}::{v:g}::{t}\n" for u, i, v, t in EVENTS))
    (at / "movies.dat").write_text("9::Nine (1990)::Drama\n10::Ten: The Film (1991)::Comedy|Drama\n")
    (at / "tags.dat").write_text("1::10::Dry::5\n2::10::fun::6\n1::10::dry::7\n")
    return at


def folder(at: Path) -> Path:
    (at / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{v},{t}\n" for u, i, v, t in EVENTS))
    (at / "movies.csv").write_text('movieId,title,genres\n9,Nine (1990),Drama\n10,"Ten: The Film (1991)",Comedy|Drama\n')
    (at / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,10,Dry,5\n2,10,fun,6\n1,10,dry ,7\n")
    return at


def parquet(at: Path) -> Path:
    u, i, v, t = zip(*EVENTS, strict=True)
    kinds = {"user_id": pa.array(map(int, u), pa.int32()), "item_id": pa.array(map(int, i), pa.int32())}
    pq.write_table(pa.table({**kinds, "rating": pa.array(v, pa.float32()), "timestamp": t}), at / "ratings.parquet")
    items = {"item_id": [9, 10], "title": ["Nine (1990)", "Ten: The Film (1991)"], "genres": ["Drama", "Comedy|Drama"]}
    pq.write_table(pa.table(items), at / "items.parquet")
    pq.write_table(pa.table({"item_id": [10, 10, 10], "tag": ["Dry", "fun", "dry"], "user_id": [1, 2, 1]}), at / "tags.parquet")
    return at


@pytest.mark.parametrize("layout", [hundred_k, colons, folder, parquet])
def test_movielens_in_every_layout(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    log = read_log(layout(tmp_path))
    assert log.notes[0].startswith("Read as movielens: there is ")
    assert rows_of(log) == EVENTS
    assert log.users.tolist() == ["1", "2"]
    assert log.items.tolist() == ["9", "10"], "numbers are sorted as numbers"
    expected = (TEXTS[0], TEXTS[1].split(" Tags")[0]) if layout is hundred_k else TEXTS
    assert log.texts == expected
    assert log.released is not None
    assert log.released[0] == 631152000  # 1 January 1990
    assert (log.user.dtype, log.item.dtype, np.asarray(log.value).dtype, np.asarray(log.time).dtype) == (
        "int32",
        "int32",
        "float32",
        "int64",
    )
    if layout is hundred_k:
        assert "1 items of the catalogue have no event: left out." in log.notes
        assert log.released[1] == 666403200  # 13 February 1991
        assert rows_of(read_log(tmp_path / "u.data")) == EVENTS


def test_eight_distinct_tags_at_most_and_unknown_years(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n9,Nine,(no genres listed)\n10,Ten (1991),Drama\n")
    tags = [f"1,9,T{k % 10},0\n" for k in range(25)] + ["1,10,,0\n"]
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n" + "".join(tags))
    log = read_log(tmp_path)
    assert log.texts == ("Nine. Tags: t0, t1, t2, t3, t4, t5, t6, t7.", "Ten (1991). Genres: Drama.")
    assert log.released is not None
    assert log.released[0] == LONG_AGO
    assert "1 of 2 items have no release date: taken to be older than all events." in log.notes


def test_recbole_atomic_files(tmp_path: Path) -> None:
    (tmp_path / "ml.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(f"{u}\t{i}\t{v}\t{t}\n" for u, i, v, t in EVENTS)
    )
    (tmp_path / "ml.item").write_text(
        'item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n9\tNine "9"\t1990\tDrama\n10\tTen\t\tComedy Drama\n'
    )
    log = read_log(tmp_path)
    assert rows_of(log) == EVENTS
    assert log.texts == ('Nine "9". Genres: Drama.', "Ten. Genres: Comedy, Drama.")
    assert log.released is not None
    assert log.released.tolist() == [631152000, LONG_AGO]
    assert rows_of(read_log(tmp_path / "ml.inter", map={"time": "", "value": ""})) == [(u, i, None, None) for u, i, *_ in EVENTS]
    (tmp_path / "b.inter").write_text("user_id:token\n")
    with pytest.raises(RecordError, match=r"2 files \.inter"):
        read_log(tmp_path)


def bandit(at: Path, rows: str) -> Path:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text(",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user-item_affinity_0\n" + rows)
    return at


def test_open_bandit_as_released(tmp_path: Path) -> None:
    rows = "0,2019-11-24 00:00:01.5+00:00,7,3,1,0.25,ab,c,0\n1,2019-11-24 00:00:00+00:00,12,1,0,0.5,ab,d,0\n"
    log = read_log(bandit(tmp_path / "random" / "men" / "men.csv", rows))
    assert log.notes[0].startswith("Read as open_bandit")
    assert rows_of(log) == [("ab/c", "7", 1.0, 1574553601), ("ab/d", "12", 0.0, 1574553600)]
    assert np.asarray(log.event).tolist() == ["random position 3", "random position 1"]
    assert np.asarray(log.propensity).tolist() == [0.25, 0.5]


def test_open_bandit_as_one_parquet(tmp_path: Path) -> None:
    table = {
        "policy": ["bts", "random"], "campaign": ["men", "women"], "order": [0, 1], "item_id": [3, 3], "position": [1, 2], "click": [0, 1],
        "propensity": [0.1, 0.2], "user_feature_0": [0, 0], "user_feature_1": [5, 5],
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    log = read_log(tmp_path)
    assert rows_of(log) == [("0/5", "men/3", 0.0, 0), ("0/5", "women/3", 1.0, 1)]
    assert np.asarray(log.event).tolist() == ["bts position 1", "random position 2"]


def test_rating_matrices(tmp_path: Path) -> None:
    (tmp_path / "train.ascii").write_text("0 3 0\n5 0  1\n")
    (tmp_path / "test.ascii").write_text("0 0 2\n0 0 0\n")
    (tmp_path / "propensities.ascii").write_text("0.5 0.25 0.5\n0.1 0.5 1\n")
    log = read_log(tmp_path)
    assert rows_of(log) == [("0", "1", 3.0, None), ("1", "0", 5.0, None), ("1", "2", 1.0, None)]
    assert np.asarray(log.propensity).tolist() == [0.25, 0.1, 1.0]
    test = read_log(tmp_path / "test.ascii")
    assert rows_of(test) == [("0", "2", 2.0, None)]
    assert test.propensity is None
    (tmp_path / "propensities.ascii").write_text("0.5 0.25\n0.1 0.5\n")
    with pytest.raises(RecordError, match="not of one data set"):
        read_log(tmp_path)
    (tmp_path / "test.ascii").write_text("0 0 2\n0 0\n")
    with pytest.raises(RecordError, match="no matrix of numbers"):
        read_log(tmp_path / "test.ascii")


@pytest.mark.parametrize("mark", ["\t", ",", " ", ";", "|"])
def test_text_without_a_header(mark: str, tmp_path: Path) -> None:
    (tmp_path / "ratings.txt").write_text("".join(f"{mark.join(map(str, row))}\n" for row in EVENTS))
    assert rows_of(read_log(tmp_path / "ratings.txt")) == EVENTS
    (tmp_path / "ydata-ymusic-rating-study-v1_0-train.txt").write_text("1\t2\t5\n1\t3\t4\n")
    assert rows_of(read_log(tmp_path)) == [("1", "2", 5.0, None), ("1", "3", 4.0, None)]
    with pytest.raises(RecordError, match="has columns of its own"):
        read_log(tmp_path / "ratings.txt", format="triples", map={"user": "a"})


def write_table(at: Path, kind: str) -> Path:
    names = ("UID", "product", "stars", "when")
    path = at / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(dict(zip(names, zip(*EVENTS, strict=True), strict=True))), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in EVENTS))
    else:
        mark = "," if kind.startswith("csv") else "\t"
        text = "\n".join(mark.join(map(str, row)) for row in [names, *EVENTS]) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "jsonl"])
def test_tables_by_usual_and_by_given_names(kind: str, tmp_path: Path) -> None:
    path = write_table(tmp_path, kind)
    log = read_log(path, map={"item": "product", "time": "when"})
    assert rows_of(log) == EVENTS
    assert log.notes == ("Read as table: user = UID, item = product, value = stars, time = when.",)
    with pytest.raises(RecordError, match=r"not a log of interactions .* Its columns: UID, product, stars, when\."):
        read_log(path)
    with pytest.raises(RecordError, match=r"no column 'prodct' to be the item\. Did you mean"):
        read_log(path, map={"item": "prodct"})


def test_ids_are_words_unless_all_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item\n007,10\n7,9\n07,-1\n")
    log = read_log(path)
    assert log.users.tolist() == ["007", "07", "7"]
    assert log.items.tolist() == ["-1", "9", "10"]
    pq.write_table(pa.table({"user": [1.0, 2.0, None], "item": [1, 2, 3]}), tmp_path / "a.parquet")
    assert read_log(tmp_path / "a.parquet", max_bad=0.5).users.tolist() == ["1", "2"]


def test_bad_rows_are_counted_by_kind_with_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = ["user,item,rating,time,extra", *[f"{k},{k % 3},4,{k},x" for k in range(200)]]
    lines[5] = "3,,4,3,x"
    lines[8] = "6,0,good,6,x"
    lines[9] = "7,1,4,soon,x"
    lines[11] = "9,0,4"
    lines[13] = "nan,0,4,12,x"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordError) as told:
        read_log(path)
    for said in (
        "5 of 200 rows cannot be used", "1 with another number of fields than the header (first: line 12)",
        "1 with no user id (first: line 14)", "1 with no item id (first: line 6)", "1 with no number as its value (first: line 9)",
        "1 with a time that cannot be read (first: line 10)", "max_bad",
    ):  # fmt: skip
        assert said in str(told.value)
    log = read_log(path, max_bad=0.05)
    assert len(log) == 195
    assert log.notes[1].endswith(": set aside.")
    assert "7" not in log.users.tolist()
    assert len(read_log(path, max_bad=0.05, map={"value": "", "time": ""})) == 197


def test_propensities_outside_their_range_are_always_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for bad in ("0", "1.5", "-1", "", "nan", "x"):
        path.write_text("user,item,propensity\n" + "a,b,0.5\n" * 300 + f"a,b,{bad}\n" + "a,c,1\n")
        with pytest.raises(RecordError, match=r"1 of 302 propensities are not in \(0, 1\] \(first: line 302"):
            read_log(path, max_bad=1)
        assert read_log(path, map={"propensity": ""}).propensity is None


def test_times_of_every_kind(tmp_path: Path) -> None:
    def times(*words: object) -> list[int]:
        path = tmp_path / "a.csv"
        path.write_text("user,item,time\n" + "".join(f"a,b,{word}\n" for word in words))
        return np.asarray(read_log(path).time).tolist()

    assert times("1970-01-02", "1970-01-03") == [86400, 172800]
    assert times("1970-01-01 00:00:01.9", "1969-12-31T23:59:59.5") == [1, -1]
    assert times("1970-01-01T02:00:01+02:00", "1970-01-01T00:00:01Z") == [1, 1]
    assert times("12.5", "3") == [12, 3]
    assert times(1_600_000_000_123, 1_600_000_001_000) == [1_600_000_000, 1_600_000_001]
    assert times(1_600_000_000, 1) == [1_600_000_000, 1]
    with pytest.raises(RecordError, match="1 with a time that cannot be read"):
        times("1970-01-01T00:00:01Z", "1970-02-31T00:00:01Z")


def test_what_is_not_there_or_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no file or folder"):
        read_log(tmp_path / "none.csv")
    with pytest.raises(RecordError, match="The folder has 0 files: none"):
        read_log(tmp_path)
    path = tmp_path / "a.csv"
    path.write_text("user,item\n")
    with pytest.raises(RecordError, match="has no events"):
        read_log(path)
    path.write_text("user,item\na,b\n")
    with pytest.raises(RecordError, match=r"there is no format 'tabel' of interactions\. Did you mean"):
        read_log(path, format="tabel")
    with pytest.raises(RecordError, match="map names 'usr', which no log has"):
        read_log(path, map={"usr": "user"})
    with pytest.raises(RecordError, match="a log needs a user"):
        read_log(path, map={"user": ""}, format="triples")
    with pytest.raises(RecordError, match="max_bad is 2"):
        read_log(path, max_bad=2)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RecordError, match="is not a Parquet file"):
        read_log(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"user": 1, "item": 2}\n{"user": \n')
    with pytest.raises(RecordError, match="cannot be read as JSON"):
        read_log(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("name", "data", "named", "told"),
    [
        ("a.csv", b"user,user,item\na,x,b\n", {}, r"has 2 columns 'user', and one is the user"),
        ("a.csv", b"user,item\na,b\n", {"user": "item"}, r"has no column of items"),
        ("a.csv", b"user,item\na,b\n", {"user": "item", "item": "item"}, r"'item' cannot be both user and item"),
        ("a.csv", b"user,item\n\xe9,b\n", {}, r"save it as UTF-8"),
        ("a.jsonl", b'{"user": {"id": 1}, "item": "x"}\n', {}, r"the user of an event is one word or number, not struct"),
        ("a.jsonl", b'{"user": 1, "item": "x", "time": [1]}\n', {}, r"the time of an event is one word or number, not list"),
        ("a.csv.gz", b"no gzip", {}, r"cannot be read"),
        ("a.csv", b"", {}, r"no header that could be read"),
    ],
)
def test_odd_files_are_refused_in_words(name: str, data: bytes, named: dict[str, str], told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordError, match=told):
        read_log(tmp_path / name, map=named, format="table" if named else None)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfuser,item\na,b\n", b"user,item\r\na,b\r\n", b"User , ITEM\na,b\n", b"user\titem\na\tb\n"])
def test_odd_files_that_say_what_they_mean_are_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    log = read_log(tmp_path / "a.csv")
    assert (log.users.tolist(), log.items.tolist()) == (["a"], ["b"])


def test_a_log_is_written_and_read_back_exactly(tmp_path: Path) -> None:
    whole = Log(
        np.array(["a", "é\x00", "no events"]), np.array(["<b>", "2", "3"]), np.array([1, 0, 0], np.int32), np.array([2, 0, 1], np.int32),
        value=np.array([1, np.float32(0.1), 3], np.float32), time=np.array([3, 2, LONG_AGO]), propensity=np.array([0.1, 1, 1e-9]),
        event=np.array(["view", "buy", "view"], dtype=object), texts=("one", "", "three"), released=np.array([1, 2, LONG_AGO]),
        notes=("a note",),
    )  # fmt: skip
    for log in (whole, Log.of(["a"], [1]), whole.take(np.zeros(0, np.int64))):
        write_log(log, tmp_path / "log.parquet")
        again = read_log(tmp_path / "log.parquet")
        for name in ("users", "items", "user", "item", "value", "time", "propensity", "event", "released"):
            a, b = getattr(log, name), getattr(again, name)
            assert (a is None) == (b is None), name
            if a is not None:
                assert a.tolist() == b.tolist(), name
                assert a.dtype.kind == b.dtype.kind or len(a) == 0, name
        assert (again.texts, again.notes) == (log.texts, log.notes)
        before = (tmp_path / "log.parquet").read_bytes()
        write_log(again, tmp_path / "log.parquet")
        assert (tmp_path / "log.parquet").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    table = pq.read_table(tmp_path / "log.parquet").replace_schema_metadata({b"cupel.log": b'{"version": 99}'})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(RecordError, match="version 99"):
        read_log(tmp_path / "log.parquet")


def test_every_format_has_its_parts() -> None:
    assert sorted(readers()) == ["cupel", "matrix", "movielens", "open_bandit", "recbole", "table", "triples"]
    for module in readers().values():
        assert module.DESCRIPTION
        assert callable(module.detect)
        assert callable(module.read)
