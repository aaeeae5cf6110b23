"""Streaming and reading at once give the same votes, for every format and kind of file that streams, however small the batches."""

import csv
import dataclasses
import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import InputError, RecordError
from cupel.records import read
from cupel.records.store import load, save
from cupel.records.stream import batches, importer, read_stream
from cupel.records.stream.importer import ROW_BY_ROW, CannotStream
from cupel.records.stream.spool import open_spool

LONG = "a long answer that recurs under several prompts and connects their rows "


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def sides(i):
    return f"{LONG}{i % 7}" if i % 5 == 0 else f"yes {i}é", f"no {i % 40}\n“quoted, text”"


def rows_of(name, n=300):
    out = []
    for i in range(n):
        a, b = sides(i)
        ask = f"question {i % 90}?"
        out.append(
            {
                "trl": {"prompt": ask, "chosen": a, "rejected": b, "score": i / 3, "tags": ["x", str(i)]},
                "pairs": {"chosen": a, "rejected": b},
                "trl_conversational": {"prompt": [user(ask)], "chosen": [bot(a)], "rejected": [bot(b)]},
                "trl_implicit": {"chosen": [user(ask), bot(a)], "rejected": [user(ask), bot(b)]},
                "hh": {"chosen": f"\n\nHuman: {ask}\n\nAssistant: {a}", "rejected": f"\n\nHuman: {ask}\n\nAssistant: {b}"},
                "votes": {
                    "prompt": ask, "response_a": a, "response_b": b, "vote": ["a", "b", "tie", "both_bad", "skip"][i % 5],
                    "annotator": f"k{(n - i) % 9}" if i % 11 else None, "model_a": f"m{i % 4}", "model_b": f"m{i % 3}",
                    "strength": i % 4, "seconds": 1.5 * i,
                },
                "arena": {
                    "conversation_a": [user(ask), bot(a)], "conversation_b": [user(ask), bot(b)],
                    "winner": ["model_a", "model_b", "tie (bothbad)"][i % 3], "model_a": "m", "model_b": "n", "judge": f"j{i % 3}",
                },
            }[name]
        )  # fmt: skip
    return out


def write_lines(path, rows, text=None):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n" if text is None else text, "utf-8")
    return path


def assert_same(one, two):
    """Every field, byte for byte; tables may be cut into chunks differently."""
    for field in dataclasses.fields(one):
        if field.name == "spool":
            continue
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, field.name)
            assert a.dtype == b.dtype, field.name
        elif isinstance(a, pa.Table):
            assert a.schema.equals(b.schema), (a.schema, b.schema)
            assert repr(a.to_pylist()) == repr(b.to_pylist())  # as text, because NaN is not NaN
        elif isinstance(a, pa.Array):
            assert a.type == b.type, field.name
            assert a.to_pylist() == b.to_pylist(), field.name
        else:
            assert a == b, (field.name, a, b)


@pytest.fixture
def small(monkeypatch):
    """Batches of some kilobytes or 67 rows, so that small files have many."""

    def shrink(path, kinds, original=importer.open_reader):
        reader = original(path, kinds)
        if hasattr(reader, "rows"):
            reader.rows = 67
        else:
            reader.block = 6000
        return reader

    monkeypatch.setattr(importer, "open_reader", shrink)


def both(path, **options):
    """(read at once, streamed) or the two errors."""
    found = []
    for function in (read, read_stream):
        try:
            found.append(function(path, **options))
        except RecordError as error:
            found.append(error)
    return found


def check(path, **options):
    one, two = both(path, **options)
    assert not isinstance(one, RecordError), one
    assert not isinstance(two, RecordError), two
    assert_same(one, two)
    return two


@pytest.mark.parametrize("name", sorted(ROW_BY_ROW))
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet", "arrow", "folder", "splits"])
def test_every_format_in_every_kind_of_file(tmp_path, small, name, kind):
    rows = rows_of(name)
    if kind == "csv":
        path = tmp_path / "f.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows([{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows])
    elif kind.startswith("jsonl"):
        path = write_lines(tmp_path / "f.jsonl", rows)
        if kind.endswith("gz"):
            (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
            path = tmp_path / "f.jsonl.gz"
    else:
        table = pa.Table.from_pylist(rows)
        path = tmp_path / f"f.{kind}"
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=100)
        elif kind == "arrow":
            with pa.ipc.new_file(path, table.schema) as out:
                out.write_table(table)
        else:
            path = tmp_path / "folder"
            path.mkdir()
            names = ["0.parquet", "1.parquet"] if kind == "folder" else ["test-0.parquet", "train-0.parquet"]
            pq.write_table(table.slice(0, 120), path / names[0])
            pq.write_table(table.slice(120), path / names[1])
    votes = check(path, heldout=0.25, seed=3)
    assert votes.source_format == name
    assert 0 < (votes.split == 1).sum() < len(votes)


