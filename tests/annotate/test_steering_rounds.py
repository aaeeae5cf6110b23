"""SteerLM 2.0 in rounds, on a tiny model: what lists say of their responses, what is left out, that rounds teach, and that they resume."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cupel.annotate.language_models import CausalLM
from cupel.annotate.steering import attribute_labels, draw_wanted, imitation_rows, steering_rows, told
from cupel.annotate.steering_rounds import iterate
from cupel.errors import InputError
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of
from cupel.objectives import attribute_log_probability
from cupel.records.files import sha256_file

helpers = runpy.run_path(str(Path(__file__).parents[1] / "learners" / "policy" / "conftest.py"))
SUBJECTS, VERBS = ("cat", "dog", "bird", "fish"), ("sees", "likes", "eats", "finds")
NAMES = ["tone"]
PROMPTS = [f"{subject} {verb} ?" for subject in SUBJECTS for verb in VERBS]
TRAINING: dict[str, Any] = {
    "learning_rate": 1e-2, "batch_size": 16, "batch_tokens": 4096, "max_length": 32, "warmup": 0.0, "epochs": 8, "device": "cpu",
    "evaluate_every": 1000,
}  # fmt: skip


def render(prompt: str, wanted: Mapping[str, int]) -> str:
    """Ratings in words that the tokenizer has."""
    return f"{('blue', 'red')[wanted['tone']]} {prompt}"


def rater(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """How much a response says good: .8 or .2."""
    return np.array([[0.8 if "good" in text else 0.2] for text in responses])


DRAWING: dict[str, Any] = {"names": NAMES, "levels": 2, "tokens": 6, "render": render}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SteerLM 1 and the plain model in one: prompts with ratings of which two in ten are wrong, and prompts without."""
    place = tmp_path_factory.mktemp("start")
    tokenizer = helpers["make_tokenizer"]()
    helpers["make_model"](len(tokenizer)).save_pretrained(place / "raw")
    tokenizer.save_pretrained(place / "raw")
    rng, rows = np.random.default_rng(0), []
    for n in range(200):
        prompt, tone = PROMPTS[n % len(PROMPTS)], int(rng.random() < 0.5)
        text = " ".join([*["the"] * int(rng.integers(2)), prompt.split()[0], str(rng.choice(["very", "not"])), ("bad", "good")[tone]])
        rows += imitation_rows([prompt], [text], [[tone if rng.random() < 0.8 else 1 - tone]], names=NAMES, levels=2, render=render)
        rows.append({"prompt": prompt, "completion": text, "label": True})
    helpers["write_rows"](place / "rows.jsonl", rows)
    options = {
        **TRAINING, "kind": "sft", "unpaired": True, "data": str(place / "rows.jsonl"), "model": str(place / "raw"), "heldout": 0.0,
        "out": str(place / "sft"), "batch_size": 64, "learning_rate": 3e-2, "epochs": 4,
    }  # fmt: skip
    train_policy(options_of(options))
    return place / "sft" / "model"


def logp(model: Any, tokenizer: Any, prompt: str, response: str, temperature: float = 1.0) -> float:
    """Slow twin: one response by itself through the model."""
    head, tail = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, response))
    ids = torch.tensor([[*head, *tail, tokenizer.eos_token_id]])
    with torch.no_grad():
        lines = (model(ids).logits.double() / temperature).log_softmax(-1)[0, len(head) - 1 : -1]
    return float(lines.gather(1, ids[0, len(head) :, None]).sum())


