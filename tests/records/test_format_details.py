"""What each format means, on rows whose answer is known; and odd values in every place, which cost rows and never more."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from cupel.errors import CupelError, RecordError
from cupel.records import read
from cupel.records.formats import importers
from cupel.records.text import messages, render

HERE = Path(__file__).parents[1] / "fixtures" / "records"


def fixture(name):
    return read(HERE / f"{name}.jsonl", heldout=0)


def beats(votes):
    """{(prompt, winner, loser)} in words; ties as frozensets."""
    prompts, texts = [render(t) for t in votes.prompt_texts()], votes.response_texts()
    found = set()
    for i, a, b, s in zip(votes.prompt, votes.first, votes.second, votes.sign, strict=True):
        pair = (texts[a], texts[b]) if s > 0 else (texts[b], texts[a])
        found.add((prompts[i], *pair) if s else (prompts[i], frozenset(pair)))
    return found


# ---- ratings ------------------------------------------------------------------------------------------------------------------


def rated(**ratings):
    return {name: {"Rating": value, "Rationale": "r"} for name, value in ratings.items()}


def test_ultrafeedback_goes_by_the_mean_of_the_rated_aspects_and_not_by_the_overall_score():
    completions = [
        {"model": "m", "response": "x", "annotations": rated(helpfulness="5", honesty="N/A"), "overall_score": 1.0},
        {"model": "n", "response": "y", "annotations": rated(helpfulness="4", honesty="5"), "overall_score": 10.0},
        {"model": "o", "response": "z", "annotations": rated(helpfulness="N/A"), "overall_score": 7.0},
        {"model": "k", "response": "u", "annotations": rated(helpfulness="N/A"), "overall_score": None},
    ]
    votes = read([{"instruction": "q", "completions": completions}], heldout=0)
    assert beats(votes) == {("q", "x", "y"), ("q", "z", "x"), ("q", "z", "y")}
    assert votes.strength.tolist() == [0.5, 2.0, 2.5]
    assert votes.models == ("m", "n", "o")
    assert votes.source is not None
    assert votes.source["helpfulness_a"].to_pylist() == [5.0, 5.0, 4.0]
    assert any("1 completions without a rating" in loss for loss in votes.meta["losses"])


def test_rankings_as_two_lists_and_ratings_make_the_same_pairs():
    texts = ["a", "b", "c", "d", "e"]
    ranks = [2, 1, 5, 3, 3]
    ranked = read([{"prompt": "q", "responses": texts, "ranks": ranks}], heldout=0)
    by_rating = read([{"prompt": "q", "responses": texts, "ratings": [-rank for rank in ranks]}], heldout=0)
    assert (ranked.source_format, by_rating.source_format) == ("rankings", "ratings")
    slow = {
        ("q", *((x, y) if i < j else (y, x))) if i != j else ("q", frozenset((x, y)))
        for (x, i), (y, j) in itertools.combinations(list(zip(texts, ranks, strict=True)), 2)
    }
    assert beats(ranked) == beats(by_rating) == slow
    assert len(ranked) == 10


def test_one_response_per_row_compares_within_prompt_and_annotator_whatever_the_order_of_rows():
    rng = np.random.default_rng(3)
    rows = [
        {"prompt": p, "response": r, "rank": int(rng.integers(1, 4)), "annotator": who}
        for p in ("p", "q") for r in "xyz" for who in ("ann", "bo")
    ]  # fmt: skip
    votes = read(rows, heldout=0)
    assert votes.source_format == "ratings_long"
    assert len(votes) == 2 * 2 * 3
    expected = set()
    for one, two in itertools.combinations(rows, 2):
        if (one["prompt"], one["annotator"]) == (two["prompt"], two["annotator"]):
            a, b, tie = one["response"], two["response"], one["rank"] == two["rank"]
            expected.add((one["prompt"], one["annotator"], frozenset((a, b)), None if tie else a if one["rank"] < two["rank"] else b))
    for order in (rows, rows[::-1], [rows[i] for i in rng.permutation(len(rows))]):
        votes = read(order, heldout=0)
        texts, prompts = votes.response_texts(), votes.prompt_texts()
        got = {
            (prompts[p], votes.annotators[k], frozenset((texts[a], texts[b])), None if s == 0 else texts[a] if s > 0 else texts[b])
            for p, k, a, b, s in zip(votes.prompt, votes.annotator, votes.first, votes.second, votes.sign, strict=True)
        }
        assert got == expected


# ---- choices ------------------------------------------------------------------------------------------------------------------


def test_a_best_worst_choice_says_nothing_about_those_between():
    votes = read([{"prompt": "q", "responses": ["a", "b", "c", "d"], "best": 1, "worst": 0}], heldout=0)
    expected = {("q", "b", x) for x in "acd"} | {("q", x, "a") for x in "bcd"}
    assert beats(votes) == expected
    assert len(votes) == 2 * 4 - 3


def test_positions_of_a_choice_count_from_where_the_data_shows_it():
    def winner(**row):
        votes = read([{"prompt": "q", "responses": ["a", "b", "c"], **row}], heldout=0)
        return {found[1] for found in beats(votes)}, bool(votes.meta["doubts"])

    assert winner(best=3) == ({"c"}, False)
    assert winner(best=0) == ({"a"}, False)
    assert winner(best="b") == ({"b"}, False)
    assert winner(best=2) == ({"c"}, True)  # neither 0 nor 3 occurs: counted from 0, and the doubt is stated


def test_community_alignment_goes_on_from_the_preferred_response():
    votes = fixture("community_alignment")
    second = [text for text in votes.prompt_texts() if "With children?" in text]
    assert [m["content"] for m in messages(second[0])] == ["Plan my Sunday.", "See family.", "With children?"]
    assert ("Un plat simple ?", "Une omelette.", "Du riz.") in beats(votes)
    assert len(votes) == 9
    assert votes.source is not None
    assert votes.source["slot_a"].to_pylist()[:3] == ["a", "b", "b"]


def test_prism_goes_on_from_the_chosen_answer():
    votes = fixture("prism")
    later = next(text for text in votes.prompt_texts() if "burrito" in text)
    assert [m["content"] for m in messages(later)] == ["Is a hot dog a sandwich?", "By form, yes.", "And a burrito?"]
    assert votes.annotators == ("user0", "user1")
    assert votes.strength.tolist() == [50.0, 50.0, 0.0, 30.0, 80.0]


# ---- signed and coded votes ---------------------------------------------------------------------------------------------------


def test_helpsteer_signs():
    rows = [{"prompt": f"p{s}", "response_1": "x", "response_2": "y", "preference_strength": s} for s in (-3, -1, 0, 2)]
    votes = read(rows, heldout=0)
    assert votes.source_format == "helpsteer_preference"
    assert votes.sign.tolist() == [1, 1, 0, -1]
    assert votes.strength.tolist() == [3, 1, 0, 2]
    none = {"context": "q", "response1": "x", "response2": "y", "overall_preference": 1, "individual_preference": []}
    assert read([none], heldout=0).sign.tolist() == [-1]


def test_shp_one_is_a():
    assert fixture("shp").sign.tolist() == [1, -1]
    assert fixture("shp").strength.tolist() == [2.0, 3.5]


def test_kto_compares_within_a_prompt_only():
    rows = [
        {"prompt": p, "completion": c, "label": label}
        for p, c, label in (("p", "a", True), ("p", "b", True), ("p", "c", False), ("q", "d", False), ("q", "e", True), ("r", "f", True))
    ]
    votes = read(rows, heldout=0)
    assert beats(votes) == {("p", "a", "c"), ("p", "b", "c"), ("q", "e", "d")}
    assert [(q.line, q.reason) for q in votes.quarantine] == [(6, "no_comparison")]
    with pytest.raises(RecordError, match="no row is left"):
        read(rows[-1:])


def test_rewardbench_lists_beat_lists():
    votes = read([{"prompt": "q", "chosen": ["a", "b"], "rejected": ["c", "d"]}], heldout=0)
    assert beats(votes) == {("q", x, y) for x in "ab" for y in "cd"}
    plain = read([{"id": 1, "prompt": "q", "chosen": "a", "rejected": "b", "chosen_model": "m", "rejected_model": "n", "subset": "s"}])
    assert (plain.source_format, plain.models) == ("trl", ("m", "n"))


def test_a_stored_battle_of_music_arena():
    def side(tag):
        return {"system_key": {"system_tag": tag, "variant_tag": "v1"}, "duration": 30.0}

    battle = {
        "uuid": "b1", "prompt_detailed": {"overall_prompt": "a waltz", "instrumental": False, "lyrics": "la", "bpm": None},
        "a_metadata": side("fiddle"), "b_metadata": side("drum"), "a_audio_url": "u/a.mp3", "b_audio_url": None,
        "vote": {"preference": "B", "feedback": "loud"}, "vote_user": {"salted_ip": "s1"},
    }  # fmt: skip
    votes = read([battle], heldout=0)
    assert votes.source_format == "music_arena"
    assert votes.models == ("drum:v1", "fiddle:v1")
    assert votes.response_texts() == ["u/a.mp3", "b1/b"]
    assert votes.prompt_texts() == ["a waltz\ninstrumental: False\nlyrics: la"]
    assert (votes.sign.tolist(), votes.annotators) == ([-1], ("s1",))


def test_turns_of_an_arena_battle_share_the_first_question():
    votes = fixture("arena_columns")
    assert [m["content"] for m in messages(votes.prompt_texts()[1])] == ["Hi"]
    assert [m["content"] for m in messages(votes.response_texts()[votes.first[1]])] == ["Hello", "Name a tree", "Oak"]


# ---- annotation tools ---------------------------------------------------------------------------------------------------------


def test_argilla_first_version_as_columns_drafts_are_no_votes():
    row = {
        "prompt": "q", "response-1": "x", "response-2": "y",
        "preference": [
            {"user_id": "u", "value": "response-2", "status": "submitted"},
            {"user_id": "v", "value": "response-1", "status": "draft"},
        ],
        "preference-suggestion": "response-1", "external_id": "e", "metadata": "{}",
    }  # fmt: skip
    votes = read([row], heldout=0)
    assert votes.source_format == "argilla"
    assert beats(votes) == {("q", "y", "x")}
    assert votes.annotators == ("u",)
    assert any("1 answers that were not submitted" in loss for loss in votes.meta["losses"])


def test_argilla_rankings_and_the_question_that_is_not_the_vote():
    record = {
        "id": "1", "fields": {"prompt": "q", "response-1": "x", "response-2": "y", "response-3": "z"},
        "responses": {
            "order": [{"user_id": "u", "value": ["response-3", "response-1", "response-2"]}],
            "comment": [{"user_id": "u", "value": "fine"}],
        },
    }  # fmt: skip
    votes = read([record], heldout=0)
    assert beats(votes) == {("q", "z", "x"), ("q", "z", "y"), ("q", "x", "y")}
    assert any("question order is read as the vote" in doubt for doubt in votes.meta["doubts"])


def test_label_studio_choices_and_rankings():
    def task(result):
        data = {"question": "q", "answer1": "x", "answer2": "y", "answer3": "z"}
        return {"id": 1, "data": data, "annotations": [{"completed_by": {"id": 3, "email": "a@example.org"}, "result": [result]}]}

    chosen = read([task({"type": "choices", "from_name": "c", "value": {"choices": ["answer2"]}})], heldout=0)
    assert beats(chosen) == {("q", "y", "x"), ("q", "y", "z")}
    assert chosen.annotators == ("a@example.org",)
    ranked = read([task({"type": "ranker", "value": {"ranker": {"rank": ["answer3", "answer1", "answer2"]}}})], heldout=0)
    assert beats(ranked) == {("q", "z", "x"), ("q", "z", "y"), ("q", "x", "y")}
    two = {"id": 2, "data": {"question": "q", "text1": "x", "text2": "y"}, "annotations": [{"completed_by": 1, "result": []}]}
    two["annotations"][0]["result"] = [{"type": "pairwise", "value": {}}]
    assert read([two], heldout=0).sign.tolist() == [0]  # neither side selected


# ---- chats --------------------------------------------------------------------------------------------------------------------


def test_sharegpt_roles_systems_and_calls():
    call = json.dumps({"name": "tide", "arguments": {"port": "Hull"}})
    row = {
        "conversations": [
            {"from": "human", "value": "q"}, {"from": "function_call", "value": call}, {"from": "observation", "value": "06:12"},
        ],
        "chosen": {"from": "gpt", "value": "At 06:12."}, "rejected": {"from": "function_call", "value": call}, "system": "s", "tools": "[]",
    }  # fmt: skip
    votes = read([row], heldout=0)
    chat = messages(votes.prompt_texts()[0])
    assert [m["role"] for m in chat] == ["system", "user", "assistant", "tool"]
    assert chat[2]["tool_calls"][0]["function"] == json.loads(call)
    assert messages(votes.response_texts()[1])[0]["tool_calls"] == chat[2]["tool_calls"]
    assert votes.source is not None
    assert votes.source["tools"].to_pylist() == ["[]"]


def test_alpaca_joins_instruction_and_input_and_keeps_history():
    assert fixture("alpaca").prompt_texts() == ["Translate into French.\nthe boat", "Name a metal."]
    row = {"instruction": "i", "input": "", "chosen": "x", "rejected": "y", "system": "s", "history": [["q", "a"]]}
    assert [m["role"] for m in messages(read([row], heldout=0).prompt_texts()[0])] == ["system", "user", "assistant", "user"]


# ---- what detection and unfolding must not do --------------------------------------------------------------------------------


def test_the_id_of_a_row_that_holds_several_comparisons_survives_as_item_id():
    votes = fixture("rewardbench")
    assert votes.source is not None
    assert votes.source["item_id"].to_pylist() == ["r1"] * 3 + ["r2"] * 2
    assert votes.source["source_line"].to_pylist() == votes.line.tolist() == [1, 1, 1, 2, 2]
    assert len(set(votes.ids.to_pylist())) == 5


def test_a_broken_first_row_does_not_change_the_format():
    for name in ("rewardbench", "sharegpt", "axolotl", "prism", "rankings", "argilla", "label_studio", "ultrafeedback"):
        rows = [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text("utf-8").splitlines()]
        broken = dict.fromkeys(rows[0])
        votes = read([broken, *rows], heldout=0, max_bad=1)
        assert votes.source_format == name
        assert votes.line.min() == 2


def test_a_column_that_only_resembles_prompt_is_no_misspelling():
    row = {"chosen": "x", "rejected": "y", "project": "one"}
    assert read([row], heldout=0).source_format == "pairs"
    with pytest.raises(RecordError, match="--map prompt=promt"):
        read([{**row, "promt": "p"}])


# ---- odd values ---------------------------------------------------------------------------------------------------------------

ODD = [
    None,
    "",
    " ",
    7,
    -1.5,
    float("nan"),
    True,
    [],
    {},
    [None],
    [[]],
    [{}],
    {"a": None},
    "[",
    '{"role": 1}',
    "\ud800",
    ["x"],
    [3],
    "x" * 50,
]


def places(value, depth=0):
    """Paths to every value inside a row, four levels deep."""
    if depth == 4:
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (key,)
        yield from ((key, *rest) for rest in places(item, depth + 1))


def attempt(rows, name):
    """The votes, or None where the whole is refused, which has to be said in an error of ours."""
    try:
        return read(rows, heldout=0, max_bad=1, format=name, max_field=2000)
    except CupelError:
        return None


@pytest.mark.parametrize("name", sorted(importers()))
def test_odd_values_anywhere_cost_rows_and_never_more(name):
    rows = [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text("utf-8").splitlines()]
    found = list(places(rows[0]))
    rng = np.random.default_rng(17)
    cases = [(path, odd) for path in found for odd in ODD]
    if len(cases) > 40:
        cases = [cases[i] for i in rng.choice(len(cases), 40, replace=False)]
    read_at_all = 0
    for path, odd in cases:
        row = copy.deepcopy(rows[0])
        at = row
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = odd
        votes = attempt([row, *rows], name)
        if votes is None:
            continue
        read_at_all += 1
        assert votes.meta["n_rows"] == len(rows) + 1 == votes.meta["n_rows_kept"] + len(votes.quarantine)
        assert all(text.strip() for text in votes.response_texts())
        for text in (*votes.prompt_texts(), *votes.response_texts()):
            text.encode("utf-8")
    assert read_at_all > len(cases) / 2
