"""Where rows come from: every kind of file and object, faults of rows and of files."""

import gzip
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cupel.errors import RecordError
from cupel.records import read
from cupel.records.store import quarantine_rows

ROWS = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}", "extra": i} for i in range(12)]


def _lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _csv(rows, sep=","):
    return pd.DataFrame(rows).to_csv(index=False, sep=sep).encode()


def _parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def _arrow(rows):
    out = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


FILES = {
    "a.jsonl": _lines(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + _lines(ROWS),
    "crlf.jsonl": _lines(ROWS).replace(b"\n", b"\r\n"),
    "a.jsonl.gz": gzip.compress(_lines(ROWS)),
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "data.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "lines.json": _lines(ROWS),
    "columns.json": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode(),
    "a.csv": _csv(ROWS),
    "a.csv.gz": gzip.compress(_csv(ROWS)),
    "semicolon.csv": _csv(ROWS, ";"),
    "a.tsv": _csv(ROWS, "\t"),
    "a.parquet": _parquet(ROWS),
    "a.arrow": _arrow(ROWS),
    "no_suffix": _lines(ROWS),
    "parquet_by_content.jsonl": _parquet(ROWS),
}


def _same(votes):
    assert len(votes) == 12
    assert votes.prompt_texts() == [row["prompt"] for row in ROWS]
    assert [votes.response_texts()[i] for i in votes.first] == [row["chosen"] for row in ROWS]
    assert [votes.response_texts()[i] for i in votes.second] == [row["rejected"] for row in ROWS]
    assert votes.source is not None
    assert [int(x) for x in votes.source["extra"].to_pylist()] == list(range(12))
    assert not votes.quarantine


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_same_rows_come_out_of_every_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    votes = read(path)
    _same(votes)
    base = read(ROWS)
    assert votes.ids.equals(base.ids)
    np.testing.assert_array_equal(votes.split, base.split)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow", "a.jsonl.gz"])
def test_standard_input_is_recognised_by_content(monkeypatch, name):
    class Standard:
        buffer = io.BytesIO(FILES[name])

    monkeypatch.setattr("sys.stdin", Standard())
    _same(read("-"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame(ROWS),
        lambda: pa.Table.from_pylist(ROWS),
        lambda: pa.Table.from_pylist(ROWS).to_batches()[0],
        lambda: {key: [row[key] for row in ROWS] for key in ROWS[0]},
        lambda: ROWS,
        lambda: pd.DataFrame(ROWS).astype({"prompt": "category"}),
    ],
)
def test_the_same_rows_come_out_of_every_object(make):
    _same(read(make()))


def test_a_directory_of_parts(tmp_path):
    for i, part in enumerate([ROWS[:5], ROWS[5:]]):
        (tmp_path / f"part-{i}.parquet").write_bytes(_parquet(part))
    votes = read(tmp_path)
    _same(votes)
    assert votes.line.tolist() == list(range(1, 13))


def test_a_dataset_object_is_read_without_importing_datasets():
    class Dataset:
        def with_format(self, kind):
            assert kind == "arrow"
            return _Whole()

    class _Whole:
        def __getitem__(self, key):
            return pa.Table.from_pylist(ROWS)

    Dataset.__module__ = "datasets.arrow_dataset"
    _same(read(Dataset()))


def test_line_numbers_count_blank_lines_and_quoted_newlines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1]) + "\n")
    assert read(path).line.tolist() == [2, 4]
    path = tmp_path / "a.csv"
    path.write_text('prompt,chosen,rejected\np,"two\nlines",x\nq,y,z\n')
    votes = read(path)
    assert votes.line.tolist() == [2, 4]
    assert votes.response_texts()[0] == "two\nlines"


