"""The check that tells "people differ" from "people err", and says when it cannot."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from cupel.audit.checks.taste_or_error import _LEAST, _MOST, _PER_PERSON, _sample

PEOPLE, SIDES = 30, 10


def collection(make, seed: int, n: int, *, opposed: bool = False, careless: float = 0.0, named: bool = True):
    """Votes on 2 prompts with 10 responses each of one length; opposed: a third of the people prefer what the others do not."""
    rng = np.random.default_rng(seed)
    texts = [[make.sentence(rng, 12).ljust(100, "a")[:100] for _ in range(SIDES)] for _ in range(2)]
    score = np.linspace(-2, 2, SIDES)
    tosses = rng.random(PEOPLE) < careless
    rows, names = [], []
    for _ in range(n):
        who, q = int(rng.integers(PEOPLE)), int(rng.integers(2))
        i, j = rng.choice(SIDES, 2, replace=False)
        odds = (score[i] - score[j]) * (-1 if opposed and who % 3 == 0 else 1) * (0 if tosses[who] else 1)
        rows.append((f"prompt {q}", texts[q][i], texts[q][j], "a" if rng.random() < 1 / (1 + np.exp(-odds)) else "b"))
        names.append(f"person {who}" if named else None)
    return make.build(rows, annotators=names)


@pytest.mark.parametrize(("n", "named", "words"), [(1600, False, "annotators are not named"), (400, True, "and 1,500 are needed")])
def test_says_why_it_cannot_tell(make, n, named, words):
    found = make.run("taste_or_error", collection(make, 0, n, named=named))
    assert found.status == "not_applicable"
    assert "cannot tell" in found.message
    assert words in found.message


def test_opposed_people_differ(make):
    votes = collection(make, 1, 1800, opposed=True)
    found = make.run("taste_or_error", votes)
    assert (found.status, found.severity) == ("finding", "warning")
    assert found.message.startswith("people differ: ")
    assert "Do not relabel the minority" in found.remedy
    heads = re.findall(r"--head ([\w:=]+)", found.remedy)
    assert heads == ["pal:prototypes=2", "person_vectors", "scalar"]
    assert found.details["gain"]["taste"][1] > 0
    assert found.details["turned"] > 0.2
    listed = found.details["annotators"]
    assert len(listed) == 10
    assert all(row["annotator"].startswith("A") and row["votes"] > 10 for row in listed)
    assert json.dumps(found.to_json()) == json.dumps(make.run("taste_or_error", votes).to_json())
    assert not len(found.rows)  # nobody's votes are marked
    pytest.importorskip("torch")
    from cupel.learners.models.names import settings_of

    for head in heads:  # what the remedy names can be trained
        settings_of(head)


def test_careless_people_err(make):
    found = make.run("taste_or_error", collection(make, 2, 1800, careless=0.4))
    assert found.status == "finding"
    assert found.message.startswith("people err: ")
    assert found.severity == "info"
    assert "em-annotator" in found.remedy
    assert found.details["gain"]["taste_where_people_are_exchanged"] is None


def test_people_who_are_alike_are_no_finding(make):
    found = make.run("taste_or_error", collection(make, 3, 1800))
    assert found.status in ("clean", "not_applicable")
    assert "with 80 % power" in found.message


def test_sides_that_do_not_come_again_are_said(make):
    rng = np.random.default_rng(0)
    rows = [("q", make.sentence(rng, 5) + f" {i}", make.sentence(rng, 8) + f" {i}", "ab"[int(rng.integers(2))]) for i in range(_LEAST)]
    found = make.run("taste_or_error", make.build(rows, annotators=[f"p{i % 20}" for i in range(_LEAST)]))
    assert found.status != "finding"
    assert "only a liking for length" in found.message


def test_large_sets_are_cut_to_the_busiest(make):
    n = _MOST + 4000
    who = np.concatenate([np.zeros(5000, dtype=int), 1 + np.arange(n - 5000) % 12])
    who[-3:] = 13
    votes = make.build([("q", "x", "y", "a")] * n, annotators=[f"p{w}" for w in who])
    taken = _sample(votes, np.arange(n), 0)
    count = np.bincount(votes.annotator[taken], minlength=14)
    assert len(taken) <= _MOST
    assert count[0] == _PER_PERSON
    assert count[13] == 0
    assert (np.diff(taken) > 0).all()
    assert (taken == _sample(votes, np.arange(n), 0)).all()
    assert (_sample(votes, np.arange(_MOST), 0) == np.arange(_MOST)).all()
