"""Identical, empty, equal, repeated and contradicted rows; near-duplicates against brute force."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from cupel.audit.checks._table import Table
from cupel.records.schema import Quarantined


def test_identical_sides(make):
    votes = make.build([("q", "x", "x", "a"), ("q", "x", "y", "b"), ("q", "z", "z", "tie")])
    finding = make.run("identical_sides", votes)
    assert (finding.status, finding.severity, finding.rows.tolist()) == ("finding", "error", [0, 2])
    assert finding.details["voted"] == 1
    assert finding.examples == ("r0", "r2")


def test_identical_sides_that_are_ties_are_no_error(make):
    aside = (Quarantined(7, "identical_sides", "both sides are the same text", "..."),)
    finding = make.run("identical_sides", make.build([("q", "x", "x", "tie")], quarantine=aside))
    assert (finding.severity, finding.details["quarantined"]) == ("info", 1)


def test_empty_sides(make):
    votes = make.build([("q", "", "y", "a"), ("q", "x", "y", "b"), ("q", " \n", "y", "b")])
    finding = make.run("empty_sides", votes)
    assert (finding.severity, finding.rows.tolist(), finding.details["empty_preferred"]) == ("error", [0, 2], 1)


def test_equal_after_normalising(make):
    votes = make.build([("q", "Caf\u00e9  au lait", "cafe\u0301 au\nlait ", "a"), ("q", "x", "x", "a"), ("q", "x", "y", "a")])
    finding = make.run("equal_after_normalising", votes)
    assert (finding.severity, finding.rows.tolist()) == ("warning", [0])


def test_duplicate_votes(make):
    rows = [("q", "x", "y", "a"), ("q", "y", "x", "b"), ("q", "x", "y", "a"), ("q", "x", "y", "b"), ("Q ", "x", "Y", "a")]
    people = ["ann", "ann", "bob", "ann", "ann"]
    finding = make.run("duplicate_votes", make.build(rows, annotators=people))
    assert finding.rows.tolist() == [1, 4]  # bob's is a repeat, not a copy; ann's other vote has the other outcome
    assert finding.severity == "warning"
    unnamed = make.run("duplicate_votes", make.build(rows))
    assert unnamed.severity == "info"
    assert "may be votes of several people" in unnamed.message
    assert make.run("duplicate_votes", make.build(rows[:1] + rows[3:4], annotators=["ann", "ann"])).status == "clean"


def test_repeats_of_people_who_differ_in_time_are_no_copies(make):
    votes = make.build([("q", "x", "y", "a")] * 2, seconds=[10.0, 12.0])
    assert make.run("duplicate_votes", votes).status == "clean"


def test_contradictions(make):
    rows = [("q", "x", "y", "a")] * 3 + [("q", "Y", "x", "a")] + [("q", "u", "v", "a"), ("q", "u", "v", "tie")]
    finding = make.run("contradictions", make.build(rows, annotators=list("abcdef")))
    assert (finding.status, finding.rows.tolist(), finding.n) == ("finding", [0, 1, 2, 3], 5)
    assert finding.details["contradiction_rate"] == pytest.approx(1 / 5)
    assert finding.details["votes_against_own"] == 0
    own = make.run("contradictions", make.build(rows, annotators=list("abcadd")))
    assert own.details["votes_against_own"] == 2
    assert own.severity == "warning"


def test_contradictions_need_repeats(make):
    votes = make.build([("q", "x", "y", "a"), ("q", "x", "z", "a")])
    assert make.run("contradictions", votes).status == "not_applicable"


def test_duplicate_prompts(make):
    votes = make.build([("One question?", "a", "b", "a"), ("one  question?", "c", "d", "a"), ("another", "e", "f", "a")])
    finding = make.run("duplicate_prompts", votes)
    assert (finding.rows.tolist(), finding.details["sets"]) == ([0, 1], 1)


def test_chats_with_other_roles_are_other_prompts(make):
    one = [{"role": "user", "content": "hello"}]
    votes = make.build([(one, "a", "b", "a"), ([{"role": "system", "content": "hello"}], "a", "b", "a"), ("hello", "a", "b", "a")])
    assert make.run("duplicate_prompts", votes).status == "clean"


def test_duplicate_responses(make):
    canned = "the server is busy at the moment so please try again in a little while"
    rows = [(f"question {i}", canned, f"answer number {i}", "b") for i in range(4)] + [("other", "short one", "x", "a")]
    finding = make.run("duplicate_responses", make.build(rows))
    assert (finding.rows.tolist(), finding.details["prompts_of_commonest"]) == ([0, 1, 2, 3], 4)
    assert make.run("duplicate_responses", make.build(rows[:2])).status == "clean"


def edited(text: str, at: int) -> str:
    words = text.split()
    words[at] = "changed"
    return " ".join(words)


def test_near_duplicates_of_every_kind(make):
    rng = np.random.default_rng(0)
    p, a, b, c = (make.sentence(rng, 60) for _ in range(4))
    rows = [(p, a, b, "a"), (edited(p, 58), edited(b, 3), edited(a, 59), "b"), (make.sentence(rng, 60), c, edited(c, 57), "a")]
    votes = make.build(rows)
    assert make.run("near_duplicate_prompts", votes).rows.tolist() == [0, 1]
    assert make.run("near_duplicate_pairs", votes).rows.tolist() == [1]
    finding = make.run("near_duplicate_responses", votes)
    assert finding.rows.tolist() == [2]
    assert finding.details["responses_with_a_near_copy"] == 6


def test_split_leakage(make):
    rng = np.random.default_rng(1)
    p, a, b, c, d = (make.sentence(rng, 40) for _ in range(5))
    rows = [
        (p, a, b, "a"),
        (edited(p, 39), c, d, "a"),
        (make.sentence(rng, 40), edited(a, 0), d, "a"),
        ("new", "short", "texts", "a"),
    ]
    finding = make.run("split_leakage", make.build(rows, split=[0, 1, 1, 1]))
    assert (finding.severity, finding.count, finding.n, finding.rows.tolist()) == ("error", 2, 3, [0])
    assert (finding.details["heldout_rows_by_prompt"], finding.details["heldout_rows_by_response"]) == (1, 1)
    assert make.run("split_leakage", make.build(rows)).status == "not_applicable"
    assert make.run("split_leakage", make.build(rows[:1] + rows[3:], split=[0, 1])).status == "clean"


def shingles(text: str, width: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + width]) for i in range(max(len(words) - width + 1, 1))}


def responses(texts: list[str]) -> Table:
    return Table(pa.array(texts, pa.large_string()), [np.arange(len(texts))], prompts=False)


def test_near_copies_agree_with_sets_of_words(make):
    rng = np.random.default_rng(5)
    texts = []
    for _ in range(40):
        base = make.sentence(rng, int(rng.integers(3, 80))).lower().rstrip(".")
        texts.append(base)
        for _ in range(3):
            base = edited(base, int(rng.integers(len(base.split()))))
            texts.append(base)
    i, j = np.triu_indices(len(texts), 1)
    sets = [shingles(t, 5) for t in texts]
    slow = np.array([len(sets[x] & sets[y]) / len(sets[x] | sets[y]) for x, y in zip(i, j, strict=True)])
    wanted = {(int(x), int(y)) for x, y, s in zip(i, j, slow, strict=True) if s >= 0.8}
    labels = responses(texts).near(5, 0)
    assert all(labels[x] == labels[y] for x, y in wanted)
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        assert len(members) == 1 or all(any((min(m, o), max(m, o)) in wanted for o in members if o != m) for m in members)


def test_near_copies_in_scripts_without_spaces_and_in_composed_letters():
    one = "今天天气很好我们一起去公园散步吧然后去吃饭再看电影最后回家休息"
    texts = [one, one[:-1] + "了", "完全不同的一句话没有任何共同之处只是为了测试而写的文字而已呀"]
    labels = responses(texts).near(5, 0)
    assert labels[0] == labels[1] != labels[2]
    words = " ".join(f"m\u00f6t{k}" for k in range(40))
    labels = responses([words, unicodedata.normalize("NFD", words) + " more", "other words"]).near(5, 0)
    assert labels[0] == labels[1] != labels[2]


def test_texts_without_words_and_unused_texts_have_no_near_copies():
    assert len(set(responses(["", "...", "!?", "one"]).near(3, 0).tolist())) == 4
    words = " ".join(f"w{k}" for k in range(40))
    found = Table(pa.array([words, words + " a", words + " b"], pa.large_string()), [np.array([0, 2])], prompts=False).near(5, 0)
    assert found[0] == found[2] != found[1]
