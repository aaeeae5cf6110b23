"""Objectives of lists on a language model: SteerLM 2.0 records, and lists with a relevance, from rows to trained weights."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cupel.errors import CupelError, InputError, RecordError
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.preparing import ReferenceRows, prepare
from cupel.objectives import attribute_log_probability
from cupel.records.files import sha256_file
from cupel.training import train_policy_file

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
Options = Callable[..., Any]
HELPFUL, HARMFUL = helpers["HELPFUL"], helpers["HARMFUL"]
steering = helpers["steering"]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    return str(helpers["write_rows"](path, rows))


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def model_of(place: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(place)


def logp(policy: Any, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """One response by itself through the model."""
    ids = torch.tensor(np.concatenate([prompt, response]).astype(np.int64))[None]
    lines = policy(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return lines.gather(1, ids[0, len(prompt) :, None]).sum()


@pytest.mark.parametrize("reduction", ["sum", "token"])
def test_the_step_is_that_of_the_card(reduction: str, run_options: Options, tiny: Path, tmp_path: Path) -> None:
    """A slow twin: -(w' - b') grad log Q for every response by itself, w' and b' by hand; lists of 2 to 4, two sizes of micro-batch."""
    rows = steering(6)
    data = write(tmp_path / "lists.jsonl", rows)
    changes: dict[str, Any] = {
        "objective": f"steer:reduction={reduction}", "heldout": 0.0, "steps": 1, "optimiser": "sgd", "beta1": 0.0, "schedule": "constant",
        "batch_size": 6, "max_grad_norm": 1e9, "learning_rate": 0.1, "reference": str(tmp_path / "other"),
    }  # fmt: skip
    tokenizer = helpers["make_tokenizer"]()
    helpers["make_model"](len(tokenizer), seed=5).save_pretrained(tmp_path / "other")  # a proposal that is not the start: b' is not even
    tokenizer.save_pretrained(tmp_path / "other")
    trained = []
    for size in (24, 4096):
        options = run_options(data=data, batch_tokens=size, out=str(tmp_path / f"out{size}"), **changes)
        trained.append((train_policy(options), dict(model_of(Path(options.out) / "model").named_parameters())))
    prepared = prepare(options, Path(options.out), mismatch=False).data
    tokens, table = prepared.tokens[0], prepared.rows[0]
    assert table.lists is not None
    policy, proposal = model_of(tiny), model_of(tmp_path / "other")
    by_id = {row["id"]: row for row in rows}
    total, value, sizes = torch.zeros(()), 0.0, []
    for n in range(len(table)):
        row, members = by_id[table.ids[n]], table.lists.of(n)
        nodes = table.lists.response[members].tolist()
        assert len(nodes) == len(row["responses"])
        prompt = tokens.prompt(int(tokens.response_prompt[nodes[0]]))
        q = torch.stack([logp(policy, prompt, tokens.response(k)) for k in nodes])
        with torch.no_grad():
            drawn = torch.stack([logp(proposal, prompt, tokens.response(k)) for k in nodes])
            w = torch.softmax(torch.tensor(row["log_attributes"]) + torch.tensor(row["log_prior"]) - drawn, 0)
            b = torch.softmax(q - drawn, 0)
            per = float(np.mean([len(tokens.response(k)) for k in nodes])) if reduction == "token" else 1.0
        total = total - ((w - b) * q).sum() / per
        value += float((w * (w / b).log()).sum()) / per
        sizes.append(float(1 / (w**2).sum()))
    (total / len(table)).backward()
    for run, found in trained:
        line = log(run.out)[0]
        assert line["loss"] == pytest.approx(value / len(table), abs=1e-5)
        assert line["effective_size"] == pytest.approx(np.mean(sizes), rel=1e-5)
        assert "margin" not in line
        for name, parameter in policy.named_parameters():
            assert torch.allclose(found[name], parameter.detach() - 0.1 * parameter.grad, atol=2e-6), name


def test_a_policy_learns_what_it_is_told_and_the_report_stands(run_options: Options, tmp_path: Path) -> None:
    rows = steering(16)
    data = write(tmp_path / "lists.jsonl", rows)
    write(tmp_path / "unseen.jsonl", steering(8, seed=1))
    options = run_options(
        data=data, objective="steer", heldout=0.0, epochs=60, batch_size=8, batch_tokens=96, learning_rate=5e-3, evaluate_every=60,
        evaluate={"unseen": str(tmp_path / "unseen.jsonl")},
    )  # fmt: skip
    values = {**options.recorded(), "data": data, "evaluate": {"unseen": str(tmp_path / "unseen.jsonl")}}
    summary = train_policy_file(data, "policy", {name: value for name, value in values.items() if name not in ("data", "kind")})
    lines = [line for line in log(Path(options.out)) if "loss" in line]
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    seen = [line["evaluation"]["unseen"] for line in log(Path(options.out)) if "evaluation" in line]
    assert seen[-1]["loss"] < 0.6 * seen[0]["loss"]
    assert seen[-1]["accuracy"] is None or np.isnan(seen[-1]["accuracy"])
    assert seen[-1]["flip_rate"]["rate"] is None
    assert any("8 records without a label" in sentence for sentence in summary["words"])
    assert not any("nan" in sentence for sentence in summary["words"])
    assert (Path(options.out) / "report.html").is_file()
    assert summary["verdict"]["code"] not in ("chance", "healthy")  # of labels nothing can be said
    policy, start = model_of(Path(options.out) / "model"), model_of(options.model)
    from cupel.learners.policy.template import Template

    template = Template(helpers["make_tokenizer"]())
    with torch.no_grad():
        for told, wanted in (("red", HELPFUL), ("blue", HARMFUL)):
            up = {}
            for word in (HELPFUL, HARMFUL):
                prompt, ids = template.prompt(f"{told} cat ?"), template.response("", f"the cat sees {word}").ids
                up[word] = float(logp(policy, np.array(prompt), np.array(ids)) - logp(start, np.array(prompt), np.array(ids)))
            assert max(up, key=lambda word, up=up: up[word]) == wanted


def test_predicted_ratings_are_attributes(run_options: Options, tmp_path: Path) -> None:
    """`ratings` and `wanted` give the card's log P(a|x,y): -1.190798 for the first response."""
    rows = steering(4)
    for row in rows:
        del row["log_attributes"]
        row["ratings"] = [[3.5, 3.6, 3.9, 1.8, 2.2], *([[2.0, 2.5, 3.0, 1.0, 1.0]] * (len(row["responses"]) - 1))]
        row["wanted"] = [4, 4, 4, 2, 2]
    options = run_options(data=write(tmp_path / "lists.jsonl", rows), objective="steer", heldout=0.0)
    table = prepare(options, Path(options.out), mismatch=False).data.rows[0]
    assert table.lists is not None
    by_id = {row["id"]: row for row in rows}
    expected = [
        prior + float(attribute_log_probability(torch.tensor(said), torch.tensor([4.0, 4.0, 4.0, 2.0, 2.0])))
        for n in range(len(table)) for prior, said in zip(by_id[table.ids[n]]["log_prior"], by_id[table.ids[n]]["ratings"], strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(table.lists.relevance, expected, rtol=1e-6)
    first = table.lists.relevance[table.lists.of(0)][0] - by_id[table.ids[0]]["log_prior"][0]
    assert first == pytest.approx(-1.190798, abs=1e-6)


def test_stated_proposals_stand_for_the_reference(run_options: Options, tiny: Path, tmp_path: Path) -> None:
    rows = steering(4)
    changes: dict[str, Any] = {"objective": "steer", "heldout": 0.0, "steps": 2, "epochs": 2, "batch_size": 4}
    plain = train_policy(run_options(data=write(tmp_path / "lists.jsonl", rows), **changes))
    from cupel.learners.policy.template import Template

    template, start = Template(helpers["make_tokenizer"]()), model_of(tiny)
    with torch.no_grad():
        for row in rows:
            row["log_proposal"] = [
                float(logp(start, np.array(template.prompt(row["prompt"])), np.array(template.response("", text).ids)))
                for text in row["responses"]
            ]  # fmt: skip
    data = write(tmp_path / "stated.jsonl", rows)
    stated = train_policy(run_options(data=data, reference="none", out=str(tmp_path / "stated"), **changes))
    assert [line["loss"] for line in log(stated.out)] == pytest.approx([line["loss"] for line in log(plain.out)], abs=1e-5)
    assert not (stated.out / ".reference").exists()
    with pytest.raises(RecordError, match="states log_proposal, and the run has a reference"):
        train_policy(run_options(data=data, out=str(tmp_path / "both"), **changes))
    with pytest.raises(RecordError, match="no column log_proposal"):
        train_policy(run_options(data=str(tmp_path / "lists.jsonl"), reference="none", out=str(tmp_path / "neither"), **changes))


class Stopped(Exception):
    pass


def test_a_resumed_run_ends_in_the_same_bytes(run_options: Options, tmp_path: Path) -> None:
    rows = steering(12)
    data = write(tmp_path / "lists.jsonl", rows)
    changes: dict[str, Any] = {
        "data": data, "objective": "steer", "heldout": 0.25, "epochs": 2, "batch_size": 3, "save_every": 2,
        "treatment": "small_loss:drop=0.2",
        "batch_tokens": 64,
    }  # fmt: skip
    plain = train_policy(run_options(**changes))
    assert plain.metrics["n_comparisons"] == 12 - plain.metrics["evaluation"]["heldout"]["n"]

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == 3:
            raise Stopped

    again = run_options(**changes, out=str(tmp_path / "again"))
    with pytest.raises(Stopped):
        train_policy(again, progress=stop)
    resumed = train_policy(again)
    for name in ("model", "records.parquet", "metrics.json", "log.jsonl"):
        assert sha256_file(resumed.out / name) == sha256_file(plain.out / name), name
    rows[3]["log_attributes"][0] += 0.5
    write(Path(data), rows)
    with pytest.raises(CupelError, match="another"):
        train_policy(again)


@pytest.mark.parametrize("objective", ["info_nca:beta=0.5", "plackett_luce", "softmax_dpo", "irpo", "rrhf:sft=0.1"])
def test_other_objectives_of_lists(objective: str, run_options: Options, tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "responses": row["responses"], "relevance": [float(HELPFUL in text) * 2 + 0.01 * k for k, text in
         enumerate(row["responses"])]} for row in steering(9)[1:]
    ]  # fmt: skip
    options = run_options(data=write(tmp_path / "l.jsonl", rows), objective=objective, heldout=0.0, epochs=10, batch_size=8)
    lines = [line for line in log(train_policy(options).out) if "loss" in line]
    assert lines[-1]["loss"] < (0.95 if objective.startswith("rrhf") else 0.9) * lines[0]["loss"]
    assert "effective_size" not in lines[0]


def test_lists_are_whole_in_batches_and_in_the_reference(run_options: Options, tmp_path: Path) -> None:
    rows = steering(9)
    options = run_options(data=write(tmp_path / "l.jsonl", rows), objective="steer", heldout=0.3)
    prepared = prepare(options, Path(options.out), mismatch=False)
    held = set(prepared.sets["heldout"].rows[0].ids)
    assert held
    assert held | set(prepared.data.rows[0].ids) == {row["id"] for row in rows}
    data = prepared.data
    at = np.arange(len(data))[::-1].copy()
    batch, table = data.batch(at), data.rows[0]
    assert table.lists is not None
    assert batch.lists is not None
    assert len(batch.alone) == len(batch.groups.first) == 0
    assert batch.lists.mask.sum(1).tolist() == [table.lists.of(n).stop - table.lists.of(n).start for n in at]
    ends = np.cumsum(batch.groups.response_lengths)
    for k, n in enumerate(at):
        for place, node in zip(batch.lists.response[k][batch.lists.mask[k]].tolist(), table.lists.response[table.lists.of(n)], strict=True):
            ids = batch.groups.response_ids[ends[place] - batch.groups.response_lengths[place] : ends[place]]
            assert ids.tolist() == data.tokens[0].response(int(node)).tolist()
    lengths = data.tokens[0].response_lengths
    assert data.cost.tolist() == [int(lengths[table.lists.response[table.lists.of(n)]].sum()) for n in range(len(data))]
    assert len(ReferenceRows(data)) == len(np.unique(table.lists.response))


def test_what_does_not_fit(run_options: Options, tmp_path: Path) -> None:
    rows = steering(6)

    def run(rows: list[dict[str, Any]], **changes: Any) -> Any:
        more = {"objective": "steer", "heldout": 0.0, "steps": 1, **changes}
        return train_policy(
            run_options(data=[{"file": write(tmp_path / "l.jsonl", rows), "map": more.pop("map", None)}], **more), force=True
        )

    spoiled = [dict(row) for row in rows]
    spoiled[2] = {**rows[2], "log_prior": rows[2]["log_prior"][:-1]}
    spoiled[4] = {**rows[4], "log_attributes": [None, *rows[4]["log_attributes"][1:]]}
    with pytest.raises(
        RecordError, match=r"2 of 6 rows of l.jsonl hold no list that can be used .first: line 3: log_prior is no list of 4 finite numbers"
    ):
        run(spoiled)
    assert run(spoiled, max_bad=0.5).metrics["n_comparisons"] == 4
    with pytest.raises(RecordError, match="no column log_prior"):
        run([{"prompt": "p", "responses": ["x", "y"], "log_attributes": [0.0, 1.0]}])
    with pytest.raises(RecordError, match=r"1 of 6 ids of l.jsonl are taken twice"):
        run([*rows[:5], {**rows[5], "id": "l0"}])
    with pytest.raises(RecordError, match="'log_prio', which is no column of a list"):
        run(rows, map={"log_prio": "x"})
    with pytest.warns(UserWarning, match="1 of 7 lists of l.jsonl have one response"):
        found = run([*rows, {**rows[1], "id": "alone", "responses": ["cat"], "log_attributes": [0.0], "log_prior": [0.0]}])
    assert found.metrics["n_comparisons"] == 6
    wanted = {"ratings": [[1.0], [2.0]], "wanted": [5], "prompt": "p", "responses": ["x", "y"], "log_prior": [0.0, 0.0]}
    with pytest.raises(RecordError, match=r"2 of 2 wanted ratings are none of 0, 1, ... 4"):
        run([wanted])
    renamed = [{"ask" if key == "prompt" else key: value for key, value in row.items()} for row in rows]
    assert run(renamed, map={"prompt": "ask"}).metrics["n_comparisons"] == 6
    long = [{**row, "responses": [*row["responses"][:-1], "very " * 80]} if row["id"] == "l1" else row for row in rows]
    assert run(long).metrics["outcomes"]["dropped"] == 1
    assert run(long).metrics["n_comparisons"] == 5
    for changes, words in (
        ({"treatment": "em:flip=0.1"}, "steer reads no label"), ({"unpaired": True}, "no unpaired"),
        ({"best": "heldout/accuracy"}, "Choose by their loss"), ({"objective": "info_nca", "reference": "none"}, "choose reference: start"),
        ({"objective": "steer:reduction=mean"}, "reduction is one of"), ({"peer": "somewhere"}, "no peer"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(rows, **changes)
