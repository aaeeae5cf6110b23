"""The page of recommenders: the numbers of the JSON, verdicts, parts, and every name escaped."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.evaluate.recommending.lists import from_scores
from cupel.evaluate.recommending.run import evaluate_recommenders
from cupel.interactions.log import Log
from cupel.report.recommending import page

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "</table></style>", "a\u202eb", "`<b>`"]


def result(names=("plain", "better"), **options):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 30))
    taken = np.argsort(-truth, axis=1)[:, :4]
    log = Log(
        np.arange(40).astype(str),
        np.arange(30).astype(str),
        np.repeat(np.arange(40), 4).astype(np.int32),
        taken.reshape(-1).astype(np.int32),
    )
    test = np.arange(160) % 2 == 0
    models = {names[0]: from_scores(rng.normal(size=(40, 30)))}
    if len(names) > 1:
        models[names[1]] = from_scores(truth)
    return evaluate_recommenders(models, log.take(test), log.take(~test), ks=[5], draws=100, **options).to_json()


def test_page_says_what_the_json_says(parse):
    found = result(propensity="popularity")
    made = page(found, title="test.csv")
    seen = parse(made)
    assert seen.faults == []
    text = seen.text()
    for words in ("better: better than plain.", "Highest ndcg@5: better", "self-normalised within users", "nothing is sampled", "weigh as"):
        assert words in text
    value = found["parts"][0]["value"]["ndcg@5"]["plain"]
    assert f"{value['estimate']:.4f} ({value['low']:.4f} to {value['high']:.4f})" in text
    assert made.count("<svg") == 2
    assert f"Only {found['parts'][1]['name']}" in text
    assert page(result(propensity="popularity"), title="test.csv") == made


def test_one_model_has_no_differences(parse):
    found = result(("alone",))
    seen = parse(page({**found, "parts": found["parts"][:1]}, title="t"))
    assert seen.faults == []
    assert "No test event is of a rare item." in seen.text()
    assert "Minus alone" not in seen.text()
    assert "Weighted by propensity" not in seen.text()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_change_no_structure(parse, text):
    dull = parse(page(result(("dull", "other")), title="dull"))
    made = page(result((text, "other")), title=text)
    seen = parse(made)
    assert seen.faults == []
    without_code = [[tag for tag, _, _ in found.tags if tag != "code"] for found in (seen, dull)]
    assert without_code[0] == without_code[1]
    assert "<script" not in made
    assert "\u202e" not in made
