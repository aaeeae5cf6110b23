"""Votes written part by part, in every format: the rows, the types and the stated losses of writing them at once."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from cupel.errors import InputError
from cupel.records import read
from cupel.records.convert import TARGETS, to_rows
from cupel.records.exports import json_rows
from cupel.records.files import to_json
from cupel.records.formats import importers
from cupel.records.stream import convert_stream

HERE = Path(__file__).parents[1] / "fixtures" / "records"


def says(role, content, **more):
    return {"role": role, "content": content, **more}


def late(n=40):
    """Chats in which what makes a column or a type comes late: system prompts, tool calls, fractions, empty objects, strengths."""
    rows = []
    for i in range(n):
        ask = [says("user", f"question {i % 9}")]
        if i > 30:
            ask = [says("system", "be brief"), *ask]
        call = {"id": f"c{i}", "function": {"name": "f", "arguments": {"x": i if i < 20 else i / 2}}}
        answer = says("assistant", None, tool_calls=[call]) if i % 4 == 3 else says("assistant", f"x{i % 11}")
        if i == 33:
            answer = says("assistant", "x", note={})
        vote = "tie" if i in (3, 4, 36) else "model_a" if i % 3 else "model_b"
        rows.append({"conversation_a": [*ask, answer], "conversation_b": [*ask, says("assistant", f"x{(i + 1) % 11}", name="n")],
                     "winner": vote, "model_a": f"m{i % 3}", "model_b": "k", "judge": f"j{i % 2}",
                     "strength": None if i < 25 else 2.0})  # fmt: skip
    return rows


def plain(n=40):
    """Plain texts; the first prompts are empty, one response late is a conversation, and pairs win and lose across parts."""
    rows = []
    for i in range(n):
        chosen = json.dumps([says("assistant", "said")]) if i == 35 else f"x{i % 7}"
        rows.append({"prompt": "" if i < 15 else f"p{i % 2}", "chosen": chosen, "rejected": f"x{(i + 1 + i % 3) % 7}", "extra": i / 2})
    return rows


CASES = {"late": late(), "plain": plain(), "no prompts": [{**row, "prompt": ""} for row in plain()],
         "shapes": [{"prompt": [says("user", "q")], "chosen": [says("assistant", "x" if i < 30 else [{"type": "text", "text": "x"}])],
                     "rejected": [says("assistant", f"y{i}")], "score": i} for i in range(40)],
         "large numbers": [{"prompt": "q", "chosen": json.dumps([says("assistant", "x", n=2**53 + 1 if i < 30 else 0.5)]),
                            "rejected": f"y{i}"} for i in range(40)]}  # fmt: skip


def agree(votes, folder, to, rows):
    """Write in parts and compare with the whole."""
    try:
        table, losses = to_rows(votes, to)
    except InputError as refused:
        with pytest.raises(InputError, match=f"^{re.escape(str(refused))}$"):
            convert_stream(votes, folder / "out.jsonl", to, rows=rows)
        assert not list(folder.iterdir())
        return
    for ending in ("parquet", "jsonl", "json")[: 3 if rows > 1 else 1]:
        assert convert_stream(votes, folder / f"out.{ending}", to, rows=rows) == (table.num_rows, losses)
    parts = pq.read_table(folder / "out.parquet")
    assert parts.schema.equals(pq.read_table(at_once(table)).schema)
    assert parts.to_pylist() == table.to_pylist()
    if rows > 1:
        assert convert_stream(votes, None, to, rows=rows) == (table.num_rows, losses)
        expected = json_rows(table, to)
        assert (folder / "out.jsonl").read_text("utf-8") == "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in expected)
        assert (folder / "out.json").read_text("utf-8") == to_json(expected)
    for path in folder.iterdir():
        path.unlink()


def at_once(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    buffer.seek(0)
    return buffer


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_what_depends_on_all_rows_is_the_same_in_parts(tmp_path, case, to):
    votes = read(CASES[case], heldout=0)
    if votes.order_known:
        votes = votes.with_(w=np.where(np.arange(len(votes)) == 38, 0.5, votes.w), p=np.where(np.arange(len(votes)) == 1, 0.7, votes.p))
    agree(votes, tmp_path, to, 7)
    agree(votes.take(np.arange(len(votes))[::-1]), tmp_path, to, 11)


@pytest.mark.parametrize("to", TARGETS)
def test_every_fixture_is_the_same_in_parts(tmp_path, to):
    for name in importers():
        agree(read(HERE / f"{name}.jsonl", heldout=0), tmp_path, to, 1)


def test_csv_in_parts_has_the_bytes_of_the_whole(tmp_path):
    votes = read(CASES["plain"][:30], heldout=0)
    convert_stream(votes, tmp_path / "parts.csv", "votes", rows=7)
    convert_stream(votes, tmp_path / "whole.csv", "votes")
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert csv.read_csv(tmp_path / "whole.csv").num_rows == 30
