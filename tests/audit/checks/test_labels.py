"""Checks of what the labels follow (length, form, place) and of who gave them: planted and clean."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.audit.checks.annotators_out_of_line import leave_one_out
from cupel.audit.checks.context import Context
from cupel.votes.agreement import krippendorff_alpha


def relabel(votes, wins_first):
    outcome = np.where(wins_first, 0, 1).astype(np.int8)
    return votes.with_(outcome=outcome, p=1.0 - outcome)


def lengths(votes):
    chars = np.array([len(t) for t in votes.response_texts()])
    return chars[votes.first], chars[votes.second]


@pytest.mark.parametrize(("rate", "severity"), [(0.72, "info"), (0.9, "warning"), (0.1, "warning")])
def test_length_only_planted(make, rate, severity):
    votes = make.simulate(1)
    first, second = lengths(votes)
    follow = np.random.default_rng(2).random(len(votes)) < rate
    finding = make.run("length_only", relabel(votes, (first > second) == follow))
    assert (finding.status, finding.severity) == ("finding", severity)
    assert finding.details["share"] == pytest.approx(rate, abs=0.04)
    assert finding.details["low"] <= finding.details["share"] <= finding.details["high"]
    assert (finding.details["log_odds_per_100_words"] > 0) == (rate > 0.5)
    assert sum(s["n"] for s in finding.details["strata"]) == finding.n
    assert ("shortness" in finding.message) == (rate < 0.5)


def test_length_only_does_not_depend_on_which_side_is_called_first(make):
    votes = make.simulate(4)
    turned = votes.with_(first=votes.second, second=votes.first, outcome=(1 - votes.outcome).astype(np.int8), p=1 - votes.p)
    one, two = (make.run("length_only", v).details for v in (votes, turned))
    assert one["share"] == two["share"]
    assert one["log_odds_per_sd"] == pytest.approx(two["log_odds_per_sd"], abs=1e-6)


def test_length_only_needs_rows(make):
    assert make.run("length_only", make.build([("q", "a long one", "b", "a")] * 5)).status == "not_applicable"


def test_format_only_planted_and_matched(make):
    votes = make.simulate(5)
    marks = np.array([t.count("**") for t in votes.response_texts()])
    gap = marks[votes.first] - marks[votes.second]
    finding = make.run("format_only", relabel(votes, np.where(gap != 0, gap > 0, votes.sign > 0)))
    assert (finding.status, finding.severity, finding.details["share"]) == ("finding", "warning", 1.0)
    assert finding.details["kinds"]["bold"]["n"] == finding.n
    assert finding.details["kinds"]["tables"]["n"] == 0
    assert finding.details["length_matched"]["share"] == 1.0


def test_format_only_needs_formatting(make):
    rows = [(f"q{i}", "plain text", "other text", "a") for i in range(50)]
    assert make.run("format_only", make.build(rows)).status == "not_applicable"


def test_position_bias_planted(make):
    votes = make.simulate(6)
    first = np.random.default_rng(0).random(len(votes)) < 0.7
    finding = make.run("position_bias", relabel(votes, first))
    assert (finding.status, finding.severity) == ("finding", "warning")
    assert finding.details["share"] == pytest.approx(0.7, abs=0.04)


def test_position_bias_names_one_annotator_in_the_details(make):
    votes = make.simulate(6, n_prompts=120)
    one = votes.annotator == 3
    finding = make.run("position_bias", relabel(votes, np.where(one, True, votes.sign > 0)))
    assert finding.status == "clean"
    assert finding.details["annotators_that_differ"] == [Context().shared(votes).names[3]]


def test_position_bias_says_nothing_where_the_order_is_unknown(make):
    votes = relabel(make.simulate(6), np.ones(1080, dtype=bool)).with_(order_known=False)
    assert make.run("position_bias", votes).status == "not_applicable"


def test_agreement_is_krippendorffs_alpha(make):
    votes = make.simulate(7, correct=0.8)
    finding = make.run("agreement", votes)
    expected = krippendorff_alpha(votes.pair, votes.pair_sign)
    assert finding.details["alpha"] == pytest.approx(expected.alpha, abs=1e-6)
    # two votes agree with .8^2 + .2^2 = .68, alpha = 2 * .68 - 1
    assert finding.details["alpha"] == pytest.approx(0.36, abs=0.08)
    assert finding.details["raw_agreement"]["share"] == pytest.approx(0.68, abs=0.04)


@pytest.mark.parametrize(("correct", "status", "severity"), [(0.95, "clean", "info"), (0.85, "finding", "info"), (0.5, "finding", "error")])
def test_agreement_severity(make, correct, status, severity):
    finding = make.run("agreement", make.simulate(8, correct=correct))
    assert (finding.status, finding.severity) == (status, severity)


def test_agreement_does_not_count_a_persons_second_vote(make):
    rows = [(f"q{i}", "x one", "y two", "a") for i in range(20) for _ in range(2)]
    assert make.run("agreement", make.build(rows, annotators=["ann"] * 40)).status == "not_applicable"
    one_way = make.run("agreement", make.build(rows))
    assert one_way.status == "not_applicable"
    assert "only one value" in one_way.message


def test_agreement_where_one_group_has_all_repeats(make):
    rng = np.random.default_rng(0)
    rows = [("same", f"x {i}", f"y {i}", "ab"[int(rng.random() < 0.3)]) for i in range(60) for _ in range(2)]
    rows += [(f"q{i}", "x", "y", "a") for i in range(30)]
    finding = make.run("agreement", make.build(rows))
    assert finding.n == 60
    assert -1 <= finding.details["low"] < finding.details["alpha"] < finding.details["high"] <= 1


def test_leave_one_out_against_a_loop():
    rng = np.random.default_rng(3)
    key, voter, sign = rng.integers(5, size=60), rng.integers(6, size=60), rng.integers(-1, 2, size=60)
    total, count = leave_one_out(key, sign, voter)
    for i in range(60):
        others = (key == key[i]) & (voter != voter[i])
        assert total[i] == sign[others].sum()
        assert count[i] == (sign[others] != 0).sum()


def corrupted(make, how, seed=9):
    """Ten prompts' worth of votes by people of whom 0 answers at random, 1 against the truth, 2 always first."""
    votes = make.simulate(seed, n_prompts=100)
    rng = np.random.default_rng(seed)
    first = votes.sign > 0
    if "random" in how:
        first = np.where(votes.annotator == 0, rng.random(len(votes)) < 0.5, first)
    if "adversarial" in how:
        first = np.where(votes.annotator == 1, ~first, first)
    if "place" in how:
        first = np.where(votes.annotator == 2, True, first)
    return relabel(votes, first)


