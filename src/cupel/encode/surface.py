"""Cheap facts about a text that need no encoder: length, punctuation, layout, spelling habits.

They carry most of what a linear head can know about human preference (`benchmarks/detection.py`), and they are what a length-biased
or format-biased annotator looks at; so they stand beside the embedding, never apart from it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.records.arrow import pc
from cupel.records.minhash import chunks

#: names of the columns of `surface`, in order
SURFACE: tuple[str, ...] = (
    "log_characters", "log_words", "sqrt_words", "log_sentences", "words_per_sentence", "word_length", "long_words", "type_token",
    "upper_share", "upper_words", "digits", "commas", "stops", "exclamations", "questions", "colons", "quotes", "brackets", "apostrophes",
    "hyphens", "other_symbols", "double_spaces", "no_space_after_stop", "starts_upper", "ends_stopped",
    "lower_i", "lower_starts", "chat_spelling",
    "bare_contractions", "no_vowel_words", "tripled_letters", "first_person", "second_person", "negations", "connectives", "hedges",
    "log_newlines", "list_items", "headings", "bold", "code", "links", "refusal", "has_text",
)  # fmt: skip

#: characters beyond which only the length is read: a 10 MB field must not stall an audit
MAX_CHARACTERS = 20_000
#: bytes of text read at a time: arrays of eight bytes for some of the characters then stay near the processor
CHUNK = 1 << 19

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_LOWER_START = re.compile(r"[.!?]\s+[a-z]")
_NO_SPACE = re.compile(r"[a-z][.,!?;][A-Za-z]")
_NO_VOWEL = re.compile(r"\b[b-df-hj-np-tv-xz]{3,}\b")
_UPPER_WORD = re.compile(r"\b[A-Z]{3,}\b")
_TRIPLED = re.compile(r"([a-z])\1\1")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s", re.MULTILINE)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s", re.MULTILINE)
_REFUSAL = re.compile(r"\b(?:i(?:'m| am) sorry|i can(?:'t|not)|i(?:'m| am) (?:not able|unable)|as an ai)\b")


def _vocabulary(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CHAT = _vocabulary("u ur r y n w cuz coz bc b4 gonna wanna gotta lol omg idk thier teh alot becuase wich untill definately seperate")
_BARE = _vocabulary(
    "dont cant wont isnt arent wasnt werent doesnt didnt couldnt wouldnt shouldnt havent hasnt hadnt im ive thats theyre youre its"
)
_FIRST = _vocabulary("i me my mine myself we us our ours")
_SECOND = _vocabulary("you your yours yourself")
_NEGATION = _vocabulary("not no never none nothing nor cannot without n't don't can't won't isn't doesn't")
_CONNECTIVE = _vocabulary(
    "because therefore however although though thus hence since while whereas moreover furthermore consequently instead if then"
)
_HEDGE = _vocabulary("maybe perhaps might may could possibly probably likely seems seem think believe feel opinion")


def surface(texts: Sequence[str] | pa.Array) -> np.ndarray:
    """Surface facts of texts, raw (not standardised): float32 [len(texts), len(SURFACE)]; counts are rates per word or per character.

    texts: strings, or an Arrow array of them, which is read where it lies.

    >>> facts = surface(["It works, because I tried it twice.", ""])
    >>> facts.shape == (2, len(SURFACE))
    True
    >>> float(facts[0, SURFACE.index("connectives")]) > 0
    True
    """
    from cupel.encode.facts import fast_facts
    from cupel.encode.scan import UNEVEN, Scan

    out = np.zeros((len(texts), len(SURFACE)), dtype=np.float32)
    table, broken = _table(texts)
    whole = _numbers(pc.utf8_length(table))
    if whole.max(initial=0) > MAX_CHARACTERS:
        table = pc.utf8_slice_codeunits(table, 0, MAX_CHARACTERS)
    ascii_only = _numbers(pc.string_is_ascii(table))
    for rows in (np.flatnonzero(ascii_only), np.flatnonzero(~ascii_only)):
        part = table if len(rows) == len(table) else table.take(pa.array(rows))
        if len(rows) and not ascii_only[rows[0]]:
            uneven = pc.match_substring(part, UNEVEN)
            broken.update({int(row): texts[int(row)] for row in rows[_numbers(uneven)]})
            part = pc.if_else(uneven, "", part)
        for start, stop in chunks(part, CHUNK):
            at = rows[start:stop]
            out[at] = fast_facts(Scan(part.slice(start, stop - start)), whole[at])
    for row, text in broken.items():
        out[row] = facts_slow(str(text))
    return out


def _table(texts: Any) -> tuple[pa.Array, dict[int, Any]]:
    """(the texts as large_string, those that no Arrow array can hold, by position: they have lone surrogates, and are empty there)."""
    if isinstance(texts, pa.Array):
        return texts.cast(pa.large_string()), {}
    try:
        return pa.array(texts, pa.large_string()), {}
    except UnicodeEncodeError:
        broken = {i: text for i, text in enumerate(texts) if any("\ud800" <= sign <= "\udfff" for sign in text)}
        return pa.array(["" if i in broken else text for i, text in enumerate(texts)], pa.large_string()), broken


def _numbers(values: pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False)


def facts_slow(text: str) -> list[float]:
    """The facts of one text by regular expressions, in the order of `SURFACE`: what the fast path must agree with."""
    length = len(text)
    text = text[:MAX_CHARACTERS]
    characters = max(len(text), 1)
    lower = text.lower()
    words = _WORD.findall(lower)
    vocabulary = Counter(words)
    n = max(len(words), 1)
    n_words = len(words) * length / characters  # beyond the cap: as if the rest were like the beginning
    sentences = max(len(_SENTENCE_END.findall(text)), 1)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    ascii_counts = np.bincount(np.minimum(codes, 128), minlength=129).tolist()  # 128: everything that is not ASCII
    upper = sum(ascii_counts[65:91])
    letters = upper + sum(ascii_counts[97:123]) + ascii_counts[128]
    digits = sum(ascii_counts[48:58])
    stripped = text.strip()

    def count(marks: str) -> int:
        return sum(ascii_counts[ord(mark)] if ord(mark) < 128 else text.count(mark) for mark in marks)

    def share(chosen: frozenset[str]) -> float:
        return sum(vocabulary.get(word, 0) for word in chosen) / n

    commas, stops, bangs, questions = count(","), count("."), count("!"), count("?")
    colons, quotes, brackets, apostrophes, hyphens = count(":;"), count('"“”«»'), count("()[]{}"), count("'’"), count("-–—")
    other = sum(ascii_counts[33:48]) + sum(ascii_counts[58:65]) + sum(ascii_counts[91:97]) + sum(ascii_counts[123:127])
    other -= commas + stops + bangs + questions + count(":;\"()[]{}'-")
    return [
        float(np.log1p(length)), float(np.log1p(n_words)), n_words**0.5, float(np.log(sentences)), min(len(words) / sentences, 100.0),
        min(sum(map(len, words)) / n, 30.0), len([word for word in words if len(word) > 6]) / n, len(vocabulary) / n**0.75,
        upper / max(letters, 1), len(_UPPER_WORD.findall(text)) / n, digits / characters,
        commas / n, stops / n, min(bangs, 5) / 5, min(questions, 5) / 5, colons / n, quotes / n, brackets / n, apostrophes / n,
        hyphens / n, max(other, 0) / characters, text.count("  ") / n, len(_NO_SPACE.findall(text)) / sentences,
        float(stripped[:1].isupper()), float(stripped[-1:] in ".!?\"”)"), float(" i " in text), len(_LOWER_START.findall(text)) / sentences,
        share(_CHAT), share(_BARE), len(_NO_VOWEL.findall(lower)) / n, float(_TRIPLED.search(lower) is not None),
        share(_FIRST), share(_SECOND), share(_NEGATION), share(_CONNECTIVE), share(_HEDGE),
        float(np.log1p(text.count("\n"))), len(_LIST_ITEM.findall(text)) / sentences, float(np.log1p(len(_HEADING.findall(text)))),
        float(np.log1p(text.count("**"))), float("```" in text), float("http" in lower), float(_REFUSAL.search(lower[:400]) is not None),
        float(bool(stripped)),
    ]  # fmt: skip
