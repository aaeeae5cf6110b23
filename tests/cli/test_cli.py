"""The command line: exit codes, JSON on standard output only, clear errors, nothing written where nothing could be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupel.cli import run
from cupel.cli.common import check_thresholds, parse_map
from cupel.errors import InputError, ThresholdError

ROWS = [{"prompt": f"Question {i}?", "chosen": f"A long and careful answer, number {i}.", "rejected": f"No {i}."} for i in range(60)]


@pytest.fixture
def trl(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip()
    for verb in ("refine", "audit", "review", "curate", "evaluate", "score", "convert", "doctor"):
        assert run([verb, "--help"]) == 0
        assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b'{"question": "a", "chosen": "b", "rejected": "c"}\n' * 3, ""), (b"\xff\xfe\x00bad\n", "")],
)
def test_a_broken_file_exits_2_and_writes_nothing(content: bytes, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "x.jsonl", tmp_path / "out"
    path.write_bytes(content)
    code = run(["audit", str(path), "--out", str(out), "--map", "prompt=nothere"])
    said = capsys.readouterr()
    assert code == 2
    assert word in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not (out / "audit.json").exists()


def test_a_missing_file_exits_2_before_the_folder_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["refine", str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "no.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing_and_counts(trl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", str(trl), "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["n_comparisons"] == 60
    assert facts["format"].startswith("trl")
    assert not (tmp_path / "out").exists()


def test_convert_states_losses_and_keeps_an_existing_file(trl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "votes.jsonl"
    assert run(["convert", str(trl), str(target), "--to", "votes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_out"] == 60
    before = target.read_bytes()
    assert run(["convert", str(trl), str(target), "--to", "votes"]) == 2
    assert target.read_bytes() == before
    assert run(["convert", str(target), str(tmp_path / "back.jsonl"), "--to", "trl"]) == 0
    back = [json.loads(line) for line in (tmp_path / "back.jsonl").read_text().splitlines()]
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in back] == [(r["prompt"], r["chosen"], r["rejected"]) for r in ROWS]


def test_an_unknown_encoder_exits_2_with_the_way_out(trl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", str(trl), "--out", str(tmp_path / "out"), "--encoder", str(tmp_path / "none")]) == 2
    assert "EncoderError" in capsys.readouterr().err


def test_maps_and_thresholds() -> None:
    assert parse_map(["a=b", "c=d"]) == {"a": "b", "c": "d"}
    with pytest.raises(InputError, match="new=column"):
        parse_map(["a"])
    audit = {"verdict": {"code": "recheck"}, "flip_rate": {"low": 0.2}, "findings": [{"name": "cycles", "status": "finding", "count": 3}]}
    check_thresholds(["train", "flip-rate>0.3"], audit)
    for condition in ("recheck", "flip-rate>0.1", "cycles"):
        with pytest.raises(ThresholdError):
            check_thresholds([condition], audit)
    with pytest.raises(InputError, match="neither"):
        check_thresholds(["cyclos"], audit)
