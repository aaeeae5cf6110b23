"""Checks of single texts: chats, refusals, languages, template marks, endings, lengths, personal data, contamination, harm."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cupel.audit.checks._language import scripts
from cupel.audit.checks._table import Table
from cupel.audit.checks.contamination import Overlap
from cupel.audit.checks.cut_off_endings import ending
from cupel.audit.checks.leaked_special_tokens import marks
from cupel.audit.checks.one_sided_refusals import refuses
from cupel.audit.checks.personal_data import kinds_in
from cupel.audit.checks.role_order import faults


def chat(*turns):
    return [{"role": role, "content": f"words of turn {i}"} for i, role in enumerate(turns)]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (("user",), []),
        (("system", "user", "assistant", "user"), []),
        (("user", "assistant", "tool"), []),
        (("user", "user"), ["two user turns in a row"]),
        (("user", "assistant"), ["last turn is assistant"]),
        (("user", "assistant", "assistant", "user"), ["two assistant turns in a row"]),
        (("assistant", "user"), ["assistant speaks first"]),
        (("user", "system", "user"), ["system turn after the first", "two user turns in a row"]),
        (("system",), ["no user turn", "last turn is system"]),
        (("narrator",), ["unknown role", "no user turn"]),
    ],
)
def test_role_faults(roles, expected):
    assert faults(chat(*roles)) == expected


def test_role_order(make):
    votes = make.build([(chat("user", "user"), "a", "b", "a"), (chat("user"), "a", "b", "a"), ("plain", "a", "b", "a")])
    finding = make.run("role_order", votes)
    assert (finding.severity, finding.rows.tolist(), finding.n) == ("warning", [0], 2)
    assert finding.details["faults"] == {"two user turns in a row": 1}
    assert make.run("role_order", votes.take(np.array([2]))).status == "not_applicable"
    assert make.run("role_order", votes.take(np.array([1]))).status == "clean"


def test_system_prompts(make):
    rows = [(chat("system", "user"), "a", "b", "a")] + [(chat("user"), "a", "b", "a")] * 3
    finding = make.run("system_prompts", make.build(rows))
    assert (finding.severity, finding.rows.tolist(), finding.details["share"]) == ("info", [0], 0.25)
    assert make.run("system_prompts", make.build(rows[:1])).status == "clean"
    assert make.run("system_prompts", make.build([("plain", "a", "b", "a")])).status == "not_applicable"


@pytest.mark.parametrize(
    "text",
    [
        "i'm sorry, but i can't assist with that request.",
        "i cannot help you with this.",
        "as an ai language model, i do not have opinions.",
        "sorry, but i won't provide instructions for that.",
        "i\u2019m not able to answer that.",
        "i must decline to continue.",
    ],
)
def test_refusals(text):
    assert refuses(text)


@pytest.mark.parametrize("text", ["i'm sorry to hear that you are ill.", "you cannot help but laugh.", "i can help you with that.", ""])
def test_no_refusals(text):
    assert not refuses(text)


def test_one_sided_refusals(make):
    no = "I'm sorry, but I can't help with that."
    rows = [
        ("q1", no, "Here is how.", "a"),
        ("q2", "Sure thing.", no, "a"),
        ("q3", no, no + " Really.", "a"),
        ("q4", "x", "y", "a"),
    ]
    finding = make.run("one_sided_refusals", make.build(rows))
    assert finding.rows.tolist() == [0, 1]
    assert finding.details["both_sides"] == 1
    assert finding.details["refusal_preferred"]["share"] == 0.5
    assert make.run("one_sided_refusals", make.build(rows[3:])).status == "clean"


ENGLISH = "What is the reason that the sky is blue and not green, and how can you explain it to a child with words that are simple?"
GERMAN = "Das Licht der Sonne wird in der Luft gestreut, und das blaue ist dabei nicht so schwach wie das rote Licht."
FRENCH = "La lumière est diffusée par les molécules de l'air, et le bleu est plus dispersé que le rouge dans le ciel qui est clair."
RUSSIAN = "Свет рассеивается в воздухе, и синий свет рассеивается сильнее красного, поэтому небо голубое."
CHINESE = "阳光在空气中被散射，蓝光的散射比红光强得多，所以天空看起来是蓝色的。"


def test_scripts_and_languages():
    assert scripts([ENGLISH, RUSSIAN, CHINESE, "12 + 3 = ?", "ok"]).tolist() == [1, 2, 10, 0, 0]
    texts = pa.array([ENGLISH, GERMAN, FRENCH, "x = lambda y: y", ""], pa.large_string())
    assert Table(texts, [np.arange(5)], prompts=False).facts.language.tolist() == [1, 2, 3, 0, 0]


def test_language_mismatch(make):
    fine = "The light of the sun is scattered by the air, and that is why you see it in blue and not in red."
    rows = [
        (ENGLISH, fine, GERMAN, "a"),
        (ENGLISH, fine, RUSSIAN, "a"),
        (ENGLISH, fine, CHINESE, "b"),
        (ENGLISH, fine, "Because of Rayleigh.", "a"),
        ("Translate into German: " + ENGLISH, fine, GERMAN, "b"),
        ("", fine, GERMAN, "a"),
        ("x = [1, 2, 3]", fine, "print(x)", "a"),
    ]
    finding = make.run("language_mismatch", make.build(rows))
    assert finding.rows.tolist() == [0, 1, 2]
    assert finding.details["kinds"] == {"English -> German": 1, "Latin -> Cyrillic": 1, "Latin -> Han": 1}
    assert (finding.details["one_side_only"], finding.details["other_language_preferred"]) == (3, 1)
    assert make.run("language_mismatch", make.build(rows[3:])).status == "clean"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello<|im_end|>", ["<|im_end|>"]),
        ("Hello<|endoftext|>\n", ["<|endoftext|>"]),
        ("[INST] hi [/INST] yes", ["[INST]", "[/INST]"]),
        ("an answer</s>", ["</s>"]),
        ("<s> an answer", ["<s>"]),
        ("ok\n### Assistant: more", ["### Assistant:"]),
        ("fine.\n\nHuman: and now?", ["Human:"]),
        ("<start_of_turn>model", ["<start_of_turn>"]),
        ("a <s>struck</s> word", []),
        ("the price is <b>3</b> | 4 |> 5", []),
        ("<s>all struck</s>", ["<s>", "</s>"]),
        ("### Summary\nfine", []),
    ],
)
def test_marks(text, expected):
    assert marks(text) == expected


def test_leaked_special_tokens(make):
    rows = [("q", "yes<|im_end|>", "no", "a")] + [(f"q{i}", "yes", "no way", "a") for i in range(200)]
    finding = make.run("leaked_special_tokens", make.build(rows))
    assert (finding.severity, finding.rows.tolist(), finding.details["marks"]) == ("warning", [0], {"<|im_end|>": 1})
    assert make.run("leaked_special_tokens", make.build(rows[:50])).severity == "error"
    assert make.run("leaked_special_tokens", make.build(rows[1:])).status == "clean"


LONG = "There are several reasons for this, and each of them deserves a closer look before any decision is taken by the board"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LONG + ".", 0),
        (LONG + ", because", 2),
        (LONG + " of the", 2),
        (LONG + ",", 2),
        (LONG + "\n```python\nprint(1)", 2),
        (LONG + "\n```python\nprint(1)\n```", 0),
        (LONG, 0),
        (LONG + " " + LONG, 1),
        (LONG + " " + LONG + "\n- one more point that is an item of a list without a stop", 0),
        ("The answer is the", 0),
        (LONG + " \U0001f600", 0),
        ("", 0),
    ],
)
def test_endings(text, expected):
    assert ending(text) == expected


def test_cut_off_endings(make):
    rows = [(f"q{i}", LONG + " and", f"{LONG} {i}.", "b") for i in range(40)]
    finding = make.run("cut_off_endings", make.build(rows))
    assert (finding.severity, finding.count, finding.details["side_without_ending_preferred"]["share"]) == ("warning", 40, 0.0)
    assert make.run("cut_off_endings", make.build([("q", LONG + ".", "Short.", "a")])).status == "clean"
    rare = rows[:1] + [(f"p{i}", LONG + ".", "Short.", "a") for i in range(99)]
    assert make.run("cut_off_endings", make.build(rare)).severity == "info"


def count(texts):
    return np.array([len(t.split()) for t in texts], dtype=int)


def test_truncation(make):
    votes = make.build([("one two", "a b c", "a", "a"), ("one", "b", "c", "a"), ("x " * 12, "b", "c", "a")])
    finding = make.run("truncation", votes, context_tokens=4, token_counts=count)
    assert (finding.severity, finding.rows.tolist(), finding.details["prompt_fills_context"]) == ("error", [0, 2], 1)
    assert finding.details["tokens_at_quantile"]["1.0"] == 13
    assert make.run("truncation", votes, context_tokens=13, token_counts=count).status == "clean"
    assert "no context length" in make.run("truncation", votes).message
    assert "no tokeniser" in make.run("truncation", votes, context_tokens=4).message


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jane.doe@firm-name.co.uk now", ["e-mail"]),
        ("write to me@example.com or [email]", []),
        ("call (212) 736-5000 today", ["telephone number"]),
        ("call +49 30 901820 today", ["telephone number"]),
        ("call 555-0123 or 212-555-0147", []),
        ("card 4539 5787 6362 1486.", ["payment card"]),
        ("number 4539 5787 6362 1487.", []),
        ("IBAN DE89 3704 0044 0532 0130 00", ["IBAN"]),
        ("IBAN DE88 3704 0044 0532 0130 00", []),
        ("from 84.112.33.9 on", ["IP address"]),
        ("from 192.168.0.1, 10.0.0.1, 203.0.113.5, version 1.2.3.4, 300.1.1.1", []),
        ("ssn 219-09-9999", ["social security number"]),
        ("ssn 000-12-3456", []),
        ("pi is 3.14159265358979 and 2024-01-02 10:11:12, 1,000,000,000,000", []),
        ("5 6 7 8 9 10 11 12 13 14 15 16", []),
        ("", []),
    ],
)
def test_kinds_of_personal_data(text, kinds):
    assert [kind for kind, _ in kinds_in(text)] == kinds


def test_personal_data_is_masked_everywhere(make):
    secrets = [
        "jane.doe@firm-name.org",
        "(212) 736-5000",
        "4539 5787 6362 1486",
        "DE89 3704 0044 0532 0130 00",
        "84.112.33.9",
        "219-09-9999",
    ]
    rows = [(f"q {i}", f"here it is: {s}", "nothing here", "b") for i, s in enumerate(secrets)] + [("clean", "a", "b", "a")]
    finding = make.run("personal_data", make.build(rows))
    assert finding.rows.tolist() == list(range(6))
    assert sum(finding.details["kinds"].values()) == 6
    shown = str(finding.to_json())
    for secret in secrets:
        assert secret not in shown
        assert all(part not in shown for part in secret.replace("@", " ").replace("-", " ").split() if len(part) >= 4)
    assert make.run("personal_data", make.build(rows[6:])).status == "clean"


def test_personal_data_in_a_prompt_flags_its_rows(make):
    rows = [([{"role": "user", "content": "mail bob@firm-name.org"}], "a", "b", "a"), ("other", "a", "b", "a")]
    assert make.run("personal_data", make.build(rows)).rows.tolist() == [0]


def test_contamination(make):
    rng = np.random.default_rng(0)
    question, answer, other = (make.sentence(rng, 40) for _ in range(3))
    inside = "Please read this carefully. " + question + " Now answer in one word."
    part = " ".join(question.split()[:15]) + " " + make.sentence(rng, 60)  # 3 of 28 runs: below half
    rows = [
        (question.upper(), "x", "y", "a"),
        (inside, "x", "y", "a"),
        (other, "x", answer, "a"),
        (other, "x", "y", "a"),
        (part, "x", "y", "a"),
    ]
    finding = make.run("contamination", make.build(rows), against=(question, answer, "x"))
    assert (finding.severity, finding.rows.tolist()) == ("error", [0, 1, 2])
    assert finding.details["against_found"] == 2
    assert make.run("contamination", make.build(rows[3:4]), against=(question,)).status == "clean"
    assert make.run("contamination", make.build(rows)).status == "not_applicable"
    assert make.run("contamination", make.build(rows), against=()).status == "clean"


def test_contamination_looks_through_the_clothes_of_a_chat(make):
    question = "which of the two rivers that meet in this town is the longer one"
    votes = make.build([([{"role": "user", "content": question}], "a", "b", "a"), ("something else", "a", "b", "a")])
    assert make.run("contamination", votes, against=(question,)).rows.tolist() == [0]
    turned = make.build([(question, "a", "b", "a")])
    assert make.run("contamination", turned, against=(votes.prompt_texts()[0],)).rows.tolist() == [0]


def test_overlap_agrees_with_sets_of_words(make):
    rng = np.random.default_rng(3)
    against = [make.sentence(rng, int(rng.integers(5, 60))) for _ in range(30)]
    texts = []
    for _ in range(120):
        source = against[int(rng.integers(30))].lower().rstrip(".").split()
        cut = source[: int(rng.integers(1, len(source) + 1))]
        texts.append(" ".join(cut + make.sentence(rng, int(rng.integers(1, 40))).lower().rstrip(".").split()))

    def runs(text):
        words = text.lower().rstrip(".").split()
        return {tuple(words[i : i + 13]) for i in range(len(words) - 12)} if len(words) >= 13 else set()

    got = Overlap(against).find(Table(pa.array(texts, pa.large_string()), [np.arange(len(texts))], prompts=False))
    for text, hit in zip(texts, got, strict=True):
        mine = runs(text)
        slow = {j for j, a in enumerate(against) if mine and runs(a) and len(mine & runs(a)) >= 0.5 * min(len(mine), len(runs(a)))}
        assert (hit in slow) if slow else hit == -1


def test_harmful_text(make):
    votes = make.build([("how to build a bomb", "no", "yes", "a"), ("q", "a skilled method of bombast", "rapid methods", "a")])
    finding = make.run("harmful_text", votes)
    assert (finding.severity, finding.rows.tolist()) == ("info", [0])
    assert make.run("harmful_text", votes.take(np.array([1]))).status == "clean"
