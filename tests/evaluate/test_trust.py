"""What is said of scores on a file: every part where the data allow it, a sentence where they do not, the same from the same seed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cupel
from cupel.errors import InputError
from cupel.evaluate.calibration import Calibration, fit_calibration
from cupel.evaluate.trust import trust


def made(n=300, people=2, seed=0, words=6):
    """n pairs in prompts of three, each voted on by `people`, wrong one time in five; the truth of every row."""
    rng = np.random.default_rng(seed)
    rows, truth = [], []
    for i in range(n):
        sides = [f"r{i} {side} " + "word " * int(rng.integers(1, words)) + ("**bold**" if rng.random() < 0.3 else "") for side in "ab"]
        better = int(rng.integers(2))
        for person in range(people):
            said = better if rng.random() > 0.2 else 1 - better
            rows.append(
                {"prompt": f"q{i // 3}", "response_a": sides[0], "response_b": sides[1], "vote": "ab"[said], "annotator": f"p{person}"}
            )
            truth.append(1 - 2 * better)
    return cupel.read(rows), np.array(truth)


def margin_of(truth, votes, seed, noise=1.0):
    """The same margin for every vote on a pair."""
    rng = np.random.default_rng(seed)
    return 3 * (truth + noise * rng.normal(size=int(votes.pair.max()) + 1)[votes.pair])


@pytest.fixture(scope="module")
def data():
    return made()


def test_every_part(data):
    votes, truth = data
    margins = {"one": margin_of(truth, votes, 1), "two": margin_of(truth, votes, 2)}
    found = trust(margins, votes, flip=0.2, truth=truth, train=made(seed=5)[0], draws=200)
    assert found.ceiling.pairs == 300
    assert found.ceiling.lowest <= 0.8 <= found.ceiling.highest
    one = found.models["one"]
    assert one.calibration.calibration.reading == "truth"
    assert one.to_truth.calibration.on == "truth"
    assert one.to_truth.difference["half"]["log_loss"].high < 0
    assert one.calibration.difference["length"]["log_loss"].high < 0
    assert one.style.names == ("words", "bold")
    assert found.ensemble.models == 2
    assert not found.shift.warns
    assert found.notes == ()
    again = trust(margins, votes, flip=0.2, truth=truth, train=made(seed=5)[0], draws=200)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.dumps(again.to_json(), allow_nan=False) == text
    assert "Left out because the two sides never differ in it (n = 600): list items, headings." in text


def test_figures_are_pictures_with_tables(data):
    votes, truth = data
    found = trust({"a<b": margin_of(truth, votes, 1)}, votes, draws=100)
    pictures = found.figures()
    assert len(pictures) == 2
    assert all(str(one.svg).startswith("<svg") and one.table.rows for one in pictures)
    assert "a&lt;b" in str(pictures[0].svg)
    assert "<b" not in str(pictures[0].svg).replace("<br", "")


def test_a_model_that_knows_the_votes_is_above_the_ceiling(data):
    votes, _ = data
    found = trust({"leak": votes.sign.astype(float)}, votes, draws=100)
    assert any("surely above the ceiling" in line for line in found.words)


def test_another_kind_of_text_is_said(data):
    votes, truth = data
    found = trust({"one": margin_of(truth, votes, 1)}, votes, train=made(seed=5, words=60)[0], draws=100)
    assert found.shift.warns
    assert any(line.startswith("Out of distribution") for line in found.words)


def test_what_the_data_do_not_allow_is_a_note():
    votes = cupel.read([{"prompt": "q", "response_a": "a", "response_b": "bb", "vote": "a", "annotator": "k"}] * 3)
    found = trust({"one": np.array([1.0, 2.0, -1.0])}, votes, train=votes, draws=50)
    assert found.models["one"].calibration is None
    assert found.models["one"].style is None
    assert found.shift is None
    assert any("groups that it did not see" in note for note in found.notes)
    assert any("200 training rows" in note for note in found.notes)
    json.dumps(found.to_json(), allow_nan=False)


def test_bad_input(data):
    votes, _ = data
    with pytest.raises(InputError, match="at least one model"):
        trust({}, votes)
    with pytest.raises(InputError, match="not finite"):
        trust({"one": np.full(len(votes), np.nan)}, votes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A reward model in a folder, and the file it is to judge."""
    from cupel.learners.reward import train_reward

    folder = tmp_path_factory.mktemp("trained")
    train_reward(made(n=60, seed=9)[0]).save(folder / "model")
    votes, _ = made(n=60, seed=3)
    import pyarrow.parquet as pq

    pq.write_table(votes.source, folder / "votes.parquet")
    return folder


