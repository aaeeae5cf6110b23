"""Each format: recognised, read, refused; names mapped, misspelt names pointed out; doubts stated."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cupel.errors import RecordError
from cupel.records import read
from cupel.records.formats import importers
from cupel.records.schema import BOTH_BAD, SKIP, TIE, A, B
from cupel.records.text import messages, render


def _user(text):
    return {"role": "user", "content": text}


def _bot(text):
    return {"role": "assistant", "content": text}


EXAMPLES = {
    "trl": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "pairs": {"chosen": "Because.", "rejected": "No."},
    "trl_conversational": {"prompt": [_user("Why?")], "chosen": [_bot("Because.")], "rejected": [_bot("No.")]},
    "trl_implicit": {"chosen": [_user("Why?"), _bot("Because.")], "rejected": [_user("Why?"), _bot("No.")]},
    "hh": {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    "votes": {"prompt": "Why?", "response_a": "Because.", "response_b": "No.", "vote": "a", "annotator": "k"},
    "arena": {
        "conversation_a": [_user("Why?"), _bot("Because.")],
        "conversation_b": [_user("Why?"), _bot("No.")],
        "winner": "model_a",
    },
}


def test_there_is_an_example_of_every_format():
    assert set(EXAMPLES) <= set(importers())  # the others have fixtures: test_format_fixtures.py


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_format_is_recognised_and_says_why(name):
    votes = read([EXAMPLES[name]])
    assert votes.source_format == name
    assert votes.meta["detection"].startswith(f"format {name}: ")
    assert votes.sign.tolist() == [1]
    assert votes.response_texts() == ["Because.", "No."]
    assert votes.order_known is (name in ("votes", "arena"))
    assert render(votes.prompt_texts()[0]) == ("" if name == "pairs" else "Why?")
    assert read([EXAMPLES[name]], format=name).ids.equals(votes.ids)


@pytest.mark.parametrize("name", ["trl_conversational", "trl_implicit", "arena"])
def test_chat_lists_written_as_json_text_read_the_same(name):
    as_text = {key: json.dumps(value) if isinstance(value, list) else value for key, value in EXAMPLES[name].items()}
    one, two = read([EXAMPLES[name]]), read([as_text])
    assert two.source_format == name
    assert one.ids.equals(two.ids)
    assert one.prompt_texts() == two.prompt_texts() == ['[{"role":"user","content":"Why?"}]']


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_format_that_was_asked_for_must_fit(name):
    with pytest.raises(RecordError, match=f"format {name} needs"):
        read([{"one": "x", "two": "y"}], format=name)


def test_unknown_formats_are_refused():
    with pytest.raises(RecordError, match="Did you mean 'votes'"):
        read([EXAMPLES["votes"]], format="vote")
    with pytest.raises(RecordError, match="no known format has these columns: one, two"):
        read([{"one": "x", "two": "y"}])


def test_misspelt_columns_are_pointed_out():
    with pytest.raises(RecordError, match="--map rejected=rejcted"):
        read([{"prompt": "p", "chosen": "x", "rejcted": "y"}])
    with pytest.raises(RecordError, match="--map prompt=promt"):
        read([{"promt": "p", "chosen": "x", "rejected": "y"}])
    with pytest.raises(RecordError, match=r"no column 'questoin'. Did you mean 'question'\? Its columns: question, chosen, rejected"):
        read([{"question": "p", "chosen": "x", "rejected": "y"}], map={"prompt": "questoin"})
    with pytest.raises(RecordError, match=r"'promt' is no column that cupel knows. Did you mean 'prompt'"):
        read([{"question": "p", "chosen": "x", "rejected": "y"}], map={"promt": "question"})
    with pytest.raises(RecordError, match="Say which: --map prompt=question"):
        read([{"question": "p", "instruction": "q", "chosen": "x", "rejected": "y"}])


def test_map_names_columns_and_leaves_the_source_as_it_was():
    row = {"ask": "p", "yes": "x", "no": "y", "prompt_tokens": 3}
    votes = read([row], map={"prompt": "ask", "chosen": "yes", "rejected": "no"})
    assert votes.source_format == "trl"
    assert votes.source is not None
    assert votes.source.to_pylist() == [row]
    assert votes.meta["columns"]["prompt"] == "ask"


def test_known_other_names_are_taken_and_said():
    votes = read([{"question": "p", "chosen": "x", "rejected": "y", "chosen_model": "m", "rejected_model": "n", "worker": 7}])
    assert "prompt = column question" in votes.meta["detection"]
    assert (votes.models, votes.model_first.tolist(), votes.model_second.tolist()) == (("m", "n"), [0], [1])
    assert votes.annotators == ("7",)


def test_words_for_votes():
    words = {
        "a": A,
        "B": B,
        " Tie ": TIE,
        "both_bad": BOTH_BAD,
        "tie (bothbad)": BOTH_BAD,
        "skip": SKIP,
        "model_a": A,
        "model_b": B,
    }
    rows = [{"prompt": str(i), "response_a": "x", "response_b": "y", "winner": word} for i, word in enumerate(words)]
    votes = read(rows)
    assert votes.outcome.tolist() == list(words.values())
    assert votes.p.tolist() == [1, 0, 0.5, 0.5, 0.5, 0.5, 1, 0]
    assert votes.w.tolist() == [1, 1, 1, 0, 0, 0, 1, 1]


def _numbered(sides, labels):
    return [{"prompt": str(i), sides[0]: "x", sides[1]: "y", "label": label} for i, label in enumerate(labels)]


def test_numbers_for_votes_follow_the_names_of_the_sides():
    assert read(_numbered(("response_0", "response_1"), [0, 1, 1])).outcome.tolist() == [A, B, B]
    assert read(_numbered(("response_1", "response_2"), ["1", "2", "1"])).outcome.tolist() == [A, B, A]
    assert read(_numbered(("output_1", "output_2"), [2.0, 2.0])).outcome.tolist() == [B, B]
    assert not read(_numbered(("response_0", "response_1"), [0, 1])).meta["doubts"]


def test_numbers_that_could_mean_two_things_are_read_with_a_stated_doubt_or_not_at_all():
    votes = read(_numbered(("response_a", "response_b"), [0, 1, 1]))
    assert votes.outcome.tolist() == [A, B, B]
    assert "--map vote:a=1 --map vote:b=0" in votes.meta["doubts"][0]
    assert "in doubt: label: 0 is read as the first" in votes.meta["detection"]
    turned = read(_numbered(("response_a", "response_b"), [0, 1, 1]), map={"vote:a": "1", "vote:b": "0"})
    assert turned.outcome.tolist() == [B, A, A]
    assert not turned.meta["doubts"]
    for labels in ([0, 1, 2], [1, 1], [-1, 1], [True, False]):
        with pytest.raises(RecordError, match=r"unknown_label.*--map vote:a="):
            read(_numbered(("response_a", "response_b"), labels))
    with pytest.raises(RecordError, match="'best' is no outcome"):
        read(_numbered(("response_a", "response_b"), [0, 1]), map={"vote:best": "1"})


def test_a_label_outside_the_vocabulary_is_a_fault_of_the_row():
    rows = [{**EXAMPLES["votes"], "prompt": str(i)} for i in range(200)]
    rows[5]["vote"] = "maybe"
    rows[9]["vote"] = None
    votes = read(rows)
    assert [(q.line, q.reason) for q in votes.quarantine] == [(6, "unknown_label"), (10, "missing_label")]


def test_identical_sides_with_a_tie_stay():
    votes = read([{"prompt": "p", "response_a": "x", "response_b": "x", "vote": "tie"}])
    assert len(votes) == 1


def test_hh_prompts_are_the_turns_that_both_share():
    start = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"
    votes = read([{"chosen": start + " good", "rejected": start + " bad"}])
    assert [m["content"] for m in messages(votes.prompt_texts()[0])] == ["one", "two", "three"]
    assert votes.response_texts() == ["good", "bad"]
    early = read([{"chosen": "\n\nHuman: q\n\nAssistant: x\n\nHuman: more\n\nAssistant: z", "rejected": "\n\nHuman: q\n\nAssistant: y"}])
    assert render(early.prompt_texts()[0]) == "q"
    assert len(messages(early.response_texts()[0])) == 3


def test_different_prompts_on_the_two_sides_are_a_fault_of_the_row():
    good = [
        {"conversation_a": [_user(f"q{i}"), _bot("x")], "conversation_b": [_user(f"q{i}"), _bot("y")], "winner": "model_b"}
        for i in range(150)
    ]
    bad = {"conversation_a": [_user("one"), _bot("x")], "conversation_b": [_user("other"), _bot("y")], "winner": "model_b"}
    votes = read([*good, bad])
    assert [(q.line, q.reason) for q in votes.quarantine] == [(151, "different_prompts")]
    rows = [{**EXAMPLES["hh"]} for _ in range(150)]
    rows[3] = {"chosen": "\n\nHuman: one\n\nAssistant: x", "rejected": "\n\nHuman: two\n\nAssistant: y"}
    rows[4] = {"chosen": "plain text", "rejected": "\n\nHuman: two\n\nAssistant: y"}
    assert [q.reason for q in read(rows, max_bad=0.02).quarantine] == ["different_prompts", "not_a_transcript"]
    prompts = [{**EXAMPLES["trl_conversational"], "prompt": [_user(f"q{i}")]} for i in range(150)]
    prompts.append({"prompt": [_user("other")], "chosen": [_user("q"), _bot("x")], "rejected": [_user("q"), _bot("y")]})
    assert [q.reason for q in read(prompts).quarantine] == ["different_prompts"]


def test_whole_conversations_beside_a_prompt_are_cut():
    votes = read([{"prompt": "Why?", "chosen": [_user("Why?"), _bot("x")], "rejected": [_user("Why?"), _bot("y")]}])
    assert votes.response_texts() == ["x", "y"]
    assert render(votes.prompt_texts()[0]) == "Why?"


def test_a_bad_message_list_is_a_fault_of_the_row():
    rows = [{**EXAMPLES["trl_conversational"], "prompt": [_user(f"q{i}")]} for i in range(300)]
    rows[7] = {**rows[7], "chosen": [{"role": "assistant"}]}
    rows[8] = {**rows[8], "chosen": []}
    assert [q.reason for q in read(rows).quarantine] == ["empty_side", "empty_side"]


def test_implicit_prompts_of_plain_texts_only_when_asked():
    rows = [{"chosen": "The sky is blue.", "rejected": "The sky is green."}]
    assert read(rows).prompt_texts() == [""]
    votes = read(rows, format="trl_implicit")
    assert (votes.prompt_texts(), votes.response_texts()) == (["The sky is "], ["blue.", "green."])


def test_missing_prompts_are_empty_prompts():
    votes = read([{"prompt": None, "chosen": "x", "rejected": "y"}, {"prompt": "p", "chosen": "x", "rejected": "y"}])
    assert votes.prompt_texts() == ["", "p"]


def test_canonical_columns_are_read():
    row = {
        "prompt": "p", "response_a": "x", "response_b": "y", "vote": "a", "annotator": "k", "group": "g",
        "strength": 0.7, "seconds": 3, "model_a": "m", "model_b": "n", "p": 0.9, "w": 2, "gold": "b", "split": "test", "id": 5,
    }  # fmt: skip
    votes = read([row])
    assert (votes.ids.to_pylist(), votes.annotators, votes.models) == (["5"], ("k",), ("m", "n"))
    assert (votes.strength[0], votes.seconds[0], votes.p[0], votes.w[0]) == (0.7, 3.0, 0.9, 2.0)
    assert votes.source is not None
    assert votes.source["gold"].to_pylist() == ["b"]
    assert read([row, {**row, "id": 6, "split": "train", "group": "h"}], map={"split": "split"}).split.tolist() == [1, 0]
    assert (read([row], heldout=0).split == -1).all()
    with pytest.raises(RecordError, match="unknown_split"):
        read([{**row, "split": "other"}], map={"split": "split"})


def test_ids_are_the_content_and_do_not_depend_on_order():
    rows = [{"prompt": f"p{i % 3}", "response_a": "x", "response_b": "y", "vote": "a", "annotator": str(i % 2)} for i in range(30)]
    votes = read(rows)
    assert len(set(votes.ids.to_pylist())) == 30
    assert sorted(read(rows[::-1]).ids.to_pylist()) == sorted(votes.ids.to_pylist())
    some = read([{**rows[0], "id": "mine"}, rows[1]])
    assert some.ids.to_pylist()[0] == "mine"
    assert some.ids.to_pylist()[1] == votes.ids.to_pylist()[1]


def test_arrow_types_of_text_do_not_matter():
    rows = [{"prompt": f"p{i}", "chosen": "x", "rejected": "y"} for i in range(9)]
    base = read(rows)
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({key: pa.array([row[key] for row in rows], pa.string()).cast(kind) for key in rows[0]})
        votes = read(table)
        assert votes.ids.equals(base.ids)
        np.testing.assert_array_equal(votes.prompt, base.prompt)
    with pytest.raises(RecordError, match=r"not_text.*holds int64"):
        read(pa.table({"prompt": ["p"], "chosen": [1], "rejected": ["y"]}))
