"""The tables of measured results are made from `benchmarks/results`, and the makers of tables tell the truth about failures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("common", "table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import common
    import table

    return common, table


def claim(**changes: object) -> dict[str, object]:
    base = {"claim": "a | b", "target": "at least 1", "measured": np.float64(0.5), "interval": [0.4, 0.6]}
    return {**base, "passed": np.bool_(False), **changes}


def test_published_tables_are_up_to_date(modules: tuple[ModuleType, ModuleType]) -> None:
    _, table = modules
    stale = [path.name for path, text in table.pages(table.load()).items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python benchmarks/table.py"


def test_write_result(modules: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common, table = modules
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    path = common.write_result("some", [claim()], n=7, seeds=range(5), command="python some.py")
    written = json.loads(path.read_text())
    assert written["claims"][0]["n"] == 7
    assert written["claims"][0]["seeds"] == [0, 1, 2, 3, 4]
    assert written["claims"][0]["passed"] is False
    assert written["versions"]["numpy"] == np.__version__
    text = table.full_table(table.load(tmp_path))
    assert "| some | 0 of 1 | a \\| b |" in text
    assert "| a \\| b | at least 1 | 0.5 | [0.4, 0.6] | 7 | 0-4 | FAIL |" in text
    assert "**fail**" in table.headline_table(table.load(tmp_path), [("some", "a | b")])
    with pytest.raises(LookupError, match="0 claims"):
        table.headline_table(table.load(tmp_path), [("some", "nothing like it")])


@pytest.mark.parametrize(
    ("changes", "message"), [({"passed": "yes"}, "not a bool"), ({"extra": 1}, "unknown"), ({"target": 0.5}, "sentences")]
)
def test_bad_claims_are_refused(modules: tuple[ModuleType, ModuleType], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modules[0].write_result("some", [claim(**changes)], n=1, seeds=[0], command="x")


def test_replace_block_needs_both_markers(modules: tuple[ModuleType, ModuleType]) -> None:
    _, table = modules
    assert table.replace_block("a<!-- x -->old<!-- /x -->b", "x", "new") == "a<!-- x -->\n\nnew\n\n<!-- /x -->b"
    with pytest.raises(ValueError, match="each occur once"):
        table.replace_block("a<!-- x -->old", "x", "new")
