"""The surface facts of many texts at once, on arrays of characters; `surface.facts_slow` is the twin that tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cupel.encode import surface as slow
from cupel.encode.scan import APOSTROPHE, BLANK, DASH, KINDS, QUOTE, SPACE, UPPER, UPPER_SIGN, WORD, Lexicon, Scan, hash_word

_DIGIT = slice(48, 58)
_STOPS = np.isin(np.arange(256), [ord(c) for c in ".!?"])
_CONSONANT = np.isin(np.arange(256), [ord(c) for c in "bcdfghjklmnpqrstvwxz"])
_A_TO_Z = (np.arange(256) >= 97) & (np.arange(256) <= 122)
_CAPITAL = (np.arange(256) >= 65) & (np.arange(256) <= 90)
_ITEM_START = np.isin(np.arange(256), [ord(c) for c in "-*+0123456789"])
_BULLET = ord("•")
_LISTS = ("_CHAT", "_BARE", "_FIRST", "_SECOND", "_NEGATION", "_CONNECTIVE", "_HEDGE")
_SHARES = ("chat_spelling", "bare_contractions", "first_person", "second_person", "negations", "connectives", "hedges")


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon([sorted(getattr(slow, name)) for name in _LISTS])


@lru_cache(maxsize=1)
def _refusal_words() -> dict[str, np.uint64]:
    words = ("i", "am", "m", "can", "t", "cannot", "sorry", "not", "unable", "as", "an", "ai")
    return {word: np.uint64(hash_word(word)) for word in words}


def _refusing(run: np.ndarray) -> np.ndarray:
    """Places among the hashes of runs at which a set phrase of refusal may begin: every one does, and few others."""
    w = _refusal_words()
    if len(run) < 3:
        run = np.append(run, np.zeros(3, dtype=np.uint64))
    i = np.flatnonzero(run[:-2] == w["i"])
    second, third = run[i + 1], run[i + 2]
    be = ((second == w["am"]) | (second == w["m"])) & ((third == w["sorry"]) | (third == w["not"]) | (third == w["unable"]))
    found = i[be | (second == w["cannot"]) | ((second == w["can"]) & (third == w["t"]))]
    late = np.array([len(run) - 2])  # "i cannot" may be the last two runs
    found = np.append(found, late[(run[late] == w["i"]) & (run[late + 1] == w["cannot"])])
    ai = np.flatnonzero(run[2:] == w["ai"])
    return np.append(found, ai[(run[ai] == w["as"]) & (run[ai + 1] == w["an"])])


def fast_facts(texts: Sequence[str], out: np.ndarray) -> list[int]:
    """Fill `out` float32 [len(texts), len(SURFACE)]; returns the rows that only the slow path can do."""
    whole = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    long = whole > slow.MAX_CHARACTERS
    if long.any():
        texts = [text[: slow.MAX_CHARACTERS] for text in texts]
    scan = Scan(texts)
    code, m = scan.code, len(texts)
    counts = scan.counts()
    characters = np.maximum(scan.length, 1).astype(np.float64)
    column = {name: out[:, i] for i, name in enumerate(slow.SURFACE)}

    # ---- words: runs of letters and digits, two of them joined by one apostrophe
    small = code + np.uint8(32) * (code - np.uint8(65) < 26)
    a_to_z = small - np.uint8(97) < 26
    alnum = a_to_z | (code - np.uint8(48) < 10) | (code == WORD) | (code == UPPER)
    begin, end = scan.runs(alnum)
    prefix = scan.prefix()
    joined = np.zeros(len(begin) + 1, dtype=bool)  # joined[i]: run i goes on after an apostrophe from run i - 1
    if len(begin) > 1:
        gap = code[end[:-1]]
        joined[1:-1] = (begin[1:] - end[:-1] == 1) & ((gap == ord("'")) | (gap == APOSTROPHE))
    first = _even_in_chain(joined[:-1])
    tail = joined[1:] & first
    word_begin, word_end = begin[first], np.where(tail, np.append(end[1:], 0), end)[first]
    in_word = np.diff(np.searchsorted(word_begin, scan.stop), prepend=0)
    owner = np.repeat(np.arange(m), in_word)
    n = np.maximum(in_word, 1).astype(np.float64)
    length = word_end - word_begin
    hashes = scan.hashes(prefix, word_begin, word_end)
    bits = _lexicon()(hashes)
    listed = np.flatnonzero(bits)
    for k, name in enumerate(_SHARES):
        column[name][:] = np.bincount(owner[listed[(bits[listed] >> k) & 1 > 0]], minlength=m) / n
    key = np.sort((owner.astype(np.uint64) << np.uint64(44)) | (hashes >> np.uint64(20)))
    different = np.ones(len(key), dtype=bool)
    different[1:] = key[1:] != key[:-1]
    distinct = np.bincount((key[different] >> np.uint64(44)).astype(np.int64), minlength=m)

    # ---- sentences and what stands around their ends
    blank = (code == 32) | (code - np.uint8(9) < 5) | (code - np.uint8(28) < 4) | (code == SPACE)
    marks = np.flatnonzero((code == 46) | (code == 44) | (code == 33) | (code == 63) | (code == 59))
    ends = marks[_STOPS[code[marks]]]  # the last place holds a separator, so every mark has a neighbour
    sentences = np.maximum(scan.per_text(ends[blank[ends + 1] | (code[ends + 1] == 0)]), 1).astype(np.float64)
    space_begin, space_end = scan.runs(blank)
    before = code[np.maximum(space_begin - 1, 0)] * (space_begin > 0)
    lower_start = _STOPS[before] & _A_TO_Z[code[np.minimum(space_end, len(code) - 1)]]
    middle = marks[(marks > 0) & _A_TO_Z[code[marks - 1]] & a_to_z[marks + 1]]
    chain = np.zeros(len(middle), dtype=bool)
    chain[1:] = np.diff(middle) == 2
    no_space = middle[_even_in_chain(chain)]

    # ---- runs of \w, which hold underscores too
    wide_begin, wide_end = (begin, end) if not counts[:, ord("_")].any() else scan.runs(alnum | (code == ord("_")))
    three = np.flatnonzero(wide_end - wide_begin >= 3)
    wide_begin, wide_end = wide_begin[three], wide_end[three]
    consonants = _all_of(_CONSONANT, small, wide_begin, wide_end)
    capitals = _all_of(_CAPITAL, code, wide_begin, wide_end)
    tripled = np.zeros(m, dtype=bool)
    if len(code) > 2:
        same = np.flatnonzero((small[1:-1] == small[:-2]) & (small[2:] == small[1:-1]) & a_to_z[1:-1]) + 1
        tripled[scan.owner(same)] = True

    def flag(at: np.ndarray) -> np.ndarray:
        mask = np.zeros(m, dtype=bool)
        mask[scan.owner(at)] = True
        return mask

    h = np.flatnonzero(small[:-3] == ord("h")) if len(small) > 3 else begin[:0]
    http = h[(small[h + 1] == ord("t")) & (small[h + 2] == ord("t")) & (small[h + 3] == ord("p"))]
    lone_i = np.flatnonzero((code[1:-1] == ord("i")) & (code[:-2] == 32) & (code[2:] == 32)) + 1 if len(code) > 2 else begin[:0]

    # ---- rare things: the exact expression, on the texts that can hold them
    double = flag(np.flatnonzero((code[:-1] == 32) & (code[1:] == 32)))
    opens = np.concatenate([scan.start, space_end])  # a list item stands at the start or after white space with a line break
    item = _ITEM_START[code[np.minimum(opens, len(code) - 1)]]
    bullet = scan.points[np.minimum(opens, len(code) - 1)] == _BULLET
    broken = before == 0
    broken[np.searchsorted(space_begin, np.flatnonzero(code == 10), side="right") - 1] = True
    breaks = np.concatenate([np.ones(m, dtype=bool), broken])
    items = flag(opens[(item | bullet) & breaks & (opens < len(code))])
    refusing = _refusing(scan.hashes(prefix, begin, end))
    refusals = flag(begin[refusing])
    empty = scan.length == 0
    first_code, last_code = code[scan.start], code[np.maximum(scan.stop - 1, 0)]
    wrapped = ~empty & (BLANK[first_code] | BLANK[last_code])

    nonascii = counts[:, 128:].sum(axis=1)
    upper, lower = counts[:, 65:91].sum(axis=1), counts[:, 97:123].sum(axis=1)
    total = {mark: counts[:, ord(mark)] for mark in ",.!?:;\"'()[]{}-"}
    commas, dots, bangs, questions = (total[mark] for mark in ",.!?")
    colons = total[":"] + total[";"]
    brackets = sum(total[mark] for mark in "()[]{}")
    signs = counts[:, 33:48].sum(axis=1) + counts[:, 58:65].sum(axis=1) + counts[:, 91:97].sum(axis=1) + counts[:, 123:127].sum(axis=1)
    other = signs - commas - dots - bangs - questions - colons - total['"'] - brackets - total["'"] - total["-"]
    n_words = in_word * whole / characters
    for name, value in {
        "log_characters": np.log1p(whole), "log_words": np.log1p(n_words), "sqrt_words": np.sqrt(n_words),
        "log_sentences": np.log(sentences), "words_per_sentence": np.minimum(in_word / sentences, 100.0),
        "word_length": np.minimum(np.bincount(owner, weights=length, minlength=m) / n, 30.0),
        "long_words": np.bincount(owner[length > 6], minlength=m) / n, "type_token": distinct / n**0.75,
        "upper_share": upper / np.maximum(upper + lower + nonascii, 1), "upper_words": scan.per_text(wide_begin[capitals]) / n,
        "digits": counts[:, _DIGIT].sum(axis=1) / characters, "commas": commas / n, "stops": dots / n,
        "exclamations": np.minimum(bangs, 5) / 5, "questions": np.minimum(questions, 5) / 5, "colons": colons / n,
        "quotes": (total['"'] + counts[:, QUOTE]) / n, "brackets": brackets / n, "apostrophes": (total["'"] + counts[:, APOSTROPHE]) / n,
        "hyphens": (total["-"] + counts[:, DASH]) / n, "other_symbols": np.maximum(other, 0) / characters,
        "no_space_after_stop": scan.per_text(no_space) / sentences,
        "starts_upper": _CAPITAL[first_code] | (first_code == UPPER) | (first_code == UPPER_SIGN),
        "ends_stopped": _STOPS[last_code] | (last_code == ord('"')) | (scan.points[np.maximum(scan.stop - 1, 0)] == ord("”"))
        | (last_code == ord(")")) | empty,
        "lower_i": flag(lone_i), "lower_starts": scan.per_text(space_begin[lower_start]) / sentences,
        "no_vowel_words": scan.per_text(wide_begin[consonants]) / n, "tripled_letters": tripled, "log_newlines": np.log1p(counts[:, 10]),
        "links": flag(http), "has_text": scan.length > _blanks(counts),
    }.items():  # fmt: skip
        column[name][:] = value

    def rare(name: str, rows: np.ndarray, exact) -> None:
        column[name][:] = 0.0
        for row in np.flatnonzero(rows).tolist():
            column[name][row] = exact(texts[row])

    rare("double_spaces", double, lambda text: text.count("  "))
    column["double_spaces"][:] = column["double_spaces"] / n
    rare("list_items", items, lambda text: len(slow._LIST_ITEM.findall(text)))
    column["list_items"][:] = column["list_items"] / sentences
    rare("headings", counts[:, ord("#")] > 0, lambda text: np.log1p(len(slow._HEADING.findall(text))))
    rare("bold", counts[:, ord("*")] > 1, lambda text: np.log1p(text.count("**")))
    rare("code", counts[:, ord("`")] > 2, lambda text: "```" in text)
    rare("refusal", refusals, lambda text: slow._REFUSAL.search(text.lower()[:400]) is not None)
    for row in np.flatnonzero(wrapped).tolist():
        stripped = texts[row].strip()
        column["starts_upper"][row] = stripped[:1].isupper()
        column["ends_stopped"][row] = stripped[-1:] in ".!?\"”)"
    return np.flatnonzero(scan.odd | long).tolist()


def _even_in_chain(joined: np.ndarray) -> np.ndarray:
    """bool: items at an even place of their chain; joined[i]: item i goes on from item i - 1. What a scan without overlap takes."""
    index = np.arange(len(joined))
    head = np.maximum.accumulate(np.where(joined, 0, index)) if len(joined) else index
    return (index - head) % 2 == 0


def _all_of(table: np.ndarray, code: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Positions of the stretches (of three characters or more) all of whose characters are in the table: most fail at the first."""
    maybe = np.flatnonzero(table[code[begin]])
    for k in (1, 2):
        maybe = maybe[table[code[begin[maybe] + k]]]
    size = end[maybe] - begin[maybe]
    at = np.repeat(begin[maybe] - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    inside = np.bincount(np.repeat(np.arange(len(maybe)), size), weights=table[code[at]], minlength=len(maybe))
    return maybe[inside == size]


def _blanks(counts: np.ndarray) -> np.ndarray:
    """int64 [m]: characters of white space."""
    return counts @ BLANK[:KINDS].astype(np.int64)