def _bad_file(tmp_path, bad):
    rows = [json.dumps({"prompt": f"q{i}", "chosen": "good", "rejected": "bad", "id": str(i)}) for i in range(99)]
    rows.insert(40, bad)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8", errors="surrogatepass")
    return path


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"prompt": "p", "chosen": "x", "rej', "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("[1, 2]", "not_an_object"),
        ("null", "not_an_object"),
        ('{"prompt": "p", "chosen": 3, "rejected": "y"}', "mixed_types"),
        ('{"prompt": "p", "chosen": ["x"], "rejected": "y"}', "mixed_types"),
        ('{"prompt": {"a": 1}, "chosen": "x", "rejected": "y"}', "mixed_types"),
        ('{"prompt": "p", "chosen": NaN, "rejected": "y"}', "missing_text"),
        ('{"prompt": "p", "chosen": null, "rejected": "y"}', "missing_text"),
        ('{"prompt": "p", "rejected": "y"}', "missing_text"),
        ('{"prompt": "p", "chosen": "", "rejected": "y"}', "empty_side"),
        ('{"prompt": "p", "chosen": "x", "rejected": "\\u2003 \\n"}', "empty_side"),
        ('{"prompt": "p", "chosen": "same", "rejected": "same"}', "identical_sides"),
        ('{"prompt": "p", "chosen": "\\ud800", "rejected": "y"}', "lone_surrogate"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y", "more": ["\\udfff"]}', "lone_surrogate"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y", "\\udfff": 1}', "lone_surrogate"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y", "id": "7"}', "duplicate_id"),
        ('{"prompt": "p", "chosen": "' + "x" * 10_000_000 + '", "rejected": "y"}', "field_too_long"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y", "p": 7}', "bad_probability"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y", "w": -1}', "bad_weight"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y", "seconds": "soon"}', "not_a_number"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_line_and_the_rest_goes_on(tmp_path, bad, reason):
    votes = read(_bad_file(tmp_path, bad))
    assert len(votes) == 99
    assert [(q.line, q.reason) for q in votes.quarantine] == [(41, reason)]
    row = quarantine_rows(votes)[0]
    assert len(row["raw"]) <= 2000
    json.dumps(row).encode()
    assert 41 not in votes.line


def test_the_first_of_equal_ids_stays(tmp_path):
    rows = [{"prompt": "p", "chosen": f"x{i}", "rejected": "y", "id": "same" if i < 2 else str(i)} for i in range(200)]
    votes = read(rows)
    assert votes.line[0] == 1
    assert [(q.line, q.reason) for q in votes.quarantine] == [(2, "duplicate_id")]
    assert "--map item_id=id" in votes.quarantine[0].detail
    assert not read(rows, map={"item_id": "id"}).quarantine


def test_too_many_bad_rows_stop_before_the_work():
    rows = [*ROWS, {"prompt": "p", "chosen": "", "rejected": "y"}, {"prompt": "p", "chosen": "z", "rejected": "z"}]
    with pytest.raises(RecordError) as caught:
        read(rows)
    message = str(caught.value)
    for part in ("2 of 14 rows", "1 empty_side (first: line 13", "1 identical_sides", "--max-bad", "--map"):
        assert part in message
    votes = read(rows, max_bad=0.2)
    assert len(votes) + len(votes.quarantine) == 14
    with pytest.raises(RecordError, match="no row is left"):
        read([{"prompt": "p", "chosen": "", "rejected": "y"}], max_bad=1.0)