def bad_rows(name="votes", seed=0):
    """Rows with every fault that has a name, at random places."""
    rng = random.Random(seed)
    rows = rows_of(name, 400)
    faults = [
        "{broken",
        '["no", "object"]',
        "7",
        "",
        "   ",
        '{"prompt": "p", "prompt": "q", "response_a": "x", "response_b": "y", "vote": "a"}',
        '{"prompt": "p", "response_a": "\\ud800", "response_b": "y", "vote": "a"}',
        '{"prompt": "p", "response_a": "\\ud83d\\ude00", "response_b": "y", "vote": "b"}',
        {"prompt": "p", "response_a": 5, "response_b": "y", "vote": "a"},
        {"prompt": "p", "response_a": "", "response_b": "y", "vote": "a"},
        {"prompt": "p", "response_a": "same", "response_b": "same", "vote": "a"},
        {"prompt": "p", "response_a": "same", "response_b": "same", "vote": "tie"},
        {"prompt": "p", "response_a": "x", "response_b": "y", "vote": "perhaps"},
        {"prompt": None, "response_a": "x", "response_b": "y", "vote": "a"},
        {"prompt": "p", "response_a": "x", "response_b": "y", "vote": None},
        {"prompt": "p", "response_a": "x" * 2000, "response_b": "y", "vote": "a"},
        {},
    ]
    for fault in faults:
        for _ in range(2):
            rows.insert(rng.randrange(len(rows)), fault)
    return rows


def test_bad_rows_are_set_aside_alike(tmp_path, small):
    path = write_lines(tmp_path / "f.jsonl", bad_rows())
    votes = check(path, max_bad=0.3, max_field=1000)
    reasons = {q.reason for q in votes.quarantine}
    assert reasons == {
        "invalid_json", "not_an_object", "lone_surrogate", "mixed_types", "empty_side", "identical_sides", "unknown_label", "missing_label",
        "field_too_long", "missing_text",
    }  # fmt: skip


def test_too_many_bad_rows_are_refused_alike(tmp_path, small):
    one, two = both(write_lines(tmp_path / "f.jsonl", bad_rows()))
    assert isinstance(one, RecordError)
    assert str(one) == str(two)


def test_very_many_bad_rows_are_counted_and_not_held(tmp_path, small, monkeypatch):
    path = write_lines(tmp_path / "f.jsonl", bad_rows())
    monkeypatch.setattr(importer, "KEPT_ASIDE", 5)
    with pytest.raises(RecordError, match=r"rows of .* cannot be used .*first: line \d+"):
        read_stream(path)
    assert_same(read(path, max_bad=0.3), read_stream(path, max_bad=0.3))


def test_ragged_and_unclosed_csv_records(tmp_path, small):
    body = "prompt,chosen,rejected\n" + "".join(f'p{i},"x, {i}\nmore",y{i}\n' for i in range(200))
    body += 'p,x\np,"a"b,c\nq,good,bad\nr,"never closed,bad\nz,x,y\n'
    path = write_lines(tmp_path / "f.csv", [], body)
    votes = check(path, max_bad=0.1)
    assert {q.reason for q in votes.quarantine} == {"ragged_row", "invalid_csv"}


