"""Only what changed is run again, and the number of cores changes no byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cupel.pipeline import refine
from cupel.runs import RefineOptions

DATA = Path(__file__).parents[2] / "examples" / "data" / "ukp_votes.parquet"
AUDIT = {"read", "checks", "suspicion", "power", "label-error"}
PLAIN = {"train-plain-0", "train-plain-1", "train-plain-2"}
ROBUST = {"train-robust-0", "train-robust-1", "train-robust-2"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 votes of the bundled debates."""
    path = tmp_path_factory.mktemp("sample") / "votes.jsonl"
    rows = pq.read_table(DATA).slice(0, 300).to_pylist()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def written(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file() and not path.relative_to(out).parts[0].startswith("."))
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Runs:
    """Runs of refine into one OUT, each with options that differ from the first."""

    def __init__(self, file: Path, out: Path, cache: Path) -> None:
        self.file, self.out, self.base = file, out, {"map": {"group": "topic"}, "cache": str(cache)}

    def __call__(self, **options: object) -> set[str]:
        """The stages that were computed: those whose folders are new."""
        stages = self.out / ".stages"
        before = set(os.listdir(stages)) if stages.is_dir() else set()
        refine(self.file, self.out, RefineOptions(**{**self.base, **options}))  # type: ignore[arg-type]
        return {name.rpartition("-")[0] for name in set(os.listdir(stages)) - before}


def test_only_what_changed_is_run_again(sample: Path, tmp_path: Path) -> None:
    run = Runs(sample, tmp_path / "out", tmp_path / "cache")
    assert run() == {*AUDIT, *PLAIN, *ROBUST, "evaluate"}
    first = written(run.out)
    assert run() == set()
    assert run(drop=("cut_off_endings",)) == {*ROBUST, "evaluate"}
    assert written(run.out)["reward-plain/model.safetensors"] == first["reward-plain/model.safetensors"]
    assert written(run.out)["reward-robust/model.safetensors"] != first["reward-robust/model.safetensors"]
    assert run(context=40) == {"checks"}
    assert run(redact=True) == set()

    answers = tmp_path / "answers.csv"
    ids = pq.read_table(run.out / "verdicts.parquet")["id"].to_pylist()[:40]
    answers.write_text("id,label,part\n" + "".join(f"{name},b,random\n" for name in ids))
    assert run(trusted=str(answers)) <= {*ROBUST, "evaluate"}
    assert not run(trusted=str(answers))

    assert run(seed=1) == {*AUDIT, *PLAIN, *ROBUST, "evaluate"}  # another split: everything
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_bytes(sample.read_bytes())
    run.file = renamed
    assert run() == set()  # the content counts, not the name
    renamed.write_bytes(sample.read_bytes() + b"\n")
    assert "read" in run()
    run.file = sample
    assert run() == set()
    assert written(run.out) == first


CHILD = """
import sys
from cupel.pipeline import refine
from cupel.runs import RefineOptions
from threadpoolctl import threadpool_info
import scipy.linalg
print([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"])
refine(sys.argv[1], __import__("pathlib").Path(sys.argv[2]), RefineOptions(map={"group": "topic"}, cache=sys.argv[3]))
"""


def test_one_core_and_two_give_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    found, threads = [], []
    for n in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, n), "ARROW_IO_THREADS": n}
        command = [sys.executable, "-c", CHILD, str(sample), str(tmp_path / n), str(tmp_path / f"cache {n}")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        threads.append(done.stdout)
        found.append(written(tmp_path / n))
    assert found[0] == found[1]
    assert len(found[0]) > 8
    if (os.cpu_count() or 1) > 1:
        assert threads[0] != threads[1]
