"""Where a transformer reward's training sides lay: kept with the folder, the right states, computed once, and warned of in the commands."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.policy import shift
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of
from cupel.learners.policy.rewards import TransformerReward
from cupel.learners.reward import load_reward
from cupel.records.files import sha256_file
from cupel.tasks import evaluate_file, score_file

Options = Callable[..., Any]
helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
WARNING, UNKNOWN = "Out of distribution", "is not known"


def other(n: int) -> list[dict[str, Any]]:
    """Comparisons of another kind: replies that repeat a word or two."""
    words = helpers["WORDS"]
    rng = np.random.default_rng(5)
    rows = []
    for i in range(n):
        one, two = rng.choice(words[16:], 2, replace=False)
        chosen, rejected = f"{one} " * int(rng.integers(6, 12)), f"{two} " * int(rng.integers(6, 12))
        rows.append(
            {"prompt": f"or {'not ' * (i % 9)}{words[i % 20]} . . .", "chosen": f"{chosen}.", "rejected": f"{rejected}.", "id": f"o{i}"}
        )
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A model trained on one kind of comparisons, more of the same kind, and another kind."""
    folder = tmp_path_factory.mktemp("shift")
    rows = helpers["comparisons"](700, seed=1)
    helpers["write_rows"](folder / "train.jsonl", rows[:450])
    helpers["write_rows"](folder / "same.jsonl", rows[450:])
    helpers["write_rows"](folder / "other.jsonl", other(60))
    train_policy(options_of(settings(folder, tiny, folder / "out")))
    return folder


def settings(folder: Path, tiny: Path, out: Path, **more: Any) -> dict[str, Any]:
    return {
        "kind": "reward", "data": str(folder / "train.jsonl"), "model": str(tiny), "out": str(out), "learning_rate": 3e-3, "batch_size": 64,
        "batch_tokens": 2048, "max_length": 64, "warmup": 0.0, "heldout": 0.1, "device": "cpu", "steps": 4, "objective": "bradley_terry",
        "reference": "none", **more,
    }  # fmt: skip


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def said(found: dict[str, Any], what: str) -> list[str]:
    return [line for line in found["words"] if what in line]