ODD = {
    "fractions_late": [{"score": 1 if i < 250 else 0.5} for i in range(300)],
    "column_late": [{"extra": i} if i > 270 else {} for i in range(300)],
    "nulls_first": [{"extra": None if i < 250 else {"a": [1, {"b": "c"}]}} for i in range(300)],
    "keys_late": [{"extra": {"a": 1} if i < 200 else {"b": None, "c": [i]}} for i in range(300)],
    "empty_objects": [{"extra": {}} for _ in range(300)],
    "mixed": [{"extra": i if i != 280 else "text"} for i in range(300)],
    "huge": [{"extra": 2**70 if i == 290 else i} for i in range(300)],
    "huge_beside_fraction": [{"extra": 2**60 + 1 if i == 290 else i / 2} for i in range(300)],
    "names_as_fractions": [{"annotator": float(i % 7)} for i in range(300)],
    "names_as_fractions_late": [{"annotator": i % 7 + (0.5 if i > 290 else 0.0)} for i in range(300)],
    "names_mixed": [{"annotator": i % 7 if i % 2 else f"k{i % 3}"} for i in range(300)],
    "groups": [{"group": f"g{(300 - i) % 23}" if i % 10 else None} for i in range(300)],
    "weights": [{"w": 1 + i % 3, "p": 0.25} for i in range(300)],
    "ids": [{"id": f"row {i}"} for i in range(300)],
    "numbers_as_ids": [{"id": i + 5} for i in range(300)],
    "some_ids": [{"id": f"row {i}" if i % 3 else None} for i in range(300)],
    "chat_prompt_late": [{"extra": [user("a")] if i < 290 else [{"role": "user", "content": [{"type": "text"}]}]} for i in range(300)],
    "nan": [{"extra": float("nan") if i % 40 == 0 else i} for i in range(300)],
    "nan_and_text": [{"extra": float("nan") if i == 280 else "t"} for i in range(300)],
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_columns_that_a_batch_alone_would_read_differently(tmp_path, small, name):
    rows = [{**row, **more} for row, more in zip(rows_of("votes"), ODD[name], strict=True)]
    check(write_lines(tmp_path / "f.jsonl", rows), max_bad=0.05)


def test_a_label_that_appears_late_settles_what_numbers_mean(tmp_path, small):
    rows = rows_of("votes")
    for i, row in enumerate(rows):
        row["vote"] = 1 if i < 270 else 2
    votes = check(write_lines(tmp_path / "f.jsonl", rows))
    assert len(votes.meta["doubts"]) == 1
    for i, row in enumerate(rows):
        row["vote"] = str(i % 2 + 1) if i < 290 else "0"
    one, two = both(write_lines(tmp_path / "g.jsonl", rows))
    assert str(one) == str(two)
    assert "unknown_label" in str(one)


def test_repeated_rows_get_the_ids_that_reading_at_once_gives(tmp_path, small):
    rows = rows_of("votes", 60)
    rng = random.Random(1)
    votes = check(write_lines(tmp_path / "f.jsonl", [rows[rng.randrange(60)] for _ in range(500)]))
    assert len(set(votes.ids.to_pylist())) == 500


def test_two_rows_with_one_hash_are_numbered_one_after_another(tmp_path, small, monkeypatch):
    path = write_lines(tmp_path / "f.jsonl", rows_of("votes", 40) * 2)
    expected = read(path)
    from cupel.records.stream import finish

    monkeypatch.setattr(finish, "_later", lambda sink, again, annotators: np.zeros(len(again), dtype=np.uint64))
    assert_same(expected, read_stream(path))


def test_repeated_ids_are_set_aside_alike(tmp_path, small):
    rows = [{"id": f"i{i % 295}", **row} for i, row in enumerate(rows_of("votes"))]
    rows[3]["response_a"] = ""  # a bad row does not take its id
    votes = check(write_lines(tmp_path / "f.jsonl", rows), max_bad=0.1)
    assert [q.reason for q in votes.quarantine] == ["empty_side"] + ["duplicate_id"] * 4
    one, two = both(write_lines(tmp_path / "g.jsonl", [{**row, "id": "same"} for row in rows]))
    assert str(one) == str(two)


def test_a_split_that_came_with_the_data(tmp_path, small):
    rows = [{**row, "part": ["train", "test"][i % 4 == 0]} for i, row in enumerate(rows_of("votes"))]
    votes = check(write_lines(tmp_path / "f.jsonl", rows), map={"split": "part"})
    assert votes.meta["split"]["by"] == "column part"


def test_renamed_columns_and_meanings(tmp_path, small):
    rows = [
        {"ask": r["prompt"], "x": r["response_a"], "y": r["response_b"], "v": "L" if i % 2 else "R"} for i, r in enumerate(rows_of("votes"))
    ]
    names = {"prompt": "ask", "response_a": "x", "response_b": "y", "vote": "v", "vote:a": "L", "vote:b": "R"}
    check(write_lines(tmp_path / "f.jsonl", rows), map=names)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_blank_lines_marks_and_line_ends(tmp_path, small, ending):
    lines = [json.dumps(row) for row in rows_of("trl")]
    lines[100:100] = ["", "  ", "\u00a0"]
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ending.join(lines).encode())  # no newline at the end
    check(path)


@pytest.mark.parametrize("where", [0, 5000, -1])
def test_bytes_that_are_no_utf8_are_named_alike(tmp_path, small, where):
    path = write_lines(tmp_path / "f.jsonl", rows_of("trl"))
    data = bytearray(path.read_bytes())
    data[where] = 0xFF
    path.write_bytes(bytes(data))
    one, two = both(path)
    assert str(one) == str(two)
    assert "UTF-8" in str(one)


def test_parquet_texts_that_are_no_utf8(tmp_path, small):
    rows = rows_of("trl")
    table = pa.Table.from_pylist(rows)
    broken = [row["chosen"].encode() for row in rows]
    broken[211] = b"\xff\xfe"
    table = table.set_column(1, "chosen", pa.array(broken, pa.binary()).view(pa.string()))
    pq.write_table(table, tmp_path / "f.parquet")
    votes = check(tmp_path / "f.parquet")
    assert [(q.line, q.reason) for q in votes.quarantine] == [(212, "not_utf8")]


