"""The survival table on a log: planted errors of clicks, the shape of the table, resuming, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cupel.compare.interactions import InteractionOptions, cases_of, check, compare_log, compare_log_file, planted
from cupel.compare.spec import Case
from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.interactions.splits import random_split
from cupel.interactions.writing import write_log

QUICK = InteractionOptions(
    objectives=("bpo",), treatments=("identity", "missed:rate=0.3"), seeds=(0, 1), ridges=(0.001, 0.01), model="mf:dim=6", epochs=10,
    batch_size=128, learning_rate=0.03, cases=cases_of(["none", "false_positives", "missing"], [0.4]), draws=200, k=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def likes() -> Log:
    """50 users of two tastes, 30 items, 10 likes each."""
    rng = np.random.default_rng(1)
    item = np.concatenate([rng.choice(15, 10, replace=False) + 15 * (u % 2) for u in range(50)])
    return Log.of(np.repeat(np.arange(50), 10), item)


def test_planted_errors_leave_the_test_alone_and_have_their_rate(likes: Log) -> None:
    split = random_split(likes, seed=0)
    more, validation, share = planted(split, Case("false_positives", 0.4), 0)
    assert share == pytest.approx(0.4, abs=0.01)
    known = set(split.test.pairs().tolist())
    assert not known & set(more.pairs().tolist()) | known & set(validation.pairs().tolist())
    assert set(split.train.pairs().tolist()) <= set(more.pairs().tolist())
    fewer, _, share = planted(split, Case("missing", 0.4, (("by", "uniform"),)), 0)
    assert share == pytest.approx(0.4, abs=0.01)
    assert set(fewer.pairs().tolist()) < set(split.train.pairs().tolist())
    assert planted(split, Case("none", None), 0)[0] is split.train


def test_the_table_has_every_cell_and_falls_with_noise(likes: Log) -> None:
    found = compare_log("likes", likes, QUICK)
    plain = {case.label: found.baseline("bpo", case.label) for case in QUICK.cases}
    assert [cell.gain for cell in found.cells if cell.treatment == "identity"] == [0.0] * 3
    assert len(found.cells) == 6
    assert plain["none"].clean == pytest.approx(plain["none"].tuned_plain)
    assert plain["false_positives 40 %"].tuned_plain < plain["none"].tuned_plain
    assert plain["missing 40 % by=uniform"].tuned_plain < plain["none"].tuned_plain
    assert all(0 <= row.length_only < plain["none"].tuned_plain for row in plain.values())  # popularity says nothing of tastes
    assert found.n == 500
    assert "NDCG@10" in found.lines()[0]


def test_a_file_gives_three_files_and_resumes_to_the_same_bytes(likes: Log, tmp_path: Path) -> None:
    from dataclasses import replace

    write_log(likes, tmp_path / "likes.parquet")
    small = replace(QUICK, seeds=(0,), cases=QUICK.cases[:1], ridges=(0.01,))
    first = compare_log_file(str(tmp_path / "likes.parquet"), tmp_path / "out", small)
    names = ("compare.json", "compare.md", "compare.html")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    compare_log_file(str(tmp_path / "likes.parquet"), tmp_path / "out", small)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before
    assert json.loads(before["compare.json"])["measure"] == "NDCG@10"
    assert b"popularity" in before["compare.html"]
    assert first["words"][-1].startswith("Written")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "popularity"}, "is solved at once"),
        ({"treatments": ("missed:rate=0.5",)}, "it has to be identity"),
        ({"objectives": ("bpo", "bpo")}, "each once"),
        ({"objectives": ("sigmoid",)}, "needs logp"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(change: dict[str, object], said: str) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match=said):
        check(replace(QUICK, **change))  # pyright: ignore[reportArgumentType]: a test's own words


def test_cases_are_checked() -> None:
    wrong = ((["symmetric"], [0.1], "choose one of"), (["missing:n=2"], [0.1], "takes no n"), (["missing"], [1.0], "share"))
    for text, rates, said in wrong:
        with pytest.raises(InputError, match=said):
            cases_of(text, rates)


def test_peer_review_is_taken_and_refused_where_a_step_is_one_record() -> None:
    from dataclasses import replace

    reviewed = replace(QUICK, treatments=("identity", "peer_review:drop=0.2"))
    assert check(reviewed) == []
    refused = check(replace(reviewed, objectives=("bradley_terry",), batch_size=1, negatives=1))
    assert [(pair["objective"], pair["treatment"]) for pair in refused] == [("bradley_terry", "peer_review:drop=0.2")]
    assert "a step has one record" in refused[0]["reason"]


def test_the_command_tells_a_log_from_comparisons(likes: Log, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cupel.cli import app

    write_log(likes, tmp_path / "likes.parquet")
    words = ["compare", str(tmp_path / "likes.parquet"), "--out", str(tmp_path / "out"), "--dry-run", "--treatment", "missed:rate=0.5"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "500 events, 60 cells" in found.stderr
    refused = CliRunner().invoke(app, [*words, "--kind", "votes", "--core", "5"])
    assert "belongs to a log of interactions" in str(refused.exception)
