"""Out of distribution, at the command line: said of debates that a model has not met, not of more of the same, not by old folders."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from cupel.errors import InputError
from cupel.evaluate.outside import EXPECTED, Part, outside
from cupel.learners.reward import load_reward
from cupel.tasks import evaluate_file, score_file, train_file

FILE = Path(__file__).parents[2] / "examples" / "data" / "ukp_single.parquet"
MET = ("christianity", "evolution", "gay-marriage", "is-porn", "pro-choice")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Five debates, of whose arguments a quarter was kept away from training, and three debates of other matters."""
    folder = tmp_path_factory.mktemp("outside")
    table = pq.read_table(FILE)
    topic = table["topic"].to_pylist()
    met = np.array([name.startswith(MET) for name in topic])
    other = np.array([name.startswith(("ban-plastic", "firefox", "should-physical")) for name in topic])
    texts = sorted({*table["chosen"].to_pylist(), *table["rejected"].to_pylist()})
    kept = dict(zip(texts, np.random.default_rng(0).random(len(texts)) < 0.25, strict=True))
    away = np.array([(kept[a], kept[b]) for a, b in zip(table["chosen"].to_pylist(), table["rejected"].to_pylist(), strict=True)])
    rows = {"train": met & ~away.any(axis=1), "same": met & away.all(axis=1), "other": other}
    for name, use in rows.items():
        pq.write_table(table.filter(pa.array(use)), folder / f"{name}.parquet")
    train_file(str(folder / "train.parquet"), folder / "linear")
    return folder


def told(place, model, file, tmp_path):
    """(what evaluate says, what score says) of the model on the file."""
    evaluated = evaluate_file([place / model], str(place / f"{file}.parquet"), tmp_path / "out")
    scored = score_file(place / model, str(place / f"{file}.parquet"), tmp_path / "scored.parquet")
    json.dumps(evaluated, allow_nan=False)
    return evaluated, scored


def warnings(found):
    return [line for line in found["words"] if "Out of distribution" in line]


def test_other_debates_are_said_to_be_outside(place, tmp_path):
    evaluated, scored = told(place, "linear", "other", tmp_path)
    assert len(warnings(evaluated)) == len(warnings(scored)) == 1
    assert "(1.0 % is expected)" in warnings(scored)[0]
    assert warnings(evaluated)[0].startswith("linear: ")
    found = scored["outside"]
    assert found["warns"]
    assert found["beyond"]["estimate"] > 5 * EXPECTED
    assert found["beyond"]["low"] > found["allowed"] >= 0.02
    assert evaluated["trust"]["outside"]["linear"]["beyond"]["estimate"] == found["beyond"]["estimate"]
    assert "Out of distribution" in (tmp_path / "out" / "trust.html").read_text()


def test_more_of_the_same_debates_is_not(place, tmp_path):
    evaluated, scored = told(place, "linear", "same", tmp_path)
    assert warnings(evaluated) == warnings(scored) == []
    assert scored["outside"]["beyond"]["estimate"] < 0.06
    assert not scored["outside"]["warns"]


@pytest.mark.parametrize("head", ["scalar", "gpm"])
def test_heads_and_preference_models_say_it_too(place, tmp_path, head):
    import cupel
    from cupel.learners.heads.options import HeadOptions
    from cupel.learners.heads.train import train_head

    votes = cupel.read(str(place / "train.parquet"), heldout=0)
    train_head(votes, HeadOptions(head=head, epochs=1, heldout=0)).save(place / head)
    assert warnings(told(place, head, "same", tmp_path)[1]) == []
    evaluated, scored = told(place, head, "other", tmp_path)
    assert len(warnings(evaluated)) == len(warnings(scored)) == 1
    linear = score_file(place / "linear", str(place / "other.parquet"), tmp_path / "linear.parquet")
    assert scored["outside"]["beyond"]["estimate"] == pytest.approx(linear["outside"]["beyond"]["estimate"], abs=0.01)


