from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cupel.errors import RecordError
from cupel.learners.policy.batch import Data
from cupel.learners.policy.options import options_of
from cupel.learners.policy.template import Template
from cupel.learners.policy.tokens import DROPPED, KEPT, NO_PREFERENCE, SHORTENED, _nodes, tokenise
from cupel.records import read

helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
ROWS = [
    {"prompt": "the cat ?", "response_a": "a dog", "response_b": "red", "vote": "b", "annotator": "x"},
    {"prompt": "the cat ?", "response_a": "red", "response_b": "blue bird", "vote": "a", "annotator": "y"},
    {"prompt": "a fish sees the large bird ?", "response_a": "good", "response_b": "very " * 9 + "bad", "vote": "a", "annotator": "x"},
    {"prompt": "large", "response_a": "good", "response_b": "bad", "vote": "tie", "annotator": "y"},
    {"prompt": "blue", "response_a": "good", "response_b": "bad", "vote": "skip", "annotator": "y"},
]  # fmt: skip


def made(tmp_path: Path, **changes: Any) -> Any:
    options = options_of({"data": "x", "model": "m", "max_length": 12, **changes})
    votes = read(ROWS, heldout=0, max_bad=0.5)
    return tokenise(votes, Template(helpers["make_tokenizer"]()), options, tmp_path / "tokens")


def test_responses_and_sides_are_those_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    prompt, first, second = (rng.integers(0, high, 80).astype(np.int32) for high in (5, 7, 7))
    second[rng.random(80) < 0.3] = -1  # judged alone
    votes = read([{"prompt": "p", "response_a": f"a{n}", "response_b": "b", "vote": "a", "id": str(n)} for n in range(80)], heldout=0)
    pairs, sides = _nodes(replace(votes, prompt=prompt, first=first, second=second))
    a = list(zip(prompt.tolist(), first.tolist(), strict=True))
    b = [(of, one) if one >= 0 else None for of, one in zip(prompt.tolist(), second.tolist(), strict=True)]
    nodes = sorted({*a, *(one for one in b if one)})
    assert [tuple(pair) for pair in pairs.tolist()] == nodes
    assert sides.tolist() == [[nodes.index(one) for one in a], [nodes.index(one) if one else -1 for one in b]]


def test_texts_are_stored_once_and_labels_orient_the_sides(tmp_path: Path) -> None:
    tokens, rows = made(tmp_path)
    decode = helpers["make_tokenizer"]().decode
    said = [(decode(tokens.response(int(a))), decode(tokens.response(int(b)))) for a, b in zip(rows.first, rows.second, strict=True)]
    assert said == [("red </s>", "a dog </s>"), ("red </s>", "blue bird </s>"), ("good </s>", "bad </s>")]
    assert rows.first[0] == rows.first[1]
    assert rows.p.tolist() == [1.0, 1.0, 0.5]
    assert rows.outcome.tolist() == [KEPT, KEPT, DROPPED, KEPT, NO_PREFERENCE]
    assert rows.counts()["dropped"] == 1


@pytest.mark.parametrize(("truncation", "prompt", "response"), [("shorten_prompt", 1, 11), ("shorten_response", 7, 5)])
def test_truncation_is_said(tmp_path: Path, truncation: str, prompt: int, response: int) -> None:
    tokens, rows = made(tmp_path, truncation=truncation)
    assert rows.outcome[2] == SHORTENED
    at = int(np.flatnonzero(rows.source_row == 2)[0])
    second = int(rows.second[at])
    assert len(tokens.prompt(int(tokens.response_prompt[second]))) == prompt
    assert len(tokens.response(second)) == response
    assert rows.lost[2] > 0


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="none of 5 comparisons is left"):
        made(tmp_path, max_length=2)


def test_a_batch_holds_each_text_once(tmp_path: Path) -> None:
    data = Data.of([made(tmp_path)], mismatch=True)
    batch = data.batch(np.array([0, 1]))
    assert (batch.groups.n_prompts, batch.groups.n_responses) == (1, 3)
    assert batch.groups.first.tolist() == [0, 0]
    assert batch.target.p.tolist() == [1.0, 1.0]
    assert [data.spec.annotators[int(k)] for k in batch.annotator] == ["x", "y"]
    assert batch.mismatch is not None
    assert batch.mismatch.n_responses == 1
    assert data.batch(np.array([2]), counts=False).target.w.tolist() == [0.0]


def test_a_finished_folder_is_opened_again(tmp_path: Path) -> None:
    tokens, _ = made(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tokens.folder.iterdir()}
    made(tmp_path)
    assert before == {p.name: p.stat().st_mtime_ns for p in tokens.folder.iterdir()}
