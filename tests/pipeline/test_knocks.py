"""Hard knocks: full disks, places that cannot be written, input that vanishes, flipped bits, two runs at once, a clock that goes back.

Each ends in a clear error with exit code 2, or in the bytes of an undisturbed run; and nothing that was finished is lost.
`benchmarks/hard_knocks.py` does the same to whole processes, with kills at random moments.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cupel.cli import run as cupel
from cupel.errors import InputError
from cupel.pipeline import audit_file
from cupel.records.files import atomic_write, write_json
from cupel.runs import RefineOptions
from cupel.stages import JSON, Stages

DATA = Path(__file__).parents[2] / "examples" / "data" / "ukp_votes.parquet"
WRITTEN = ("audit.json", "verdicts.parquet", "report.html", "quarantine.jsonl", "run.json")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 votes of the bundled debates."""
    path = tmp_path_factory.mktemp("tiny") / "votes.jsonl"
    rows = pq.read_table(DATA).slice(0, 400).to_pylist()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RefineOptions:
    return RefineOptions(map={"group": "topic"}, cache=str(tmp_path_factory.mktemp("cache")))


def audited(tiny: Path, out: Path, options: RefineOptions) -> dict[str, str]:
    """Audit, and the digests of what was written."""
    audit_file(str(tiny), out, options)
    return written(out)


def written(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in WRITTEN}


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, options: RefineOptions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return audited(tiny, tmp_path_factory.mktemp("undisturbed"), options)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*") if p.name not in (".stages", ".cupel.lock")]


# ---- full disks -----------------------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_no_finished_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(tmp_path)
    stages.run("first", {}, lambda: {"x": 1}, JSON)
    with monkeypatch.context() as patch:
        patch.setattr("cupel.stages.os.fsync", full)
        with pytest.raises(InputError, match=r"the stage second cannot be kept in .*: No space left on device") as said:
            stages.run("second", {}, lambda: {"x": 2}, JSON)
    assert said.value.exit_code == 2
    assert "free some space" in str(said.value)
    assert not hidden(tmp_path)
    assert stages.run("first", {}, lambda: pytest.fail("computed again"), JSON) == {"x": 1}
    assert stages.run("second", {}, lambda: {"x": 2}, JSON) == {"x": 2}


def test_a_full_disk_leaves_the_file_that_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "audit.json"
    write_json(place, {"old": True})
    monkeypatch.setattr("cupel.records.files.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*audit.json: No space left on device"):
        write_json(place, {"new": True})
    assert json.loads(place.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["audit.json"]


def test_an_error_of_the_caller_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), atomic_write(tmp_path / "x"):
        raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [2, 14])
def test_a_disk_that_fills_up_in_the_middle(tiny, options, undisturbed, tmp_path, monkeypatch, after) -> None:
    left = after
    real = os.fsync

    def filling(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            full()
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        with pytest.raises(InputError, match="No space left on device"):
            audit_file(str(tiny), tmp_path, options)
    assert not hidden(tmp_path)
    assert audited(tiny, tmp_path, options) == undisturbed


def test_the_command_line_says_it_in_words(tiny, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cupel.stages.os.fsync", full)
    assert cupel(["audit", str(tiny), "--map", "group=topic", "--out", str(tmp_path / "out"), "--quiet"]) == 2
    words = capsys.readouterr().err
    assert "No space left on device" in words
    assert "Traceback" not in words


# ---- places and files -----------------------------------------------------------------------------------------------------------------


def test_an_out_that_cannot_be_made(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert cupel(["audit", str(tiny), "--out", str(tmp_path / "file" / "out"), "--quiet"]) == 2
    words = capsys.readouterr().err
    assert "Traceback" not in words
    assert str(tmp_path / "file") in words


def test_input_that_vanishes_in_the_middle(tiny: Path, options: RefineOptions, undisturbed: dict[str, str], tmp_path: Path) -> None:
    aside = tmp_path / "aside"

    def vanish(stage: str, done: int, total: int) -> None:
        if stage == "suspicion" and tiny.exists():
            tiny.rename(aside)

    try:
        said = ""
        try:
            audit_file(str(tiny), tmp_path / "out", options, progress=vanish)
        except InputError as error:  # either it went on with what it had read, or it says so
            said = str(error)
        assert aside.exists()
        assert not said or "there is no file" in said
    finally:
        aside.rename(tiny)
    assert audited(tiny, tmp_path / "out", options) == undisturbed


# ---- flipped bits -----------------------------------------------------------------------------------------------------------------------


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 0x10
    path.write_bytes(data)


def test_a_flipped_bit_in_a_kept_stage_is_noticed(tiny, options, undisturbed, tmp_path, caplog) -> None:
    audited(tiny, tmp_path, options)
    stages = sorted(p for p in (tmp_path / ".stages").iterdir() if p.is_dir())
    assert {p.name.split("-")[0] for p in stages} >= {"read", "checks", "suspicion", "power"}
    for stage in stages:
        flip(max((p for p in stage.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size), -5)
    assert audited(tiny, tmp_path, options) == undisturbed
    assert sum("is damaged" in record.message for record in caplog.records) == len(stages)


def test_a_stage_with_a_missing_file_is_computed_again(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.run("x", {}, lambda: {"a": 1}, JSON)
    (kept,) = tmp_path.iterdir()
    (kept / "value.json").unlink()
    assert stages.run("x", {}, lambda: {"a": 1}, JSON) == {"a": 1}
    (kept / "digests.json").write_text("{")
    assert stages.run("x", {}, lambda: {"a": 1}, JSON) == {"a": 1}


def test_a_flipped_bit_in_the_cache_changes_no_result(tiny, options, undisturbed, tmp_path, caplog) -> None:
    for shard in sorted(Path(str(options.cache)).glob("*/*.safetensors")):
        flip(shard, shard.stat().st_size // 2)
    assert audited(tiny, tmp_path, options) == undisturbed
    assert any("is damaged" in record.message for record in caplog.records)


# ---- two runs, and the clock ----------------------------------------------------------------------------------------------------------

HOLD = "import sys, time; from cupel.records.files import lock\nwith lock(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"


def test_two_runs_on_one_out(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline().strip() == "held"
            assert cupel(["audit", str(tiny), "--out", str(tmp_path), "--quiet"]) == 2
            assert f"another cupel process (id {holder.pid}) is writing into {tmp_path}" in capsys.readouterr().err
        finally:
            holder.kill()
    with pytest.raises(InputError, match="there is no file"):  # the lock went with its process
        audit_file(str(tmp_path / "none"), tmp_path, RefineOptions())


def test_a_clock_that_goes_backwards(tiny, options, undisturbed, tmp_path, monkeypatch) -> None:
    now = [2_000_000_000.0]

    def backwards() -> float:
        now[0] -= 3600.0
        return now[0]

    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, backwards)
    out = tmp_path / "out"
    assert audited(tiny, out, options) == undisturbed
    for path in out.rglob("*"):  # and the files of the first run lie in the future
        os.utime(path, (4_000_000_000, 4_000_000_000))
    assert audited(tiny, out, options) == undisturbed
