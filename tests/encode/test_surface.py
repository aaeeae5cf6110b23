import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.encode.surface import SURFACE, surface


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
