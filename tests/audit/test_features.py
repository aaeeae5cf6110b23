import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.audit.features import CLIP, side_features
from cupel.audit.surface import SURFACE, surface
from cupel.errors import InputError


def column(facts, name):
    return facts[:, SURFACE.index(name)]


def test_surface_counts_what_its_names_say():
    facts = surface(["One two three.", "- a\n- b\n- c", "I'm sorry, I can't do that.", "u r wrong", "", "HELLO there 99!"])
    assert column(facts, "log_characters")[0] == pytest.approx(np.log1p(len("One two three.")))
    assert column(facts, "list_items")[1] == 3
    assert column(facts, "refusal").tolist() == [0, 0, 1, 0, 0, 0]
    assert column(facts, "chat_spelling")[3] == pytest.approx(2 / 3)
    assert column(facts, "has_text").tolist() == [1, 1, 1, 1, 0, 1]
    assert column(facts, "upper_words")[5] == pytest.approx(1 / 3)
    assert column(facts, "digits")[5] == pytest.approx(2 / 15)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=4))
def test_surface_is_finite_for_any_text(texts):
    facts = surface(texts)
    assert facts.shape == (len(texts), len(SURFACE))
    assert np.isfinite(facts).all()


def test_a_ten_megabyte_field_costs_little_and_keeps_its_length():
    facts = surface(["word " * 2_000_000])
    assert column(facts, "log_characters")[0] == pytest.approx(np.log1p(10_000_000), rel=1e-5)
    assert column(facts, "log_words")[0] == pytest.approx(np.log(2_000_000), rel=1e-3)


def test_rows_are_gathered_from_unique_sides(world):
    w = world()
    f = w.features
    assert len(f.table) == len(np.unique(np.stack(w.votes.node))) < len(w.votes)
    assert f.first.dtype == np.float32
    lengths = np.array([len(text) for text in w.votes.response_texts()])
    assert np.array_equal(f.length_first, lengths[w.votes.first])
    assert np.array_equal(f.length_second, lengths[w.votes.second])
    same = w.votes.first == w.votes.first[0]
    assert (f.first[same] == f.first[0]).all()
    surface_block = f.table[:, w.vectors.shape[1] :]
    assert np.abs(surface_block).max() <= CLIP
    assert len(f.names) == f.table.shape[1]


def test_labels_do_not_enter(world):
    w = world()
    flipped = w.votes.with_(outcome=1 - w.votes.outcome)
    assert np.array_equal(w.features.table, side_features(flipped, w.prompt_vectors, w.vectors).table)


def test_a_part_is_the_same_as_the_whole_at_those_rows(world):
    f = world().features
    rows = np.array([5, 3, 8])
    assert np.array_equal(f.take(rows).second, f.second[rows])


def test_without_an_encoder_the_surface_is_left(world):
    w = world()
    f = side_features(w.votes, np.zeros((30, 0)), np.zeros((len(w.vectors), 0)))
    assert f.table.shape[1] == len(SURFACE) + 1


def test_vectors_that_do_not_fit_are_refused(world):
    w = world()
    with pytest.raises(InputError, match="240 responses need 240 vectors"):
        side_features(w.votes, w.prompt_vectors, w.vectors[:-1])
    broken = w.vectors.copy()
    broken[7, 0] = np.nan
    with pytest.raises(InputError, match=r"1 of 240 response vectors are not finite \(first: response 7\)"):
        side_features(w.votes, w.prompt_vectors, broken)
