"""The surface facts of many texts at once, on arrays of characters; `surface.facts_slow` is the twin that tests compare with.

About one character in five is no small letter; where these are, and of which class, is what most facts are made of.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cupel.encode import scan as folded
from cupel.encode import surface as slow
from cupel.encode.scan import Lexicon, Scan, steps

# ---- classes of characters that are no small letters, in an order in which sets that are asked for are ranges
(
    _CONTROL, _END, _NEWLINE, _GAP, _FAR_GAP, _STOP, _BANG, _QUESTION, _COMMA, _SEMICOLON, _COLON, _STRAIGHT, _CURLY, _BRACKET, _PRIME,
    _TURNED, _HYPHEN, _LONG_DASH, _SIGN, _FAR_SIGN, _NUMBER, _CAPITAL, _FAR_LETTER,
) = range(23)  # fmt: skip
_CLASSES = 32


def _classes() -> bytes:
    out = bytearray(256)
    for sign in range(33, 127):
        if not chr(sign).isalnum():
            out[sign] = _SIGN
    for signs, kind in {
        "\0": _END, "\n": _NEWLINE, "\t\x0b\x0c\r\x1c\x1d\x1e\x1f ": _GAP, ".": _STOP, "!": _BANG, "?": _QUESTION, ",": _COMMA,
        ";": _SEMICOLON, ":": _COLON, '"': _STRAIGHT, "()[]{}": _BRACKET, "'": _PRIME, "-": _HYPHEN, "0123456789": _NUMBER,
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ": _CAPITAL,
    }.items():  # fmt: skip
        for sign in signs:
            out[ord(sign)] = kind
    for far, kind in {
        folded.SPACE: _FAR_GAP, folded.QUOTE: _CURLY, folded.CLOSING: _CURLY, folded.APOSTROPHE: _TURNED, folded.DASH: _LONG_DASH,
        folded.OTHER: _FAR_SIGN, folded.BULLET: _FAR_SIGN, folded.UPPER_SIGN: _FAR_SIGN, folded.WORD: _FAR_LETTER,
        folded.UPPER: _FAR_LETTER, folded.TITLE: _FAR_LETTER, folded.DIGIT: _FAR_LETTER,
    }.items():  # fmt: skip
        out[far] = kind
    return bytes(out)


_CLASS = _classes()
_FAR = [_FAR_GAP, _CURLY, _TURNED, _LONG_DASH, _FAR_SIGN, _FAR_LETTER]


def _table(chosen: str, *more: int) -> np.ndarray:
    out = np.zeros(256, dtype=bool)
    out[[*map(ord, chosen), *more]] = True
    return out


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SMALL, _LARGE = _table(_LETTERS), _table(_LETTERS.upper())
_ANY_CASE = _SMALL | _LARGE
_IS_CONSONANT = bytes(chr(sign) in "bcdfghjklmnpqrstvwxz" for sign in range(256))
_BLANK = _table("\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f ", folded.SPACE)
_STOPS = _table(".!?")
_AFTER_STOP = _BLANK | _table("\0")
_ALNUM = _ANY_CASE | _table("0123456789", folded.WORD, folded.UPPER, folded.TITLE, folded.DIGIT)
_PART = _ALNUM | _table("_")  # \w
_STARTS_UPPER = _LARGE | _table("", folded.UPPER, folded.UPPER_SIGN)
_ENDS_STOPPED = _STOPS | _table('")', folded.CLOSING)
_DIGITS = _table("0123456789", folded.DIGIT)
_BULLETS = _table("-*+", folded.BULLET)

_LISTS = ("_CHAT", "_BARE", "_FIRST", "_SECOND", "_NEGATION", "_CONNECTIVE", "_HEDGE")
_SHARES = ("chat_spelling", "bare_contractions", "first_person", "second_person", "negations", "connectives", "hedges")
#: how refusals begin, eight characters of each; one has seven
_REFUSING = np.array(
    [int.from_bytes(w.encode(), "little") for w in (
        "i'm sorr", "i am sor", "i cannot", "i'm not ", "i'm unab", "i am not", "i am una", "as an ai",
    )], dtype=np.uint64,
)  # fmt: skip
_CANT, _AS_AN_AI, _I_SPACE, _I_PRIME = (np.uint64(int.from_bytes(w, "little")) for w in (b"i can't", b"as an ai", b"i ", b"i'"))
_SEVEN = np.uint64((1 << 56) - 1)
_REFUSED_WITHIN = 400


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon([sorted(getattr(slow, name)) for name in _LISTS])


def fast_facts(scan: Scan, whole: np.ndarray) -> np.ndarray:
    """float32 [m, len(SURFACE)]: the facts of the texts of a scan, of which each is the beginning of one of `whole` characters."""
    code, small, n_texts = scan.code, scan.small, len(scan.stop)
    place = np.flatnonzero(code[: scan.size] - np.uint8(97) >= 26)
    kind = np.frombuffer(code[place].tobytes().translate(_CLASS), dtype=np.uint8)
    in_text = steps(np.searchsorted(place, scan.stop, side="right"))
    cell = np.repeat(np.arange(n_texts) * _CLASSES, in_text)
    cell += kind
    count = np.bincount(cell, minlength=n_texts * _CLASSES).reshape(n_texts, _CLASSES)
    blank = place[(kind >= _NEWLINE) & (kind <= _FAR_GAP)]
    gap = _Gaps(blank)

    # ---- words: runs of letters and digits, two of them joined by one apostrophe
    breaks = place[kind < _NUMBER]
    inner = _inner(breaks, place[(kind == _PRIME) | (kind == _TURNED)], code)
    if len(inner):
        kept = np.ones(len(breaks), dtype=bool)
        kept[inner] = False
        inner, breaks = breaks[inner], breaks[kept]
    length = steps(breaks + 1) - 1
    filled = np.flatnonzero(length)
    end, length = breaks[filled], length[filled]
    begin = end - length
    bounds = np.searchsorted(begin, scan.stop)
    words = steps(bounds)
    n = np.maximum(words, 1).astype(np.float64)
    letters = np.append(0, np.cumsum(length))[bounds]
    hashes = scan.hashes(begin, end)
    listed, which = _lexicon()(hashes)
    shares = scan.per_text(listed, bounds)
    shares = np.bincount(np.repeat(np.arange(n_texts) * len(_lexicon().member), shares) + which, minlength=n_texts * len(_lexicon().member))
    shares = shares.reshape(n_texts, -1) @ _lexicon().member
    hashes >>= np.uint64(20)
    hashes |= np.repeat(np.arange(n_texts, dtype=np.uint64) << np.uint64(44), words)
    hashes.sort()
    distinct = scan.per_text(np.flatnonzero(hashes[1:] != hashes[:-1]) + 1, bounds)
    distinct[np.flatnonzero(words)[:1]] += 1  # the first word of all is not that of another text

    # ---- sentences and what stands around their ends
    is_mark = (kind >= _STOP) & (kind <= _SEMICOLON)
    marks, mark = place[is_mark], kind[is_mark]
    ends = marks[mark <= _QUESTION]
    sentences = np.maximum(scan.per_text(ends[_AFTER_STOP[code[ends + 1]]]), 1).astype(np.float64)
    stopped = np.flatnonzero(_STOPS[code[gap.begin - 1]] & (gap.begin > 0))
    lower_start = stopped[_SMALL[code[gap.end[stopped]]]]
    middle = marks[_SMALL[code[marks - 1]] & _ANY_CASE[code[marks + 1]] & (marks > 0)]
    no_space = _apart(middle, 2)

    # ---- characters that stand twice
    twice = np.flatnonzero(small[1 : scan.size] == small[: scan.size - 1])
    sign = small[twice]
    thrice = np.flatnonzero(np.diff(twice) == 1)
    pairs = {mark: _apart(twice[sign == ord(mark)]) for mark in " *"}

    # ---- what begins with "i": a word, or what follows an apostrophe
    starts = np.concatenate([begin, inner + 1])
    told = scan.eight()[starts]
    two = told & np.uint64(0xFFFF)
    lone = starts[two == _I_SPACE]
    lone = np.sort(lone[(code[lone] == ord("i")) & (code[lone - 1] == 32) & (lone > 0)])
    refusing = np.flatnonzero((two == _I_SPACE) | (two == _I_PRIME) | (told == _AS_AN_AI))
    told, refusing = told[refusing], starts[refusing]
    refusing = refusing[np.isin(told, _REFUSING) | (told & _SEVEN == _CANT)]
    owner = np.searchsorted(scan.stop, refusing)
    refusal = np.zeros(n_texts)
    for row in np.unique(owner[refusing - scan.start[owner] < _REFUSED_WITHIN]).tolist():
        refusal[row] = slow._REFUSAL.search(scan.lower(row)[:_REFUSED_WITHIN]) is not None

    # ---- where the text begins and ends, and lines
    first, last = gap.stripped(scan, code)
    has_text = first <= last
    items, headings = _openings(scan, gap, place[kind == _NEWLINE], first)

    total = {name: count[:, k] for name, k in {
        "commas": _COMMA, "stops": _STOP, "straight": _STRAIGHT, "curly": _CURLY, "primes": _PRIME, "turned": _TURNED,
    }.items()}  # fmt: skip
    characters = np.maximum(scan.length, 1).astype(np.float64)
    n_words = words * whole / characters
    all_letters = scan.length + 1 - in_text + count[:, _CAPITAL] + count[:, _FAR].sum(axis=1)
    found = {
        "log_characters": np.log1p(whole), "log_words": np.log1p(n_words), "sqrt_words": np.sqrt(n_words),
        "log_sentences": np.log(sentences), "words_per_sentence": np.minimum(words / sentences, 100.0),
        "word_length": np.minimum(steps(letters) / n, 30.0), "long_words": scan.per_text(np.flatnonzero(length > 6), bounds) / n,
        "type_token": distinct / n**0.75, "upper_share": count[:, _CAPITAL] / np.maximum(all_letters, 1),
        "upper_words": scan.per_text(_capitals(place[kind == _CAPITAL], code)) / n, "digits": count[:, _NUMBER] / characters,
        "commas": total["commas"] / n, "stops": total["stops"] / n, "exclamations": np.minimum(count[:, _BANG], 5) / 5,
        "questions": np.minimum(count[:, _QUESTION], 5) / 5, "colons": (count[:, _COLON] + count[:, _SEMICOLON]) / n,
        "quotes": (total["straight"] + total["curly"]) / n, "brackets": count[:, _BRACKET] / n,
        "apostrophes": (total["primes"] + total["turned"]) / n, "hyphens": (count[:, _HYPHEN] + count[:, _LONG_DASH]) / n,
        "other_symbols": count[:, _SIGN] / characters, "double_spaces": scan.per_text(pairs[" "]) / n,
        "no_space_after_stop": scan.per_text(no_space) / sentences, "starts_upper": has_text & _STARTS_UPPER[code[first]],
        "ends_stopped": ~has_text | _ENDS_STOPPED[code[last]], "lower_i": scan.holding(lone),
        "lower_starts": scan.per_text(gap.begin[lower_start]) / sentences, **dict(zip(_SHARES, (shares / n[:, None]).T, strict=True)),
        "no_vowel_words": scan.per_text(_no_vowels(breaks, inner, small)) / n,
        "tripled_letters": scan.holding(twice[thrice[_SMALL[sign[thrice]]]]), "log_newlines": np.log1p(count[:, _NEWLINE]),
        "list_items": scan.per_text(items) / sentences, "headings": np.log1p(scan.per_text(headings)),
        "bold": np.log1p(scan.per_text(pairs["*"])), "code": scan.holding(twice[thrice[sign[thrice] == ord("`")]]),
        "links": scan.holding(_places(small, b"http")), "refusal": refusal, "has_text": has_text,
    }  # fmt: skip
    out = np.empty((len(slow.SURFACE), n_texts), dtype=np.float32)
    for k, name in enumerate(slow.SURFACE):
        out[k] = found[name]
    return out.T


class _Gaps:
    """Runs of white space, (begin, end) int64 each."""

    def __init__(self, blank: np.ndarray) -> None:
        torn = np.flatnonzero(np.diff(blank) > 1) if len(blank) else blank
        self.begin = blank[np.concatenate([[0], torn + 1])] if len(blank) else blank
        self.end = blank[np.concatenate([torn, [len(blank) - 1]])] + 1 if len(blank) else blank

    def stripped(self, scan: Scan, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the first and the last character of each text that is not white space; the first beyond the last where none is."""
        first, last = scan.start.copy(), scan.stop - 1
        led = np.flatnonzero(_BLANK[code[first]])
        first[led] = self.end[np.searchsorted(self.begin, first[led])]
        led = np.flatnonzero(_BLANK[code[np.maximum(last, 0)]] & (scan.length > 0))
        last[led] = self.begin[np.searchsorted(self.end, last[led] + 1)] - 1
        return first, last


