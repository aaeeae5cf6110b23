"""What a killed process left behind is removed by the next one; what lives, what is not ours and what is in doubt stays."""

import gc
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from cupel.records.stream import read_stream, scratch

LEAVES = """
    import sys, time
    from cupel.records.stream import read_stream
    votes = read_stream(sys.argv[1])
    print(votes.spool.path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "chosen": "x", "rejected": "y"}\n')
    return tmp_path


def test_a_killed_process_is_cleaned_up_after_and_a_living_one_is_not(place):
    command = [sys.executable, "-c", textwrap.dedent(LEAVES), str(place / "rows.jsonl")]
    environment = {**os.environ, "TMPDIR": str(place / "tmp")}
    left = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        left.append(process.stdout.readline().strip())
        living = read_stream(place / "rows.jsonl")
        assert os.path.isdir(left[0])
        process.send_signal(signal.SIGKILL)
    other = read_stream(place / "rows.jsonl")
    assert not os.path.isdir(left[0])
    assert living.response_texts() == other.response_texts() == ["x", "y"]
    assert {path.name for path in (place / "tmp").iterdir()} == {living.spool.path.name, other.spool.path.name}
    del living, other
    gc.collect()
    assert not list((place / "tmp").iterdir())


def test_what_is_in_doubt_stays(place, monkeypatch):
    tmp = place / "tmp"
    (tmp / "cupel-spool-young").mkdir()  # its owner may be about to be written
    (tmp / "cupel-spool-far").mkdir()
    (tmp / "cupel-spool-far" / scratch.OWNER).write_text("another machine that shares this disk")
    (tmp / "somebody-else").mkdir()
    (tmp / "somebody-else" / scratch.OWNER).write_text(scratch.platform.node())
    (tmp / "target").mkdir()
    (tmp / "target" / scratch.OWNER).write_text(scratch.platform.node())
    (tmp / "cupel-spool-link").symlink_to(tmp / "target")
    (tmp / "cupel-spool-theirs").mkdir()
    (tmp / "cupel-spool-theirs" / scratch.OWNER).write_text(scratch.platform.node())
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: 12345)
        assert scratch.sweep(tmp) == []
    assert scratch.sweep(tmp) == [tmp / "cupel-spool-theirs"]
    assert len(list(tmp.iterdir())) == 5


def test_a_block_cleans_up_also_when_it_fails(place):
    block = scratch.scratch(place)
    folder = block.__enter__()
    (folder / "big").write_text("x")
    assert not block.__exit__(ValueError, ValueError("no"), None)
    assert not folder.exists()
    assert folder not in scratch._held
