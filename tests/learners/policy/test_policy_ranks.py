"""Two processes give what one gives: losses, parameters, the treatment's state; and checkpoints go from one number of them to the other."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from cupel.learners.policy.learner import train_policy
from cupel.votes.games import rated_rows

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
SCRIPT = Path(__file__).with_name("two_ranks.py")
RUNS: dict[str, dict[str, Any]] = {
    "ddp": {"treatment": "em:flip=0.2,by=annotator", "steps": 3, "generate": 11, "generate_tokens": 6, "temperature": 1.0},
    "step": {"treatment": "small_loss:drop=0.25,ramp=0", "objective": "kto", "steps": 3, "normalise": "weight"},
    "odd": {"batch_size": 7, "batch_tokens": 16, "steps": 3, "objective": "simpo", "reference": "none"},
    "peer": {"treatment": "peer_review:drop=0.25,ramp=0", "steps": 3, "peer": "PEER"},
    "grad": {"treatment": "small_loss:drop=0.25,ramp=0", "steps": 3, "sharding": "fsdp_grad", "evaluate_every": 1},
    "reward": {"kind": "reward", "objective": "bradley_terry", "reference": "none", "treatment": "em:flip=0.2", "steps": 3, "seed": 2},
    "ratings": {"data": "RATED", "objective": "gpo:beta=0.25", "steps": 3, "batch_size": 7, "batch_tokens": 24, "heldout": 0.0},
    "lists": {"data": "LISTS", "objective": "steer", "steps": 3, "batch_size": 5, "batch_tokens": 48, "heldout": 0.0},
    "fsdp": {"treatment": "em:flip=0.2", "steps": 3, "sharding": "fsdp"},
}


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in line]


@pytest.fixture(scope="module")
def together(tiny: Path, votes_file: Path, words: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All runs on two processes, one after the other; what the first process said."""
    place = tmp_path_factory.mktemp("two")
    options = [{**base(tiny, votes_file, place / name), **changed(name, words), "processes": 2} for name in RUNS]
    options.append(options[-1])  # the sharded run once more: it is restored from its checkpoint and exported again
    options.append({**base(tiny, votes_file, place / "aot"), "objective": "aot"})
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(SCRIPT), *map(json.dumps, options)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    children = [subprocess.Popen(command, env={**common, "RANK": str(n), "LOCAL_RANK": str(n)}, **pipes) for n in range(2)]
    said = [child.communicate(timeout=400)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    return place, said[0]


def base(tiny: Path, votes_file: Path, out: Path) -> dict[str, Any]:
    return {
        "data": str(votes_file), "model": str(tiny), "out": str(out), "learning_rate": 3e-3, "batch_size": 16, "batch_tokens": 128,
        "max_length": 64, "warmup": 0.0, "heldout": 0.2, "device": "cpu", "dtype": "float32",
    }  # fmt: skip


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same tokenizer."""
    place, tokenizer = tmp_path_factory.mktemp("peer"), helpers["make_tokenizer"]()
    helpers["make_model"](len(tokenizer), seed=5).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def words(peer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the words in capitals stand for: the other model, comparisons with a rating of each response, lists of 2 to 4 responses."""
    place = tmp_path_factory.mktemp("data")
    rated = [{**row, "id": f"r{n}"} for n, row in enumerate(rated_rows(*helpers["samples"](8), game="gpo"))]
    return {
        "PEER": str(peer), "RATED": str(helpers["write_rows"](place / "rated.jsonl", rated)),
        "LISTS": str(helpers["write_rows"](place / "lists.jsonl", helpers["steering"](12))),
    }  # fmt: skip


def changed(name: str, words: dict[str, str]) -> dict[str, Any]:
    return {key: words.get(value, value) if isinstance(value, str) else value for key, value in RUNS[name].items()}


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one(together: tuple[Path, str], run_options: Callable[..., Any], words: dict[str, str], name: str) -> None:
    place, _ = together
    changes = {k: v for k, v in changed(name, words).items() if k != "sharding"}
    alone = train_policy(run_options(batch_tokens=changes.pop("batch_tokens", 128), dtype="float32", **changes))
    assert losses(place / name) == pytest.approx(losses(alone.out), rel=1e-6, abs=1e-9)
    if "generate" in changes:
        theirs, ours = (pq.read_table(out / "generations.parquet").drop_columns(["log_ratio"]) for out in (place / name, alone.out))
        assert theirs.equals(ours)
        assert len(ours) == 11 * sum(line["step"] > 0 for line in alone.metrics["evaluations"])
    last = sorted((alone.out / "checkpoints").glob("step-*"))[-1].name
    for file in ("parameters", "trainer", "treatment"):
        ours = load_file(alone.out / "checkpoints" / last / f"{file}.safetensors")
        theirs = load_file(place / name / "checkpoints" / last / f"{file}.safetensors")
        assert ours.keys() == theirs.keys(), file
        for key, value in ours.items():
            if value.is_floating_point():
                assert torch.allclose(value, theirs[key].to(value), rtol=1e-4, atol=2e-6, equal_nan=True), (file, key)
            else:
                assert torch.equal(value, theirs[key]), (file, key)
    model = load_file(place / name / "model" / "model.safetensors")
    expected = load_file(alone.out / "model" / "model.safetensors")
    assert model.keys() == expected.keys()
    assert all(torch.allclose(tensor, expected[key], rtol=1e-4, atol=2e-6) for key, tensor in model.items())


def test_what_couples_a_step_is_refused_on_two(together: tuple[Path, str]) -> None:
    assert "refused: aot couples the comparisons of a step" in together[1]


def test_a_launcher_that_did_not_start_what_was_asked(run_options: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from cupel.errors import InputError

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes were asked for"):
        train_policy(run_options())
