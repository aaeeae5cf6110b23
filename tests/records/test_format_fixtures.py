"""Every format's fixture: recognised with its reason and doubt, read, round trip through votes, bad rows set aside by line and reason."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cupel.errors import InputError, RecordError
from cupel.records import read
from cupel.records.convert import TARGETS, to_rows
from cupel.records.exports import json_rows, writers
from cupel.records.exports.common import TRL_FAMILY
from cupel.records.formats import importers
from cupel.records.schema import OUTCOMES
from cupel.records.store import load, save

HERE = Path(__file__).parents[1] / "fixtures" / "records"
NAMES = sorted(importers())

#: outcomes, in order, of the comparisons of each fixture
OUTCOME = {
    "alpaca": "aa", "arena": "a!b", "arena_columns": "a=b", "argilla": "aab", "axolotl": "aa", "best_worst": "aaaaaabb",
    "community_alignment": "baabbaaaa", "helpsteer": "a=", "helpsteer_preference": "aaaaba===", "hh": "aa", "kto": "aa",
    "label_studio": "abb", "music_arena": "a!=b", "openai_preference": "aa", "pairs": "aa", "prism": "aa=aa", "rankings": "aab=",
    "ratings": "a=ba", "ratings_long": "a=", "reversals": "abab", "rewardbench": "aaaaa", "search_arena": "b=", "sharegpt": "aa",
    "shp": "ab", "trl": "aaa", "trl_conversational": "aa", "trl_implicit": "aa", "ultrafeedback": "aab=", "votes": "a=b",
}  # fmt: skip
SIGNS = {"a": "a", "b": "b", "tie": "=", "both_bad": "!", "skip": "-"}


def good(name):
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text("utf-8").splitlines()]


def bad(name):
    found = [json.loads(line) for line in (HERE / f"{name}.bad.jsonl").read_text("utf-8").splitlines()]
    return [(item["row"], item["reason"]) for item in found]


def fixture(name):
    return read(HERE / f"{name}.jsonl", heldout=0)


def test_every_format_has_a_fixture_and_an_expected_reading():
    assert set(OUTCOME) == set(NAMES)
    for name in NAMES:
        assert (HERE / f"{name}.jsonl").is_file()
        assert bad(name)


@pytest.mark.parametrize("name", NAMES)
def test_is_recognised_says_why_and_reads_what_is_there(name):
    votes = fixture(name)
    assert votes.source_format == name
    assert votes.meta["detection"].startswith(f"format {name}: column")
    assert votes.meta["doubts"] == ()
    assert "".join(SIGNS[OUTCOMES[code]] for code in votes.outcome) == OUTCOME[name]
    assert votes.meta["n_rows"] == votes.meta["n_rows_kept"] == len(good(name))
    assert votes.order_known is importers()[name].ORDER_KNOWN
    assert all(text.strip() for text in votes.response_texts())
    assert len(set(votes.ids.to_pylist())) == len(votes)


@pytest.mark.parametrize("name", NAMES)
def test_no_other_format_claims_the_columns_as_strongly(name):
    from cupel.records.columns import Frame, kinds
    from cupel.records.sources import load as load_rows

    frame = Frame(load_rows(good(name), kinds()).table)
    scores = sorted(((module.detect(frame)[0], module.NAME) for module in importers().values()), reverse=True)
    assert scores[0][1] == name
    assert scores[0][0] - scores[1][0] >= 0.1


@pytest.mark.parametrize("name", NAMES)
def test_bad_rows_are_set_aside_with_line_and_reason_and_nothing_else_changes(name, tmp_path):
    rows, faults = good(name), bad(name)
    path = tmp_path / "rows.jsonl"
    mixed = [*rows, *(row for row, _ in faults)]
    path.write_text("".join(json.dumps(row) + "\n" for row in mixed), "utf-8")
    votes = read(path, heldout=0, max_bad=1, format=name)
    assert [(q.line, q.reason) for q in votes.quarantine] == [(len(rows) + 1 + i, why) for i, (_, why) in enumerate(faults)]
    assert all(q.detail and q.raw for q in votes.quarantine)
    clean = fixture(name)
    assert votes.ids.equals(clean.ids)
    assert votes.response_texts() == clean.response_texts()
    meta = votes.meta
    assert meta["n_rows"] == len(mixed) == meta["n_rows_kept"] + len(votes.quarantine)
    assert {*votes.line.tolist()} <= set(range(1, len(rows) + 1))
    if any(why != "no_comparison" for _, why in faults):
        with pytest.raises(RecordError, match="cannot be used"):
            read(path, heldout=0, max_bad=0, format=name)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_row_first_costs_that_row_alone(name):
    rows, faults = good(name), bad(name)
    votes = read([faults[0][0], *rows], heldout=0, max_bad=1, format=name)
    assert [(q.line, q.reason) for q in votes.quarantine][:1] == [(1, faults[0][1])]
    assert votes.meta["n_rows"] == votes.meta["n_rows_kept"] + len(votes.quarantine)


def same(one, two):
    """The same comparisons: every array, and the texts they point at."""
    for name in ("outcome", "p", "w", "prompt", "first", "second", "annotator", "model_first", "model_second"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    for name in ("strength", "seconds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert one.ids.equals(two.ids)
    assert one.prompt_texts() == two.prompt_texts()
    assert one.response_texts() == two.response_texts()
    assert (one.annotators, one.models) == (two.annotators, two.models)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_through_votes_is_exact(name, suffix, tmp_path):
    from cupel.tasks import convert_file

    votes = fixture(name)
    said = convert_file(str(HERE / f"{name}.jsonl"), tmp_path / f"votes.{suffix}", to="votes")
    assert said["losses_on_reading"] == list(votes.meta["losses"])
    again = read(tmp_path / f"votes.{suffix}", heldout=0)
    assert again.source_format == "votes"
    same(votes, again)
    assert votes.source is not None
    assert again.source is not None
    extra = set(votes.source.column_names) - set(votes.meta["columns"].values())
    texts = {"prompt", "response_a", "response_b", "vote", "chosen", "rejected", "messages_a", "messages_b"}
    for column in extra - texts:
        assert votes.source[column].to_pylist() == again.source[column].to_pylist(), column


@pytest.mark.parametrize("name", NAMES)
def test_stored_votes_come_back(name, tmp_path):
    votes = fixture(name)
    save(votes, tmp_path)
    again = load(tmp_path)
    same(votes, again)
    assert again.meta["losses"] == votes.meta["losses"]


@pytest.mark.parametrize("name", NAMES)
def test_formats_in_which_rows_are_no_comparisons_say_what_is_lost(name):
    votes, module = fixture(name), importers()[name]
    if len(votes) != len(good(name)) or getattr(module, "LOSSES", None):
        assert any(module.LOSSES in loss for loss in votes.meta["losses"])
    else:
        assert votes.meta["losses"] == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("to", TARGETS)
def test_every_format_goes_out_to_every_target_or_says_why_not(name, to):
    votes = fixture(name)
    if name == "pairs" and to in ("trl_conversational", "axolotl", "llama_factory", "openai"):
        with pytest.raises(InputError, match=r"no row is left.*2 of 2 rows are left out: they have no prompt"):
            to_rows(votes, to)
        return
    table, losses = to_rows(votes, to)
    decided = int((votes.sign != 0).sum())
    left_out = sum(int(loss.split(" of ")[0].replace(",", "")) for loss in losses if " rows are left out: " in loss)
    expected = len(votes) if to == "votes" else decided - left_out
    assert table.num_rows == expected * (2 if to == "kto" else 1)
    if decided < len(votes) and to != "votes":
        assert "express no preference" in losses[0]
    rows = json_rows(table, to)
    json.dumps(rows)
    chats = getattr(writers()[to], "CHATS", ())
    assert all(not isinstance(row[column], str) for row in rows for column in chats if to != "kto")


BACK = {"trl_conversational": "trl_conversational", "trl_implicit": "trl_implicit", "openrlhf": "trl_implicit", "axolotl": "axolotl",
        "llama_factory": "sharegpt", "openai": "openai_preference", "kto": "kto", "trl": "trl"}  # fmt: skip


@pytest.mark.parametrize("to", sorted(BACK))
@pytest.mark.parametrize("name", ["trl", "votes", "arena", "trl_conversational", "openai_preference", "ultrafeedback", "sharegpt"])
def test_what_a_trainer_reads_is_read_back_as_the_same_preferences(name, to):
    votes = fixture(name)
    table, losses = to_rows(votes, to)
    back = read(json_rows(table, to), heldout=0)
    as_it_came = to == "trl" and name in TRL_FAMILY  # a table that came from TRL goes out as it came
    assert back.source_format == (name if as_it_came else BACK[to])
    assert (back.outcome == 0).all()
    if not any("left out" in loss or "ids that tie" in loss for loss in losses):
        assert preferences(back) == preferences(votes)


def preferences(votes):
    """(prompt, chosen, rejected) as words, in order; plain texts and one message that says the same are the same."""
    from cupel.records.text import render

    prompts, texts = [render(t) for t in votes.prompt_texts()], [render(t) for t in votes.response_texts()]
    rows = zip(votes.prompt, votes.first, votes.second, votes.sign, strict=True)
    return [(prompts[i], texts[a if s > 0 else b], texts[b if s > 0 else a]) for i, a, b, s in rows if s]


def test_tool_calls_and_system_prompts_stay_as_they_are():
    rows = good("openai_preference")
    table, _ = to_rows(fixture("openai_preference"), "openai")
    for row, again in zip(rows, json_rows(table, "openai"), strict=True):
        assert again["input"]["messages"] == row["input"]["messages"]
        assert again["input"]["tools"] == row["input"]["tools"]
        assert again["preferred_output"] == row["preferred_output"]
        assert again["non_preferred_output"] == row["non_preferred_output"]


def test_tool_arguments_of_several_shapes_do_not_mix():
    def call(**arguments):
        function = {"name": "f", "arguments": arguments}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}

    no = {"role": "assistant", "content": "No."}
    rows = [
        {"prompt": [{"role": "user", "content": "q"}], "chosen": [call(city="Hull")], "rejected": [call(time="noon")]},
        {"prompt": [{"role": "user", "content": "r"}], "chosen": [call(time="noon")], "rejected": [no]},
    ]
    votes = read(rows, heldout=0)
    assert len(set(votes.response_texts())) == 3
    assert '"arguments":{"city":"Hull"}' in votes.response_texts()[0]
    table, _ = to_rows(votes, "trl_conversational")
    assert json_rows(table, "trl_conversational")[0]["chosen"] == rows[0]["chosen"]


def test_a_flat_kto_file_is_put_together_again_by_its_pair_id():
    votes = fixture("votes")
    table, losses = to_rows(votes, "kto")
    assert table.num_rows == 4
    assert any("nothing about either by itself" in loss for loss in losses)
    back = read(table, heldout=0)
    assert back.ids.to_pylist() == ["v1", "v3"]
    assert preferences(back) == preferences(votes)


def test_columns_of_the_two_sides_turn_with_the_vote():
    table, _ = to_rows(fixture("ultrafeedback"), "trl")
    assert set(table.column_names) >= {"score_chosen", "score_rejected", "chosen_model", "source"}
    assert all(row["score_chosen"] > row["score_rejected"] for row in table.to_pylist())


def test_rows_without_a_comparison_are_no_fault_and_are_counted():
    rows = good("search_arena") * 10 + [bad("search_arena")[0][0]] * 20
    votes = read(rows, max_bad=0, heldout=0)
    assert len(votes) == 20
    assert {q.reason for q in votes.quarantine} == {"no_comparison"}
    with pytest.raises(RecordError, match=r"no row is left.*no_comparison"):
        read([bad("search_arena")[0][0]] * 3, max_bad=1)


def test_two_formats_that_fit_alike_are_a_doubt():
    row = {"prompt": "p", "response_a": "x", "response_b": "y", "vote": "a", "messages_a": [{"role": "user", "content": "q"}],
           "messages_b": [{"role": "user", "content": "q"}]}  # fmt: skip
    votes = read([row], format="votes")
    assert votes.meta["doubts"] == ()
    with pytest.raises(RecordError):
        read([row])  # search_arena is chosen, and says that the conversations hold no answers
    other = {"instruction": "p", "responses": ["x", "y"], "ratings": [1, 2], "ranks": [1, 2]}
    doubt = read([other], heldout=0).meta["doubts"]
    assert len(doubt) == 1
    assert "--format" in doubt[0]
    assert "rankings" in doubt[0]
    assert "ratings" in doubt[0]


def test_conversations_alone_are_refused_with_the_reason():
    with pytest.raises(RecordError, match="holds conversations, not comparisons"):
        read([{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}])


def test_arrow_and_objects_read_alike():
    for name in NAMES:
        rows = good(name)
        same(read(rows, heldout=0), read(pa.Table.from_pylist(rows), heldout=0))
