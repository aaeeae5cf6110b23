from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from cupel.encode.base import Texts
from cupel.encode.cache import cache_bytes, default_cache_dir, encode_cached
from cupel.errors import EncoderError

TEXTS = [f"text number {'abcdefghij'[i % 10]}{i}" for i in range(50)]


def shards(directory, encoder):
    return sorted((directory / encoder.hash).glob("*.safetensors"))


def test_second_run_encodes_nothing_and_gives_the_same_bytes(tmp_path, counting):
    fresh = encode_cached(counting, TEXTS, tmp_path)
    assert len(counting.seen) == 50
    again = encode_cached(counting, TEXTS, tmp_path)
    assert len(counting.seen) == 50
    assert fresh.tobytes() == again.tobytes() == counting.encode(TEXTS).tobytes()
    assert len(shards(tmp_path, counting)) == 7  # 50 texts, 8 to a shard
    assert cache_bytes(tmp_path) == sum(path.stat().st_size for path in shards(tmp_path, counting))


def test_each_distinct_text_is_encoded_once_and_order_is_kept(tmp_path, counting):
    many = [TEXTS[i % 7] for i in range(100)]
    out = encode_cached(counting, many, tmp_path)
    assert sorted(counting.seen) == sorted(TEXTS[:7])
    assert (out == counting.encode(many)).all()


def test_only_new_texts_are_encoded(tmp_path, counting):
    encode_cached(counting, TEXTS[:20], tmp_path)
    counting.seen.clear()
    out = encode_cached(counting, TEXTS[::-1], tmp_path)
    assert sorted(counting.seen) == sorted(TEXTS[20:])
    assert (out == counting.encode(TEXTS[::-1])).all()


def test_an_interrupted_run_resumes_after_its_last_shard(tmp_path, counting):
    class Killed(BaseException):
        pass

    plain = counting.encode

    def failing(texts, progress=None):
        if counting.calls == 3:
            raise Killed
        return plain(texts, progress)

    counting.encode = failing
    with pytest.raises(Killed):
        encode_cached(counting, TEXTS, tmp_path)
    counting.encode = plain
    assert len(shards(tmp_path, counting)) == 3
    counting.seen.clear()
    seen = []
    out = encode_cached(counting, TEXTS, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert counting.seen == TEXTS[24:]
    assert seen[0] == (24, 50)
    assert seen[-1] == (50, 50)
    assert out.tobytes() == plain(TEXTS).tobytes()


@pytest.mark.parametrize("where", [4, 60, 300, -1])  # header length, header, vectors, keys
def test_a_flipped_bit_is_noticed_set_aside_and_repaired(tmp_path, counting, where):
    fresh = encode_cached(counting, TEXTS, tmp_path)
    victim = shards(tmp_path, counting)[0]
    data = bytearray(victim.read_bytes())
    data[where] ^= 4
    victim.write_bytes(data)
    counting.seen.clear()
    messages = []
    again = encode_cached(counting, TEXTS, tmp_path, log=messages.append)
    assert again.tobytes() == fresh.tobytes()
    assert 1 <= len(counting.seen) <= 8
    assert len(messages) == 1
    assert "damaged" in messages[0]
    assert len(list(victim.parent.glob("*.damaged"))) == 1
    counting.seen.clear()
    assert encode_cached(counting, TEXTS, tmp_path, log=messages.append).tobytes() == fresh.tobytes()
    assert not counting.seen
    assert len(messages) == 1


def test_every_single_bit_of_a_small_shard_is_covered(tmp_path, counting):
    fresh = encode_cached(counting, TEXTS[:1], tmp_path)
    (victim,) = shards(tmp_path, counting)
    data = victim.read_bytes()
    for position in range(0, len(data), 3):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        victim.write_bytes(changed)
        assert encode_cached(counting, TEXTS[:1], tmp_path, log=lambda _: None).tobytes() == fresh.tobytes()


def test_a_truncated_shard_and_a_stray_file_are_survived(tmp_path, counting):
    fresh = encode_cached(counting, TEXTS, tmp_path)
    victim = shards(tmp_path, counting)[1]
    victim.write_bytes(victim.read_bytes()[:100])
    (victim.parent / "notes.safetensors").write_bytes(b"")
    messages = []
    assert encode_cached(counting, TEXTS, tmp_path, log=messages.append).tobytes() == fresh.tobytes()
    assert len(messages) == 2


def test_other_encoders_have_other_folders(tmp_path, counting, static):
    encode_cached(counting, TEXTS[:4], tmp_path)
    out = encode_cached(static, TEXTS[:4], tmp_path)
    assert out.tobytes() == static.encode(TEXTS[:4]).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([counting.hash, static.hash])


def test_runs_side_by_side_do_not_disturb_each_other(tmp_path, counting):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encode_cached(counting, TEXTS, tmp_path), range(8)))
    assert len({result.tobytes() for result in results}) == 1
    assert not list(tmp_path.rglob("*.part"))
    counting.seen.clear()
    encode_cached(counting, TEXTS, tmp_path)
    assert not counting.seen


