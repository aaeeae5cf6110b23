"""`cupel audit` of a log: told from votes, files written whole and alike, ids never markup, thresholds as for votes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cupel.audit.interactions.files import is_log
from cupel.cli import app
from cupel.errors import CupelError, InputError
from cupel.interactions.log import Log
from cupel.interactions.writing import write_log


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["audit", *words])
    error = result.exception
    if isinstance(error, CupelError):  # `cupel.cli.main` makes the process's exit code of it
        return error.exit_code, result.stdout, result.stderr + str(error)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    user = ["<script>alert(1)</script>"] * 40 + [f"u{k}" for k in rng.integers(0, 20, 300)]
    item = ["<img src=x>"] * 40 + [f"i{k}" for k in rng.integers(0, 30, 300)]
    made = Log.of(user, item, value=np.ones(340, np.float32), time=np.r_[[1_600_000_000] * 40, 1_600_000_000 + rng.integers(0, 10**7, 300)])
    write_log(made, tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_files_are_written_and_alike(log: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        assert run(str(log), "--out", str(tmp_path / out), "--quiet")[0] == 0
    names = {p.name for p in (tmp_path / "a").iterdir()} - {".cupel.lock"}
    assert names == {"audit.json", "flagged.parquet", "report.html", "run.json"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    audit = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert (audit["kind"], audit["n_events"], audit["n_users"], audit["n_items"], audit["seed"]) == ("interactions", 340, 21, 31, 0)
    assert audit["versions"]["numpy"] == np.__version__
    found = {f["name"]: f for f in audit["findings"] if f["status"] == "finding"}
    assert found["duplicate_events"]["count"] == 39
    assert audit["verdict"]["code"] == "train_curated"
    flagged = pq.read_table(tmp_path / "a" / "flagged.parquet").to_pylist()
    assert [row["row"] for row in flagged if "duplicate_events" in row["reasons"]] == list(range(1, 40))
    assert flagged[0]["user"] == "<script>alert(1)</script>"
    run_json = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run_json["command"] == f"cupel audit {log}"


def test_ids_are_never_markup(log: Path, tmp_path: Path) -> None:
    run(str(log), "--out", str(tmp_path / "out"), "--quiet")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    run(str(log), "--out", str(tmp_path / "bare"), "--quiet", "--redact")
    assert "alert(1)" not in (tmp_path / "bare" / "report.html").read_text()


def test_the_page_lists_what_a_log_has(log: Path, tmp_path: Path) -> None:
    """Its navigation and its headings are those of the sections of a log; no word of labels, worklists or annotators stands on it."""
    run(str(log), "--out", str(tmp_path / "out"), "--quiet")
    page = (tmp_path / "out" / "report.html").read_text()
    nav = page[page.index("<nav") : page.index("</nav>")]
    assert re.findall(r'<a href="#([^"]+)">([^<]+)</a>', nav) == [
        ("actions", "Next actions"), ("findings", "Findings"), ("method", "Method"),
    ]  # fmt: skip
    assert re.findall(r'<h2 id="([^"]+)"', page) == ["verdict", "actions", "findings", "method"]
    body = page[page.index("<main") :].lower()
    votes_only = ("label error", "worklist", "done to the rows", "plain against", "recorded vote", "annotator", "quarantine")
    assert not [word for word in votes_only if word in body]
    assert "`flagged.parquet`" not in body
    assert "<code>flagged.parquet</code>" in body


def test_a_test_set_given_by_against_is_looked_for(log: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("user,item\nu1,i1\nu1,i2\nu2,i1\nnew,i3\n")
    code, out, _ = run(str(log), "--out", str(tmp_path / "out"), "--json", "--against", str(tmp_path / "test.csv"), "--only", "leakage")
    audit = json.loads(out)
    assert code == 0
    assert [f["name"] for f in audit["findings"]] == ["leakage"]
    assert audit["options"]["against"] == ["test.csv"]
    assert audit["verdict"]["code"] == ("recheck" if audit["findings"][0]["count"] else "train")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--fail-on", "duplicate_events"), 3, "duplicate_events: 39 found"),
        (("--fail-on", "train_curated"), 3, "the verdict is train_curated"),
        (("--fail-on", "train"), 0, ""),
        (("--fail-on", "flip-rate>0.2"), 2, "has no label error"),
        (("--fail-on", "dupes"), 2, "is neither"),
        (("--sample", "10"), 2, "--sample concern votes"),
        (("--kind", "clicks"), 2, "--kind is interactions or votes"),
        (("--kind", "votes"), 2, "no known format"),
        (("--only", "cycles"), 2, "no checks of interactions"),
    ],
)
def test_thresholds_and_options(log: Path, tmp_path: Path, words: tuple[str, ...], code: int, told: str) -> None:
    found, _, said = run(str(log), "--out", str(tmp_path / "out"), *words)
    assert found == code, said
    assert told in said


def test_a_dry_run_writes_nothing(log: Path, tmp_path: Path) -> None:
    code, out, _ = run(str(log), "--out", str(tmp_path / "out"), "--dry-run", "--json")
    assert (code, json.loads(out)["n_events"]) == (0, 340)
    assert not (tmp_path / "out").exists()


def test_votes_are_not_taken_for_a_log(tmp_path: Path) -> None:
    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    assert is_log(file("a.csv", "user,item,rating\n1,2,3\n"))
    assert is_log(file("b.txt", "1\t2\t3\n4\t5\t1\n"))
    assert not is_log(file("c.csv", "user,item,prompt,chosen,rejected\n1,2,p,x,y\n"))
    assert not is_log(file("d.jsonl", '{"prompt": "p", "chosen": "x", "rejected": "y"}\n'))
    assert not is_log(file("e.jsonl", "not json\n"))
    assert not is_log(file("f.parquet", "not parquet"))
    assert not is_log(str(tmp_path))
    assert not is_log(str(tmp_path / "none.csv"))
    assert not is_log("-")
    assert is_log(str(tmp_path / "e.jsonl"), "interactions")
    assert not is_log(str(tmp_path / "a.csv"), "votes")
    assert is_log(file("g.csv", "uid,thing\n1,2\n"), None, {"item": "thing"})
    assert not is_log(str(tmp_path / "a.csv"), None, {"prompt": "item"})
    with pytest.raises(InputError, match="standard input"):
        is_log("-", "interactions")
