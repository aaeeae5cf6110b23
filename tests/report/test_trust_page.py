"""The page of trust: the sentences and numbers of the JSON, by model; names of strangers escaped."""

from __future__ import annotations

import numpy as np
import pytest

import cupel
from cupel.evaluate.trust import trust
from cupel.report.trust import page

HOSTILE = "<img src=x onerror=alert(1)>{{ 7*7 }}"


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    rows = []
    for k in range(240):
        a, b = "word " * int(rng.integers(1, 9)) + str(k), "word " * int(rng.integers(1, 9)) + f"{k} b"
        rows.append({"prompt": f"q{k // 4}", "response_a": a, "response_b": b, "vote": "a" if len(a) + rng.normal() * 9 > len(b) else "b"})
    votes = cupel.read(rows, heldout=0)
    length = np.array([len(text) for text in votes.response_texts()], float)
    margin = (length[votes.first] - length[votes.second]) / 10
    return trust({"one": margin + rng.normal(size=len(votes)), HOSTILE: margin}, votes, draws=60)


def test_the_page_says_what_the_json_says(found, parse):
    made = page(found.to_json(), found.figures(), title="votes.jsonl")
    assert made == page(found.to_json(), found.figures(), title="votes.jsonl")
    seen = parse(made)
    assert seen.faults == []
    text = seen.text()
    for word in ("votes.jsonl", "always one half", "sigmoid of the margin", "calibrated", "The votes", "Brier"):
        assert word in text
    loss = found.models["one"].calibration.to_json()["loss"]["half"]["log_loss"]["estimate"]
    assert f"{loss:.3g}" in text
    assert made.count("<svg") == len(found.figures())


def test_sentences_stand_with_their_model(found, parse):
    text = parse(page(found.to_json(), found.figures(), title="t")).text()
    own = next(line for line in found.words if line.startswith("one: ")).removeprefix("one: ")
    assert own[:30] in text
    assert f"one: {own[:30]}" not in text


def test_names_of_strangers_are_escaped(found):
    made = page(found.to_json(), found.figures(), title=HOSTILE)
    assert "<img" not in made
    assert "49" not in made.split("<title>")[1].split("</title>")[0]


def test_a_model_without_calibration_says_so(found):
    told = found.to_json()
    told["models"]["one"]["calibration"] = None
    assert "allow no calibration" in page(told, found.figures(), title="t")
