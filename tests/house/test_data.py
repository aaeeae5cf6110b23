"""The bundled data is what its README says it is, with licence and notice beside it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
README = (DATA / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<name>[\w.]+)` \| (?P<rows>[\d,]+) \| `(?P<sha>[0-9a-f]{64})` \|$", re.MULTILINE)
STATED = {match["name"]: (int(match["rows"].replace(",", "")), match["sha"]) for match in ROW.finditer(README)}


def test_readme_states_every_file() -> None:
    assert set(STATED) == {path.name for path in DATA.glob("*.parquet")} == {"ukp_votes.parquet", "ukp_single.parquet"}


@pytest.mark.parametrize("name", sorted(STATED))
def test_bytes_and_rows(name: str) -> None:
    rows, sha = STATED[name]
    assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == sha
    assert pq.read_metadata(DATA / name).num_rows == rows
    assert (DATA / name).stat().st_size < 2_500_000


def test_single_votes_are_votes() -> None:
    """Each row of the single-vote file is a vote of the other file, in the orientation of that vote."""
    votes = pq.read_table(DATA / "ukp_votes.parquet")
    single = pq.read_table(DATA / "ukp_single.parquet")
    position = pc.index_in(single["id"], value_set=votes["id"].combine_chunks())
    assert position.null_count == 0
    source = votes.take(position)
    a_wins = pc.equal(source["vote"], "a")
    assert set(source["vote"].to_pylist()) == {"a", "b"}
    assert single["chosen"].to_pylist() == pc.if_else(a_wins, source["response_a"], source["response_b"]).to_pylist()
    assert single["rejected"].to_pylist() == pc.if_else(a_wins, source["response_b"], source["response_a"]).to_pylist()
    assert single["topic"].to_pylist() == source["topic"].to_pylist()
    assert len(source["item_id"].unique()) == len(single), "one vote per pair"


def test_stated_counts() -> None:
    votes, single = pq.read_table(DATA / "ukp_votes.parquet"), pq.read_table(DATA / "ukp_single.parquet")
    assert f"{len(votes['annotator'].unique()):,} of them" in README
    assert f"{len(votes['item_id'].unique()):,} pairs" in README
    assert len(votes["topic"].unique()) == 13
    assert f"{pc.sum(pc.equal(single['consensus'], 'rejected')).as_py():,} of these single votes" in README


def test_licences() -> None:
    assert "CC-BY-4.0" in README
    assert "Habernal" in README
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in notice
    assert "sentence-transformers/all-MiniLM-L6-v2" in notice
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in licence
    assert len(licence) > 10_000


def test_no_weights_package_among_the_requirements() -> None:
    """The package that carries MiniLM's weights declares dependencies of many gigabytes; it is never a requirement of ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    assert not [entry for entry in wanted if "minilm" in entry.lower()]
    assert not [entry for entry in project["dependencies"] if re.match(r"(torch|pandas|polars|transformers)\b", entry)]


def test_constraints_pin_every_requirement() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = {re.split("==", line)[0].lower().replace("_", "-") for line in lines}
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    names = {re.match(r"[\w.-]+", entry)[0].lower().replace("_", "-") for entry in wanted}  # type: ignore[index]
    assert names - pins == {"cupel"}  # an extra may name another