def test_annotators_out_of_line_planted(make):
    votes = corrupted(make, ("random", "adversarial", "place"))
    finding = make.run("annotators_out_of_line", votes)
    names = Context().shared(votes).names
    table = {row["annotator"]: row["kinds"] for row in finding.details["annotators"]}
    assert table == {names[0]: ["near chance"], names[1]: ["against the others"], names[2]: ["near chance", "always first"]}
    assert finding.count == 3
    assert set(votes.annotator[finding.rows].tolist()) == {0, 1, 2}
    assert finding.severity == "warning"
    assert "person-" not in finding.message + str(finding.details)


def test_annotators_false_discoveries(make):
    """Honest people of equal skill: over 30 collections of 25 people hardly anybody is named."""
    named = 0
    for seed in range(30):
        votes = make.simulate(seed, n_prompts=25, correct=0.75)
        finding = make.run("annotators_out_of_line", votes)
        named += finding.count
    assert named <= 3  # of 750 people


def test_annotators_of_hard_pairs_are_not_out_of_line(make):
    """Half of the pairs are coin flips for everyone, and some people only see those."""
    named = 0
    for seed in range(6):
        votes = make.simulate(seed, n_prompts=120, n_annotators=30, correct=1.0)
        rng = np.random.default_rng(seed + 1)
        hard = votes.prompt < 60
        people = np.where(hard, votes.annotator % 15, 15 + votes.annotator % 15).astype(np.int32)
        first = np.where(hard, rng.random(len(votes)) < 0.5, votes.sign > 0)
        named += make.run("annotators_out_of_line", relabel(votes, first).with_(annotator=people)).count
    assert named <= 1  # of 180 people


