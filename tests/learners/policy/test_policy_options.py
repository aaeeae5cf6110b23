from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cupel.errors import InputError
from cupel.learners.policy.options import PolicyOptions, options_of, read_recipe

BASE = {"data": "votes.jsonl", "model": "m"}
PAGE = Path(__file__).resolve().parents[3] / "docs" / "policy.md"


def test_recipe_and_changes(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: m\ndata:\n  - {file: a.parquet}\n  - {file: b.jsonl, weight: 0.5, name: b}\nevaluate: {trusted: t.jsonl}\n"
        "learning_rate: 1e-6\nprecision: no\naccept: [missing_eos]\n"
    )
    found = read_recipe(recipe, {"learning_rate": "2e-6", "out": "x"})
    assert [s.weight for s in found.data] == [1.0, 0.5]
    assert (found.learning_rate, found.precision, found.accept, found.out) == (2e-6, "no", ("missing_eos",), "x")
    assert found.evaluate["trusted"].file == "t.jsonl"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batchsize": 3}, "did you mean batch_size"),
        ({"model": ""}, "option model is needed"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 2.5}, "a whole number"),
        ({"learning_rate": "fast"}, "a number"),
        ({"learning_rate": -1}, "positive"),
        ({"truncation": "cut"}, "drop, shorten_prompt, shorten_response"),
        ({"accept": ["bos"]}, "no fault of a template"),
        ({"reference": "ema:2"}, "ema:DECAY"),
        ({"quantise": "4bit"}, "lora=RANK"),
        ({"merge": True}, "there is none without"),
        ({"kind": "sft", "treatment": "em:flip=0.2"}, "no labels to treat"),
        ({"data": [{"weight": 2}]}, "at least `file`"),
        ({"data": [{"file": "a", "weight": 0}]}, "more than 0"),
        ({"max_prompt": 1024}, "no room for a response"),
        ({"checkpointing": "perhaps"}, "true or false"),
    ],
)
def test_wrong_values_are_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        options_of({**BASE, **change})


def test_a_broken_recipe_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- a\n- b\n")
    with pytest.raises(InputError, match="not a mapping"):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "missing.yaml")


def test_every_option_is_documented() -> None:
    page = PAGE.read_text("utf-8")
    missing = [field.name for field in dataclasses.fields(PolicyOptions) if f"`{field.name}`" not in page]
    assert missing == []
