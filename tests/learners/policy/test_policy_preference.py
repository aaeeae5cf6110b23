"""Preference models on a transformer: trained with people, resumed, saved and loaded, under LoRA; refused where they have no place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cupel
from cupel.errors import InputError
from cupel.learners.models.names import available, reads_of
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of
from cupel.learners.policy.preference import PreferenceScorer, TransformerPreference, attach, attached
from cupel.learners.reward import load_reward
from cupel.records.files import sha256_file
from cupel.scorers.check import quiet
from cupel.scorers.groups import Groups

Options = Callable[..., Any]
PEOPLE = ("anna", "bert", "carl", "dora")


def rows(n: int = 240, seed: int = 0) -> list[dict[str, Any]]:
    """Anna and Bert prefer cats, Carl and Dora dogs: no single score can please both."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(n):
        colour, verb = rng.choice(["red", "blue", "small", "large"]), rng.choice(["sees", "likes", "eats", "finds"])
        cat, dog = f"the {colour} cat {verb}", f"a {colour} dog {verb}"
        who = PEOPLE[int(rng.integers(4))]
        likes_cats, swap = who in PEOPLE[:2], rng.random() < 0.5
        first, second = (dog, cat) if swap else (cat, dog)
        vote = "a" if likes_cats != swap else "b"
        out.append({"prompt": f"{verb} {k} ?", "response_a": first, "response_b": second, "vote": vote, "annotator": who})
    return out


@pytest.fixture(scope="module")
def people_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


def options(people_file: Path, model: Path, out: Path, **changes: Any) -> Any:
    values = {
        "kind": "reward", "data": str(people_file), "model": str(model), "out": str(out), "learning_rate": 1e-2, "batch_size": 16,
        "max_length": 64, "warmup": 0.0, "heldout": 0.2, "device": "cpu", "epochs": 3, "head": "person_vectors",
    }  # fmt: skip
    return options_of({**values, **changes})


