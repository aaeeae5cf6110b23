"""Numeric columns of both sides: where they are found, in which order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupel.errors import InputError
from cupel.records import read
from cupel.records.features import feature_columns

PAIR = {"prompt": "q", "chosen": "x", "rejected": "y"}
HELPSTEER = Path(__file__).parents[1] / "fixtures" / "records" / "helpsteer.jsonl"


def of(rows, **more):
    return feature_columns(read(rows, heldout=0), **more)


def test_attributes_of_helpsteer_survive_and_keep_their_sides():
    votes = read(str(HELPSTEER), heldout=0)
    found = feature_columns(votes, ["helpfulness", "verbosity"], low=0, high=4)
    assert found.values.tolist() == [[4, 1], [3, 1], [2, 0], [3, 0]]
    texts = votes.response_texts()
    assert [texts[k] for k in votes.first] == ["Cool and dark, apart from potatoes.", "A small theorem used for a larger one."]
    assert feature_columns(votes).names == ("coherence", "complexity", "correctness", "helpfulness", "verbosity")


def test_objects_in_json():
    nested = {**PAIR, "extra": json.dumps({"scores_chosen": {"a": 1, "b": 2.5}, "scores_rejected": {"a": 3, "b": 4}, "n": 7})}
    flat = {**PAIR, "prompt": "r", "extra": json.dumps({"a_chosen": 5, "a_rejected": 6, "b_chosen": 7, "b_rejected": 8})}
    found = of([nested, flat])
    assert found.names == ("a", "b")
    assert found.values.tolist() == [[1, 2.5], [5, 7], [3, 4], [6, 8]]
    assert (found.first.tolist(), found.second.tolist()) == ([0, 1], [2, 3])
    assert of([nested, flat], names=["b"]).values.tolist() == [[2.5], [7], [4], [8]]


def test_votes_for_the_second_side():
    """The columns belong to the sides, whoever won."""
    rows = [{"prompt": "q", "response_a": "x", "response_b": "y", "vote": vote, "len_a": 3, "len_b": 9} for vote in ("a", "b")]
    assert of(rows).values.tolist() == [[3], [3], [9], [9]]
    chosen = [{"prompt": "q", "response_a": "x", "response_b": "y", "vote": "b", "len_chosen": 3, "len_rejected": 9}]
    with pytest.raises(InputError, match="no numeric column of both sides"):
        of(chosen)


def test_missing_values_name_the_record_or_are_filled_in_and_counted():
    rows = [{**PAIR, "id": "one", "f_a": 1.0, "f_b": 2.0}, {**PAIR, "id": "two", "prompt": "r", "f_a": None, "f_b": 3.0}]
    with pytest.raises(InputError, match=r"1 of 4 values of f are missing or no number \(first: record two\)"):
        of(rows)
    found = of(rows, impute=True)
    assert found.values[:, 0].tolist() == [1, 2, 2, 3]
    assert found.imputed == (1,)
    assert of([{**PAIR, "extra": '{"g_a": 1, "g_b": 2}'}, {**PAIR, "prompt": "r", "extra": '{"g_a": 1}'}], impute=True).imputed == (1,)


def test_refusals():
    rows = [{**PAIR, "id": "one", "f_a": 1.0, "f_b": 7.0}]
    with pytest.raises(InputError, match=r"1 of 2 values of f are outside \[0, 5\] \(first: record one, 7\)"):
        of(rows, low=0, high=5)
    with pytest.raises(InputError, match="did you mean fluency"):
        of([{**PAIR, "fluency_a": 1, "fluency_b": 2}], names=["fluancy"])
    with pytest.raises(InputError, match="there are f"):
        of(rows, names=["zzz"])
    with pytest.raises(InputError, match="no numeric column"):
        of([PAIR])
    with pytest.raises(InputError, match="without the columns"):
        feature_columns(read([PAIR], heldout=0).with_(source=None))
