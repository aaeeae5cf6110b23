"""One way to write and read the folders of models on frozen vectors; what is wrong with one is said in words."""

import json

import numpy as np
import pytest

from cupel.encode import load_encoder
from cupel.errors import EncoderError, InputError
from cupel.learners.folders import matching_encoder, read_folder, write_folder
from cupel.learners.sides import Scaling

SCALING = Scaling(np.arange(3.0), 2.0, np.arange(4.0), np.ones(4))


def written(place, **more):
    encoder = load_encoder("static")
    given = {"format": "test", "version": 3, "scaling": SCALING, "encoder": (encoder.name, encoder.hash), "familiar": None}
    return write_folder(place, **{**given, "tensors": {"theta": np.ones(2)}, "config": {"info": {"a": 1}}, **more})


def read(place, make=lambda folder: folder, **more):
    return read_folder(place, make, **{"format": "test", "version": 3, "kind": "test model", **more})


@pytest.mark.parametrize("prefix", ["", "scaling."])
def test_what_was_written_is_read(tmp_path, prefix):
    folder = read(written(tmp_path, prefix=prefix), prefix=prefix)
    for name in ("centre", "norm", "mean", "spread"):
        np.testing.assert_array_equal(getattr(folder.scaling, name), getattr(SCALING, name))
    assert folder.tensors["theta"].tolist() == [1, 1]
    assert folder.parts["info"] == {"a": 1}
    assert folder.familiar is None
    assert folder.encoder.hash == load_encoder("static").hash


def test_the_same_contents_give_the_same_bytes(tmp_path):
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_what_is_wrong_is_said(tmp_path):
    place = written(tmp_path)
    with pytest.raises(InputError, match="holds 'test' version 3; this cupel reads test version 4"):
        read(place, version=4)
    with pytest.raises(InputError, match="is not a test model that cupel wrote"):
        read(tmp_path / "nothing")
    for error in (KeyError("theta"), ValueError("x"), RuntimeError("size mismatch"), IndexError("x"), TypeError("x")):

        def make(folder, error=error):
            raise error

        with pytest.raises(InputError, match="is not a test model"):
            read(place, make)

    def own(folder):
        raise InputError("own words")

    with pytest.raises(InputError, match=r"^own words$"):
        read(place, own)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "encoder": {"name": "static", "hash": "0" * 64}}))
    with pytest.raises(EncoderError, match="is now"):
        read(place)
    (place / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="is not a test model"):
        read(place)


def test_an_encoder_that_has_changed_is_refused():
    assert matching_encoder("static", load_encoder("static").hash).name == "static"
    with pytest.raises(EncoderError, match="would mean nothing"):
        matching_encoder("static", "f" * 64)
