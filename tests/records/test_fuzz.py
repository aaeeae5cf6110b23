"""Whatever comes in: rows in = kept + quarantined, and never an error that is not ours."""

import gzip
import json

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cupel.errors import CupelError
from cupel.records import read
from cupel.records.convert import to_rows
from cupel.records.store import load, quarantine_rows, save

texts = st.one_of(st.sampled_from(["x", "y", "", " ", "[", '[{"role":"user","content":"q"}]']), st.text(st.characters(), max_size=12))
messages = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.one_of(texts, st.none(), st.just([]))}
        ),
        st.dictionaries(texts, texts, max_size=2),
        texts,
    ),
    max_size=3,
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values = st.one_of(texts, texts, messages, scalars, st.dictionaries(texts, scalars, max_size=2))
labels = st.one_of(st.sampled_from(["a", "b", "tie", "model_a", 0, 1, 2, "1"]), scalars)
LAYOUTS = [
    ("prompt", "chosen", "rejected"), ("chosen", "rejected"), ("prompt", "response_a", "response_b", "vote"),
    ("conversation_a", "conversation_b", "winner"), ("response_1", "response_2", "label", "id"),
]  # fmt: skip
EXTRA = ("id", "annotator", "group", "p", "w", "strength", "seconds", "model_a", "other", "split", "gold")


@st.composite
def tables(draw):
    layout = draw(st.sampled_from(LAYOUTS))
    names = [*layout, *draw(st.lists(st.sampled_from(EXTRA), max_size=3, unique=True))]
    row = st.fixed_dictionaries({}, optional={name: labels if name in ("vote", "winner", "label") else values for name in names})
    return draw(st.lists(st.one_of(row, row, row, scalars), min_size=1, max_size=12))


def _read(source):
    """The votes, or None where cupel refused with words and the exit code of a user's mistake."""
    said = None
    try:
        return read(source, max_bad=1.0)
    except CupelError as error:
        said = error
    assert str(said).strip()
    assert said.exit_code == 2
    return None


def _check(source, n, tmp_path=None):
    votes = _read(source)
    if votes is None:
        return
    assert len(votes) + len(votes.quarantine) == n
    assert len(set(votes.ids.to_pylist())) == len(votes)
    lines = [*votes.line.tolist(), *(q.line for q in votes.quarantine)]
    assert len(set(lines)) == n
    assert votes.source is not None
    assert votes.source.num_rows == len(votes)
    assert np.isfinite(votes.p).all()
    assert np.isfinite(votes.w).all()
    texts = votes.response_texts()
    assert all(texts[i].strip() for i in np.concatenate([votes.first, votes.second]))
    for row in quarantine_rows(votes):
        json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace")
    for to in ("trl", "votes"):
        try:
            table, _ = to_rows(votes, to)
        except CupelError:
            continue
        assert table.num_rows == (len(votes) if to == "votes" else int((votes.sign != 0).sum()))
    if tmp_path is not None:
        save(votes, tmp_path)
        assert load(tmp_path).ids.equals(votes.ids)


quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@quick
@given(tables())
def test_lists_of_dicts(rows):
    _check(rows, len(rows))


@quick
@given(tables(), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines(tmp_path_factory, rows, ascii_only, end):
    place = tmp_path_factory.mktemp("fuzz")
    path = place / "rows.jsonl"
    data = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    _check(path, len(rows), place / "store")


@quick
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda s: s.strip() and "\n" not in s), min_size=1, max_size=6))
@example(['{"prompt": "p", "chosen": "x", "rejected": "y"}', "{", "NaN", "1e999", "[" * 5000])
def test_any_lines_at_all(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("fuzz") / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    _check(path, len(lines))


@quick
@given(st.binary(max_size=200), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow", "a.jsonl.gz", "a"]))
@example(gzip.compress(b"prompt,chosen,rejected\np,x,y\n")[:-3], "a.csv.gz")
@example(b"PAR1" + b"\0" * 40 + b"PAR1", "a.parquet")
@example(b"ARROW1\0\0" + b"\xff" * 40, "a.arrow")
def test_any_bytes_at_all(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(data)
    _read(path)


@quick
@given(st.binary(min_size=1, max_size=3), st.integers(0, 10_000), st.sampled_from(["jsonl", "csv", "parquet", "arrow", "jsonl.gz"]))
def test_damaged_files(tmp_path_factory, noise, at, kind):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"prompt": ["p"] * 20, "chosen": [f"good {i}" for i in range(20)], "rejected": ["bad"] * 20})
    out = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, out)
    elif kind == "arrow":
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
    elif kind == "csv":
        out.write(table.to_pandas().to_csv(index=False).encode())
    else:
        lines = "\n".join(json.dumps(row) for row in table.to_pylist()).encode()
        out.write(gzip.compress(lines, mtime=0) if kind.endswith("gz") else lines)
    data = bytearray(out.getvalue())
    at %= len(data)
    data[at : at + len(noise)] = noise
    path = tmp_path_factory.mktemp("fuzz") / f"rows.{kind}"
    path.write_bytes(bytes(data))
    votes = _read(path)
    if votes is not None:
        assert len(votes) + len(votes.quarantine) <= 21
