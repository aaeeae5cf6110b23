"""Votes that lie on disk give the audit, the verdicts and the curated data of votes in memory, and no text table becomes a list."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cupel.audit.run import AuditOptions, run_audit
from cupel.curate import policy
from cupel.records.reading import read
from cupel.records.schema import Votes
from cupel.report.assemble import save_audit, save_curated

WORDS = ("tax", "road", "river", "I", "the", "and", "because", "school", "it's", "of", "Übung", "children.", "2024", "not", "que", "les")


def write_file(path, n=900):
    rng = np.random.default_rng(4)
    responses = [" ".join(rng.choice(WORDS, size=rng.integers(4, 60))) for _ in range(240)]
    prompts = [f"Question {i}: what about {WORDS[i % 16]}?" for i in range(60)]
    chat = json.dumps([{"role": "user", "content": "Hello there"}])
    with open(path, "w", encoding="utf-8") as file:
        for i in range(n):
            group = int(rng.integers(60))
            a, b = rng.choice(4, size=2, replace=False) + 4 * group
            longer = len(responses[a]) > len(responses[b])
            row = {
                "prompt": chat if group == 7 else prompts[group], "response_a": responses[a], "response_b": responses[b],
                "vote": "tie" if i % 40 == 0 else "ab"[int(longer == (rng.random() < 0.15))], "annotator": f"p{rng.integers(9)}",
                "colour": ["red", None, "blue"][i % 3],
            }  # fmt: skip
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streamed")
    write_file(folder / "votes.jsonl")
    at_once = read(folder / "votes.jsonl", stream=False)
    streamed = read(folder / "votes.jsonl", stream=True, spool=folder / "spool")
    return folder, at_once, streamed


def test_streamed_votes_are_audited_and_curated_like_votes_in_memory(both, monkeypatch):
    folder, at_once, streamed = both
    assert streamed.spool is not None
    monkeypatch.setattr(policy, "ROWS", 100)  # tables in several parts
    done = {}
    for name, votes in (("memory", at_once), ("disk", streamed)):
        if name == "disk":  # a list of all texts is what memory must not hold

            def refuse(self):
                raise AssertionError("all texts were made into Python strings")

            monkeypatch.setattr(Votes, "prompt_texts", refuse)
            monkeypatch.setattr(Votes, "response_texts", refuse)
        audit = run_audit(votes, AuditOptions(against=("Question 3: what about I?",)), cache=folder / "cache")
        curated = audit.curate()
        save_audit(audit, folder / name)
        save_curated(curated, folder / name)
        done[name] = (audit, curated)
    for file in ("audit.json", "report.html", "quarantine.jsonl", "ledger.jsonl"):
        assert (folder / "memory" / file).read_bytes() == (folder / "disk" / file).read_bytes(), file
    for file in ("verdicts.parquet", "train.parquet", "heldout.parquet"):
        one, other = (pq.ParquetFile(folder / name / file).read() for name in ("memory", "disk"))
        assert one.equals(other), file
    curated = done["disk"][1]
    assert len(curated.ledger) > 0
    assert curated.to_table("train").equals(pq.ParquetFile(folder / "disk" / "train.parquet").read())
    assert curated.votes.source is None
    assert curated.train.ids.equals(done["memory"][1].train.ids)
    assert np.array_equal(curated.train.w, done["memory"][1].train.w)


def test_tables_in_parts_are_tables_at_once(both, monkeypatch):
    _, votes, _ = both
    suspicion = np.random.default_rng(0).normal(size=len(votes))
    whole = policy.curate(votes, suspicion).to_table("train")
    monkeypatch.setattr(policy, "ROWS", 7)
    parts = policy.curate(votes, suspicion).to_table("train")
    assert whole.equals(parts)
    assert whole.schema == parts.schema
