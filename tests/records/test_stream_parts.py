"""Conversion part by part writes what conversion at once gives; a full disk is one clear message and leaves nothing."""

import errno
import json

import pyarrow.parquet as pq
import pytest

from cupel.errors import InputError
from cupel.records import read
from cupel.records.convert import to_rows
from cupel.records.stream import convert_stream, read_stream
from cupel.records.stream.spool import Column


def _rows(n=200, prompts=True):
    asked = {"prompt": "question"} if prompts else {}
    return [
        {**{k: f"{v} {i % 9}" if i > 70 else "" for k, v in asked.items()}, "response_a": f"x{i}", "response_b": "y",
         "vote": ["a", "b", "tie"][i % 3 if i < 150 else 0], "annotator": f"k{i % 4}", "extra": i}
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("to", ["trl", "votes"])
@pytest.mark.parametrize("prompts", [True, False])
def test_parts_are_written_as_the_whole_would_be(tmp_path, to, prompts):
    votes = read(_rows(prompts=prompts))
    table, losses = to_rows(votes, to)
    for ending in ("parquet", "jsonl"):
        rows, said = convert_stream(votes, tmp_path / f"out.{ending}", to, rows=33)
        assert rows == table.num_rows
        assert said == losses
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == table.to_pylist()
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == table.to_pylist()


def test_a_part_without_rows_is_passed_over_and_none_at_all_is_refused(tmp_path):
    rows = [{**row, "vote": "tie" if i < 50 else "a"} for i, row in enumerate(_rows())]
    table, losses = to_rows(read(rows), "trl")
    assert convert_stream(read(rows), tmp_path / "a.parquet", rows=10) == (table.num_rows, losses)
    ties = read([{**row, "vote": "tie"} for row in rows])
    with pytest.raises(InputError, match="no row is left"):
        convert_stream(ties, tmp_path / "b.parquet", rows=10)
    assert not (tmp_path / "b.parquet").exists()
    with pytest.raises(InputError, match="should end in one of"):
        convert_stream(read(rows), tmp_path / "b.txt")
    with pytest.raises(InputError, match="cannot hold lists"):
        convert_stream(read(rows), tmp_path / "b.csv", "trl_conversational", rows=10)
    with pytest.raises(InputError, match="cannot convert to 'kt'"):
        convert_stream(read(rows), tmp_path / "b.parquet", "kt")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.parquet"]


@pytest.mark.parametrize("to", ["trl", "votes"])
def test_conversations_are_counted_as_at_once(tmp_path, to):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    for rows in (
        [{"conversation_a": [*chat[: 1 + i % 2], {"role": "assistant", "content": f"x{i}"}],
          "conversation_b": [*chat[: 1 + i % 2], {"role": "assistant", "content": "y"}], "winner": "model_a"} for i in range(50)],
        [{"prompt": chat[:1], "chosen": [{"role": "assistant", "content": f"x{i}"}], "rejected": chat[1:]} for i in range(50)],
    ):  # fmt: skip
        votes = read(rows, max_bad=0.5)
        table, losses = to_rows(votes, to)
        assert convert_stream(votes, tmp_path / "out.parquet", to, rows=20) == (table.num_rows, losses)
        assert pq.read_table(tmp_path / "out.parquet").to_pylist() == table.to_pylist()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in _rows()))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    def full(self, values, append=Column.append):
        if self.path.name == "outcome":
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, values)

    monkeypatch.setattr(Column, "append", full)
    with pytest.raises(InputError, match="disk is full"):
        read_stream(path)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_disk_that_is_clearly_too_small_is_said_before_the_work(tmp_path, monkeypatch):
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in _rows()))
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    with pytest.raises(InputError, match="free"):
        read_stream(path, spool=tmp_path / "spool")
