"""Near-duplicates are the pairs that a comparison of all texts with all finds, whatever the script, and nothing else."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.records import minhash
from cupel.records.near_duplicates import caught, near_duplicates

WORDS = re.compile(r"[㐀-䶿一-鿿]|[^\W_㐀-䶿一-鿿]+")


def _runs(text, width):
    """Twin of `shingles` on ASCII, Latin letters and Chinese characters: the set of runs as tuples."""
    words = [word.lower() for word in WORDS.findall(text)]
    if not words:
        return set()
    return {tuple(words[i : i + width]) for i in range(max(1, len(words) - width + 1))}


def _slow(texts, width, at_least):
    sets = [_runs(text, width) for text in texts]
    out = {}
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            if sets[i] and sets[j]:
                value = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
                if value >= at_least:
                    out[i, j] = value
    return out


def _texts(seed, n=240, vocabulary=400):
    """Texts of 1 to 80 words, a third of them edits of earlier ones."""
    rng = np.random.default_rng(seed)
    names = [f"word{i}" if i % 3 else f"wört{i}" for i in range(vocabulary)] + ["“", "日", "本"]
    out = []
    for i in range(n):
        if i > 20 and rng.random() < 0.35:
            words = out[rng.integers(len(out))].split(" ")
            for _ in range(rng.integers(0, 3)):
                words[rng.integers(len(words))] = names[rng.integers(len(names))]
        else:
            words = [names[k] for k in rng.integers(len(names), size=rng.integers(1, 80))]
        out.append(" ".join(words))
    return [*out, "", "...", "!"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [1, 3, 5])
def test_pairs_and_similarities_are_those_of_comparing_all_with_all(seed, width):
    texts = _texts(seed)
    want = _slow(texts, width, 0.8)
    found = near_duplicates(pa.array(texts), words=width, seed=seed, every=True)
    got = {tuple(pair): value for pair, value in zip(found.pairs.tolist(), found.similarity.tolist(), strict=True)}
    assert set(got) <= set(want)
    assert len(got) >= len(want) - 1  # banding misses a pair of .8 with probability .0002
    for pair, value in got.items():
        assert value == pytest.approx(want[pair])
    assert found.compared >= len(got)


def test_clusters_are_the_connected_components_of_the_pairs():
    texts = _texts(5)
    every, some = (near_duplicates(pa.array(texts), every=every) for every in (True, False))
    assert every.cluster.tolist() == some.cluster.tolist()
    label = list(range(len(texts)))
    for a, b in every.pairs.tolist():
        old, new = max(label[a], label[b]), min(label[a], label[b])
        label = [new if x == old else x for x in label]
    names = {}
    assert [names.setdefault(x, len(names)) for x in label] == every.cluster.tolist()
    assert some.compared <= every.compared


def test_a_thousand_copies_cost_two_thousand_comparisons():
    copies = [f"the same long text with a number at its end that is the only word to differ {i}" for i in range(1000)]
    found = near_duplicates(pa.array(copies), words=3)
    assert found.cluster.max() == 0
    assert found.compared < 20_000


def test_chunks_spools_and_kinds_of_arrays_change_nothing(tmp_path, monkeypatch):
    texts = _texts(2)
    whole = near_duplicates(pa.array(texts, pa.large_string()))
    monkeypatch.setattr(minhash.chunks, "__defaults__", (500,))
    monkeypatch.setattr("cupel.records.near_duplicates._BYTES", 600)
    sliced = pa.array(["not this one", *texts]).slice(1)
    for other in (sliced, pa.chunked_array([texts[:50], texts[50:]])):
        again = near_duplicates(other, spool=tmp_path)
        assert np.array_equal(whole.cluster, again.cluster)
        assert np.array_equal(whole.pairs, again.pairs)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=8))
def test_word_hashes_do_not_depend_on_the_other_texts(texts):
    array = pa.array(texts, pa.large_string())
    hashes, starts = minhash.words(array)
    for i in range(len(texts)):
        alone, ends = minhash.words(array.slice(i, 1))
        assert alone.tolist() == hashes[starts[i] : starts[i + 1]].tolist()
        assert ends.tolist() == [0, len(alone)]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("Hello, World!", "hello world", True),
        ("ÄRGER", "ärger", True),
        ("a b", "b a", False),
        ("ab", "a b", False),
        ("日本", "日 本", True),
        ("naïve “quoted”", "NAÏVE quoted", True),
        ("a1b", "a1b_", True),
        ("Ελλάδα", "ελλάδα", True),
        ("ДОМ ẤP", "дом ấp", True),
        ("x" * 200, "X" * 200, True),
        ("x" * 200, "x" * 201, False),
        ("abcdefgh", "abcdefg", False),
        ("abcdefghi", "abcdefghj", False),
        ("ab日cd", "ab 日 cd", True),
        ("𠀀x", "𠀀 X", True),
    ],
)
def test_what_counts_as_the_same_words(one, two, same):
    first, second = (minhash.words(pa.array([text], pa.large_string()))[0].tolist() for text in (one, two))
    assert (first == second) is same


def test_signatures_estimate_the_similarity():
    """The share of equal minima is an unbiased estimate: over 400 pairs of similarity 1/2 its mean has a standard error of .0031."""
    rng = np.random.default_rng(0)
    left, right = [], []
    for _ in range(400):
        words = [f"w{k}" for k in rng.choice(10**6, 40, replace=False)]
        left.append(" ".join(words[:30]))
        right.append(" ".join(words[:10] + words[30:] + words[10:20]))  # 20 shared of 40
    signer = minhash.Signer(1, 3)
    one, two = (signer(pa.array(texts, pa.large_string()))[0] for texts in (left, right))
    assert abs((one == two).mean() - 0.5) < 4 * 0.5 / np.sqrt(64 * 400)


def test_refusals_and_the_empty_case():
    with pytest.raises(InputError, match="at_least"):
        near_duplicates(pa.array(["x"]), at_least=0)
    with pytest.raises(InputError, match="words"):
        near_duplicates(pa.array(["x"]), words=0)
    for texts in ([], [""], ["", ""]):
        found = near_duplicates(pa.array(texts, pa.string()))
        assert found.cluster.tolist() == list(range(len(texts)))
        assert found.pairs.shape == (0, 2)
    assert caught(0) == 0
    assert caught(1) == 1