def test_mixed_types_in_a_column_nobody_needs_are_kept_as_text():
    votes = read([{**ROWS[0], "note": 1}, {**ROWS[1], "note": "two"}, {**ROWS[2], "note": {}}, {**ROWS[3], "big": 2**70}])
    assert len(votes) == 4
    assert votes.source is not None
    assert votes.source["note"].to_pylist() == ["1", '"two"', "{}", None]
    assert any("note" in note for note in votes.meta["notes"])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.jsonl", b"", ["is empty"]),
        ("blank.jsonl", b"\n \n", ["is empty"]),
        ("empty.parquet", b"", ["is empty"]),
        ("empty.csv", b"prompt,chosen,rejected\n", ["no rows"]),
        ("none.json", b"[]", ["no rows"]),
        ("cut.jsonl.gz", gzip.compress(_lines(ROWS * 500))[:-800], ["cut off", "gzip", "readable bytes"]),
        ("broken.jsonl.gz", b"\x1f\x8b" + b"nonsense" * 9, ["not a sound gzip"]),
        ("latin.csv", "prompt,chosen,rejected\np,caf\xe9,y\n".encode("latin-1"), ["not UTF-8", "offset 28", "line 2", "iconv"]),
        ("utf16.csv", "prompt,chosen,rejected\np,x,y\n".encode("utf-16"), ["UTF-16", "iconv"]),
        ("cut.parquet", _parquet(ROWS)[:-20], ["not a sound Parquet file"]),
        ("cut.arrow", _arrow(ROWS)[:100], ["not a sound Arrow file"]),
        ("bad.json", b'[{"prompt": "p", ', ["not JSON", "jsonl"]),
        ("words.jsonl", b"hello\nworld\n", ["none of its 2 lines is JSON"]),
        ("number.json", b"12", ["int", "array of objects"]),
        ("twice.csv", b"chosen,chosen,rejected\nx,y,z\n", ["twice", "'chosen'"]),
    ],
)
def test_a_fault_of_the_file_is_one_clear_error(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(RecordError) as caught:
        read(path)
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_missing_files_and_unknown_objects(tmp_path):
    (tmp_path / "votes.jsonl").write_text("{}")
    with pytest.raises(RecordError, match=r"Did you mean .*votes.jsonl"):
        read(tmp_path / "vote.jsonl")
    with pytest.raises(RecordError, match="no directory"):
        read(tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(RecordError, match=r"without .parquet"):
        read(tmp_path)
    with pytest.raises(RecordError, match=r"cannot read rows from builtins.int"):
        read(3)
    with pytest.raises(RecordError, match="max_bad"):
        read(ROWS, max_bad=2)


def test_text_that_is_not_utf8_inside_parquet_is_a_fault_of_the_row(tmp_path):
    raw = pa.array([b"good"] * 150 + [b"\xff\xfe"]).view(pa.string())
    table = pa.table({"prompt": ["p"] * 151, "chosen": raw, "rejected": ["y"] * 151, "id": [str(i) for i in range(151)]})
    pq.write_table(table, tmp_path / "a.parquet")
    votes = read(tmp_path / "a.parquet")
    assert [(q.line, q.reason) for q in votes.quarantine] == [(151, "not_utf8")]


def test_ragged_and_badly_quoted_csv_records_are_set_aside(tmp_path):
    good = "".join(f"p{i},good,bad\n" for i in range(300))
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected\n" + good + 'p,"x"y,z\nonly,two\n' + "q,fine,end\n")
    votes = read(tmp_path / "a.csv")
    assert [(q.line, q.reason) for q in votes.quarantine] == [(302, "invalid_csv"), (303, "ragged_row")]
    assert votes.line[-1] == 304


def test_names_may_be_numbers_and_texts():
    votes = read([{**ROWS[0], "annotator": 3, "id": "x"}, {**ROWS[1], "annotator": "judge", "id": 7}])
    assert votes.annotators == ("3", "judge")
    assert votes.ids.to_pylist() == ["x", "7"]


def test_rows_that_share_no_columns_are_refused_and_not_spread_out():
    with pytest.raises(RecordError, match="3,000 different column names"):
        read([{f"key {i}": i} for i in range(3000)])


def test_a_gzip_file_that_is_cut_off_and_damaged_is_refused_in_words(tmp_path):
    """The first member is whole, the second one is garbage and too short: zlib itself gives up on it."""
    import zlib

    whole = bytearray(gzip.compress(b'{"prompt": "q", "chosen": "a", "rejected": "b"}\n' * 500, mtime=0))
    refused = 0
    for place in range(12, len(whole) - 8):
        broken = bytes(whole[:place]) + bytes([whole[place] ^ 0xFF]) + bytes(whole[place + 1 : -9])
        path = tmp_path / "broken.jsonl.gz"
        path.write_bytes(broken)
        with pytest.raises(RecordError, match="gzip"):
            read(path)
        try:
            zlib.decompressobj(wbits=31).decompress(broken)
        except zlib.error:
            refused += 1
    assert refused > 0
