"""The looks at many texts at once never miss what the expressions find one text at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.audit.checks import _bytes
from cupel.audit.checks._bytes import normalise
from cupel.audit.checks._language import ASKS, LANGUAGE_CHARACTERS, STOPWORDS, scripts
from cupel.audit.checks._table import Facts, Table
from cupel.audit.checks.cut_off_endings import ending
from cupel.audit.checks.format_only import format_counts, marks_in
from cupel.audit.checks.harmful_text import flagged
from cupel.audit.checks.leaked_special_tokens import marks
from cupel.audit.checks.one_sided_refusals import refuses
from cupel.audit.checks.personal_data import kinds_in

PIECES = (
    "the ", "and ", "of", " that, ", "(with) ", "der ", "und ", "nicht! ", "«les» ", "est ", "plus ", "I'm sorry, but I can’t ",
    "I cannot help ", "i won't share ", "I must respectfully decline", "as an AI language model, I do not", "against my guidelines",
    "I am unable to write ", "- item\n", "\n  * item", "\n1. one", "\n\t\t12) two", "\n• dot", "# head", "\n## h x", "**bold**", "__b__",
    "`code`", "```\n", "|a|b|\n", "\n | c |", "he was murdered", "kill them", "neo-nazi", "Suicidal", "self-harm", "fück", "<|im_end|>",
    "[INST]", "</s>", "\n\nHuman: ", "### Response:", "<s>", "jane@shop.org ", "(212) 555-0199 ", "+44 20 7946 0958 ", "078-05-1120",
    "4539 5787 6362 1486", "81.2.69.142", "GB82 WEST 1234 5698 7654 32", "  ", "\n", "\t", " ", "\u00a0", "\x1c", "e\u0301", "\u212b",
    "\u212a", "İ", "Σ", "中文字", "русский текст ", "é", "x" * 30, "word " * 8,
    "in Greek ", "TRANSLATE ", "übersetze ", "the cat and the dog ", "der Hund und die Katze ", "12 345-678.90(1)", "☺kill", "☺fuck_",
    "I can't.", "w" * 590, ".", ",", "-", "\u0663\u0664", "_", "…",
)  # fmt: skip
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=5)


def language_slow(text: str) -> int:
    """What `languages` says of one text, word by word."""
    hits, seen = [0] * len(STOPWORDS), [set() for _ in STOPWORDS]
    for word in text.lower().split():
        for k, words in enumerate(STOPWORDS.values()):
            if word.strip(".,;:!?\"'()[]«»") in words.split():
                hits[k] += 1
                seen[k].add(word)
    order = sorted(range(len(hits)), key=lambda k: -hits[k])
    clear = hits[order[0]] >= 4 and len(seen[order[0]]) >= 2 and hits[order[0]] >= 2 * hits[order[1]]
    return order[0] + 1 if clear else 0


def table(texts: list[str], prompts: bool = False) -> Table:
    return Table(pa.array(texts, pa.large_string()), [np.arange(len(texts))], prompts=prompts)


def first_seen(values: list[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def check_facts(texts: list[str], facts: Facts) -> None:
    """What one look says agrees with reading one text at a time."""
    normal = [normalise(text) for text in texts]
    assert facts.identity.tolist() == first_seen(normal)
    assert facts.chars.tolist() == [len(text.strip()) for text in texts]
    assert facts.words.tolist() == [len(text.split()) for text in texts]
    for i, text in enumerate(texts):
        assert facts.looks.unstopped[i] or not ending(text)
        assert facts.looks.leaked[i] or not marks(text)
        assert facts.looks.personal[i] or not list(kinds_in(text))
        assert facts.harmful[i] or not flagged(normal[i])
        assert facts.refuses[i] or not refuses(normal[i])
        assert facts.asks[i] or not ASKS.search(normal[i])
    begun = [text[:LANGUAGE_CHARACTERS] for text in normal]
    assert facts.language.tolist() == [language_slow(text) for text in begun]
    assert facts.script.tolist() == [int(scripts([text])[0]) for text in begun]


@settings(max_examples=250, deadline=None)
@given(TEXTS)
def test_what_a_look_rules_out_is_not_there(texts):
    found = table(texts, prompts=True)  # no text is a chat list
    check_facts(texts, found.facts)
    assert format_counts(found).tolist() == [marks_in(text) for text in texts]
    told = [text for _, part in found.normal_parts() for text in part]
    assert told == [normalise(text) for text in texts]


@pytest.mark.parametrize("size", [1, 40, 300])
def test_parts_of_any_size_say_the_same(monkeypatch, size):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(PIECES, size=rng.integers(0, 12))) for _ in range(60)]
    monkeypatch.setattr(_bytes, "SIZE", size)
    check_facts(texts, table(texts, prompts=True).facts)


def test_unused_texts_are_empty_and_chats_lose_their_clothes():
    chat = '[{"role": "user", "content": "Write TO jane@shop.org"}, {"role": "assistant", "content": "- no"}]'
    texts = pa.array(["one", chat, "two words", "[not a chat"], pa.large_string())
    found = Table(texts, [np.array([1, 2]), np.array([3])], prompts=True)
    facts = found.facts
    assert facts.words.tolist() == [0, 5, 2, 3]
    assert facts.chat.tolist() == [False, True, False, False]
    assert facts.looks.personal.tolist() == [False, True, False, False]
    assert facts.looks.item.tolist() == [False, True, False, False]
    assert dict(found.at(np.array([1, 2]))) == {1: "Write TO jane@shop.org\n- no", 2: "two words"}
    assert [text for _, part in found.normal_parts() for text in part] == ["", "write to jane@shop.org - no", "two words", "[not a chat"]
    assert [text for _, part in found.plain_parts() for text in part] == ["", "Write TO jane@shop.org\n- no", "two words", "[not a chat"]
    roles = Table(pa.array(['[{"role":"user","content":"hi"}]', '[{"role":"system","content":"hi"}]', "hi"]), [np.arange(3)], prompts=True)
    assert roles.facts.identity.tolist() == [0, 1, 2]  # of a chat, the roles count


def test_a_chat_that_escapes_half_a_character_is_read():
    facts = table(['[{"role": "user", "content": "broken \\ud83d here"}]'], prompts=True).facts
    assert (facts.chat.tolist(), facts.words.tolist()) == ([True], [3])


def test_a_look_rules_out_most_of_what_is_plain():
    texts = [f"The argument number {i} says, in plain words, that taxes pay for roads and that all use them." for i in range(50)]
    facts = table(texts).facts
    for name, values in vars(facts.looks).items():
        assert not values.any(), name
    assert not facts.harmful.any()
    assert not facts.refuses.any()
