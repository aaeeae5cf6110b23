"""Votes and TRL tables into each other: nothing is lost without being said."""

import numpy as np
import pyarrow as pa
import pytest

from cupel.errors import InputError
from cupel.records import read
from cupel.records.convert import to_rows
from cupel.records.corrupt import flip

FLAT = pa.table(
    {
        "note": pa.array([1, 2, None], pa.int32()),
        "rejected": pa.array(["y0", "y1", "y2"], pa.string()),
        "prompt": pa.array(["p0", None, "p2"], pa.string()),
        "chosen": pa.array(["x0", "x1", "x2"], pa.string()),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "chosen_model": pa.array(["m", "n", None], pa.string()),
        "rejected_model": pa.array(["n", "m", None], pa.string()),
        "score": pa.array([0.5, float("nan"), 1.0], pa.float32()),
    }
)


def test_a_flat_trl_table_comes_out_as_it_went_in():
    table, losses = to_rows(read(FLAT), "trl")
    assert table.schema.equals(FLAT.schema)
    assert table.drop_columns("score").equals(FLAT.drop_columns("score"))
    np.testing.assert_array_equal(table["score"].to_numpy(), FLAT["score"].to_numpy())
    assert losses == []


def test_turned_votes_exchange_sides_and_models_and_nothing_else():
    table, losses = to_rows(flip(read(FLAT), np.array([False, True, False])), "trl")
    assert table["chosen"].to_pylist() == ["x0", "y1", "x2"]
    assert table["rejected"].to_pylist() == ["y0", "x1", "y2"]
    assert table["chosen_model"].to_pylist() == ["m", "m", None]
    assert table["rejected_model"].to_pylist() == ["n", "n", None]
    assert table.schema.equals(FLAT.schema)
    assert table["note"].to_pylist() == [1, 2, None]
    assert losses == []


def test_a_conversational_table_keeps_its_lists():
    chosen, rejected = [{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}]
    rows = [{"prompt": [{"role": "user", "content": f"q{i}"}], "chosen": chosen, "rejected": rejected} for i in range(3)]
    votes = read(pa.Table.from_pylist(rows))
    assert to_rows(votes, "trl")[0].to_pylist() == rows
    turned = to_rows(flip(votes, np.array([True, False, False])), "trl")[0].to_pylist()
    assert turned[0] == {"prompt": rows[0]["prompt"], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}


KEYS = ("id", "prompt", "response_a", "response_b", "vote", "annotator", "model_a", "model_b", "gold")
VOTES = [
    dict(zip(KEYS, row, strict=True))
    for row in (
        ("1", "p", "x", "y", "b", "k", "m", "n", "b"),
        ("2", "q", "x", "z", "a", "l", "m", "o", "a"),
        ("3", "q", "x", "z", "tie", "k", "m", "o", "a"),
        ("4", "q", "x", "z", "skip", "k", "m", "o", "a"),
    )
]


def test_votes_to_trl_state_their_losses_and_keep_the_rest():
    table, losses = to_rows(read(VOTES), "trl")
    keys = ("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "id", "annotator", "gold")
    assert table.to_pylist()[0] == dict(zip(keys, ("p", "y", "x", "n", "m", "1", "k", "b"), strict=True))
    assert table.num_rows == 2
    assert losses[0] == "2 of 4 votes express no preference (1 tie, 1 skip); a TRL table cannot hold them"
    assert "position" in losses[1]
    back = read(table)
    assert (back.source_format, back.ids.to_pylist(), back.annotators) == ("trl", ["1", "2"], ("k", "l"))


def test_votes_to_votes_is_exact():
    votes = read(VOTES)
    table, losses = to_rows(votes, "votes")
    assert losses == []
    assert table.select(list(VOTES[0])).to_pylist() == VOTES
    again = read(table)
    for name in ("prompt", "first", "second", "outcome", "annotator", "model_first", "model_second", "p", "w", "split"):
        np.testing.assert_array_equal(getattr(again, name), getattr(votes, name))


def test_trl_to_votes_and_back_keeps_every_preference():
    votes = read(FLAT)
    table, losses = to_rows(votes, "votes")
    assert set(table["vote"].to_pylist()) == {"a"}
    assert "position says nothing" in losses[0]
    back = to_rows(read(table), "trl")[0]
    for name in ("chosen", "rejected", "note", "tags", "chosen_model"):
        assert back[name].to_pylist() == FLAT[name].to_pylist()


def test_weights_and_probabilities_are_said_to_be_lost():
    votes = read(FLAT)
    changed = votes.with_(w=np.array([1.0, 0.5, 0.0]), p=np.array([1.0, 0.8, 1.0]))
    losses = to_rows(changed, "trl")[1]
    assert "weights of 2 rows" in losses[0]
    assert "probabilities of 1 rows" in losses[1]


def test_refusals():
    with pytest.raises(InputError, match=r"cannot convert to 'ktoo'. Did you mean 'kto'"):
        to_rows(read(FLAT), "ktoo")
    with pytest.raises(InputError, match=r"no row is left.*2 of 2 votes express no preference"):
        to_rows(read(VOTES[2:], max_bad=0), "trl")
