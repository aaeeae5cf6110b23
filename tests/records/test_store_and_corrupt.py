"""Stored votes are the same votes; planted errors are where the mask says and nowhere else."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from cupel.errors import InputError, RecordError
from cupel.records import read
from cupel.records.corrupt import corrupt_annotators, flip, flip_length_biased, flip_symmetric, gold, one_vote_per_pair
from cupel.records.files import sha256_file
from cupel.records.schema import A, B
from cupel.records.store import load, save


def _votes(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {
            "prompt": f"p{i % 50}",
            "response_a": "x" * int(rng.integers(1, 30)) + f" {i}",
            "response_b": "y" * int(rng.integers(1, 30)) + f" {i}",
            "vote": ["a", "b", "tie", "skip", "both_bad"][rng.choice(5, p=[0.4, 0.4, 0.1, 0.05, 0.05])],
            "annotator": f"k{rng.integers(9)}",
            "gold": "a",
            "deep": {"list": [1, None], "text": "t"},
        }
        for i in range(n)
    ]
    rows.append({**rows[0], "response_a": ""})
    return read(rows, max_bad=0.2)


def test_stored_votes_come_back_exactly(tmp_path):
    votes = _votes().with_(strength=np.where(np.arange(2000) % 2, np.nan, 0.5))
    save(votes, tmp_path / "one")
    back = load(tmp_path / "one")
    for field in dataclasses.fields(votes):
        one, two = getattr(votes, field.name), getattr(back, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
        elif isinstance(one, pa.Array | pa.Table):
            assert one.equals(two)
            kinds = [x.schema if isinstance(x, pa.Table) else x.type for x in (one, two)]
            assert str(kinds[0]) == str(kinds[1])
        else:
            assert one == two, field.name
    save(back, tmp_path / "two")
    assert sha256_file(tmp_path / "one") == sha256_file(tmp_path / "two")


def test_parts_and_empty_parts_are_stored_too(tmp_path):
    votes = _votes(300)
    for rows in (votes.heldout, votes.take(np.zeros(0, dtype=np.int64)), votes.with_(source=None)):
        save(rows, tmp_path)
        back = load(tmp_path)
        assert back.ids.equals(rows.ids)
        assert (back.source is None) == (rows.source is None)


def test_a_store_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"5 of 5 files are missing \(first: comparisons.parquet\)"):
        load(tmp_path)
    save(_votes(20), tmp_path)
    (tmp_path / "prompts.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RecordError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_symmetric_flips(rate):
    votes = _votes()
    bad, mask = flip_symmetric(votes, rate, seed=1)
    decided = votes.sign != 0
    assert not mask[~decided].any()
    assert abs(mask[decided].mean() - rate) < 0.04
    np.testing.assert_array_equal(bad.sign, np.where(mask, -votes.sign, votes.sign))
    np.testing.assert_array_equal(bad.p, np.where(mask, 1 - votes.p, votes.p))
    np.testing.assert_array_equal(bad.w, votes.w)
    np.testing.assert_array_equal(flip(bad, mask).outcome, votes.outcome)
    np.testing.assert_array_equal(flip_symmetric(votes, rate, seed=1)[1], mask)


def test_length_biased_flips_go_to_the_longer_side_only():
    votes = _votes()
    size = np.array([len(text) for text in votes.response_texts()])
    bad, mask = flip_length_biased(votes, 0.2, seed=2)
    decided = votes.sign != 0
    assert mask.sum() == round(0.2 * decided.sum())
    winner = np.where(bad.outcome == A, bad.first, bad.second)[mask]
    loser = np.where(bad.outcome == A, bad.second, bad.first)[mask]
    assert (size[winner] > size[loser]).all()
    everything = flip_length_biased(votes, 1.0, seed=2)[0]
    left = np.sign(size[everything.first] - size[everything.second])
    assert ((everything.sign * left)[decided] >= 0).all()


def test_bad_annotators_are_bad_and_the_rest_are_not():
    votes = _votes(6000)
    bad, mask = corrupt_annotators(votes, 20, random=0.25, adversarial=0.3, seed=3)
    planted = bad.meta["planted_annotators"]
    assert (len(planted["random"]), len(planted["adversarial"])) == (5, 6)
    decided = votes.sign != 0
    for code, name in enumerate(bad.annotators):
        rate = mask[decided & (bad.annotator == code)].mean()
        if name in planted["adversarial"]:
            assert rate == 1
        elif name in planted["random"]:
            assert abs(rate - 0.5) < 0.15
        else:
            assert rate == 0
    np.testing.assert_array_equal(bad.sign, np.where(mask, -votes.sign, votes.sign))
    counts = np.bincount(bad.annotator, minlength=20)
    assert counts.min() > 200


def test_one_vote_per_pair_takes_one_decided_vote_of_each():
    rows = [
        {"prompt": f"p{i % 40}", "response_a": "x", "response_b": "y", "vote": ["a", "b", "tie"][i % 3], "gold": "b"} for i in range(600)
    ]
    rows = [{**row, "response_a": row["response_b"], "response_b": row["response_a"]} if i % 2 else row for i, row in enumerate(rows)]
    votes = read(rows)
    one = one_vote_per_pair(votes, seed=0)
    assert len(one) == len(set(one.prompt.tolist())) == 40
    assert set(np.unique(one.outcome)) <= {A, B}
    assert one_vote_per_pair(votes, seed=0).ids.equals(one.ids)
    assert not one_vote_per_pair(votes, seed=1).ids.equals(one.ids)
    assert (gold(one) == -1).all()
    assert len(gold(one)) == len(one)


def test_rates_outside_the_unit_interval_are_refused():
    votes = _votes(10)
    for call in (
        lambda: flip_symmetric(votes, 1.1, 0),
        lambda: flip_length_biased(votes, -0.1, 0),
        lambda: corrupt_annotators(votes, 10, random=0.7, adversarial=0.7),
    ):
        with pytest.raises(InputError):
            call()
