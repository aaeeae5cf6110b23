"""`cupel evaluate` on recommenders: both spellings, what is written, seeds, unknown ids, overlap with training, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cupel.cli import run
from cupel.interactions.log import Log
from cupel.learners.recommenders.names import build
from cupel.learners.recommenders.saved import save
from cupel.learners.recommenders.types import Known

RNG = np.random.default_rng(0)
USERS, ITEMS = np.array([f"u{k}" for k in range(20)]), np.array([f"i{k}" for k in range(15)])
PAIRS = np.array([(u, i) for u in range(20) for i in RNG.choice(15, 6, replace=False)])
TRAIN = Log(USERS, ITEMS, PAIRS[:, 0].astype(np.int32), PAIRS[:, 1].astype(np.int32)).take(np.arange(120) % 6 < 4)


def folder(place: Path, text: str, seed: int = 0, log: Log = TRAIN) -> Path:
    known = Known(log)
    model = build(text, *log.shape, seed)
    model.prepare(known)
    if model.kind == "solved":
        model.solve(known)
    return save(place, model, known, text=text, seed=seed)


def write(path: Path, rows) -> str:
    path.write_text("\n".join(["user,item", *(f"{USERS[u]},{ITEMS[i]}" for u, i in rows)]) + "\n", "utf-8")
    return str(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder(tmp_path / "popularity", "popularity")
    folder(tmp_path / "mf", "mf:dim=4")
    for seed in (0, 1):
        folder(tmp_path / "seeds" / f"seed-{seed}", "mf:dim=4", seed)
    write(tmp_path / "test.csv", PAIRS[np.arange(120) % 6 == 4])
    write(tmp_path / "validation.csv", PAIRS[np.arange(120) % 6 == 5])
    return tmp_path


def test_folders_in_page_and_numbers_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(place / name) for name in ("popularity", "mf", "seeds")]
    told = [
        "--k",
        "3,5",
        "--metric",
        "recall",
        "--metric",
        "ndcg",
        "--mask",
        str(place / "validation.csv"),
        "--propensity",
        "popularity:0.7",
    ]
    told += ["--clip", "0.2", "--rare", "5", "--reference", "mf", "--recommendations", "4"]
    assert run(["evaluate", "recommender", *models, str(place / "test.csv"), "--out", str(place / "out"), "--json", *told]) == 0
    said = json.loads(capsys.readouterr().out)
    written = json.loads((place / "out" / "evaluation.json").read_text("utf-8"))
    assert written == {key: said[key] for key in written}
    assert (written["headline"], written["reference"], written["ks"], written["rare_at_most"]) == ("recall@5", "mf", [3, 5], 5)
    assert written["training_seeds"] == {"popularity": 1, "mf": 1, "seeds": 2}
    assert written["items_left_out"] == 5.0
    assert (written["weighing"]["source"], written["weighing"]["clip"]) == ("popularity, power 0.7", 0.2)
    assert "popularity" in (place / "out" / "evaluation.html").read_text("utf-8")
    lists = pq.read_table(place / "out" / "recommendations.parquet")
    assert lists.column_names == ["model", "user", "item", "rank", "score"]
    assert len(lists) == 3 * 20 * 4
    had = {(USERS[u], ITEMS[i]) for u, i in PAIRS[np.arange(120) % 6 != 4]}
    assert not had & set(zip(lists.column("user").to_pylist(), lists.column("item").to_pylist(), strict=True))
    before = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
    assert run(["evaluate", *models, str(place / "test.csv"), "--out", str(place / "out"), "--quiet", *told]) == 0  # the word is not needed
    assert before == {path.name: path.read_bytes() for path in (place / "out").iterdir()}


def test_a_named_run_is_the_folder_of_its_seeds(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NAME=FOLDER,FOLDER reads as a folder of both, and as the same runs are named for reward models."""
    seeds = ",".join(str(place / "seeds" / f"seed-{seed}") for seed in (0, 1))
    found = []
    for model, out in ((str(place / "seeds"), "a"), (f"seeds={seeds}", "b")):
        assert run(["evaluate", str(place / "mf"), model, str(place / "test.csv"), "--out", str(place / out), "--k", "5", "--quiet"]) == 0
        found.append((place / out / "evaluation.json").read_bytes())
    assert json.loads(found[0])["training_seeds"] == {"mf": 1, "seeds": 2}
    assert found[0] == found[1]


def test_unknown_ids_are_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "more.csv"
    path.write_text((place / "test.csv").read_text("utf-8") + "stranger,i1\nu1,new\n", "utf-8")
    assert run(["evaluate", str(place / "mf"), str(path), "--out", str(place / "out")]) == 0
    assert "2 of 22 events" in capsys.readouterr().err
    (place / "none.csv").write_text("user,item\nx,y\n", "utf-8")
    assert run(["evaluate", str(place / "mf"), str(place / "none.csv"), "--out", str(place / "none")]) == 2
    assert "nothing is left" in capsys.readouterr().err
    assert not (place / "none").exists()


def test_events_of_training_are_an_error_with_a_way_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = write(place / "both.csv", np.concatenate([PAIRS[np.arange(120) % 6 == 4], PAIRS[:2]]))
    assert run(["evaluate", str(place / "mf"), both, "--out", str(place / "out")]) == 2
    assert "2 of 22 test events repeat" in capsys.readouterr().err
    assert run(["evaluate", str(place / "mf"), both, "--out", str(place / "out"), "--drop-seen"]) == 0
    assert "were left out of the test" in capsys.readouterr().err


def test_models_of_other_logs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(place / "fewer", "popularity", log=TRAIN.take(np.arange(len(TRAIN)) > 3))
    assert run(["evaluate", str(place / "mf"), str(place / "fewer"), str(place / "test.csv"), "--out", str(place / "out")]) == 0
    assert "trained on different events" in capsys.readouterr().err
    folder(place / "other", "popularity", log=TRAIN.kept_ids(np.arange(20) > 0, np.ones(15, bool)))
    assert run(["evaluate", str(place / "mf"), str(place / "other"), str(place / "test.csv"), "--out", str(place / "out")]) == 2
    assert "Train both on one log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mf", "test.csv", "--k", "ten"], "not lengths of lists"),
        (["mf", "test.csv", "--flip", "0.1"], "--flip belongs to comparisons"),
        (["mf", "test.csv", "--at-least", "4"], "no values"),
        (["mf", "mf", "test.csv"], "named twice"),
        (["mf", "s=seeds,seeds", "test.csv"], "twice"),
        (["mf", "empty", "test.csv"], "empty holds no recommender, nor folders of them"),
        (["validation.csv", "test.csv", "--drop-seen"], "--drop-seen belongs to recommenders"),
        (["recommender", "test.csv"], "at least one MODEL"),
        (["recommender", "validation.csv", "test.csv"], "not a recommender"),
        (["mf", "test.csv", "--propensity", "log"], "no propensities"),
    ],
)
def test_what_cannot_be_done(place: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(place)
    (place / "empty").mkdir()
    assert run(["evaluate", *arguments, "--out", str(place / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (place / "out").exists()


def test_dry_run_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(place / "mf"), str(place / "test.csv"), "--out", str(place / "out"), "--dry-run"]) == 0
    assert "1 models, 20 test events of 20 users, 15 items" in capsys.readouterr().err
    assert not (place / "out").exists()
