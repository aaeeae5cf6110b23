from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.encode.static_vectors import EMBEDDED, StaticEncoder, load_verified
from cupel.encode.tokens import PieceTokens, flat_ids_slow, splits_at_whitespace
from cupel.errors import EncoderError


@pytest.fixture(scope="module")
def library():
    import model2vec

    return model2vec.StaticModel.from_pretrained(EMBEDDED)


def test_equals_model2vec_within_1e_6(static, library, texts):
    assert library.max_length is None
    assert library.normalize
    ours = static.encode(texts)
    theirs = library.encode(texts, max_length=None)
    assert ours.dtype == np.float32
    assert ours.shape == (len(texts), 256)
    assert np.abs(ours - theirs).max() < 1e-6


def test_vectors_have_length_one_or_zero(static, texts):
    lengths = np.linalg.norm(static.encode(texts), axis=1)
    has_tokens = static.token_counts(texts) > 0
    unknown_only = np.array([text in {"😀 smile 😀"} for text in texts])
    assert np.allclose(lengths[has_tokens & ~unknown_only & (lengths > 0)], 1, atol=1e-5)
    assert (lengths[~has_tokens] == 0).all()
    assert (lengths > 0).sum() > len(texts) - 9


def test_a_vector_depends_on_its_text_alone(static, texts):
    together = static.encode(texts)
    alone = np.concatenate([static.encode([text]) for text in texts])
    backwards = static.encode(texts[::-1])[::-1]
    assert (together == alone).all()
    assert (together == backwards).all()


def test_no_window(static):
    head = "The school day should start later. " * 300  # 2,100 tokens
    assert static.token_counts([head])[0] > 2000
    a, b = static.encode([head, head + "Dolphins swim in the salty ocean. " * 300])
    assert a @ b < 0.95


def test_similar_texts_are_nearer(static):
    a, b, c = static.encode(
        ["Children should wear uniforms at school.", "Pupils ought to wear a school uniform.", "Divide 15 by 3 to get 5."]
    )
    assert a @ b > a @ c + 0.3


def test_folder_is_the_released_one_and_small():
    expected = json.loads((EMBEDDED / "HASHES.json").read_text())
    assert set(expected) == {"config.json", "model.safetensors", "tokenizer.json"}
    load_verified(EMBEDDED, "static")
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 9_000_000


def test_changed_bytes_are_refused(tmp_path):
    folder = tmp_path / "static"
    shutil.copytree(EMBEDDED, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[5_000_000] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(EncoderError, match=r"1 of 3 files .*model\.safetensors.*Install cupel again") as caught:
        load_verified(folder, "static")
    assert caught.value.exit_code == 2
    (folder / "config.json").unlink()
    with pytest.raises(EncoderError, match="incomplete"):
        load_verified(folder, "static")


def test_a_folder_of_the_same_bytes_has_the_same_hash_and_any_change_another(static, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(EMBEDDED, folder)
    assert StaticEncoder(folder, "copy").hash == static.hash
    (folder / "config.json").write_text((EMBEDDED / "config.json").read_text().replace('"normalize": true', '"normalize": false'))
    other = StaticEncoder(folder, "copy")
    assert other.hash != static.hash
    assert not np.allclose(np.linalg.norm(other.encode(["a dog", "two dogs run"]), axis=1), 1)


@pytest.mark.parametrize("bad", ["lone \ud800 surrogate", 7, None])
def test_what_is_not_text_is_named(static, bad):
    with pytest.raises(EncoderError, match=r"1 of 4 texts cannot be encoded \(first: text 2"):
        static.encode(["fine", "très bien", bad, "fine"])
    assert static.encode(["fine"]).any()  # the encoder is usable afterwards


def test_progress_ends_at_the_total(static):
    seen = []
    static.encode(["a b"] * 5000, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5000, 5000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_no_texts(static):
    assert static.encode([]).shape == (0, 256)
    assert static.token_counts([]).shape == (0,)


# ---- the fast tokenisation and its slow twin


@pytest.fixture(scope="module")
def tokenizer(library):
    assert splits_at_whitespace(library.tokenizer)
    return library.tokenizer


def assert_same_ids(pieces, tokenizer, texts):
    fast, slow = pieces.flat_ids(texts), flat_ids_slow(tokenizer, texts)
    assert (fast[1] == slow[1]).all()
    assert (fast[0] == slow[0]).all()


def test_pieces_give_the_tokenizers_ids(tokenizer, texts):
    pieces = PieceTokens(tokenizer)
    assert_same_ids(pieces, tokenizer, texts)
    assert_same_ids(pieces, tokenizer, texts[::-1])  # now from memory


TRICKY = st.text(
    alphabet=st.sampled_from("aB é\u0301\u0345\x0b\x0c\x1c\x85\xa0\u2028\u200b\u3000[]CLSEP日ΣİßﬁĲ\ufffd\x00\n\t.-'#"), max_size=30
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=40) | TRICKY, min_size=1, max_size=5))
def test_pieces_give_the_tokenizers_ids_for_any_text(tokenizer, many):
    assert_same_ids(PieceTokens(tokenizer), tokenizer, many)


def test_a_full_memory_changes_nothing(tokenizer, texts, monkeypatch):
    monkeypatch.setattr("cupel.encode.tokens._MOST_PIECES", 10)
    pieces = PieceTokens(tokenizer)
    for start in range(0, len(texts), 7):
        assert_same_ids(pieces, tokenizer, texts[start : start + 7])


def test_other_tokenizers_are_not_split(tokenizer):
    from tokenizers import Tokenizer, models, pre_tokenizers

    byte_level = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert not splits_at_whitespace(byte_level)
    spaced = Tokenizer.from_str(tokenizer.to_str())
    spaced.add_special_tokens(["[two words]"])
    assert not splits_at_whitespace(spaced)


def test_a_model2vec_folder_with_float_vectors_another_tokenizer_and_a_mapping(tmp_path):
    import model2vec
    from tokenizers import Tokenizer, models, pre_tokenizers

    rng = np.random.default_rng(0)
    vocabulary = {"[UNK]": 0, "the": 1, "dog": 2, "runs": 3, "fast": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = model2vec.StaticModel(
        rng.normal(size=(3, 8)).astype(np.float16), tokenizer, normalize=False, weights=rng.uniform(size=5).astype(np.float32),
        token_mapping=np.array([0, 1, 2, 1, 0]), max_length=512,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "tiny")
    ours = StaticEncoder(tmp_path / "tiny", "tiny")
    texts = ["the dog runs", "nothing known here", "fast fast the unseen dog", ""]
    assert np.abs(ours.encode(texts) - model.encode(texts)).max() < 2e-3  # the library keeps float16 sums
    assert ours.token_counts(texts).tolist() == [3, 3, 5, 0]
    table = model.embedding.astype(np.float32)[model.token_mapping] * model.weights[:, None]
    assert np.allclose(ours.encode(["fast fast the unseen dog"])[0], table[[4, 4, 1, 2]].mean(axis=0), atol=1e-6)
