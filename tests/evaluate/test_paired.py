"""The paired evaluation on hand-made margins with known answers, and the coverage of its intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cupel
from cupel.curate.review import Answers
from cupel.errors import InputError
from cupel.evaluate.crossed import crossed_interval
from cupel.evaluate.paired import evaluate


def make(n=200, per_prompt=4, ties=5):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"q{i // per_prompt}", "response_a": f"a{i} " + "w " * int(rng.integers(1, 9)),
         "response_b": f"b{i} " + "w " * int(rng.integers(1, 9)),
         "vote": "tie" if i < ties else "ab"[int(rng.integers(2))], "annotator": "k"}
        for i in range(n)
    ]  # fmt: skip
    return cupel.read(rows)


@pytest.fixture
def votes():
    return make()


def with_accuracy(votes, share, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(votes)) < share, votes.sign, -votes.sign) * rng.uniform(0.1, 2, len(votes))


def test_counts_differences_and_length(votes):
    plain, robust = with_accuracy(votes, 0.6, 1), with_accuracy(votes, 0.9, 2)
    found = evaluate(plain, robust, on=votes)
    decided = votes.sign != 0
    right = [(m * votes.sign > 0)[decided].mean() for m in (plain, robust)]
    assert found.names == ("plain", "robust")
    assert (found.n, found.skipped) == (195, 5)
    assert found.accuracy["votes"]["plain"].estimate == pytest.approx(right[0])
    share = found.difference["votes"]["robust"]
    assert share.estimate == pytest.approx(right[1] - right[0])
    assert share.low < share.estimate < share.high
    assert share.groups == 49  # the first prompt has ties only
    texts = votes.response_texts()
    longer = np.sign([len(texts[a]) - len(texts[b]) for a, b in zip(votes.first, votes.second, strict=True)])
    hit = np.where(longer == 0, 0.5, longer == votes.sign)
    assert found.length_only["votes"].estimate == pytest.approx(hit[decided].mean())
    shorter = decided & (longer == -votes.sign)
    assert found.accuracy["shorter_wins"]["robust"].n == shorter.sum()
    assert found.length_only["shorter_wins"].estimate == 0
    json.dumps(found.to_json(), allow_nan=False)
    assert "195 votes" in found.lines()[0]
    assert "<table>" in found._repr_html_()


def test_several_votes_are_judged_by_their_majority():
    rows = [
        {"prompt": f"q{i}", "response_a": f"x{i}", "response_b": f"y{i}", "vote": v, "annotator": str(k)}
        for i in range(20)
        for k, v in enumerate("aab")
    ]
    rows += [
        {"prompt": f"r{i}", "response_a": f"x{i}", "response_b": f"y{i}", "vote": v, "annotator": str(k)}
        for i in range(20)
        for k, v in enumerate("ab")
    ]
    votes = cupel.read(rows)
    found = evaluate(np.ones(len(votes)), on=votes)
    assert found.accuracy["repeated"]["plain"].n == 20
    assert found.accuracy["repeated"]["plain"].estimate == 1


def test_truth_recovered_share_and_its_threshold(votes):
    truth = np.where(votes.sign == 0, np.nan, votes.sign)
    plain, robust, clean = with_accuracy(votes, 0.6, 1), with_accuracy(votes, 0.8, 2), with_accuracy(votes, 1.0, 3)
    found = evaluate(plain, robust, on=votes, truth=truth, clean=clean)
    value = {k: v.estimate for k, v in found.accuracy["truth"].items()}
    assert found.recovered["share"]["robust"] == pytest.approx((value["robust"] - value["plain"]) / (1 - value["plain"]))
    none = evaluate(plain, robust, on=votes, truth=truth, clean=plain)
    assert none.recovered["share"] is None
    assert "nothing to recover" in none.recovered["why"]


def test_reviewed_pairs_and_mcnemar(votes):
    plain, robust = with_accuracy(votes, 0.5, 1), with_accuracy(votes, 1.0, 2)
    apart = evaluate(plain, robust, on=votes).disagreement
    assert ((plain > 0) != (robust > 0))[apart].all()
    rows = apart[:30]
    ids = votes.ids.to_pylist()
    said = tuple("a" if votes.sign[r] > 0 else "b" for r in rows)
    answers = Answers(tuple(ids[r] for r in rows), said, ("disagreement",) * 30, np.full(30, -1), np.array([1]), 0, 0)
    found = evaluate(plain, robust, on=votes, reviewed=answers)
    assert found.mcnemar["robust"]["only_other"] == 30
    assert found.mcnemar["robust"]["only_first"] == 0
    assert found.mcnemar["robust"]["p_value"] == pytest.approx(2 * 0.5**30)
    assert found.accuracy["reviewed"]["robust"].estimate == 1


def test_lists_are_seeds_of_one_model(votes):
    models = np.stack([with_accuracy(votes, 0.7, s) for s in range(3)])
    found = evaluate(models, models, on=votes)
    assert found.seeds == {"plain": 3, "robust": 3}
    share = found.difference["votes"]["robust"]
    assert share.estimate == share.low == share.high == 0  # the same seeds are drawn on both sides


def test_interval_of_a_paired_difference_covers(votes):
    """500 simulated sets of 40 prompts with strongly correlated rows, 3 seeds."""
    rng = np.random.default_rng(11)
    covered = 0
    group = np.repeat(np.arange(40), 5)
    for draw in range(500):
        easy = rng.normal(0.6, 0.15, 40)[group]
        gain = rng.normal(0.08, 0.1, 40)[group]
        one = (rng.random((3, 200)) < easy).astype(float)
        two = (rng.random((3, 200)) < easy + gain).astype(float)
        truth = np.clip(easy + gain, 0, 1).mean() - np.clip(easy, 0, 1).mean()
        low, high, _, _ = crossed_interval(two, one, group, seed=draw, draws=300)
        covered += low <= 0.08 <= high
        assert low < truth + 0.5 < high + 1
    assert 0.92 <= covered / 500 <= 0.995


def test_refusals(votes):
    with pytest.raises(InputError, match="one finite value"):
        evaluate(np.ones(3), on=votes)
    with pytest.raises(InputError, match="ties and skips only"):
        evaluate(np.ones(5), on=votes.take(np.flatnonzero(votes.sign == 0)))
    with pytest.raises(InputError, match="different names"):
        evaluate(np.ones(len(votes)), np.ones(len(votes)), names=["x", "x"], on=votes)
