"""`cupel train recommender`: from a file of interactions to a folder, again, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cupel.cli import app
from cupel.errors import InputError
from cupel.interactions.reading import read_log
from cupel.learners.recommenders.saved import is_recommender, load
from cupel.recommending import train_recommender_file

run = CliRunner()


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 users of two tastes and 30 items, ratings of 5 in the own half and of 2 outside it, one repeat."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,rating,timestamp"]
    for u in range(40):
        own = rng.choice(15, 10, replace=False) + 15 * (u % 2)
        lines += [f"u{u},i{i},5,{t}" for t, i in enumerate(own)]
        lines += [f"u{u},i{i},2,{50 + i}" for i in rng.choice(15, 3, replace=False) + 15 * (1 - u % 2)]
    place = tmp_path_factory.mktemp("log") / "ratings.csv"
    place.write_text("\n".join([*lines, lines[1]]) + "\n")
    return place


def words(*more: str) -> list[str]:
    return ["train", "recommender", *more, "--at-least", "4", "--epochs", "6", "--batch-size", "64", "--learning-rate", "0.05"]


def test_a_file_becomes_a_folder_and_is_not_trained_twice(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run.invoke(app, [*words(str(ratings), "--out", str(out), "--model", "mf:dim=8"), "--json"])
    assert first.exit_code == 0, first.stderr
    said = json.loads(first.stdout)
    assert said["n_users"] == 40
    assert said["n_train"] == 320
    assert any("120 of 521 events have a value below 4" in note for note in said["notes"])
    assert is_recommender(out)
    assert load(out).model.name == "mf"
    assert len(read_log(out / "test.parquet")) == said["n_test"] == 40
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    again = run.invoke(app, words(str(ratings), "--out", str(out), "--model", "mf:dim=8"))
    assert "finished: nothing was done" in again.stderr
    forced = run.invoke(app, [*words(str(ratings), "--out", str(out), "--model", "mf:dim=8"), "--force"])
    assert forced.exit_code == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before  # the same bytes
    pair = ["--model", "mf:dim=8", "--treatment", "peer_review:drop=0.2"]
    assert run.invoke(app, [*words(str(ratings), "--out", str(out), *pair), "--force"]).exit_code == 0
    assert is_recommender(out / "peer")
    assert run.invoke(app, [*words(str(ratings), "--out", str(out), "--model", "mf:dim=8"), "--force"]).exit_code == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before  # and nothing of the pair
    other = run.invoke(app, words(str(ratings), "--out", str(out), "--model", "mf:dim=9"))
    assert isinstance(other.exception, InputError)
    assert "another options" in str(other.exception)


def test_a_solved_model_and_a_split_by_time(ratings: Path, tmp_path: Path) -> None:
    found = run.invoke(app, words(str(ratings), "--out", str(tmp_path / "p"), "--model", "popularity", "--split", "leave_one_out"))
    assert found.exit_code == 0, found.stderr
    assert "each user's last event for the test" in found.stderr


def test_a_recipe_says_the_same(ratings: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        f"data: {ratings}\nmodel: mf:dim=4\nobjective: bpo\ntreatment: 'missed:rate=0.5,form=surrogate'\nat_least: 4\nepochs: 2\n"
    )
    found = train_recommender_file(str(recipe), tmp_path / "r", {"epochs": 1})
    assert found["treatment"] == "missed:rate=0.5,form=surrogate"
    assert len(found["epochs"]) == 1  # the command line wins


def test_a_dry_run_writes_nothing(ratings: Path, tmp_path: Path) -> None:
    found = run.invoke(app, [*words(str(ratings), "--out", str(tmp_path / "d")), "--dry-run"])
    assert found.exit_code == 0
    assert not (tmp_path / "d").exists()
    assert "320 events of 40 users and 30 items to train on" in found.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cores": 3}, "did you mean core"),
        ({"model": "matrix"}, "no recommender is called 'matrix'"),
        ({"objective": "sigmoid"}, "needs logp, reference"),
        ({"split": "by_day"}, "split is one of"),
        ({"at_least": 6}, "none of 521 events is a like"),
    ],
)
def test_what_cannot_be_done_is_said(ratings: Path, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    from cupel.errors import CupelError

    with pytest.raises(CupelError, match=said):
        train_recommender_file(str(ratings), tmp_path / "x", changes)


def test_texts_are_asked_for_only_where_there_are_some(ratings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no texts"):
        train_recommender_file(str(ratings), tmp_path / "x", {"epochs": 1}, text="static")
