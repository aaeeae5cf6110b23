"""Curation and its ledger: held-out rows untouched, replay to the same bytes, flips only on somebody's word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cupel
from cupel.audit.types import Finding
from cupel.curate.ledger import append, read_ledger, replay
from cupel.curate.policy import curate, recreate
from cupel.curate.review import Answers
from cupel.errors import InputError
from cupel.records.files import write_parquet
from cupel.records.schema import HELDOUT, TRAIN

N = 300


def make(n=N, people=5):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"q{i}", "response_a": f"x{i}", "response_b": f"y{i}", "vote": "ab"[int(rng.integers(2))], "annotator": f"k{k}"}
        for i in range(n // 3)
        for k in rng.permutation(people)[:3]
    ]
    return cupel.read(rows, seed=1)


@pytest.fixture
def votes():
    return make()


@pytest.fixture
def suspicion(votes):
    return np.random.default_rng(4).normal(size=len(votes))


def answers_for(votes, rows, outcome):
    ids = votes.ids.to_pylist()
    k = len(rows)
    return Answers(tuple(ids[r] for r in rows), tuple(outcome), ("worklist",) * k, np.full(k, -1), np.array([len(votes)]), 0, 0)


def identical(one, two):
    same = all(
        np.array_equal(getattr(one, c), getattr(two, c)) for c in ("prompt", "first", "second", "outcome", "p", "w", "split", "line")
    )
    return same and one.ids.equals(two.ids)


def test_single_basis_only_weighs_down_gently(votes, suspicion):
    clean = curate(votes, suspicion)
    train = np.flatnonzero(votes.split == TRAIN)
    assert np.array_equal(clean.votes.outcome, votes.outcome)
    touched = np.flatnonzero(clean.votes.w != votes.w)
    assert len(touched) == len(train) // 10
    assert suspicion[touched].min() >= np.delete(suspicion[train], np.searchsorted(train, touched)).max()
    assert clean.votes.w[touched].min() == 0.5
    assert clean.votes.w[touched].max() < 1
    assert clean.summary["actions"] == {"reweight": len(touched)}
    order = touched[np.argsort(-suspicion[touched])]
    assert (np.diff(clean.votes.w[order]) > 0).all()


def test_where_the_audit_cannot_see_suspicion_changes_nothing(votes, suspicion):
    clean = curate(votes, suspicion, can_see=False)
    assert len(clean.ledger) == 0
    assert identical(clean.votes, votes)
    assert "cannot tell" in clean.summary["notes"][-1]


def test_p_correct_multiplies_the_weight_only_below_one_half(votes, suspicion):
    known = np.random.default_rng(3).random(len(votes))
    clean = curate(votes, suspicion, known)
    train = votes.split == TRAIN
    assert np.allclose(clean.votes.w[train], np.minimum(1, 2 * known[train]))
    assert (clean.votes.w[~train] == 1).all()


def test_flip_above_turns_labels_and_states_the_precision(votes, suspicion):
    known = np.random.default_rng(3).random(len(votes))
    clean = curate(votes, suspicion, known, flip_above=0.8)
    expected = (votes.split == TRAIN) & (1 - known > 0.8)
    assert np.array_equal(clean.votes.sign != votes.sign, expected)
    assert np.array_equal(clean.votes.p[expected], 1 - votes.p[expected])
    assert clean.summary["estimated_flip_precision"] == pytest.approx((1 - known)[expected].mean())
    assert str(int(expected.sum())) in clean.summary["notes"][0]
    flips = [entry for entry in clean.ledger.entries if entry.action == "flip"]
    assert [entry.precision for entry in flips] == pytest.approx((1 - known)[expected].tolist())


def test_flip_above_without_evidence_is_refused_with_ways_out(votes, suspicion):
    with pytest.raises(InputError, match=r"one vote per pair does not give it.*cupel review"):
        curate(votes, suspicion, flip_above=0.9)
    with pytest.raises(InputError, match="more likely right than wrong"):
        curate(votes, suspicion, np.full(len(votes), 0.9), flip_above=0.3)


def test_nothing_to_choose_is_dropped_and_other_checks_only_on_request(votes, suspicion):
    train, held = np.flatnonzero(votes.split == TRAIN), np.flatnonzero(votes.split == HELDOUT)
    findings = [
        Finding("identical_sides", "row", "finding", rows=np.array([train[0], held[0]])),
        Finding("duplicate_votes", "row", "finding", rows=train[[1, 2]]),
    ]
    ids = votes.ids.to_pylist()
    clean = curate(votes, suspicion, findings=findings)
    assert set(ids) - set(clean.votes.ids.to_pylist()) == {ids[train[0]]}
    clean = curate(votes, suspicion, findings=findings, drop=["duplicate-votes"])
    assert set(ids) - set(clean.votes.ids.to_pylist()) == {ids[i] for i in train[:3]}
    with pytest.raises(InputError, match=r"cycless.*duplicate_votes"):
        curate(votes, suspicion, findings=findings, drop=["cycless"])


def test_a_persons_answers_correct_confirm_and_leave_heldout_alone(votes, suspicion):
    train, held = np.flatnonzero(votes.split == TRAIN), np.flatnonzero(votes.split == HELDOUT)
    worst = train[np.argsort(-suspicion[train])[:3]]
    rows = [*worst, held[0]]
    other = ["b" if votes.sign[r] > 0 else "a" for r in rows]
    same = "a" if votes.sign[worst[1]] > 0 else "b"
    clean = curate(votes, suspicion, trusted=answers_for(votes, rows, [other[0], same, "tie", other[3]]))
    assert clean.votes.sign[worst[0]] == -votes.sign[worst[0]]
    assert clean.votes.w[worst[0]] == 1
    assert clean.votes.w[worst[1]] == 1  # confirmed: not weighed down although suspect
    assert clean.votes.p[worst[2]] == 0.5
    assert clean.votes.sign[worst[2]] == 0
    assert identical(clean.heldout, votes.heldout)
    assert clean.summary["actions"]["correct"] == 2
    assert {e.source for e in clean.ledger.entries if e.action == "correct"} == {"reviewer"}


def test_consensus_writes_posteriors_from_all_votes_on_a_pair():
    rng = np.random.default_rng(2)
    right = {"k0": 0.95, "k1": 0.9, "k2": 0.9, "k3": 0.1}
    rows = [
        {
            "prompt": f"q{i}",
            "response_a": f"x{i}",
            "response_b": f"y{i}",
            "vote": "a" if (rng.random() < share) == (i % 3 > 0) else "b",
            "annotator": who,
        }
        for i in range(200)
        for who, share in right.items()
    ]
    votes = cupel.read(rows, seed=1)
    clean = curate(votes, np.zeros(len(votes)), consensus=True, can_see=False)
    train = clean.train
    truth = np.array([int(votes.prompts[int(i)].as_py()[1:]) % 3 > 0 for i in train.prompt])
    assert all(len(np.unique(train.p[train.pair == pair])) == 1 for pair in np.unique(train.pair)[:20])
    majority = np.bincount(train.pair, weights=train.sign)[train.pair] > 0
    assert ((train.p > 0.5) == truth).mean() > 0.98 > (majority == truth).mean()
    assert clean.votes.meta["target"] == "consensus"
    assert identical(clean.heldout, votes.heldout)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_replay_gives_identical_bytes(tmp_path_factory, seed, flip, consensus):
    rng = np.random.default_rng(seed)
    votes = make(90)
    n = len(votes)
    rows = rng.permutation(n)[:10]
    findings = [Finding("empty_sides", "row", "finding", rows=rng.permutation(n)[:5])]
    clean = curate(
        votes, rng.normal(size=n), rng.random(n) if flip or rng.random() < 0.5 else None, findings, flip_above=0.7 if flip else None,
        trusted=answers_for(votes, rows, rng.choice(["a", "b", "tie", ""], size=10).tolist()), consensus=consensus,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("replay")
    clean.ledger.write(place / "ledger.jsonl")
    again = recreate(votes, read_ledger(place / "ledger.jsonl"))
    assert again.ledger == clean.ledger
    assert identical(again.votes, clean.votes)
    for split in ("train", "heldout"):
        write_parquet(place / "one.parquet", clean.to_table(split))
        write_parquet(place / "two.parquet", again.to_table(split))
        assert (place / "one.parquet").read_bytes() == (place / "two.parquet").read_bytes()
    assert identical(clean.heldout, votes.heldout)


def test_train_parquet_reads_back_with_its_weights(votes, suspicion, tmp_path):
    clean = curate(votes, suspicion, np.random.default_rng(3).random(len(votes)), flip_above=0.9)
    write_parquet(tmp_path / "train.parquet", clean.to_table())
    back = cupel.read(tmp_path / "train.parquet")
    assert np.array_equal(back.w, clean.train.w)
    assert np.array_equal(back.p, clean.train.p)
    assert np.array_equal(back.outcome, clean.train.outcome)


def test_ledger_is_append_only(votes, suspicion, tmp_path):
    path = tmp_path / "ledger.jsonl"
    known = np.random.default_rng(3).random(len(votes))
    first = curate(votes, suspicion, known)
    assert append(path, first.ledger) == len(first.ledger)
    before = path.read_bytes()
    second = curate(votes, suspicion, known, flip_above=0.9, previous=read_ledger(path))
    added = append(path, second.ledger)
    assert added > 0
    assert path.read_bytes().startswith(before)
    assert identical(replay(votes, read_ledger(path)), curate(votes, suspicion, known, flip_above=0.9).votes)
    third = curate(votes, suspicion, can_see=False, previous=read_ledger(path))
    assert {e.action for e in third.ledger.entries[len(second.ledger) :]} == {"restore"}
    assert identical(third.votes, votes)
    with pytest.raises(InputError, match="do not continue"):
        append(path, first.ledger)
    with open(path, "ab") as stream:
        stream.write(b'{"half a li')
    assert append(path, second.ledger) == 0
    assert read_ledger(path) == second.ledger


def test_replay_refuses_what_does_not_fit(votes, suspicion, tmp_path):
    clean = curate(votes, suspicion)
    with pytest.raises(InputError, match="other votes"):
        replay(votes.with_(outcome=1 - votes.outcome), clean.ledger)
    clean.ledger.write(tmp_path / "l.jsonl")
    lines = (tmp_path / "l.jsonl").read_text().splitlines()
    (tmp_path / "l.jsonl").write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(InputError, match="line 2"):
        read_ledger(tmp_path / "l.jsonl")
    (tmp_path / "l.jsonl").write_text("\n".join([lines[0], lines[1].replace('"w": 1.0', '"w": 2.0'), *lines[2:]]))
    with pytest.raises(InputError, match="not what the entry says"):
        replay(votes, read_ledger(tmp_path / "l.jsonl"))


def test_trl_rows_are_hard_and_say_so(votes, suspicion):
    clean = curate(votes, suspicion)
    table = clean.to_trl()
    assert table.num_rows == len(clean.train)
    assert {"chosen", "rejected"} <= set(table.column_names)
    assert clean.losses[0].startswith("TRL ignores weights")
    assert sum("weight" in loss for loss in clean.losses) == 1
    untouched = curate(votes, suspicion, can_see=False)
    assert not any("weight" in loss for loss in untouched.losses)
