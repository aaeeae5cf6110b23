"""Files are whole or absent, the same for the same content, and have one writer."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from cupel.errors import InputError
from cupel.records.files import atomic_write, lock, sha256_file, write_json, write_lines, write_parquet


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    place = tmp_path / "deep" / "a.txt"
    with atomic_write(place) as temporary:
        temporary.write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_write(place) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ValueError("stop")
    assert place.read_text() == "old"
    assert [p.name for p in place.parent.iterdir()] == ["a.txt"]
    with pytest.raises(InputError, match="cannot write"), atomic_write(place / "below" / "b.txt"):
        pass


def test_permissions_are_those_of_any_new_file(tmp_path):
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("x")
    (tmp_path / "b").write_text("x")
    assert os.stat(tmp_path / "a").st_mode == os.stat(tmp_path / "b").st_mode


def test_json_is_canonical(tmp_path):
    write_json(tmp_path / "a.json", {"z": np.float64("nan"), "a": np.arange(2), "m": (np.int8(3), {"y", "x"}), "t": "caf\u00e9 \ud800"})
    data = (tmp_path / "a.json").read_bytes()
    assert json.loads(data) == {"a": [0, 1], "m": [3, ["x", "y"]], "t": "caf\u00e9 \ud800", "z": None}
    assert data.endswith(b"}\n")
    assert data.index(b'"a"') < data.index(b'"z"')
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"a": object()})
    assert not (tmp_path / "b.json").exists()


def test_lines_hold_anything_text_can(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"b": "\u2028", "a": math.inf}, {"a": "\ud800"}])
    lines = (tmp_path / "a.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:2]] == [{"b": "\u2028", "a": None}, {"a": "\ud800"}]
    assert lines[2:] == [""]


def test_parquet_has_the_same_bytes_for_the_same_content(tmp_path):
    table = pa.table({"a": list(range(1000)), "b": [str(i % 7) for i in range(1000)]})
    write_parquet(tmp_path / "a.parquet", table)
    write_parquet(tmp_path / "b.parquet", pa.concat_tables([table.slice(0, 300), table.slice(300)]))
    assert sha256_file(tmp_path / "a.parquet") == sha256_file(tmp_path / "b.parquet")


def test_the_hash_of_a_directory_follows_names_and_content(tmp_path):
    (tmp_path / "a").write_text("1")
    one = sha256_file(tmp_path)
    (tmp_path / "b").write_text("1")
    two = sha256_file(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({one, two, sha256_file(tmp_path)}) == 3


def test_one_writer_at_a_time(tmp_path):
    other = (
        "import sys; from cupel.records.files import lock\n"
        "try:\n    with lock(sys.argv[1]): print('got it')\nexcept Exception as e: print(type(e).__name__, e)"
    )

    def attempt():
        return subprocess.run([sys.executable, "-c", other, str(tmp_path)], capture_output=True, text=True, check=True).stdout

    with lock(tmp_path):
        said = attempt()
        assert said.startswith("InputError")
        assert str(os.getpid()) in said
        assert "--out" in said
    assert attempt() == "got it\n"