@pytest.fixture(scope="module")
def trained(people_file: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("run") / "out"
    return train_policy(options(people_file, tiny_chat, out))


def test_people_with_opposite_tastes_are_both_pleased(trained: Any, people_file: Path) -> None:
    assert trained.metrics["evaluation"]["heldout"]["accuracy"] > 0.9
    model = load_reward(trained.out / "model")
    assert isinstance(model, TransformerPreference)
    votes = cupel.read(str(people_file))
    agrees = (model.margin(votes) * votes.sign > 0).mean()
    assert agrees > 0.9
    scores = {name: model.score(["likes 3 ?"] * 2, ["the red cat likes", "a red dog likes"], person=name) for name in PEOPLE}
    assert all(scores[name][0] > scores[name][1] for name in PEOPLE[:2])
    assert all(scores[name][0] < scores[name][1] for name in PEOPLE[2:])
    with pytest.raises(InputError, match="has not met 'emil'"):
        model.score(["likes 3 ?"], ["the red cat likes"], person="emil")


def test_one_score_for_everybody_cannot(people_file: Path, tiny_chat: Path, tmp_path: Path) -> None:
    found = train_policy(options(people_file, tiny_chat, tmp_path / "out", head="scalar", epochs=1))
    assert 0.3 < found.metrics["evaluation"]["heldout"]["accuracy"] < 0.7


def test_a_folder_gives_the_margins_of_training_back(trained: Any, people_file: Path) -> None:
    model = load_reward(trained.out / "model")
    votes = cupel.read(str(people_file))
    first, second = model.scores(votes)
    np.testing.assert_allclose(first - second, model.margin(votes), atol=1e-6)
    texts = ["the red cat likes", "a red dog likes", "the small dog"]
    matrix = model.matrix("likes 3 ?", texts, person="anna")
    np.testing.assert_allclose(matrix, -matrix.T, atol=1e-9)
    one = model.score(["likes 3 ?"] * 3, texts, person="anna")
    np.testing.assert_allclose(one[:, None] - one[None], matrix, atol=1e-5)
    stored = load_file(trained.out / "model" / "model.safetensors")
    assert {name for name in stored if name.startswith("score.")} == {f"score.inside.{n}" for n in model.model.state_dict()}
    assert model.people == tuple(sorted(PEOPLE, key=model.people.index))
    assert json.loads((trained.out / "model" / "cupel.json").read_text())["head"]["text"] == "person_vectors"
    assert json.loads((trained.out / "model" / "explanation.json").read_text()) == json.loads(json.dumps(model.explain().recorded()))


def test_batches_and_order_do_not_move_a_margin(trained: Any) -> None:
    model = load_reward(trained.out / "model")
    texts = ["the red cat likes", "a red dog likes", "the small dog", "good"]
    together = model.score(["likes 3 ?"] * 4, texts, person="carl")
    alone = [model.score(["likes 3 ?"], [text], person="carl")[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_stopped_run_goes_on_to_the_same_bytes(trained: Any, people_file: Path, tiny_chat: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train" and done >= 20:
            raise Stop

    asked = options(people_file, tiny_chat, out, save_every=6)
    with pytest.raises(Stop):
        train_policy(asked, progress=stop)
    again = train_policy(asked)
    whole = train_policy(options(people_file, tiny_chat, tmp_path / "whole", save_every=6))
    for file in ("model.safetensors", "cupel.json"):
        assert sha256_file(again.out / "model" / file) == sha256_file(whole.out / "model" / file)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft calls it
@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_carries_its_head(people_file: Path, tiny_chat: Path, tmp_path: Path, merge: bool) -> None:
    found = train_policy(options(people_file, tiny_chat, tmp_path / "out", lora=4, head_rate=3.0, merge=merge))
    assert found.metrics["evaluation"]["heldout"]["accuracy"] > 0.8
    model = load_reward(tmp_path / "out" / "model")
    votes = cupel.read(str(people_file))
    assert (model.margin(votes) * votes.sign > 0).mean() > 0.8


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft calls it
@pytest.mark.parametrize("lora", [0, 4])
def test_prototypes_know_who_was_learned_from(people_file: Path, tiny_chat: Path, tmp_path: Path, lora: int) -> None:
    asked = options(people_file, tiny_chat, tmp_path / "out", head="pal:prototypes=2,dim=8", lora=lora, steps=3, epochs=1)
    train_policy(asked)
    model = load_reward(tmp_path / "out" / "model")
    assert bool(model.model.seen.all())
    assert len(model.model.seen) == len(PEOPLE)
    texts = ["the red cat likes", "a red dog likes"]
    mean = np.mean([model.model.weights(torch.tensor([k])).detach().numpy() for k in range(4)], axis=0)
    np.testing.assert_allclose(model.model.population().detach().numpy(), mean[0], atol=1e-6)
    assert np.isfinite(model.score(["likes 3 ?"] * 2, texts)).all()
    nobody = tmp_path / "some.jsonl"
    some = [{**row, "annotator": row["annotator"] if k % 4 else None} for k, row in enumerate(rows(40))]
    nobody.write_text("".join(json.dumps(row) + "\n" for row in some))
    with pytest.raises(InputError, match="name no person"):
        train_policy(options(nobody, tiny_chat, tmp_path / "b", head="pal:prototypes=2,dim=8"))


CARRIED = sorted(name for name, made in available().items() if "context" not in reads_of(name) and not made.named)


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("layout", ["padded", "shared"])
def test_every_head_has_gradients_and_layouts_agree(name: str, layout: str, tiny_chat: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(tiny_chat, num_labels=1)
    attach(model, name, 4, seed=0)
    groups = Groups.of([[1, 5, 6], [1, 7]], [(0, [8, 9, 2]), (0, [10, 2]), (1, [8, 2]), (1, [11, 12, 13, 2])], [(0, 1), (3, 2)])
    groups = cupel_people(groups, [1, 3])
    plain = PreferenceScorer(model, "padded")
    with quiet(plain):
        expected = plain(groups)
    scorer = PreferenceScorer(model, "auto" if layout == "shared" else layout)
    found = scorer(groups)
    for ours, theirs in zip(found.pairs, expected.pairs, strict=True):
        torch.testing.assert_close(ours.score, theirs.score, atol=1e-4, rtol=1e-4)
    first, second = found.sides(groups)
    torch.nn.functional.softplus(second.score - first.score).mean().backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in attached(model).parameters())
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in model.named_parameters() if "layers" in n)


def cupel_people(groups: Groups, people: list[int]) -> Groups:
    from dataclasses import replace

    return replace(groups, person=torch.tensor(people))


def test_the_command_writes_the_page(people_file: Path, tiny_chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cupel.cli import run

    out = tmp_path / "out"
    command = ["train", "reward", str(people_file), "--model", str(tiny_chat), "--head", "pal:prototypes=2,dim=8", "--out", str(out)]
    assert run([*command, "--max-length", "64", "--set", "steps=2", "--set", "device=cpu", "--no-progress"]) == 0
    assert "4 people are mixtures of 2 prototypes" in capsys.readouterr().err
    assert "anna" in (out / "model" / "explanation.html").read_text()


def test_heads_that_have_no_place_are_refused(people_file: Path, tiny_chat: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belong to a reward model"):
        options(people_file, tiny_chat, tmp_path, kind="policy")
    with pytest.raises(InputError, match="no preference model is called"):
        train_policy(options(people_file, tiny_chat, tmp_path / "a", head="nothing"))
    nobody = tmp_path / "nobody.jsonl"
    nobody.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "annotator"}) + "\n" for row in rows(40)))
    with pytest.raises(InputError, match="the data name none"):
        train_policy(options(nobody, tiny_chat, tmp_path / "b"))
    if "context" in available():
        with pytest.raises(InputError, match="write it into the prompt"):
            train_policy(options(people_file, tiny_chat, tmp_path / "c", head="context"))
    with pytest.raises(InputError, match="columns that have names"):
        train_policy(options(people_file, tiny_chat, tmp_path / "d", head="features"))
