"""`cupel evaluate --format SUITE`: files written, runs from files, exit codes, nothing written where nothing can be done."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cupel.cli import run

ROWS = [
    {"prompt": f"q{i}", "chosen": ["a", "ab", f"abc{i}"], "rejected": ["b", "bc", f"b{i}"], "domain": "chat" if i % 2 else "code", "id": i}
    for i in range(12)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rm.json"
    path.write_text(json.dumps(ROWS), "utf-8")
    return path


def test_scores_of_another_tool_go_round(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "asked"
    assert run(["evaluate", str(data), "--format", "rm-bench", "--out", str(asked), "--quiet"]) == 0  # no model: what is to be scored
    table = pq.read_table(asked / "requests.parquet")
    assert table.column_names == ["key", "prompt", "response"]
    for name, sign in (("good", 1), ("bad", -1)):
        lines = [
            json.dumps({"key": row["key"], "score": sign * (1.0 if row["response"].startswith("a") else 0.0)}) for row in table.to_pylist()
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    capsys.readouterr()
    models = [str(tmp_path / "bad.jsonl"), str(tmp_path / "good.jsonl")]
    out = tmp_path / "out"
    assert run(["evaluate", *models, str(data), "--format", "rm-bench", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    written = json.loads((out / "evaluation.json").read_text("utf-8"))
    assert said["ranking"] == written["ranking"] == ["good.jsonl", "bad.jsonl"]
    assert written["verdicts"] == {"good.jsonl": "better than bad.jsonl"}
    assert written["rows"][0]["accuracy"]["good.jsonl"]["estimate"] == 1.0
    assert "better than bad.jsonl" in (out / "leaderboard.html").read_text("utf-8")
    assert pq.read_table(out / "requests.parquet").column_names[3:] == ["score_bad.jsonl", "score_good.jsonl"]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(["evaluate", *models, str(data), "--format", "rm-bench", "--out", str(out), "--quiet"]) == 0
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "llmbar"], "It looks like rm-bench"),
        (["--format", "rm-bench", "--map", "prompt=question"], "--map does not go with it"),
        (["--format", "rm-bank"], "rm-bank"),
        ([], "at least one MODEL"),
    ],
)
def test_what_cannot_be_done_exits_2_and_writes_nothing(
    arguments: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    model = [str(tmp_path / "m.jsonl")] if arguments and arguments[1] == "rm-bank" else []
    if model:
        Path(model[0]).write_text('{"score": 1}\n', "utf-8")
        message = "not a reward model"
    assert run(["evaluate", *model, str(data), *arguments, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert not out.exists()


def test_dry_run_counts_and_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["evaluate", str(data), "--format", "rm-bench", "--out", str(out), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 12
    assert not out.exists()


def test_training_seeds_of_a_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "asked"
    assert run(["evaluate", str(data), "--format", "rm-bench", "--out", str(asked), "--quiet"]) == 0
    table = pq.read_table(asked / "requests.parquet").to_pylist()
    for k in range(4):
        lines = [json.dumps({"key": row["key"], "score": hash_of(row["key"], k)}) for row in table]
        (tmp_path / f"s{k}.jsonl").write_text("\n".join(lines), "utf-8")
    capsys.readouterr()
    out = tmp_path / "out"
    files = [str(tmp_path / f"s{k}.jsonl") for k in range(4)]
    command = ["evaluate", f"one={files[0]}", f"three={','.join(files[1:])}", str(data), "--format", "rm-bench", "--out", str(out)]
    assert run([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["words"][0].startswith("4 models")
    assert run([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["training_seeds"] == {"one": 1, "three": 3}
    assert "three: the mean over 3 training seeds." in said["words"]
    assert "Training seeds" in (out / "leaderboard.html").read_text("utf-8")
    assert pq.read_table(out / "requests.parquet").column_names[3:] == ["score_one", "score_three[1]", "score_three[2]", "score_three[3]"]
    assert run(["evaluate", f"a={files[0]},{files[0]}", str(data), "--format", "rm-bench", "--out", str(out)]) == 2
    assert "a training seed counts once" in capsys.readouterr().err


def hash_of(key: str, seed: int) -> int:
    return int(key[2 * seed : 2 * seed + 4], 16)