def test_a_folder_of_before_loads_and_says_that_nothing_is_known(place, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    config = json.loads((place / "linear" / "config.json").read_text())
    del config["familiar"]
    (old / "config.json").write_text(json.dumps(config))
    tensors = load_file(place / "linear" / "model.safetensors")
    save_file({name: x for name, x in tensors.items() if not name.startswith("familiar.")}, old / "model.safetensors")
    assert load_reward(old).familiar is None
    scored = score_file(old, str(place / "other.parquet"), tmp_path / "scored.parquet")
    assert warnings(scored) == []
    assert scored["outside"] is None
    evaluated = evaluate_file([old], str(place / "other.parquet"), tmp_path / "out")
    assert evaluated["trust"]["outside"] == {}
    suite = evaluate_file([old], suite_of(place, "other", tmp_path), tmp_path / "suite", format="pairs-by-subset")
    assert suite["outside"] == {}
    for found, name in ((scored, "the model"), (evaluated, "old"), (suite, "old")):
        said = [line for line in found["words"] if "is not known" in line]
        assert len(said) == 1
        assert f"that {name} were trained on" in said[0]
    new = score_file(place / "linear", str(place / "other.parquet"), tmp_path / "new.parquet")
    assert scored["agrees"] == new["agrees"]


def test_a_summary_that_is_damaged_or_later_is_refused(place, tmp_path):
    config = json.loads((place / "linear" / "config.json").read_text())
    tensors = load_file(place / "linear" / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**config, "familiar": {**config["familiar"], "version": 9}}))
    with pytest.raises(InputError, match="summary of its training texts is of version 9"):
        load_reward(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "familiar": {"version": 1}}))
    with pytest.raises(InputError, match="not a reward model"):
        load_reward(tmp_path)


def test_alike_rows_are_rarely_said_to_be_outside():
    """The limit is a quantile of few training rows: what alike rows may have beyond it is allowed for."""
    said = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        limit = np.quantile(rng.normal(size=150) ** 2, 0.99)
        part = Part(rng.normal(size=400) ** 2 > limit, np.arange(400), np.arange(400), 150)
        said += outside([part], draws=100).warns
    assert said <= 6


def test_parts_of_a_file_are_one_file():
    rng = np.random.default_rng(1)
    far, prompt = rng.random(900) < 0.04, np.repeat(np.arange(90), 10)
    whole = outside([Part(far, prompt, prompt, 4000)])
    parts = [Part(far[k : k + 300], prompt[k : k + 300], np.arange(300) // 10, 4000) for k in (0, 300, 600)]
    assert outside(parts) == whole
    none = np.zeros(900, int)
    by_prompt = outside([Part(far, none, prompt, 4000)])
    assert by_prompt == whole
    assert outside([Part(p.far, none[:300], p.prompt, 4000) for p in parts]) == whole
    assert outside([]) is None


def suite_of(place, file, out):
    """The file's comparisons in the plain format of a suite."""
    table = pq.read_table(place / f"{file}.parquet").select(["prompt", "chosen", "rejected"])
    pq.write_table(table, out / f"{file}-suite.parquet")
    return str(out / f"{file}-suite.parquet")


def test_suites_say_it(place, tmp_path):
    found = {}
    for file in ("other", "same"):
        found[file] = evaluate_file([place / "linear"], suite_of(place, file, tmp_path), tmp_path / file, format="pairs-by-subset")
    assert len(warnings(found["other"])) == 1
    assert warnings(found["other"])[0].startswith("linear: ")
    assert warnings(found["same"]) == []
    assert not any("is not known" in line for line in found["same"]["words"])
    scored = score_file(place / "linear", str(place / "other.parquet"), tmp_path / "scored.parquet")
    assert found["other"]["outside"]["linear"]["beyond"]["estimate"] == pytest.approx(scored["outside"]["beyond"]["estimate"], abs=1e-12)
    assert "Out of distribution" in (tmp_path / "other" / "leaderboard.html").read_text()
    assert "Out of distribution" not in (tmp_path / "same" / "leaderboard.html").read_text()
    json.dumps(found, allow_nan=False)


def test_seeds_of_a_run(place, tmp_path):
    """Two seeds by name: as a suite one run, as comparisons one run with an entry of trust for each."""
    train_file(str(place / "train.parquet"), tmp_path / "second", seed=1)
    both = [f"both={place / 'linear'},{tmp_path / 'second'}"]
    suite = evaluate_file(both, suite_of(place, "other", tmp_path), tmp_path / "suite", format="pairs-by-subset")
    one = [
        evaluate_file([path], suite_of(place, "other", tmp_path), tmp_path / "one", format="pairs-by-subset")
        for path in (place / "linear", tmp_path / "second")
    ]
    shares = [next(iter(result["outside"].values()))["beyond"]["estimate"] for result in one]
    assert suite["outside"]["both"]["beyond"]["estimate"] == pytest.approx(np.mean(shares))
    accuracy = [next(iter(result["rows"][0]["accuracy"].values()))["estimate"] for result in one]
    assert suite["rows"][0]["accuracy"]["both"]["estimate"] == pytest.approx(np.mean(accuracy))
    votes = evaluate_file(both, str(place / "other.parquet"), tmp_path / "votes")
    assert votes["training_seeds"] == {"both": 2}
    assert "both: the mean over 2 training seeds." in votes["words"]
    assert set(votes["trust"]["models"]) == {"both[1]", "both[2]"}
    assert votes["accuracy"]["votes"]["both"]["estimate"] == pytest.approx(np.mean(accuracy), abs=1e-9)
