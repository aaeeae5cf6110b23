"""The main job: its files, its bytes, its resumption after a kill at every stage boundary and at random moments."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cupel.pipeline import refine
from cupel.runs import RefineOptions, options_from_run

FILES = (
    "audit.json", "evaluation.json", "heldout.parquet", "ledger.jsonl", "quarantine.jsonl", "report.html",
    "reward-plain/config.json", "reward-plain/model.safetensors", "reward-robust/config.json", "reward-robust/model.safetensors",
    "run.json", "train.parquet", "verdicts.parquet",
)  # fmt: skip


def digests(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES}


@pytest.fixture(scope="module")
def finished(small_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("refined")
    refine(small_file, out, RefineOptions(map={"group": "topic"}, cache=str(cache)))
    return out


def test_every_file_is_there_and_says_the_same(finished: Path) -> None:
    audit = json.loads((finished / "audit.json").read_text())
    for name in ("n_comparisons", "n_quarantined", "verdict", "flip_rate", "power", "findings", "annotators", "seed", "versions"):
        assert name in audit
    assert audit["flip_rate"]["basis"] == "repeats"
    assert 0 <= audit["flip_rate"]["low"] <= audit["flip_rate"]["high"] <= 1
    page = (finished / "report.html").read_text("utf-8")
    assert audit["verdict"]["code"] in page or audit["verdict"]["sentence"][:20] in page
    assert set(digests(finished)) == set(FILES)


def test_running_again_computes_nothing_and_changes_no_byte(finished: Path, small_file: Path, cache: Path) -> None:
    before = digests(finished)
    stages = sorted(p.name for p in (finished / ".stages").iterdir())
    refine(small_file, finished, RefineOptions(map={"group": "topic"}, cache=str(cache)))
    assert digests(finished) == before
    assert sorted(p.name for p in (finished / ".stages").iterdir()) == stages


def test_run_json_repeats_the_run(finished: Path, cache: Path, tmp_path: Path) -> None:
    file, options = options_from_run(finished / "run.json", None)
    refine(file, tmp_path, RefineOptions(**{**options.__dict__, "cache": str(cache)}))
    assert digests(tmp_path) == digests(finished)


CHILD = """
import os, signal, sys
from pathlib import Path
from cupel.pipeline import refine
from cupel.runs import RefineOptions
from cupel.stages import Stages
file, out, cache, stop = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
seen = 0
original = Stages.run
def run(self, *arguments, **options):
    global seen
    value = original(self, *arguments, **options)
    seen += 1
    if seen == stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return value
Stages.run = run
refine(file, out, RefineOptions(map={"group": "topic"}, cache=cache))
print("stages", seen)
"""


def child(small_file: Path, out: Path, cache: Path, stop: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(small_file), str(out), str(cache), str(stop)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_killed_at_every_stage_boundary_it_resumes_to_the_same_bytes(finished: Path, small_file: Path, cache: Path, tmp_path: Path) -> None:
    killed = 0
    for stop in range(1, 40):
        done = child(small_file, tmp_path, cache, stop)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
    assert killed >= 8
    assert digests(tmp_path) == digests(finished)


def test_killed_at_random_moments_it_resumes_to_the_same_bytes(finished: Path, small_file: Path, cache: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    command = [sys.executable, "-c", CHILD, str(small_file), str(tmp_path), str(cache), "0"]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = child(small_file, tmp_path, cache, 0)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == digests(finished)
    assert os.listdir(tmp_path / ".stages")


def test_an_audit_saved_in_python_has_the_bytes_of_the_command(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cupel
    from cupel.cli import run

    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))
    assert run(["audit", str(small_file), "--map", "group=topic", "--out", str(tmp_path / "cli"), "--quiet"]) == 0
    cupel.audit(cupel.read(small_file, map={"group": "topic"})).save(tmp_path / "api")
    written = sorted(path.name for path in (tmp_path / "api").iterdir())
    assert written == ["audit.json", "quarantine.jsonl", "report.html", "run.json", "verdicts.parquet"]
    assert [name for name in written if (tmp_path / "api" / name).read_bytes() != (tmp_path / "cli" / name).read_bytes()] == []
    cupel.audit(cupel.read([*_few_rows()])).save(tmp_path / "rows")
    assert not (tmp_path / "rows" / "run.json").exists()


def _few_rows() -> list[dict[str, str]]:
    return [{"prompt": f"q{i}", "chosen": f"a good answer {i}", "rejected": f"bad {i}"} for i in range(40)]
