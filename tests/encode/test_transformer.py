"""The transformers backend on a tiny random BERT with a toy tokenizer: known sums, no download."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cupel.encode import encode_cached, load_encoder
from cupel.encode.transformer import TransformerEncoder
from cupel.errors import EncoderError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "dog", "runs", "fast", "school", "uniform", "tax", "is", "due", "##s", "a"]
TEXTS = ["the dog runs", "a dog", "the school uniform is due", "tax " * 40, "", "the dog runs fast " * 3, "uniforms"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(where)
    (where / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizer(vocab=str(where / "vocab.txt")).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder)


def copy_of(folder, target, **files):
    import shutil

    shutil.copytree(folder, target)
    for name, content in files.items():
        path = target / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))
    return target


def test_one_text_by_hand(encoder, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model(**tokenizer("the dog runs", return_tensors="pt")).last_hidden_state[0].numpy()
    mean = hidden.mean(axis=0)
    assert isinstance(encoder, TransformerEncoder)
    assert np.allclose(encoder.encode(["the dog runs"])[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert encoder.dim == 16


def test_vectors_do_not_depend_on_the_batch(encoder, monkeypatch):
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    monkeypatch.setattr("cupel.encode.transformer._TOKENS_PER_BATCH", 12)
    assert np.abs(together - encoder.encode(TEXTS)).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_vectors_do_not_depend_on_the_padding_side(encoder, folder, tmp_path):
    where = copy_of(folder, tmp_path / "left")
    settings = json.loads((where / "tokenizer_config.json").read_text())
    (where / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    left = load_encoder(where)
    assert left._tokenizer.padding_side == "left"
    assert np.abs(left.encode(TEXTS) - encoder.encode(TEXTS)).max() < 1e-5


def test_window_cuts_the_vector_but_not_the_count(encoder, folder, tmp_path):
    assert encoder.window == 32
    assert encoder.token_counts(TEXTS).tolist() == [3, 2, 5, 40, 0, 12, 2]
    a, b = encoder.encode(["tax " * 40, "tax " * 40 + "dog"])
    assert np.allclose(a, b, atol=1e-6)
    short = load_encoder(copy_of(folder, tmp_path / "short", sentence_bert_config={"max_seq_length": 4}))
    assert short.window == 4
    c, d = short.encode(["the dog", "the dog runs"])
    assert np.allclose(c, d, atol=1e-6)
    assert short.hash != encoder.hash


def test_pooling_is_read_or_refused(folder, tmp_path):
    cls = load_encoder(
        copy_of(folder, tmp_path / "cls", **{"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}})
    )
    assert cls.pooling == "cls"
    with pytest.raises(EncoderError, match="pools by max_tokens"):
        load_encoder(copy_of(folder, tmp_path / "max", **{"1_Pooling__config": {"pooling_mode_max_tokens": True}}))
    with pytest.raises(EncoderError, match="Dense module"):
        load_encoder(copy_of(folder, tmp_path / "dense", modules=[{"type": "sentence_transformers.models.Dense"}]))


def test_cached_and_resumable(encoder, tmp_path):
    first = encode_cached(encoder, TEXTS, tmp_path)
    assert np.abs(first - encoder.encode(TEXTS)).max() < 1e-5
    assert encode_cached(encoder, TEXTS, tmp_path).tobytes() == first.tobytes()


def test_faults_are_encoder_errors(encoder, folder, tmp_path):
    with pytest.raises(EncoderError, match="lone surrogates"):
        encoder.encode(["\ud800"])
    with pytest.raises(EncoderError, match="nodevice"):
        load_encoder(folder, device="nodevice")
    broken = copy_of(folder, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="cannot be loaded by transformers"):
        load_encoder(broken)
    assert encoder.encode([]).shape == (0, 16)


def test_progress(encoder):
    seen = []
    encoder.encode(TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TEXTS), len(TEXTS))
