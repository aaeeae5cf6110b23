"""JSON arrays are split into their values without being held: the same votes as at once, and what is no JSON is refused alike."""

import gzip
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.records import read
from cupel.records.stream import importer, opening, read_stream
from cupel.records.stream.json_array import JsonArray
from cupel.records.stream.opening import open_reader


def user(text):
    return {"role": "user", "content": text}


def rows_of(n=300):
    """Rows of comparisons with extra columns of several shapes, and text that looks like the marks of JSON."""
    return [
        {"prompt": f"question {i % 90}?", "response_a": f"yes {i}\u00e9, [\"", "response_b": f"no {i % 40}\n\\", "vote": "ab"[i % 2],
         "annotator": f"k{i % 9}" if i % 11 else None, "odd": ['],"\\', {"a": "}"}, '\\\\"[', str(i)], "score": i if i < 250 else i / 2}
        for i in range(n)
    ]  # fmt: skip


def both(path, **options):
    """(read at once, streamed) or the two errors."""
    found = []
    for function in (read, read_stream):
        try:
            found.append(function(path, **options))
        except RecordError as error:
            found.append(error)
    return found


def check(path, **options):
    one, two = both(path, **options)
    for votes in (one, two):
        assert not isinstance(votes, RecordError), votes
    assert_same(one, two)
    return two


def assert_same(one, two):
    assert one.ids.equals(two.ids)
    assert one.prompts.equals(two.prompts)
    assert one.responses.equals(two.responses)
    for name in ("prompt", "first", "second", "outcome", "annotator", "group", "split", "line"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert one.source.schema.equals(two.source.schema)
    assert repr(one.source.to_pylist()) == repr(two.source.to_pylist())
    assert one.quarantine == two.quarantine
    assert one.meta == two.meta


@pytest.fixture(params=[200, 6000])
def small(request, monkeypatch):
    def shrink(path, kinds):
        reader = open_reader(path, kinds)
        assert isinstance(reader, JsonArray)
        reader.block = request.param
        return reader

    monkeypatch.setattr(importer, "open_reader", shrink)


@pytest.mark.parametrize("form", ["plain", "indented", "compact", "gz", "mark", "named nothing"])
def test_arrays_of_rows(tmp_path, small, form):
    rows = rows_of()
    path = tmp_path / {"gz": "f.json.gz", "named nothing": "f"}.get(form, "f.json")
    text = json.dumps(
        rows, ensure_ascii=form == "plain", indent=3 if form == "indented" else None, separators=(",", ":") if form == "compact" else None
    )
    data = ("\ufeff \r\n" * (form == "mark") + text + "\n \n" * (form == "indented")).encode()
    path.write_bytes(gzip.compress(data) if form == "gz" else data)
    votes = check(path)
    assert votes.line.tolist() == list(range(1, 301))


def test_conversations_and_rows_that_are_set_aside(tmp_path, small):
    path = tmp_path / "f.json"
    def chat(i, answer):
        return [user(f"q{i}"), {"role": "assistant", "content": answer}]

    chats = [{"conversation_a": chat(i, "x"), "conversation_b": chat(i, f"y{i}"), "winner": "model_a"} for i in range(90)]
    path.write_text(json.dumps(chats, indent=1))
    check(path)
    bad = [5, None, ["x"], "text", {"prompt": "p", "response_a": 5, "response_b": "y", "vote": "a"}, {"prompt": "\ud800"}]
    path.write_text(json.dumps([*rows_of(150), *bad, *rows_of(40)]))
    assert {q.reason for q in check(path, max_bad=0.4).quarantine} == {"not_an_object", "mixed_types", "lone_surrogate"}


@pytest.mark.parametrize(
    "text",
    ["[", "[1", "[}", "[1 2]", "[1,]", "[,1]", "[1,,2]", "[1]]", "[1] 2", '["a\nb"]', '["a]', "[{]}]", '[{"a":1}}', "[nan]", "[01]", "[]",
     "[ ]", "[" * 100_000 + "]" * 100_000, '["\\"]', '["\t"]'],
)  # fmt: skip
def test_what_is_no_array_of_rows_is_refused(tmp_path, text):
    path = tmp_path / "f.json"
    path.write_text(text)
    one, two = both(path)
    assert isinstance(one, RecordError)
    assert isinstance(two, RecordError)
    assert not isinstance(two, opening.CannotStream)
    assert ("is not JSON" in str(one) or "deeply" in str(one)) == ("is not JSON" in str(two))


def test_bytes_that_are_no_text_are_found_where_they_are(tmp_path, small):
    path = tmp_path / "f.json"
    for at in (20, 900, 4000):
        data = bytearray(json.dumps(rows_of(60), indent=1).encode())
        data[at] = 0xFF
        path.write_bytes(data)
        one, two = both(path)
        assert str(one) == str(two)
        assert "0xff at offset" in str(one)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text('ab"\\[]{},:\n\u00e9', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\]', max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON, max_size=12), st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 40))
def test_any_array_is_split_into_its_values(tmp_path, values, indent, plain, block):
    path = tmp_path / "f.json"
    path.write_bytes(json.dumps(values, indent=indent, ensure_ascii=plain).encode())
    found = [json.loads(line) for part in JsonArray(path, {}).blocks(block) for line in part.data.splitlines()]
    assert found == values


def test_damaged_arrays_end_alike(tmp_path):
    rng = random.Random(1)
    rows = [{"prompt": 'a "q"', "chosen": "x\\", "rejected": f"y{i},[", "extra": {"k": [i]}} for i in range(6)]
    whole = json.dumps(rows).encode()
    path, ends = tmp_path / "f.json", {True: 0, False: 0}
    for _ in range(300):
        data = bytearray(whole)
        at = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[at : at + 1] = rng.choice([b"", b'"', b"\\", b"]", b"}", b",", b"[", b"{", b" ", b"\n"])
        else:
            del data[at : at + rng.randrange(30)]
        if not data.startswith(b"["):
            continue
        path.write_bytes(data)
        one, two = both(path, max_bad=1.0)
        assert isinstance(one, RecordError) == isinstance(two, RecordError), (data, one, two)
        ends[isinstance(one, RecordError)] += 1
        if not isinstance(one, RecordError):
            assert_same(one, two)
    assert min(ends.values()) > 20
