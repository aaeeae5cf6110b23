import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.encode.scan import Lexicon, Scan, hash_of
from cupel.encode.surface import SURFACE, facts_slow, surface


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


# ---- the fast path against its twin ---------------------------------------------------------------------------------------------------

PIECES = (
    "a", "b", "I", "i", "am", "can", "not", "cannot", "sorry", "as an ai", "don't", "rock'n'roll", "x’y", "thier", "HTTP://x", "tttt",
    "ZZZ", "_", "abc_def", "x.y.z", ".", "...", "?!", ";", ",", "  ", " ", " i ", "\n", "\n\n- ", "\n • ", "\n12) ", "\n# h", "\r\n", "\t",
    "**b**", "```", "“", "”", "«", "—", "–", "é", "É", "中文", "。", "\u3000", "\x1c", "\x00", "İ", "ΑΣ", "\u212a", "Ⓐ", "\ud800", "9",
    "1234567", "(", "]", "ǅ", "Ж", "ж", "\u0663) ", "\n1\u0663. ", "1234) ", "😀", "𝐀", "«Œ",
    "\n   # ", "\n    # ", "\n ## x\n####### y\n", "* ", "***",
    "i can't ", "I'm not able", "x'i am sorry ", "i’m sorry", "_brr", "brr_", "brr", "strengths",
    "NASA", "_NASA", "ÉNASA", "aaa_bbb", "'", "'s'",
)  # fmt: skip


def assert_twins(texts):
    slow = np.array([facts_slow(text) for text in texts], dtype=np.float32).reshape(len(texts), len(SURFACE))
    fast = surface(texts)
    far = np.argwhere(np.abs(fast - slow) > 1e-6 * (1 + np.abs(slow)))
    assert not len(far), [(SURFACE[k], texts[row], float(fast[row, k]), float(slow[row, k])) for row, k in far[:3]]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=5))
def test_the_facts_of_many_texts_equal_those_of_one_at_a_time(texts):
    assert_twins(texts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_the_same_for_any_characters(texts):
    assert_twins(texts)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), min_size=1, max_size=4), st.integers(1, 12))
def test_the_same_where_texts_are_cut(texts, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cupel.encode.surface.MAX_CHARACTERS", most)
        assert_twins(texts)


@pytest.mark.parametrize("tail", ["", "\u4e2d", "😀 end"])
def test_the_same_beyond_the_cap(tail):
    assert_twins([f"Some words, and a stop. {tail}\n- an item " * 900, "", f"i cannot {tail}"])


def test_an_arrow_array_has_the_facts_of_its_texts():
    texts = ["One, two.", "", "né – 中文 «x» 😀", "\x00 null", "İ stands alone", *(f"{'é' * (i % 2)}word {i}" for i in range(30))]
    array = pa.array(["before", *texts], pa.large_string()).slice(1)
    assert surface(array).tobytes() == surface(texts).tobytes() == surface(pa.array(texts)).tobytes()


def test_the_same_over_the_borders_of_chunks(monkeypatch):
    texts = [f"{'word ' * (i % 7)}Number {i}. i can't! {'- x' if i % 3 else ''}" for i in range(60)]
    whole = surface(texts)
    monkeypatch.setattr("cupel.encode.surface.CHUNK", 50)
    assert surface(texts).tobytes() == whole.tobytes()
    assert_twins(texts)


def test_a_lexicon_finds_its_words_and_no_others():
    words = [f"word{i}" for i in range(200)]
    lexicon = Lexicon([words[:150], words[100:]])
    found, kind = lexicon(hash_of([*words, "word", "zebra"]))
    assert found.tolist() == list(range(200))
    assert lexicon.member[kind].tolist() == [[1, 0]] * 100 + [[1, 1]] * 50 + [[0, 1]] * 50


@pytest.mark.parametrize("more", ["", "\u4e2d"])
def test_equal_words_have_equal_hashes_wherever_they_stand(more):
    scan = Scan(pa.array(["The cat", f"{more} a CAT the"], pa.large_string()))
    stop = [3, 7, *(len(more) + 8 + k for k in (2, 6, 10))]
    size = np.array([3, 3, 1, 3, 3])
    hashes = scan.hashes(np.array(stop) - size, np.array(stop))
    assert hashes[0] == hashes[4] != hashes[1] == hashes[3]
    assert hashes.tolist() == hash_of(["the", "cat", "a", "cat", "the"]).tolist()