def test_a_killed_process_leaves_whole_shards_and_the_next_run_does_the_rest(tmp_path, static):
    code = f"""
import os, sys
from cupel.encode import encode_cached, load_encoder
encoder = load_encoder("static")
encoder.shard = 4
def progress(done, total):
    if done > 8:
        os._exit(9)
encode_cached(encoder, {TEXTS[:20]!r}, sys.argv[1], progress)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert len(shards(tmp_path, static)) == 2
    seen = []
    out = encode_cached(static, TEXTS[:20], tmp_path, progress=lambda done, total: seen.append(done))
    assert seen[0] == 8
    assert out.tobytes() == static.encode(TEXTS[:20]).tobytes()


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path, counting):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    messages = []
    out = encode_cached(counting, TEXTS, blocked, log=messages.append)
    assert (out == counting.encode(TEXTS)).all()
    assert len(messages) == 1
    assert "cannot be kept" in messages[0]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.delenv("CUPEL_CACHE")
    assert default_cache_dir() == tmp_path / "xdg" / "cupel"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "cupel"
    assert not list(tmp_path.iterdir())
    assert cache_bytes() == 0


def test_default_directory_is_used(monkeypatch, tmp_path, counting):
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path))
    encode_cached(counting, TEXTS)
    assert shards(tmp_path, counting)


def test_bad_text_and_no_text(tmp_path, counting):
    with pytest.raises(EncoderError, match="text 1, lone surrogates"):
        encode_cached(counting, ["a", "\udc00"], tmp_path)
    assert encode_cached(counting, [], tmp_path).shape == (0, 26)
    assert np.array_equal(encode_cached(counting, [""], tmp_path), counting.encode([""]))


def test_arrow_texts_are_looked_up_as_their_strings(counting, tmp_path):
    texts = ["né 中文 a", "", "b", "né 中文 a", "😀 cc"]
    fresh = encode_cached(counting, texts, tmp_path)
    assert len(counting.seen) == 4
    for array in (pa.array(["x", *texts], pa.large_string()).slice(1), pa.array(texts)):
        assert encode_cached(counting, Texts(array), tmp_path).tobytes() == fresh.tobytes()
    assert len(counting.seen) == 4
    rendered = encode_cached(counting, Texts(pa.array(["b", "né"]), lambda text: text + " zz"), tmp_path)
    assert rendered.tobytes() == encode_cached(counting, ["b zz", "né zz"], tmp_path).tobytes()


def test_texts_in_another_order_find_their_own_vectors(counting, tmp_path):
    texts = ["abcdefghijklmnopqrstuvwxyz"[: i % 26] * (1 + i // 26) for i in range(1, 41)]
    fresh = encode_cached(counting, texts, tmp_path)
    chosen = [7, 8, 9, 3, 20, 21, 2, 39, 0]
    assert encode_cached(counting, [texts[i] for i in chosen], tmp_path).tobytes() == fresh[chosen].tobytes()