def test_scores_say_where_p_correct_is_from(trained, tmp_path):
    import pyarrow.parquet as pq

    from cupel.tasks import score_file

    model, file = trained / "model", str(trained / "votes.parquet")
    plain = score_file(model, file, tmp_path / "plain.parquet")
    assert plain["p_correct"] == "sigmoid of the margin, not calibrated"
    found = Calibration("temperature", "votes", 0.25, (), (), None, 50, 20)
    found.save(model)
    try:
        told = score_file(model, file, tmp_path / "told.parquet")
    finally:
        (model / "calibration.json").unlink()
    raw, calibrated = pq.read_table(tmp_path / "plain.parquet"), pq.read_table(tmp_path / "told.parquet")
    margin = raw["margin"].to_numpy()
    np.testing.assert_allclose(raw["p_correct"].to_numpy(), 1 / (1 + np.exp(-margin)))
    np.testing.assert_allclose(calibrated["p_correct"].to_numpy(), 1 / (1 + np.exp(-margin / 4)))
    assert told["p_correct"] == "calibrated to votes (temperature 4; n = 50 in 20 groups)"
    assert any("p_correct: calibrated to votes" in line for line in told["words"])


def test_evaluate_writes_trust_and_calibrates_on_request(trained, tmp_path):
    from cupel.records.reading import read
    from cupel.tasks import evaluate_file

    model, file = trained / "model", str(trained / "votes.parquet")
    evaluate_file([model], file, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "trust.json").read_text())
    assert set(written["models"]) == {"model"}
    assert not (model / "calibration.json").exists()
    summary = evaluate_file([model], file, tmp_path / "out", calibrate="temperature", flip=0.2)
    saved = Calibration.load(model)
    (model / "calibration.json").unlink()
    votes = read(file, heldout=0)
    from cupel.learners.reward import RewardModel

    margin = RewardModel.load(model).margin(votes)
    assert saved == fit_calibration(margin, votes.sign, votes.group, flip=0.2)
    assert any("calibration.json" in line for line in summary["words"])


def test_the_command_line(trained, tmp_path):
    from typer.testing import CliRunner

    from cupel.cli import app

    words = ["evaluate", str(trained / "model"), str(trained / "votes.parquet"), "--out", str(tmp_path / "out")]
    wrong = CliRunner().invoke(app, [*words, "--calibrate", "spline"])
    assert wrong.exit_code != 0
    right = CliRunner().invoke(app, [*words, "--calibrate", "isotonic", "--flip", "0.2", "--json"])
    assert right.exit_code == 0
    assert json.loads(right.stdout)["trust"]["models"]["model"]["calibration"]["calibration"]["method"] == "isotonic"
    assert Calibration.load(trained / "model").flip == 0.2
    (trained / "model" / "calibration.json").unlink()


def test_a_loss_has_no_interval_below_zero():
    """Two groups widen an interval far; a loss is at least 0 all the same."""
    votes, truth = made(n=6, people=40, seed=1)
    noisy = margin_of(truth, votes, 1, noise=0.1) * np.where(votes.group == votes.group[0], 1.0, -1.0)
    found = trust({"one": noisy}, votes, draws=60).models["one"]
    assert found.calibration is not None
    shares = [share for way in found.calibration.loss.values() for share in way.values()]
    assert all(share.low is None or share.low >= 0 for share in shares)
    assert any(share.low == 0 for share in shares)