def loaded(place: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_rows_say_what_the_models_say(start: Path, temperature: float) -> None:
    wanted = draw_wanted(PROMPTS, [[0], [1]], seed=3)
    found = steering_rows(start, PROMPTS, wanted, rater, prior=start, n=4, seed=5, temperature=temperature, **DRAWING)
    model, tokenizer = loaded(start)
    assert found.counts["drawn"] == 4 * len(PROMPTS)
    assert found.counts["lists"] == len(found.rows) > 5
    assert found.counts["responses"] == sum(len(row["responses"]) for row in found.rows)
    sizes, divergences = [], []
    for row in found.rows:
        plain, want = PROMPTS[int(row["id"])], int(wanted[int(row["id"]), 0])
        assert row["prompt"] == render(plain, {"tone": want})
        assert row["wanted"] == [want]
        columns = zip(row["responses"], row["log_attributes"], row["log_prior"], row["log_proposal"], strict=True)
        w, b = [], []
        for text, said, prior, proposal in columns:
            rating = torch.tensor(rater([plain], [text])[0])
            assert said == pytest.approx(float(attribute_log_probability(rating, torch.tensor([float(want)]), levels=2)), abs=1e-9)
            assert prior == pytest.approx(logp(model, tokenizer, plain, text), abs=1e-4)
            assert proposal == pytest.approx(logp(model, tokenizer, row["prompt"], text, temperature), abs=1e-4)
            w.append(said + prior - proposal)
            b.append(logp(model, tokenizer, row["prompt"], text) - proposal)
        w, b = (np.exp(x - np.max(x)) / np.exp(x - np.max(x)).sum() for x in (np.array(w), np.array(b)))
        sizes.append(1 / (w**2).sum())
        divergences.append((w * np.log(w / b)).sum())
        assert row["effective_size"] == pytest.approx(sizes[-1], rel=1e-3)
    assert found.measured["effective_size"] == pytest.approx(np.mean(sizes), rel=1e-3)
    assert found.measured["D"] == pytest.approx(np.mean(divergences), abs=1e-3)
    assert found.measured["one"] == np.mean(np.array(sizes) < 1.5)


def test_hits_are_those_of_all_rated_responses(start: Path) -> None:
    wanted = draw_wanted(PROMPTS, [[0], [1]], seed=3)
    found = steering_rows(start, PROMPTS, wanted, rater, prior=start, n=6, seed=5, **DRAWING)
    assert found.counts["alone"] == 0  # of lists alone, rows would not have all
    hits = [("good" in text) == bool(row["wanted"][0]) for row in found.rows for text in row["responses"]]
    assert found.measured["hits"] == pytest.approx(np.mean(hits)) == pytest.approx(found.measured["hits_by_attribute"]["tone"])
    assert found.measured["hits_low"] < found.measured["hits"] < found.measured["hits_high"]
    assert found.counts["repeated"] == sum(len(row["responses"]) - len(set(row["responses"])) for row in found.rows) > 0


def test_draws_belong_to_the_prompt_and_not_to_the_batch(start: Path) -> None:
    model = CausalLM.load(start, max_length=32)
    few = CausalLM.load(start, max_length=32, batch_tokens=24)
    wanted = np.array([[0], [1], [1], [0]])
    prompts = [PROMPTS[0], "a small large dog sees ?", PROMPTS[2], PROMPTS[0]]
    more: dict[str, Any] = {"n": 5, "seed": 1, **DRAWING}
    whole = steering_rows(model, prompts, wanted, rater, prior=model, **more)
    texts = {row["id"]: row["responses"] for row in whole.rows}
    apart = steering_rows(few, prompts, wanted, rater, prior=few, **more)
    assert {row["id"]: row["responses"] for row in apart.rows} == texts
    alone = steering_rows(model, prompts[1:3], wanted[1:3], rater, prior=model, **more)
    assert [row["responses"] for row in alone.rows] == [texts["1"], texts["2"]]
    assert texts["0"] != texts["3"]  # the same prompt asked twice is answered twice
    other = steering_rows(model, prompts, wanted, rater, prior=model, **{**more, "seed": 2})
    assert {row["id"]: row["responses"] for row in other.rows} != texts


def test_what_is_left_out_is_counted(start: Path) -> None:
    model = CausalLM.load(start, max_length=10)
    long = " ".join(["very"] * 7) + " ?"
    prompts, wanted = [*PROMPTS, long], np.ones((len(PROMPTS) + 1, 1), int)
    seen: list[tuple[str, str]] = []

    def picky(of: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        seen.extend(zip(of, responses, strict=True))
        return np.where([["the" in text.split()] for text in responses], np.nan, rater(of, responses))

    found = steering_rows(model, prompts, wanted, picky, prior=model, n=8, seed=0, **DRAWING)
    counts = found.counts
    assert counts["long"] == 1
    assert counts["drawn"] == 8 * len(PROMPTS)
    assert counts["unrated"] > 0
    assert len(set(seen)) == len(seen)  # each different response is rated once
    assert not any("the" in text.split() for row in found.rows for text in row["responses"])
    kept = counts["drawn"] - counts["blank"] - counts["cut"] - counts["altered"] - counts["unrated"]
    assert kept >= counts["responses"]
    assert counts["lists"] + counts["alone"] == len(PROMPTS)
    short = steering_rows(model, prompts, wanted, rater, prior=model, n=8, seed=0, **{**DRAWING, "tokens": 4})
    assert short.counts["cut"] > counts["cut"]  # an answer of four words has no room for its end
    assert all(len(text.split()) < 4 for row in short.rows for text in row["responses"])


def test_text_that_is_read_as_other_tokens_is_left_out(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cupel.annotate import steering

    model = CausalLM.load(start, max_length=32)
    ids = model.template.response("", "the cat good").ids
    made = [
        (ids, True), (ids[:-1], False), ([ids[-1]], True), ([ids[0], model.template.tokenizer.unk_token_id, *ids[1:]], True), (ids, True),
    ]  # fmt: skip
    monkeypatch.setattr(steering, "write_answers", lambda *given, **more: made)
    found = steering_rows(model, PROMPTS[:1], [[1]], rater, prior=model, n=5, **DRAWING)
    assert {name: found.counts[name] for name in ("cut", "blank", "altered", "repeated", "alike", "responses")} == {
        "cut": 1, "blank": 1, "altered": 1, "repeated": 1, "alike": 1, "responses": 2,
    }  # fmt: skip
    assert found.measured["D"] == pytest.approx(0, abs=1e-12)  # one response alone cannot be weighed against another
    made[0] = made[1]
    with pytest.raises(InputError, match=r"no list of two responses is left .*cut 2.*alone 1"):
        steering_rows(model, PROMPTS[:1], [[1]], rater, prior=model, n=5, **DRAWING)


def test_a_turn_ends_as_the_template_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from cupel.annotate import steering

    tokenizer = helpers["make_tokenizer"](helpers["CHATML"])
    model = CausalLM(helpers["make_model"](len(tokenizer)), tokenizer)
    end, asked = tokenizer.convert_tokens_to_ids("<|im_end|>"), []

    def made(causal: Any, prompts: Any, stops: Any, *given: Any, **more: Any) -> list[tuple[list[int], bool]]:
        asked.append((tokenizer.decode(prompts[0]), stops))
        return [([*tokenizer.encode(f"the cat {word}", add_special_tokens=False), end], True) for word in ("good", "bad")]

    monkeypatch.setattr(steering, "write_answers", made)
    found = steering_rows(model, [PROMPTS[0]], [[1]], rater, prior=model, n=2, **DRAWING)
    assert asked == [("<|im_start|> user red cat sees ? <|im_end|> <|im_start|> assistant", (tokenizer.eos_token_id, end))]
    assert found.rows[0]["responses"] == ["the cat good", "the cat bad"]
    assert found.rows[0]["log_proposal"][1] == pytest.approx(sum(model.logprobs("red cat sees ?", "the cat bad")), abs=1e-5)


def test_what_does_not_fit(start: Path) -> None:
    model = CausalLM.load(start, max_length=32)

    def run(given: Any = rater, wanted: Any = ((1,), (0,)), **more: Any) -> Any:
        return steering_rows(model, PROMPTS[:2], wanted, given, prior=model, **{**DRAWING, "n": 2, **more})

    for more, words in (
        ({"wanted": [[1]]}, "2 prompts need as many rows"), ({"wanted": [[1], [2]]}, r"1 of 2 wanted ratings are none .*prompt 1, tone 2"),
        ({"wanted": [[1], [0.5]]}, "are none of 0, 1, ... 1"), ({"names": ["a", "b"]}, "1 attributes need as many different names"),
        ({"names": None}, "the rater has none"), ({"temperature": 0.0}, "temperature positive"), ({"n": 1}, "one response teaches nothing"),
        ({"given": lambda p, r: np.zeros((len(r), 2))}, r"gave an array of shape \(\d, 2\)"),
        ({"given": lambda p, r: np.full((len(r), 1), np.nan)}, "no list of two responses is left"),
        ({"tokens": 40}, "no list of two responses is left .*long 2"), ({"bins": "other"}, "bins"),
    ):  # fmt: skip
        with pytest.raises((InputError, ValueError), match=words):
            run(**more)
    assert run(lambda p, r: rater(p, r)[:, 0]).counts["lists"] >= 1  # one attribute may come as a vector

    class Named:
        names = ("tone",)
        __call__ = staticmethod(rater)

    assert run(Named(), names=None).rows == run().rows
    with pytest.raises(InputError, match="finite numbers"):
        attribute_labels([[np.nan]])
    with pytest.raises(InputError, match="do not fit 2 names"):
        imitation_rows(["p"], ["r"], [[1.0]], names=["a", "b"])
    with pytest.raises(InputError, match="at least one of both"):
        draw_wanted(["p"], [])


def test_wanted_ratings_belong_to_the_prompt() -> None:
    pool = np.arange(5)[:, None]
    many = [f"p{n}" for n in range(400)]
    found = draw_wanted(many, pool, seed=1)
    assert np.bincount(found[:, 0], minlength=5).min() > 40
    assert draw_wanted(many[7:9], pool, seed=1).tolist() == found[7:9].tolist()
    assert draw_wanted(many, pool, seed=2).tolist() != found.tolist()


def test_ratings_are_told_in_a_conversation() -> None:
    chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    assert json.loads(told(chat, {"a": 1}))[1]["content"] == "[a 1] Why?"
    assert json.loads(told(chat, {"a": 1}))[0]["content"] == "Be brief."
    with pytest.raises(InputError, match="no text of a user"):
        told(json.dumps([{"role": "system", "content": "Be brief."}]), {"a": 1})


class Stopped(Exception):
    pass


ROUNDS: dict[str, Any] = {**DRAWING, "n": 8, "seed": 2, "options": {key: value for key, value in TRAINING.items() if key != "kind"}}


def files_of(place: Path) -> dict[str, str]:
    """Hashes of everything that holds no times and no paths."""
    timed = ("performance.jsonl", "report.json", "report.html")  # reports name the folders of models
    kept = [p for p in sorted(place.rglob("*")) if p.is_file() and p.name not in timed and "checkpoints" not in p.parts]
    return {str(p.relative_to(place)): sha256_file(p) for p in kept if not any(part.startswith(".") for part in p.relative_to(place).parts)}


def test_rounds_teach_and_resume(start: Path, tmp_path: Path) -> None:
    given: tuple[Any, ...] = (start, PROMPTS * 4, [[0], [1]], rater)
    found = iterate(*given, prior=start, out=tmp_path / "whole", **ROUNDS)
    assert [line["round"] for line in found] == [1, 2, 3]
    hits, apart = ([line["measured"][name] for line in found] for name in ("hits", "D"))
    assert hits[0] + 0.2 < hits[1] < hits[2]
    assert apart[2] < apart[1] < 0.7 * apart[0]
    assert [line["trained"] is None for line in found] == [False, False, True]
    assert all(line["trained"]["lists"] == line["counts"]["lists"] for line in found[:2])
    assert json.loads((tmp_path / "whole" / "rounds.json").read_text())["rounds"] == found
    model, tokenizer = loaded(tmp_path / "whole" / "round-01" / "policy" / "model")
    before, _ = loaded(start)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "round-02" / "lists.jsonl").read_text().splitlines()]
    moved = []
    for row in rows[:3]:  # the second round was drawn from what the first left
        for text, proposal in zip(row["responses"][:3], row["log_proposal"], strict=False):
            assert proposal == pytest.approx(logp(model, tokenizer, row["prompt"], text), abs=1e-4)
            moved.append(abs(proposal - logp(before, tokenizer, row["prompt"], text)))
    assert np.mean(moved) > 0.1
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole" / "round-01", again / "round-01")

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == 7:  # of round 2, after a checkpoint
            raise Stopped

    with pytest.raises(Stopped):
        iterate(*given, prior=start, out=again, progress=stop, **ROUNDS)
    assert (again / "round-01" / "round.json").is_file()
    assert not (again / "round-02" / "round.json").is_file()
    drawn: list[str] = []
    assert iterate(*given, prior=start, out=again, progress=lambda s, d, t: drawn.append(s), **ROUNDS) == found
    assert drawn.count("rate") == 1  # of the lists ahead only
    assert files_of(again) == files_of(tmp_path / "whole")
    drawn.clear()
    assert iterate(*given, prior=start, out=again, progress=lambda s, d, t: drawn.append(s), **ROUNDS) == found
    assert drawn == []
    with pytest.raises(InputError, match="holds a round of other choices"):
        iterate(*given, prior=start, out=again, **{**ROUNDS, "n": 7})
    (again / "round-02" / "drawn.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        iterate(*given, prior=start, out=again, **ROUNDS)


def test_options_that_rounds_decide(start: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"reference": "start"}, "decide reference"), ({"objective": "sigmoid"}, "not with 'sigmoid'"), ({"processes": 2}, "one process"),
        ({"batchsize": 2}, "did you mean batch_size"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            iterate(start, PROMPTS, [[1]], rater, prior=start, out=tmp_path, **{**ROUNDS, "options": options})
    with pytest.raises(InputError, match="at least 1"):
        iterate(start, PROMPTS, [[1]], rater, prior=start, out=tmp_path, **{**ROUNDS, "rounds": 0})


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft calls it
def test_rounds_of_an_adapter_go_on_with_it(start: Path, tmp_path: Path) -> None:
    options = {**ROUNDS["options"], "lora": 2, "epochs": 1, "learning_rate": 5e-2}
    more = {**ROUNDS, "options": options, "n": 4}
    found = iterate(start, PROMPTS[:4], [[1]], rater, prior=start, out=tmp_path, rounds=2, ahead=False, **more)
    assert len(found) == 2
    first, second = (tmp_path / f"round-0{k}" / "policy" / "model" for k in (1, 2))
    assert (first / "adapter_config.json").is_file()
    assert (second / "adapter_config.json").is_file()
    row = json.loads((tmp_path / "round-02" / "lists.jsonl").read_text().splitlines()[0])
    model = CausalLM.load(first)
    assert row["log_proposal"][0] == pytest.approx(sum(model.logprobs(row["prompt"], row["responses"][0])), abs=1e-4)
    assert sha256_file(first / "adapter_model.safetensors") != sha256_file(second / "adapter_model.safetensors")
