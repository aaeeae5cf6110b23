"""Objectives that read a rating of each response (GPO, SPPO, MODPO, ODPO), from columns of a file to trained weights."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cupel.errors import CupelError, InputError, RecordError
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of
from cupel.learners.policy.outcomes import GAP, suited
from cupel.learners.policy.preparing import prepare, votes_digest
from cupel.learners.policy.reading import read_source
from cupel.objectives import by_name
from cupel.objectives.names import available, parse
from cupel.objectives.types import Side
from cupel.records import read
from cupel.records.files import sha256_file
from cupel.records.ratings import side_ratings
from cupel.votes.games import rated_rows, targets

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
Options = Callable[..., Any]
samples, CIRCLE = helpers["samples"], helpers["CIRCLE"]


def rated(tmp_path: Path, game: Any = "gpo", name: str = "rated.jsonl") -> tuple[Path, list[dict[str, Any]]]:
    rows = [{**row, "id": f"r{n}"} for n, row in enumerate(rated_rows(*samples(8), game=game))]
    return helpers["write_rows"](tmp_path / name, rows), rows


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("game", ["gpo", "sppo"])
def test_log_ratios_move_to_the_ratings(game: Any, run_options: Options, tmp_path: Path) -> None:
    """Every response of the data ends where (log-ratio - rating / beta)^2 is 0: the ratings are on the data's own scale, of either game."""
    path, rows = rated(tmp_path, game)
    beta = 0.25 if game == "gpo" else 0.1
    options = run_options(
        data=str(path), objective=f"gpo:beta={beta}", heldout=0.0, epochs=40, batch_size=8, batch_tokens=64, learning_rate=5e-3
    )
    found = train_policy(options)
    lines = [line for line in log(found.out) if "loss" in line]
    start = np.mean([(row["chosen_rating"] / beta) ** 2 + (row["rejected_rating"] / beta) ** 2 for row in rows])
    assert lines[0]["loss"] == pytest.approx(start, rel=1e-5)  # all log-ratios are 0
    assert lines[-1]["loss"] < 0.05 * start
    record = pq.read_table(found.out / "records.parquet").to_pydict()
    margin = dict(zip(record["id"], record["margin"], strict=True))
    wanted = {row["id"]: (row["chosen_rating"] - row["rejected_rating"]) / beta for row in rows}
    assert min(wanted.values()) > 0.5
    np.testing.assert_allclose([margin[name] for name in wanted], list(wanted.values()), atol=0.35)
    assert lines[-1]["moved_first"] == pytest.approx(np.mean([row["chosen_rating"] for row in rows]) / beta, abs=0.2)


def test_labels_are_not_read(run_options: Options, tmp_path: Path) -> None:
    """Where every label is turned against the ratings, log-ratios go with the ratings all the same."""
    _, rows = rated(tmp_path)
    turned = [
        {
            **row, "chosen": row["rejected"], "rejected": row["chosen"], "chosen_rating": row["rejected_rating"],
            "rejected_rating": row["chosen_rating"],
        }
        for row in rows
    ]  # fmt: skip
    path = helpers["write_rows"](tmp_path / "turned.jsonl", turned)
    changes: dict[str, Any] = {"objective": "gpo:beta=0.25", "heldout": 0.0, "epochs": 6, "batch_size": 8}
    one = train_policy(run_options(data=str(tmp_path / "rated.jsonl"), **changes))
    other = train_policy(run_options(data=str(path), out=str(tmp_path / "other"), **changes))
    first, second = (log(run.out)[-1] for run in (one, other))
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    assert first["margin"] == pytest.approx(-second["margin"], rel=1e-3)
    assert first["margin"] > 0.1