def _apart(at: np.ndarray, step: int = 1) -> np.ndarray:
    """Of places that overlap where they are `step` apart, those that a search without overlap finds: every other one of a chain."""
    index = np.arange(len(at))
    linked = np.zeros(len(at), dtype=bool)
    linked[1:] = np.diff(at) == step
    if not linked.any():
        return at
    head = np.maximum.accumulate(np.where(linked, 0, index))
    return at[(index - head) % 2 == 0]


def _inner(breaks: np.ndarray, primes: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Which of the breaks between runs are apostrophes inside a word: a run on either side, and no word has two."""
    primes = primes[_ALNUM[code[primes - 1]] & _ALNUM[code[primes + 1]] & (primes > 0)]
    return _apart(np.searchsorted(breaks, primes))


def _capitals(capital: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Where three capitals or more stand between two borders of words."""
    if len(capital) < 3:
        return capital[:0]
    torn = np.flatnonzero(np.diff(capital) > 1)
    first, last = capital[np.concatenate([[0], torn + 1])], capital[np.concatenate([torn, [len(capital) - 1]])]
    long = last - first > 1
    first, last = first[long], last[long]
    return first[~(_PART[code[first - 1]] & (first > 0)) & ~_PART[code[last + 1]]]


def _no_vowels(breaks: np.ndarray, inner: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Where runs of three characters or more, between borders of words, hold consonants alone."""
    alone = np.frombuffer(small.tobytes().translate(_IS_CONSONANT), dtype=bool)
    first = np.flatnonzero(alone[:-2] & alone[1:-1] & alone[2:])
    first = first[~(_PART[small[first - 1]] & (first > 0))]
    last = breaks[np.searchsorted(breaks, first)]
    if len(inner):
        near = np.searchsorted(inner, first)
        last = np.minimum(last, np.where(near < len(inner), inner[np.minimum(near, len(inner) - 1)], last))
    kept = small[last] != ord("_")
    first, size = first[kept], (last - first)[kept]
    at = np.repeat(first - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    inside = np.bincount(np.repeat(np.arange(len(first)), size), weights=alone[at], minlength=len(first))
    return first[inside == size]


def _openings(scan: Scan, gap: _Gaps, newline: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where list items and where headings open: what stands first after white space with a line break in it, or first in its text."""
    code = scan.code
    run = np.searchsorted(gap.begin, newline, side="right") - 1
    latest = np.ones(len(run), dtype=bool)
    latest[:-1] = run[1:] != run[:-1]
    line, opens = newline[latest] + 1, gap.end[run[latest]]
    beginning = ~np.isin(first, opens)
    line = np.concatenate([line, scan.start[beginning]])
    opens = np.concatenate([opens, first[beginning]])
    after = opens.copy()
    for _ in range(3):
        after += _DIGITS[code[after]]
    marked = _BULLETS[code[opens]] | ((after > opens) & ((code[after] == ord(".")) | (code[after] == ord(")"))))
    item = marked & _BLANK[code[after + 1]]
    heading = (code[opens] == ord("#")) & (opens - line <= 3)
    opened, after = opens[heading], opens[heading]
    for _ in range(6):
        after = after + (code[after] == ord("#"))
    return np.sort(opens[item]), np.sort(opened[_BLANK[code[after]]])


def _places(code: np.ndarray, wanted: bytes) -> np.ndarray:
    """Where some bytes stand."""
    data, found, at = code.tobytes(), [], -1
    while (at := data.find(wanted, at + 1)) >= 0:
        found.append(at)
    return np.array(found, dtype=np.int64)