def test_what_cannot_stream_says_so(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"data": rows_of("trl")}))
    with pytest.raises(CannotStream, match="one JSON object"):
        read_stream(tmp_path / "f.json")
    lines = write_lines(tmp_path / "lines.json", rows_of("trl"))
    assert_same(read(lines), read_stream(lines))
    for content in (b"", b"\n\n"):
        (tmp_path / "f.jsonl").write_bytes(content)
        with pytest.raises(RecordError):
            read_stream(tmp_path / "f.jsonl")
    with pytest.raises(RecordError, match="no such file"):
        read_stream(tmp_path / "g.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"chosen": "x", "rejected": "y"}\n' * 999)[:-20])
    with pytest.raises(RecordError, match="cut off"):
        read_stream(tmp_path / "cut.jsonl.gz")


def test_read_streams_large_files_by_itself_and_when_asked(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "f.jsonl", rows_of("trl"))
    assert read(path).spool is None
    assert read(path, stream=True).spool is not None
    monkeypatch.setattr("cupel.records.stream.opening.ABOVE", 1000)
    votes = read(path)
    assert votes.spool is not None
    assert_same(votes, read(path, stream=False))
    (tmp_path / "f.json").write_text(json.dumps({"data": rows_of("trl")}))
    assert read(tmp_path / "f.json").spool is None
    (tmp_path / "f.json").write_text(json.dumps(rows_of("trl")))
    assert read(tmp_path / "f.json").spool is not None
    for source in (rows_of("trl"), "-"):
        with pytest.raises(CannotStream, match="only files"):
            read(source, stream=True)


def test_spools_are_kept_opened_and_refused(tmp_path):
    path = write_lines(tmp_path / "f.jsonl", rows_of("votes"))
    votes = read_stream(path, spool=tmp_path / "spool")
    assert_same(votes, open_spool(tmp_path / "spool"))
    with pytest.raises(InputError, match="not empty"):
        read_stream(path, spool=tmp_path / "spool")
    (tmp_path / "spool" / "prompt").write_bytes(b"")
    with pytest.raises(RecordError, match="not whole"):
        open_spool(tmp_path / "spool")
    temporary = read_stream(path)
    place = temporary.spool.path
    assert place.is_dir()
    part = temporary.take([0])
    del temporary
    assert place.is_dir()
    del part
    assert not place.exists()


def test_a_failed_import_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(RecordError):
        read_stream(write_lines(tmp_path / "f.jsonl", bad_rows()))
    assert list((tmp_path / "scratch").iterdir()) == []


def test_stored_streamed_votes_come_back_exactly(tmp_path):
    votes = read_stream(write_lines(tmp_path / "f.jsonl", bad_rows()), max_bad=0.3)
    for i, some in enumerate([votes, votes.train, votes.with_(w=votes.w * 0.5), votes.take(np.zeros(0, int)), votes.with_(source=None)]):
        save(some, tmp_path / str(i))
        assert_same(some, load(tmp_path / str(i)))
    assert (tmp_path / "0" / "responses.bytes").stat().st_ino == (votes.spool.path / "responses.bytes").stat().st_ino


def test_batches_hold_their_own_texts():
    votes = read(rows_of("votes"))
    parts = list(batches(votes, 64))
    assert [len(part) for part in parts] == [64, 64, 64, 64, 44]
    for part, low in zip(parts, range(0, 300, 64), strict=True):
        whole = votes.take(np.arange(low, low + len(part)))
        for name, table in (("prompt", "prompts"), ("first", "responses"), ("second", "responses")):
            one, two = ([getattr(v, table)[int(i)].as_py() for i in getattr(v, name)] for v in (part, whole))
            assert one == two
        assert len(part.responses) == len(np.unique([whole.first, whole.second]))


TEXT = st.text(max_size=6)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXT, st.lists(st.integers(), max_size=2))
ROW = st.fixed_dictionaries(
    {"prompt": st.one_of(TEXT, VALUE), "chosen": st.one_of(TEXT, TEXT, VALUE), "rejected": TEXT},
    optional={
        "annotator": VALUE, "extra": VALUE, "id": st.one_of(st.none(), st.integers(0, 9), TEXT), "group": VALUE, "w": VALUE,
        "deep": st.dictionaries(st.sampled_from("ab"), VALUE, max_size=2),
    },
)  # fmt: skip


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.one_of(ROW, ROW, VALUE), min_size=1, max_size=12), seed=st.integers(0, 3))
def test_any_rows_read_alike_or_are_refused_both_ways(tmp_path_factory, small, rows, seed):
    path = tmp_path_factory.mktemp("any") / "f.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, *rows_of("trl", 260)]))
    one, two = both(path, max_bad=1, seed=seed)
    if isinstance(one, RecordError) or isinstance(two, RecordError):
        assert type(one) is type(two), (one, two)
    else:
        assert_same(one, two)