def test_ratings_go_with_their_side(run_options: Options, tmp_path: Path) -> None:
    """The same comparisons as chosen and rejected, and as two sides with votes for either: the same rating for each text."""
    path, rows = rated(tmp_path)
    votes = [
        {"prompt": row["prompt"], "id": row["id"], "response_a": row["rejected"], "response_b": row["chosen"], "vote": "b"}
        | {"rating_a": row["rejected_rating"], "rating_b": row["chosen_rating"]}
        for row in rows
    ]
    other = helpers["write_rows"](tmp_path / "votes.jsonl", votes)
    named = [{**row, "one": row["rating_a"], "two": str(row["rating_b"])} for row in votes]
    mapped = helpers["write_rows"](
        tmp_path / "mapped.jsonl", [{key: value for key, value in row.items() if not key.startswith("rating")} for row in named]
    )
    by_text = {}
    for k, data in enumerate((path, other, {"file": str(mapped), "map": {"rating_first": "one", "rating_second": "two"}})):
        given = data if isinstance(data, dict) else str(data)
        options = run_options(data=[given], objective="gpo", heldout=0.0, out=str(tmp_path / f"p{k}"))
        prepared = prepare(options, Path(options.out), mismatch=False).data
        tokens, table = prepared.tokens[0], prepared.rows[0]
        assert table.rating is not None
        batch = prepared.batch(np.arange(len(prepared)))
        np.testing.assert_allclose(batch.rating.numpy(), table.rating[batch.record.numpy()])
        by_text[k] = {
            (table.ids[n], tokens.response(int(side[n])).tobytes()): round(float(table.rating[n, m]), 6)
            for n in range(len(table)) for m, side in enumerate((table.first, table.second))
        }  # fmt: skip
    assert by_text[0] == by_text[1] == by_text[2]
    assert sorted(by_text[0].values()) == sorted(round(row[key], 6) for row in rows for key in ("chosen_rating", "rejected_rating"))


