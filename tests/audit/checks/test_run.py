"""Running the checks as a whole: discovery, names, order, and silence on clean data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cupel.audit.checks import all_checks, iter_checks, resolve, run_checks
from cupel.audit.checks.context import Context, pseudonyms
from cupel.errors import InputError


def test_every_check_declares_itself():
    for name, module in all_checks().items():
        assert module.__name__.endswith("." + name)
        assert module.SCOPE in ("dataset", "row")
        assert module.COST in (0, 1, 2)
        assert "everity" in module.check.__doc__


def test_cheap_checks_come_first_and_names_in_order():
    keys = [(m.COST, m.NAME) for m in all_checks().values()]
    assert keys == sorted(keys)


def test_unknown_name_offers_the_nearest(make):
    with pytest.raises(InputError, match=r"1 of 2 names are no checks \(first: 'identical_side'\). Did you mean identical_sides"):
        run_checks(make.simulate(0), only=["cycles", "identical-side"])


def test_names_may_have_hyphens_and_commas():
    assert resolve("near-duplicate-pairs, cycles") == ["near_duplicate_pairs", "cycles"]


def test_only_and_progress(make):
    seen = []
    findings = run_checks(make.simulate(0), only="cycles,identical_sides", progress=lambda done, total: seen.append((done, total)))
    assert [f.name for f in findings] == ["identical_sides", "cycles"]
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("chat", [False, True])
def test_clean_data_are_clean(make, seed, chat):
    votes = make.simulate(seed, chat=chat)
    context = Context(against=("something entirely different that is not among these texts at all, of more than thirteen words",),
                      context_tokens=10_000, token_counts=lambda texts: np.array([len(t.split()) for t in texts]))  # fmt: skip
    findings = run_checks(votes, context)
    assert len(findings) == len(all_checks())
    loud = {f.name: (f.severity, f.message) for f in findings if f.status == "finding"}
    # three votes a pair with 5 % errors contradict each other here and there: said, at the lowest severity
    assert loud.pop("contradictions")[0] == "info"
    assert not loud
    silent = {f.name for f in findings if f.status == "not_applicable"}
    # too few votes to tell taste from error
    assert silent == {"taste_or_error"} | (set() if chat else {"role_order", "system_prompts"})


def test_coin_flips_are_not_length_position_format_or_annotator_findings(make):
    """Pure noise has no bias; agreement, contradictions and cycles are what must speak."""
    names = ["length_only", "position_bias", "format_only", "annotators_out_of_line", "model_concentration"]
    wrong = []
    for seed in range(10):
        findings = run_checks(make.simulate(seed, correct=0.5), only=names)
        wrong += [f.name for f in findings if f.status == "finding"]
    assert wrong == []


def test_findings_are_the_same_twice_and_fit_json(make):
    votes = make.simulate(3, correct=0.6)
    one, two = ([f.to_json() for f in run_checks(votes)] for _ in range(2))
    assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    for finding in iter_checks(votes):
        assert finding.message
        assert finding.n >= 0
        assert len(finding.examples) == min(10, len(finding.rows))
        assert (np.diff(finding.rows) > 0).all()
        assert finding.status != "finding" or finding.remedy


def test_a_view_of_a_part_says_nothing_of_texts_outside_it(make):
    votes = make.build([("q one two", "fine answer", "<|im_end|>", "a"), ("q three four", "good", "better", "b")])
    assert make.run("leaked_special_tokens", votes).status == "finding"
    assert make.run("leaked_special_tokens", votes.take(np.array([1]))).status == "clean"


@pytest.mark.parametrize("n", [0, 1])
def test_tiny_sets_raise_nothing(make, n):
    votes = make.build([("question", "one answer", "another answer", "a")] * n)
    context = Context(against=("a",), context_tokens=5, token_counts=lambda texts: np.array([len(t.split()) for t in texts], dtype=int))
    assert len(run_checks(votes, context)) == len(all_checks())


def test_pseudonyms_tell_nothing_and_follow_the_hash():
    names = [f"worker {i}" for i in range(1200)]
    given = pseudonyms(names)
    assert len(set(given)) == 1200
    assert all(len(g) == 5 and g[0] == "A" for g in given)
    assert given != tuple(sorted(given))
    assert dict(zip(names[::-1], pseudonyms(names[::-1]), strict=True)) == dict(zip(names, given, strict=True))