def test_the_folder_holds_it_and_transformers_does_not_mind(place: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = place / "out" / "model"
    model = TransformerReward.load(folder)
    assert model.familiar is not None
    assert model.familiar.middle.shape == (16,)
    assert 200 <= model.familiar.held <= shift.MOST
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    AutoModelForSequenceClassification.from_pretrained(folder)


def test_states_are_what_the_head_reads(place: Path) -> None:
    """Row by row through transformers: the last hidden state at the last token; the head makes the score of it."""
    from transformers import AutoModelForSequenceClassification

    model = TransformerReward.load(place / "out" / "model")
    texts = [(row["prompt"], row["chosen"]) for row in other(5)]
    rows = model._rows(texts)
    own: Any = AutoModelForSequenceClassification.from_pretrained(place / "out" / "model").eval()
    slow = []
    with torch.no_grad():
        for prompt, response in rows:
            out = own(torch.tensor([[*prompt, *response]]), output_hidden_states=True)
            slow.append(out.hidden_states[-1][0, -1].numpy())
            np.testing.assert_allclose(own.score(torch.tensor(slow[-1])).item(), out.logits.item(), atol=1e-5)
    np.testing.assert_allclose(model.states(rows), slow, atol=1e-5)


def test_an_encoder_gives_what_its_last_layer_reads() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    from cupel.scorers.groups import Groups
    from cupel.scorers.reward import WholeModelReward

    torch.manual_seed(0)
    config = BertConfig(vocab_size=120, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1)
    scorer = WholeModelReward(BertForSequenceClassification(config)).eval()
    groups = Groups.of([[5, 6]], [(0, [7, 8, 9]), (0, [10])])
    assert scorer(groups).state is None  # training keeps no states
    with torch.no_grad():
        found = scorer(groups)
        layer: Any = scorer.model.classifier
        assert found.state is not None
        assert found.state.shape == (2, 16)
        torch.testing.assert_close(layer(found.state)[:, 0], found.score)
    assert not layer._forward_pre_hooks


def test_a_pass_over_the_texts_gives_both(place: Path, tmp_path: Path) -> None:
    """With a cache what is scored is not computed again to be placed; what was scored before the summary was asked for is, once."""
    rows = [(row["prompt"], row["chosen"]) for row in other(40)] + [(row["prompt"], row["chosen"]) for row in helpers["comparisons"](40, 9)]
    prompts, responses = zip(*rows, strict=True)
    plain = TransformerReward.load(place / "out" / "model")
    model = load_reward(place / "out" / "model", cache=tmp_path)
    calls: list[int] = []
    inner = model.scorer.forward
    model.scorer.forward = lambda groups, *a, **k: (calls.append(groups.n_responses), inner(groups, *a, **k))[1]
    np.testing.assert_allclose(model.score(prompts, responses), plain.score(prompts, responses), atol=1e-6)
    once = sum(calls)
    assert once == len(set(rows))
    far = model.far(prompts, responses)
    assert sum(calls) == once
    np.testing.assert_array_equal(far, plain.far(prompts, responses))
    assert 0 < far.sum() < len(far)
    unscored = load_reward(place / "out" / "model", cache=tmp_path / "new")
    np.testing.assert_array_equal(unscored.far(prompts, responses), far)
    states = plain.states(plain._rows(rows))
    assert plain.familiar is not None
    np.testing.assert_array_equal(far, plain.familiar.distance(states).astype(np.float32) > plain.familiar.quantiles[-1])


def test_the_commands_warn(place: Path, tmp_path: Path, cached: Path) -> None:
    model = place / "out" / "model"
    found = {}
    for file in ("same", "other"):
        data = str(place / f"{file}.jsonl")
        rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
        suite = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
        (tmp_path / f"{file}.json").write_text(json.dumps(suite))
        found[file] = (
            score_file(model, data, tmp_path / "scored.parquet"),
            evaluate_file([model], data, tmp_path / file),
            evaluate_file([model], str(tmp_path / f"{file}.json"), tmp_path / f"suite-{file}", format="pairs-by-subset"),
        )
        shares = [
            found[file][0]["outside"]["beyond"], found[file][1]["trust"]["outside"]["model"]["beyond"],
            found[file][2]["outside"]["model"]["beyond"],
        ]  # fmt: skip
        assert len({share["estimate"] for share in shares}) == 1
    assert [len(said(one, WARNING)) for one in found["other"]] == [1, 1, 1]
    assert [len(said(one, WARNING)) for one in found["same"]] == [0, 0, 0]
    assert not any(said(one, UNKNOWN) for several in found.values() for one in several)
    assert found["same"][0]["outside"]["beyond"]["estimate"] < 0.04
    assert found["other"][0]["outside"]["beyond"]["low"] > 0.05
    assert "(1.0 % is expected)" in said(found["other"][0], WARNING)[0]


def test_a_folder_without_it_loads_and_says_that_nothing_is_known(place: Path, tmp_path: Path, cached: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(place / "out" / "model", old)
    shutil.rmtree(old / shift.PLACE)
    told = json.loads((old / "cupel.json").read_text())
    (old / "cupel.json").write_text(json.dumps({key: value for key, value in told.items() if key != "familiar"}))
    model = load_reward(old)
    assert model.familiar is None
    assert model.far(["the cat ?"], ["good"]) is None
    data = str(place / "other.jsonl")
    scored, evaluated = score_file(old, data, tmp_path / "s.parquet"), evaluate_file([old], data, tmp_path / "e")
    new = score_file(place / "out" / "model", data, tmp_path / "n.parquet")
    assert scored["agrees"] == new["agrees"]
    assert scored["outside"] is None
    for found in (scored, evaluated):
        assert len(said(found, UNKNOWN)) == 1
        assert not said(found, WARNING)


def test_a_damaged_summary_or_a_later_one_is_refused(place: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(place / "out" / "model", bad)
    told = json.loads((bad / "cupel.json").read_text())
    (bad / "cupel.json").write_text(json.dumps({**told, "familiar": {**told["familiar"], "version": 9}}))
    with pytest.raises(InputError, match="summary of its training texts is of version 9"):
        TransformerReward.load(bad)
    (bad / "cupel.json").write_text(json.dumps(told))
    (bad / shift.PLACE / shift.ARRAYS).write_bytes(b"x")
    with pytest.raises(InputError, match="is damaged"):
        TransformerReward.load(bad)
    (bad / shift.PLACE / shift.ARRAYS).unlink()
    with pytest.raises(InputError, match="is damaged"):
        TransformerReward.load(bad)


@pytest.mark.parametrize(
    "more", [{"head": "gpm:dim=4"}, {"best": "heldout/accuracy", "evaluate_every": 1, "learning_rate": 0.3, "steps": 3}]
)
def test_it_is_of_the_weights_that_are_kept(
    place: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """Preference heads; and the best checkpoint, which is not the last: the loaded model has the states that were summed up."""
    seen: list[tuple[Any, np.ndarray]] = []
    states = TransformerReward.states

    def watched(self: Any, rows: Any) -> Any:
        seen.append((rows, states(self, rows)))
        return seen[-1][1]

    monkeypatch.setattr(TransformerReward, "states", watched)
    done = train_policy(options_of(settings(place, tiny, tmp_path / "out", **more)))
    monkeypatch.undo()
    if "best" in more:
        assert done.metrics["best"]["step"] < done.steps
    model = load_reward(done.out / "model", cache=tmp_path / "cache")
    ((rows, found),) = seen
    assert len({(tuple(p), tuple(r)) for p, r in rows}) == len(rows)
    np.testing.assert_allclose(model.states(rows), found, atol=1e-5)
    assert model.familiar is not None
    assert np.mean(model.familiar.beyond(found)) < 0.04
    again = train_policy(options_of(settings(place, tiny, tmp_path / "again", **more)))
    assert sha256_file(again.out / "model") == sha256_file(done.out / "model")


def test_few_sides_and_images_leave_nothing(place: Path, tiny: Path, tmp_path: Path, votes_file: Path) -> None:
    done = train_policy(options_of(settings(place, tiny, tmp_path / "out", data=str(votes_file), heldout=0.4, steps=1)))
    assert TransformerReward.load(done.out / "model").familiar is None
    assert not (done.out / "model" / shift.PLACE).exists()

    class Pictures:
        inputs = "images"

    assert shift.training_familiar(None, Pictures(), 0) is None  # type: ignore[arg-type]