def test_the_step_is_the_sum_over_responses(run_options: Options, tiny: Path, tmp_path: Path) -> None:
    """A slow twin of MODPO and GPO, and micro-batches of two sizes: every response by itself through the model, the optimiser by hand."""
    from transformers import AutoModelForCausalLM

    path, _ = rated(tmp_path)
    by_hand: dict[str, Callable[..., torch.Tensor]] = {
        "gpo:beta=0.5": lambda a, b, r, s: (a - r / 0.5) ** 2 + (b - s / 0.5) ** 2,
        "modpo:beta=0.1,weight=0.5": lambda a, b, r, s: torch.nn.functional.softplus(-(0.1 * (a - b) - (r - s)) / 0.5),
        "odpo:beta=0.1,alpha=2": lambda a, b, r, s: torch.nn.functional.softplus(2 * abs(r - s) - 0.1 * (a - b)),
    }
    for objective, loss in by_hand.items():
        trained = []
        for tokens_at_once in (24, 4096):
            options = run_options(
                data=str(path), objective=objective, heldout=0.0, steps=1, optimiser="sgd", beta1=0.0, schedule="constant", batch_size=8,
                max_grad_norm=1e9, learning_rate=0.1, batch_tokens=tokens_at_once, out=str(tmp_path / f"{objective[:3]}{tokens_at_once}"),
            )  # fmt: skip
            train_policy(options)
            trained.append(dict(AutoModelForCausalLM.from_pretrained(Path(options.out) / "model").named_parameters()))
        data = prepare(options, Path(options.out), mismatch=False).data
        tokens, table = data.tokens[0], data.rows[0]
        assert table.rating is not None
        policy: Any = AutoModelForCausalLM.from_pretrained(tiny)

        def ratio(index: int, policy: Any = policy, tokens: Any = tokens) -> torch.Tensor:
            prompt, response = tokens.prompt(int(tokens.response_prompt[index])), tokens.response(index)
            ids = torch.tensor(np.concatenate([prompt, response]).astype(np.int64))[None]
            lines = policy(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            found = lines.gather(1, ids[0, len(prompt) :, None]).sum()
            return found - found.detach()

        total = torch.zeros(())
        for n in range(len(table)):
            r, s = table.rating[n].tolist()
            total = total + loss(ratio(int(table.first[n])), ratio(int(table.second[n])), r, s)
        (total / len(table)).backward()
        for name, parameter in policy.named_parameters():
            expected = parameter.detach() - 0.1 * parameter.grad
            for found in trained:
                assert torch.allclose(found[name], expected, atol=2e-6), (objective, name)


class Stopped(Exception):
    pass


def test_a_resumed_run_ends_in_the_same_bytes_and_knows_its_ratings(run_options: Options, tmp_path: Path) -> None:
    path, rows = rated(tmp_path)
    changes: dict[str, Any] = {
        "data": str(path), "objective": "gpo:beta=0.25", "heldout": 0.25, "epochs": 3, "batch_size": 2, "save_every": 2,
    }  # fmt: skip
    plain = train_policy(run_options(**changes))

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == 5:
            raise Stopped

    again = run_options(**changes, out=str(tmp_path / "again"))
    with pytest.raises(Stopped):
        train_policy(again, progress=stop)
    assert (tmp_path / "again" / "checkpoints" / "step-00000004").is_dir()
    resumed = train_policy(again)
    for name in ("model", "records.parquet", "metrics.json", "log.jsonl"):
        assert sha256_file(resumed.out / name) == sha256_file(plain.out / name), name
    helpers["write_rows"](path, [{**row, "chosen_rating": row["chosen_rating"] + 0.25 * (n == 3)} for n, row in enumerate(rows)])
    with pytest.raises(CupelError, match="another"):
        train_policy(again)


def test_ratings_are_part_of_the_digest() -> None:
    row = {"prompt": "p", "chosen": "x", "rejected": "y"}
    made = [
        read([{**row, **more}], heldout=0)
        for more in ({}, {"chosen_rating": 1, "rejected_rating": 0}, {"chosen_rating": 1, "rejected_rating": 2})
    ]
    assert len({votes_digest(votes) for votes in made}) == 3


def test_missing_ratings_are_counted_and_named(run_options: Options, tmp_path: Path, votes_file: Path) -> None:
    path, rows = rated(tmp_path)
    rows[2]["rejected_rating"] = None
    rows[5]["chosen_rating"] = "many"
    helpers["write_rows"](path, rows)
    with pytest.raises(
        RecordError, match=r"2 of 8 comparisons lack a rating of one of their sides \(first: r2\).*map: \{rating_first: COLUMN"
    ):
        train_policy(run_options(data=str(path), objective="gpo", heldout=0.0))
    with pytest.raises(RecordError, match=r"120 of 120 .*modpo reads of each response. The data have no such columns"):
        train_policy(run_options(objective="modpo", heldout=0.0))
    with pytest.raises(RecordError, match=r"120 of 120 comparisons state no strength.*ratings of both sides, or choose gap=constant"):
        train_policy(run_options(objective="odpo", heldout=0.0))
    with pytest.raises(InputError, match="rows of single responses have none"):
        train_policy(run_options(objective="gpo", unpaired=True))
    with pytest.raises(InputError, match="gpo reads no label"):
        train_policy(run_options(data=str(path), objective="gpo", treatment="em:flip=0.1"))


def test_a_strength_serves_where_only_the_gap_is_read(run_options: Options, tmp_path: Path) -> None:
    path, rows = rated(tmp_path)
    bare = [{key: value for key, value in row.items() if not key.endswith("_rating")} for row in rows]
    losses = []
    for k, data in enumerate((path, helpers["write_rows"](tmp_path / "bare.jsonl", bare))):
        options = run_options(data=str(data), objective="odpo:alpha=2", heldout=0.0, steps=1, batch_size=8, out=str(tmp_path / f"g{k}"))
        losses.append(log(train_policy(options).out)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    apart = np.array([row["preference_strength"] for row in rows])
    assert losses[0] == pytest.approx(np.log1p(np.exp(2 * apart)).mean(), rel=1e-4)


def test_gap_names_the_objectives_that_read_no_more_of_ratings() -> None:
    """Objectives by name, with arguments under which they read ratings: adding 1 to both ratings and exchanging them changes nothing."""
    arguments = {"bradley_terry": {"rated": 1.0}}
    found = set()
    for name in available():
        objective = by_name(name, **arguments.get(name, {}))
        if "rating" not in objective.needs:
            continue
        first, second = (
            Side(logp=torch.tensor([a]), reference_logp=torch.tensor([b]), score=torch.tensor([c]), n_tokens=torch.tensor([3]))
            for a, b, c in ((-1.0, -2.0, 0.5), (-4.0, -3.5, 0.25))
        )

        def loss(r: float, s: float, objective: Any = objective, first: Side = first, second: Side = second) -> float:
            from dataclasses import replace

            sides = (replace(side, rating=torch.tensor([value])) for side, value in ((first, r), (second, s)))
            return float(objective.loss(*sides, {}))

        if loss(0.0, 2.0) == pytest.approx(loss(3.0, 1.0), rel=1e-6):
            found.add(name)
        else:
            assert name in ("gpo", "modpo")
    assert found == GAP


def test_ratings_survive_curation_and_conversion(tmp_path: Path) -> None:
    """A table written from votes of which one was turned holds each rating beside its text, in TRL's columns and in those of votes."""
    from cupel.records.convert import to_rows

    rows = rated_rows(*samples(4))
    votes = read(rows, heldout=0)
    turned = votes.with_(outcome=np.where(np.arange(4) == 1, 1, votes.outcome).astype(np.int8), p=np.where(np.arange(4) == 1, 0.0, votes.p))
    wanted = {(row["prompt"], row[side]): row[f"{side}_rating"] for row in rows for side in ("chosen", "rejected")}
    for target in ("trl", "votes"):
        again = read(to_rows(turned, target)[0].to_pylist(), heldout=0)
        ratings = side_ratings(again)
        assert ratings is not None
        prompts, responses = again.prompt_texts(), again.response_texts()
        for n in range(4):
            for k, side in enumerate((again.first, again.second)):
                assert ratings[n, k] == wanted[prompts[again.prompt[n]], responses[side[n]]], target
        assert (again.sign < 0).tolist() == [False, target == "votes", False, False]


def test_chosen_beside_other_columns_is_no_side() -> None:
    """`chosen_rating` beside response_a and response_b may mean the outcome: it is not taken for a side, unless somebody says so."""
    row = {"prompt": "p", "response_a": "x", "response_b": "y", "vote": "b", "chosen_rating": 3, "rejected_rating": 1}
    assert side_ratings(read([row], heldout=0)) is None
    found = side_ratings(read([row], heldout=0, map={"rating_first": "rejected_rating", "rating_second": "chosen_rating"}))
    assert found is not None
    assert found.tolist() == [[1.0, 3.0]]


def test_scores_of_lists_become_ratings(tmp_path: Path) -> None:
    votes = read([{"prompt": "p", "responses": ["x", "y", "z"], "ratings": [1, 5, 3]}], heldout=0)
    found = side_ratings(votes)
    assert found is not None
    texts = votes.response_texts()
    said = {texts[side]: value for sides, values in zip(zip(votes.first, votes.second, strict=True), found, strict=True)
            for side, value in zip(sides, values, strict=True)}  # fmt: skip
    assert said == {"x": 1, "y": 5, "z": 3}


@pytest.mark.parametrize("stream", [False, True])
def test_ratings_of_votes_on_disk(stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cupel.learners.policy import reading

    path, rows = rated(tmp_path)
    monkeypatch.setattr(reading, "STREAM_ABOVE", 0 if stream else 1 << 40)
    options = options_of({"data": str(path), "model": "m"})
    votes = read_source(options.data[0], options, heldout=0.0)
    assert (votes.spool is not None) == stream
    found = side_ratings(votes.take(np.arange(len(votes))[::-1]))
    assert found is not None
    np.testing.assert_array_equal(found[::-1, 0], [row["chosen_rating"] for row in rows])


def test_a_strength_goes_before_ratings_and_fills_no_others(tmp_path: Path) -> None:
    from cupel.learners.policy.template import Template
    from cupel.learners.policy.tokens import tokenise

    path, rows = rated(tmp_path)
    rows[0]["preference_strength"] = None
    votes = read([{**row, "preference_strength": row["preference_strength"] and 9.0} for row in rows], heldout=0)
    options = options_of({"data": str(path), "model": "m", "max_length": 64})
    table = tokenise(votes, Template(helpers["make_tokenizer"]()), options, tmp_path / "tokens")[1]
    gap, own = suited(table, parse("odpo")).rating, suited(table, parse("gpo")).rating
    assert gap is not None
    assert own is not None
    np.testing.assert_allclose(
        np.abs(gap[:, 0] - gap[:, 1]), [rows[0]["chosen_rating"] - rows[0]["rejected_rating"], *[9.0] * 7], rtol=1e-6
    )
    np.testing.assert_allclose(own[:, 0], [row["chosen_rating"] for row in rows], rtol=1e-6)
    assert targets(CIRCLE).rating("gpo").max() == pytest.approx(own.max(), rel=1e-6)
