"""Files above the limit stream by themselves: the same results, a spool kept as a stage, and nothing left elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cupel import tasks
from cupel.pipeline import audit_file
from cupel.records import reading
from cupel.records.stream import importer
from cupel.runs import RefineOptions

DATA = Path(__file__).parents[2] / "examples" / "data" / "ukp_votes.parquet"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "votes.jsonl"
    rows = pq.read_table(DATA).slice(0, 300).to_pylist()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n", "utf-8")
    return path


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Every file is large; the files that were read in batches. Temporary files go nowhere: none must be needed."""
    read: list[str] = []
    real = importer.read_stream

    def counted(source: str, **options: object) -> object:
        read.append(str(source))
        return real(source, **options)

    monkeypatch.setattr("cupel.records.stream.opening.ABOVE", 1000)
    monkeypatch.setattr("cupel.records.stream.read_stream", counted)
    return read


def bytes_of(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir()) if path.is_file()}


def test_an_audit_of_a_large_file_is_the_audit_of_it_at_once(tiny, streaming, tmp_path, monkeypatch) -> None:
    options = RefineOptions(map={"group": "topic"}, cache=str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr("cupel.records.stream.opening.ABOVE", 1 << 30)
        audit_file(str(tiny), tmp_path / "at once", options)
    assert not streaming
    monkeypatch.setattr(importer, "make", lambda: pytest.fail("a spool where temporary files go"))
    out = tmp_path / "streamed"
    audit_file(str(tiny), out, options)
    assert streaming == [str(tiny)]
    assert bytes_of(out) == bytes_of(tmp_path / "at once")
    (kept,) = (out / ".stages").glob("read-*")
    assert (kept / "votes" / "spool.json").is_file()
    assert not list((out / ".stages").glob(".*"))
    assert all(path.stat().st_nlink == 1 for path in (kept / "votes").iterdir())  # moved by links, not held twice

    audit_file(str(tiny), out, options)
    assert streaming == [str(tiny)]  # the stage was opened again, nothing was read
    text = kept / "votes" / "responses.bytes"
    data = bytearray(text.read_bytes())
    data[len(data) // 2] ^= 1
    text.write_bytes(data)
    audit_file(str(tiny), out, options)
    assert len(streaming) == 2  # a flipped bit: read again
    assert bytes_of(out) == bytes_of(tmp_path / "at once")


def test_a_large_file_that_does_not_stream_is_read_at_once(streaming, tmp_path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": [{"prompt": f"p{i}", "chosen": "x", "rejected": f"y{i}"} for i in range(60)]}, indent=1))
    place = tmp_path / "spool"
    assert len(reading.read(path, spool=place)) == 60
    assert not place.exists()


def test_the_other_verbs_stream_into_the_folder_of_their_result(tiny, streaming, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))
    large, small = tmp_path / "large", tmp_path / "small"
    for folder in (large, small):
        monkeypatch.setattr("cupel.records.stream.opening.ABOVE", 1000 if folder == large else 1 << 30)
        before = len(streaming)
        tasks.train_file(str(tiny), folder / "model", map={"group": "topic"})
        tasks.evaluate_file([folder / "model"], str(tiny), folder / "evaluation", map={"group": "topic"})
        tasks.score_file(folder / "model", str(tiny), folder / "scores.parquet")
        summary = tasks.convert_file(str(tiny), folder / "rows.jsonl", to="kto")
        assert summary["n_quarantined"] == 1
        tasks.convert_file(str(tiny), folder / "rows.jsonl", to="kto", dry_run=True)
        assert len(streaming) - before == (5 if folder == large else 0)
        assert sorted(path.name for path in folder.iterdir()) == ["evaluation", "model", "rows.jsonl", "scores.parquet"]
    for name in ("model/model.safetensors", "model/config.json", "model/metrics.json", "evaluation/evaluation.json", "rows.jsonl"):
        assert (large / name).read_bytes() == (small / name).read_bytes(), name
    assert pq.read_table(large / "scores.parquet").equals(pq.read_table(small / "scores.parquet"))
    monkeypatch.setattr("cupel.records.stream.opening.ABOVE", 1000)
    count = len(streaming)
    tasks.train_file(str(tiny), large / "model", map={"group": "topic"})
    assert len(streaming) == count  # the spool of the first time
    assert not [name for name in os.listdir(large) if name.startswith("cupel-spool-")]


def test_reading_and_writing_say_how_far_they_are(tiny, streaming, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cupel.records.stream.lines.BLOCK", 20_000)
    monkeypatch.setattr("cupel.records.stream.json_lines.BLOCK", 20_000)
    monkeypatch.setattr("cupel.records.stream.parts.ROWS", 100)
    told: list[tuple[str, int, int]] = []
    tasks.convert_file(str(tiny), tmp_path / "rows.jsonl", to="kto", progress=lambda *state: told.append(state))
    size = tiny.stat().st_size
    reading = [done for name, done, total in told if name == "read" and total == size]
    assert len(reading) > 3
    assert reading == sorted(reading)
    assert reading[-1] == size
    assert [(done, total) for name, done, total in told if name == "convert"] == [(100, 300), (200, 300), (300, 300)]
