"""The README's Python code runs, on a small part of the bundled file in its place."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_is_one_block() -> None:
    assert len(BLOCKS) == 1


def test_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every 12th row: all debates stay, so that splits and folds work as on the whole file."""
    table = pq.read_table(ROOT / "examples" / "data" / "ukp_single.parquet")
    small = table.take(list(range(0, len(table), 12)))
    (tmp_path / "examples" / "data").mkdir(parents=True)
    pq.write_table(small, tmp_path / "examples" / "data" / "ukp_single.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert printed[1].startswith("single ")
    assert int(printed[2]) > 50


def test_makefile_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
