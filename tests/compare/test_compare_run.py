"""A whole comparison: what it measures on known truth, that it resumes to the same bytes, the page, and the command line."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cupel.cli import run as command
from cupel.compare.data import Data, prepare
from cupel.compare.page import heat_map, page
from cupel.compare.result import Cell, Comparison
from cupel.compare.run import compare, sampled
from cupel.compare.spec import CompareOptions, cases_of
from cupel.compare.table import markdown
from cupel.errors import InputError
from cupel.learners.sides import RawSides
from cupel.records import read
from cupel.report.html import style_hash
from cupel.stages import Stages

EM = "em:flip=0.2,by=annotator,schedule=full,warmup=0"
POOL = "annotators:n=5,random=0,adversarial=0.4"
OPTIONS = CompareOptions(
    objectives=("sigmoid:beta=1", "hinge:beta=1"), treatments=("identity", EM, "tempered:power=0.7"),
    cases=cases_of([POOL, f"{POOL},shuffled=true", "symmetric", "difficulty"], [0.1]), seeds=(0, 1), ridges=(0.1,), draws=300,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> Data:
    """720 pairs whose better side follows from the embedding, three to a prompt; the text of the prompts wants to break the page."""
    rng = np.random.default_rng(0)
    n = 720
    embedding = rng.normal(size=(2 * n, 6)).astype(np.float32)
    right = rng.random(n) < 1 / (1 + np.exp(-4 * (embedding[:n] - embedding[n:]) @ np.array([2, -2, 1, 0, 0, 0])))
    rows = [
        {"prompt": f"<script>{i // 3}</script>", "response_a": f"a{i}", "response_b": f"b{i}", "vote": "a" if right[i] else "b"}
        for i in range(n)
    ]
    votes = read(rows, heldout=0)
    first, second = votes.node
    place = np.empty((2 * n, 6), dtype=np.float32)
    place[first], place[second] = embedding[:n], embedding[n:]
    sides = RawSides(place, np.zeros((2 * n, 1), dtype=np.float32), np.ones(2 * n), first, second)
    return prepare("<b>name</b> | pipe", votes, sides)


@pytest.fixture(scope="module")
def found(data: Data) -> Comparison:
    return compare(data, OPTIONS)


def test_the_table_knows_the_truth(found: Comparison) -> None:
    pool, shuffled, symmetric, _ = (case.label for case in OPTIONS.cases)
    base = found.baseline("sigmoid:beta=1", pool)
    assert base.clean > 0.8
    assert base.length_only == 0.5
    assert base.planted == pytest.approx(0.4, abs=0.06)
    em = found.cell("sigmoid:beta=1", EM, pool)
    assert em.gain > 0.02
    assert em.recovered == pytest.approx(em.gain / (base.clean - base.tuned_plain))
    assert 0.0 < em.ridge <= 0.1
    assert em.gain > found.cell("sigmoid:beta=1", EM, shuffled).gain
    assert found.cell("sigmoid:beta=1", "identity", pool).accuracy == found.cell("sigmoid:beta=1", "identity", shuffled).accuracy
    rate = found.cell("sigmoid:beta=1", EM, symmetric).flip_rate
    assert rate == pytest.approx(0.1, abs=0.07)
    plain = found.cell("sigmoid:beta=1", "identity", symmetric)
    assert (plain.gain, plain.low, plain.high) == (0, 0, 0)
    for cell in found.cells:
        assert cell.all_low <= cell.low <= cell.gain <= cell.high <= cell.all_high


def test_cells_are_means_of_hits(found: Comparison) -> None:
    for cell in found.cells:
        hit = found.hits.value[cell.objective, cell.treatment, cell.case]
        assert cell.accuracy == pytest.approx(hit.mean())
        assert set(np.unique(hit)) <= {0.0, 0.5, 1.0}
        plain = found.hits.value[cell.objective, "identity", cell.case]
        by_seed = [(hit - plain)[found.hits.seed_of == s].mean() for s in (0, 1)]
        assert (cell.wins, cell.losses) == (sum(x > 0 for x in by_seed), sum(x < 0 for x in by_seed))


def test_pairs_that_make_no_sense_are_refused_and_said(data: Data) -> None:
    options = replace(OPTIONS, objectives=("sigmoid:beta=1", "aot:beta=1"), cases=OPTIONS.cases[:1], seeds=(0,), steps=12)
    found = compare(data, options)
    assert [(r["objective"], r["treatment"]) for r in found.refused] == [("aot:beta=1", EM)]
    with pytest.raises(KeyError):
        found.cell("aot:beta=1", EM, OPTIONS.cases[0].label)
    assert found.cell("aot:beta=1", "tempered:power=0.7", OPTIONS.cases[0].label)
    assert any("were refused" in line for line in found.lines())


def test_held_out_labels_teach_nothing(data: Data, found: Comparison) -> None:
    """Exchanging the recorded labels of the test rows changes what is judged, never what is chosen or trained."""
    options = replace(OPTIONS, objectives=("sigmoid:beta=1",), treatments=("identity", EM), cases=OPTIONS.cases[2:3], seeds=(0,))
    before = compare(data, options)
    from cupel.compare.data import split

    test = split(data, 0, options.parts, options.validation, options.folds).test
    outcome = data.votes.outcome.copy()
    outcome[test] = 1 - outcome[test]
    after = compare(replace(data, votes=data.votes.with_(outcome=outcome)), options)
    for one, other in zip(before.cells, after.cells, strict=True):
        assert one.accuracy == pytest.approx(1 - other.accuracy)
        assert (one.ridge, one.flip_rate) == (other.ridge, other.flip_rate)
    assert [c.chosen for c in before.recommendations] == [c.chosen for c in after.recommendations]


def test_a_killed_comparison_resumes_to_the_same_result(data: Data, found: Comparison, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        compare(data, OPTIONS, stages=Stages(tmp_path), key={"set": "x"}, progress=kill)
    kept = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("compare-block"))
    assert len(kept) == 2
    reused = []
    again = compare(data, OPTIONS, stages=Stages(tmp_path, on_done=lambda name, old: reused.append(old)), key={"set": "x"})
    assert sum(reused) == 3  # two blocks and the difficulties
    assert again.to_json() == found.to_json()
    assert markdown(again) == markdown(found)


def test_the_page_is_safe_and_complete(found: Comparison) -> None:
    text = page(found)
    assert text == page(found)
    css = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert css
    assert style_hash(css.group(1)) in text
    assert "default-src 'none'" in text
    for forbidden in ("<script", "<b>name", "style=", "javascript:", "http://", "https://"):
        assert forbidden not in text, forbidden
    assert text.count("<svg") == len(OPTIONS.objectives)
    for cell in found.cells:
        assert cell.treatment in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_heat_map_tones() -> None:
    def cell(gain: float, sure: bool = False) -> Cell:
        return Cell("o", "t", "c", 0.5, gain, gain, gain, 0.001 if sure else -1.0, 1.0, 0, 0, None)

    text = str(heat_map("k", "t", ["x"], ["1", "2", "3", "4"], [[cell(0.06, True), cell(0.001), cell(-0.03), None]]))
    assert [name for name in ("up3", "up1", "flat", "down2", "none", "sure") if f'class="{name}"' in text] == [
        "up3", "flat", "down2", "none", "sure",
    ]  # fmt: skip


def test_markdown_has_a_row_per_treatment(found: Comparison) -> None:
    text = markdown(found)
    for objective in OPTIONS.objectives:
        assert f"## {objective}" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") - line.count("\\|") for line in rows[:6]}) == 1
    assert "\\|" in text.splitlines()[0]


def test_without_torch_it_exits_2_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    file = tmp_path / "votes.jsonl"
    file.write_text("")
    assert command(["compare", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'cupel[train]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def write_file(path: Path) -> Path:
    rng = np.random.default_rng(0)
    words = ["good", "kind", "clear", "bad", "rude", "vague"]
    lines = []
    for i in range(120):
        a, b = rng.choice(words, 3), rng.choice(words, 3)
        better = sum(w in words[:3] for w in a) >= sum(w in words[:3] for w in b)
        lines.append(json.dumps({"prompt": f"q{i // 2}", "response_a": f"{' '.join(a)} {i}", "response_b": f"{' '.join(b)} {i}.",
                                 "vote": "a" if better else "b"}))  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def test_command_line(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))
    file, out = write_file(tmp_path / "votes.jsonl"), tmp_path / "out"
    words = ["compare", str(file), "--objective", "sigmoid:beta=1", "--treatment", "tempered", "--corruption", "symmetric", "--rate", "0.2",
             "--seeds", "1", "--out", str(out), "--json"]  # fmt: skip
    assert command([*words, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 2
    assert not out.exists()
    assert command(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "compare.json").read_text("utf-8"))
    first = {name: (out / name).read_bytes() for name in ("compare.json", "compare.md", "compare.html")}
    shutil.rmtree(out)
    assert command(words) == 0
    assert first == {name: (out / name).read_bytes() for name in first}
    assert command(["compare", str(tmp_path / "nothing.jsonl")]) == 2
    assert command([*words, "--objective", "tdpo"]) == 2
    assert "tdpo needs" in capsys.readouterr().err


def test_samples_are_whole_groups() -> None:
    group = np.repeat(np.arange(50), 3)
    rows = sampled(group, 30, seed=1)
    assert len(rows) == 30
    assert (np.bincount(group[rows])[np.unique(group[rows])] == 3).all()
    assert not np.array_equal(rows, sampled(group, 30, seed=2))
    with pytest.raises(InputError):
        sampled(group, 0, seed=0)
