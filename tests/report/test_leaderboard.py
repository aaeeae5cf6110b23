"""The leaderboard page: numbers of the JSON, verdicts, matrices, and every name escaped."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.evaluate.suites import read_suite
from cupel.evaluate.suites.items import score_requests
from cupel.evaluate.suites.scores import evaluate_suite
from cupel.report.leaderboard import page

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "</table></style>", "a\u202eb", "`<b>`"]


def rows(domain="chat"):
    rng = np.random.default_rng(0)
    return [
        {
            "prompt": f"q{i}",
            "chosen": ["c" * n for n in rng.integers(1, 9, 3)],
            "rejected": ["r" * n for n in rng.integers(1, 9, 3)],
            "domain": domain,
        }
        for i in range(20)
    ]


def result(domain="chat", names=("a", "b")):
    data = rows(domain)
    asked = score_requests(read_suite("rm-bench", data))
    right = np.array([response.startswith("c") for response in asked.responses], float)
    return evaluate_suite("rm-bench", data, {names[0]: 1 - right, names[1]: right}, draws=100)[0].to_json()


def test_page_says_what_the_json_says(parse):
    found = result()
    seen = parse(page(found, title="rm.json"))
    assert seen.faults == []
    text = seen.text()
    assert "b: better than a." in text
    assert "Highest: b with 100.0" in text
    assert "right: detailed, markdown" in text
    assert "equal scores are wrong" in text
    assert "Not in the file: math, code, safety-refuse, safety-response." in text
    assert found["ranking"] == ["b", "a"]
    tables = [tag for tag, _, _ in seen.tags if tag == "table"]
    assert len(tables) == 1 + 1 + 1 + 1 + 3 + 1  # figure, runs, subsets, differences, a matrix for each run and the length, how


def test_equal_runs_cannot_be_told_apart(parse):
    data = rows()
    scores = np.random.default_rng(0).random(len(score_requests(read_suite("rm-bench", data))))
    found = evaluate_suite("rm-bench", data, {"one": scores, "two": scores}, draws=100)[0].to_json()
    text = parse(page(found, title="x")).text()
    assert "two: cannot be told apart from one." in text
    assert "Cannot be told apart from it: two." in text


def test_training_seeds_are_counted_where_there_are_several(parse):
    data = rows()
    scores = np.random.default_rng(0).random((3, len(score_requests(read_suite("rm-bench", data)))))
    found = evaluate_suite("rm-bench", data, {"one": scores, "two": scores[0]}, draws=100)[0].to_json()
    text = parse(page(found, title="x")).text()
    assert "Training seeds" in text
    assert "what seeds add widens its intervals" in text
    plain = evaluate_suite("rm-bench", data, {"one": scores[:1]}, draws=100)[0].to_json()
    assert "raining seeds" not in parse(page(plain, title="x")).text()


def test_without_runs_there_is_the_length(parse):
    seen = parse(page(evaluate_suite("rm-bench", rows(), {}, draws=50)[0].to_json(), title="x"))
    assert seen.faults == []
    assert "No run was scored" in seen.text()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_change_no_structure(parse, text):
    dull = parse(page(result("dull", ("dull", "other")), title="dull"))
    made = page(result(text, (text, "other")), title=text)
    seen = parse(made)
    assert seen.faults == []
    without_code = [[tag for tag, _, _ in found.tags if tag != "code"] for found in (seen, dull)]
    assert without_code[0] == without_code[1]
    assert "<script" not in made
    assert "\u202e" not in made
    assert "49" not in parse(page(result("chat", (text, "other")), title="x")).text() or "{{" not in text


def test_same_result_same_bytes():
    assert page(result(), title="x") == page(result(), title="x")