def test_annotators_too_fast(make):
    votes = make.simulate(11)
    seconds = np.where(votes.annotator == 5, 1.0, votes.seconds)
    finding = make.run("annotators_out_of_line", votes.with_(seconds=seconds))
    (row,) = finding.details["annotators"]
    assert row["kinds"] == ["too fast"]
    assert row["share_too_fast"] == 1.0


def test_annotators_not_named(make):
    votes = make.build([("q", "a", "b", "a")] * 20)
    assert make.run("annotators_out_of_line", votes).status == "not_applicable"
    few = make.build([("q", "a", "b", "a")] * 9, annotators=["ann"] * 9)
    assert "no annotator has 10 votes" in make.run("annotators_out_of_line", few).message


def test_annotator_concentration(make):
    rows = [(f"q{i}", "a", "b", "a") for i in range(200)]
    people = [f"p{i}" for i in range(120)] + ["busy"] * 80
    finding = make.run("annotator_concentration", make.build(rows, annotators=people))
    assert (finding.status, finding.severity, finding.details["top"]) == ("finding", "warning", 2)
    assert finding.details["share_of_top"] == pytest.approx(81 / 200)
    assert make.run("annotator_concentration", make.build(rows)).status == "not_applicable"


def test_prompt_concentration(make):
    rows = [("same", f"a{i}", f"b{i}", "a") for i in range(30)] + [(f"q{i}", "a", "b", "a") for i in range(40)]
    finding = make.run("prompt_concentration", make.build(rows))
    assert (finding.severity, finding.rows.tolist()) == ("warning", list(range(30)))
    assert make.run("prompt_concentration", make.build(rows[:5])).status == "not_applicable"
    unprompted = [("", f"a{i}", f"b{i}", "a") for i in range(30)] + rows[30:]
    assert make.run("prompt_concentration", make.build(unprompted)).status == "clean"


def test_model_concentration(make):
    rng = np.random.default_rng(0)
    rows = [(f"q{i}", "x", "y", "b" if i % 20 else "a") for i in range(200)]
    models = [(f"m{int(rng.integers(5))}", "king") for _ in rows]
    finding = make.run("model_concentration", make.build(rows, models=models))
    assert finding.severity == "warning"
    assert finding.details["always_winning"] == [{"model": "king", "wins": 190, "votes": 200}]
    assert len(finding.rows) == 190
    assert make.run("model_concentration", make.build(rows)).status == "not_applicable"


def test_cycles_planted(make):
    """Coin flips go round in a quarter of triads; a ranking in none."""
    noise = make.run("cycles", make.simulate(12, correct=0.5, n_responses=6))
    assert (noise.status, noise.severity) == ("finding", "warning")
    assert noise.details["share"] == pytest.approx(0.25, abs=0.05)
    assert noise.details["low"] <= 0.25 <= noise.details["high"]
    clean = make.run("cycles", make.simulate(12, correct=1.0, n_responses=6))
    assert (clean.status, clean.details["cyclic_triads"]) == ("clean", 0)
    assert clean.details["hodge_cyclicity"] < noise.details["hodge_cyclicity"]


def test_cycles_point_at_the_planted_flips(make):
    votes = make.simulate(13, correct=1.0, n_responses=8, votes_per_pair=1, n_prompts=40)
    flip = np.random.default_rng(0).random(len(votes)) < 0.15
    finding = make.run("cycles", relabel(votes, (votes.sign > 0) != flip))
    assert finding.status == "finding"
    assert flip[finding.rows].mean() > 2.5 * flip.mean()


def test_cycles_of_one_prompt_have_an_interval(make):
    rows = [("", f"r{i}", f"r{j}", "a" if (i + j) % 3 else "b") for i in range(12) for j in range(i)]
    finding = make.run("cycles", make.build(rows))
    assert 0 <= finding.details["low"] <= finding.details["share"] <= finding.details["high"] <= 1
    assert finding.details["high"] - finding.details["low"] > 0.05


def test_cycles_need_triads(make):
    assert make.run("cycles", make.simulate(1, n_responses=2)).status == "not_applicable"
