"""The looks at many texts at once never miss what the expressions find one text at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.audit.checks._texts import look, read_words
from cupel.audit.checks.context import LANGUAGE_CHARACTERS, STOPWORDS, _normalised, normalise
from cupel.audit.checks.cut_off_endings import ending
from cupel.audit.checks.format_only import _KINDS, format_counts
from cupel.audit.checks.harmful_text import flagged
from cupel.audit.checks.language_mismatch import _scripts, languages, scripts
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
    "\u212a", "İ", "Σ", "中文字", "русский текст ", "é", "x" * 30, "word " * 8, ".", ",", "-", "\u0663\u0664", "_", "…",
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


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_what_a_look_rules_out_is_not_there(texts):
    looks = look(texts)
    normal = _normalised(texts, looks)
    assert normal == [normalise(text) for text in texts]
    words = read_words(normal, STOPWORDS, LANGUAGE_CHARACTERS)
    for i, text in enumerate(texts):
        assert looks.unstopped[i] or not ending(text)
        assert looks.leaked[i] or not marks(text)
        assert looks.personal[i] or not list(kinds_in(text))
        assert words.harmful[i] or not flagged(normal[i])
        assert words.refuses[i] or not refuses(normal[i])
    slow = np.array([[sum(1 for _ in kind.finditer(text)) for kind in _KINDS.values()] for text in texts]).reshape(len(texts), len(_KINDS))
    assert np.array_equal(format_counts(texts), slow)
    begun = [text[:LANGUAGE_CHARACTERS] for text in normal]
    assert languages(normal, words).tolist() == [language_slow(text) for text in begun]
    assert _scripts(normal, words).tolist() == scripts(begun).tolist()


def test_a_look_rules_out_most_of_what_is_plain():
    texts = [f"The argument number {i} says, in plain words, that taxes pay for roads and that all use them." for i in range(50)]
    looks = look(texts)
    for name in ("collapses", "loose", "item", "heading", "bold", "tick", "pipe", "personal", "leaked", "unstopped"):
        assert not getattr(looks, name).any(), name
    words = read_words([text.lower() for text in texts], STOPWORDS, LANGUAGE_CHARACTERS)
    assert not words.harmful.any()
    assert not words.refuses.any()
