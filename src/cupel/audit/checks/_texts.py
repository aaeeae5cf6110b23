"""One look at every text: what is plainly not in it, so that the expressions of the checks read only the texts that can match.

Each flag is a necessary condition of an expression: a text without it cannot match, a text with it is read by the expression itself.
So the findings are those of reading every text, and `tests/audit/checks/test_looks.py` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cupel.encode.scan import BLANK, SPACE, UPPER, WORD, Lexicon, Scan, chunks, hash_word

_STRIPPED = np.isin(np.arange(256), [ord(c) for c in ".,;:!?\"'()[]"])
_STOPPED = np.isin(np.arange(256), [ord(c) for c in ".!?:;\"')]}>*`_~|=#$%0123456789/\\"])
_ITEM = np.isin(np.arange(256), [ord(c) for c in "-*+0123456789"])
_BULLET = ord("•")
_GUILLEMETS = (ord("«"), ord("»"))
#: how the words begin that `harmful_text` looks for
_STEMS = (
    "suic", "kill", "murd", "rape", "rapi", "mole", "pedo", "paed", "porn", "bomb", "expl", "meth", "hero", "coca", "terr", "nazi", "neon",
    "geno", "fuck", "moth", "bitc", "cunt", "whor", "slut", "self", "tort", "behe", "ince",
)  # fmt: skip


@dataclass
class Looks:
    """Of each text, bool [n] unless stated.

    collapses  white space other than single spaces, or at an end; loose: composition (NFC) may change it
    item, heading, bold, tick, pipe   it can hold a list item, a heading, bold text, code, a table row
    personal   it can hold personal data; leaked: marks of a chat template; unstopped: it can end in the middle
    """

    collapses: np.ndarray
    loose: np.ndarray
    item: np.ndarray
    heading: np.ndarray
    bold: np.ndarray
    tick: np.ndarray
    pipe: np.ndarray
    personal: np.ndarray
    leaked: np.ndarray
    unstopped: np.ndarray


@dataclass
class Words:
    """Of each normalised text: harmful, refuses (bool [n]: it can), language and script (int64 [n], as `language_mismatch` has them)."""

    harmful: np.ndarray
    refuses: np.ndarray
    hits: np.ndarray
    varied: np.ndarray
    letters: np.ndarray
    foreign: np.ndarray


def look(texts: list[str]) -> Looks:
    """The flags of raw texts."""
    n = len(texts)
    out = Looks(*(np.zeros(n, dtype=bool) for _ in range(10)))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=n)
    for start, stop in chunks(lengths):
        scan = Scan(texts[start:stop])
        code, counts = scan.code, scan.counts()
        at = slice(start, stop)

        def flag(places: np.ndarray, scan: Scan = scan) -> np.ndarray:
            mask = np.zeros(len(scan.stop), dtype=bool)
            mask[scan.owner(places)] = True
            return mask

        empty = scan.length == 0
        last = code[np.maximum(scan.stop - 1, 0)]
        ends = ~empty & (BLANK[code[scan.start]] | BLANK[last])
        blank = (code - np.uint8(9) < 5) | (code - np.uint8(28) < 4) | (code == SPACE)
        double = (code[:-1] == 32) & (code[1:] == 32)
        out.collapses[at] = ends | flag(np.flatnonzero(blank)) | flag(np.flatnonzero(double))
        out.loose[at] = scan.loose
        lines = np.concatenate([scan.start, np.flatnonzero(code == 10) + 1])
        for _ in range(64):  # past spaces and tabs; what is indented further is left to the expression
            indented = np.flatnonzero((code[lines] == 32) | (code[lines] == 9))
            if not len(indented):
                break
            lines[indented] += 1
        starts = code[lines]
        item = _ITEM[starts] | (scan.points[lines] == _BULLET) | (starts == 32) | (starts == 9) | (starts == WORD)
        out.item[at] = flag(np.sort(lines[item]))
        count = {mark: counts[:, ord(mark)] for mark in "#*_`|@.<[:\n"}
        out.heading[at], out.tick[at], out.pipe[at] = count["#"] > 0, count["`"] > 0, count["|"] > 1
        out.bold[at] = (count["*"] > 3) | (count["_"] > 3)
        digit = (code - np.uint8(48) < 10) | (code == WORD)  # there are digits beyond ASCII
        digits = counts[:, 48:58].sum(axis=1) + counts[:, WORD]
        where = np.flatnonzero(digit)
        where = where[where > 1]
        iban = where[digit[where + 1] & (code[where - 1] - np.uint8(65) < 26) & (code[where - 2] - np.uint8(65) < 26)]
        out.personal[at] = (count["@"] > 0) | (digits >= 9) | ((count["."] >= 3) & (digits >= 4)) | flag(iban)
        out.leaked[at] = (count["<"] > 0) | (count["["] > 0) | (count["#"] > 2) | ((count["\n"] > 1) & (count[":"] > 0))
        out.unstopped[at] = (scan.length >= 80) & (~_STOPPED[last] | (count["`"] > 2))
    return out


@lru_cache(maxsize=1)
def _stems() -> Lexicon:
    return Lexicon([_STEMS])


@lru_cache(maxsize=1)
def _phrases() -> dict[str, np.uint64]:
    words = ("i", "m", "am", "can", "cannot", "won", "will", "must", "refuse", "don", "t", "not", "to", "an", "ai", "against", "violate",
             "violates", "my", "as")  # fmt: skip
    return {word: np.uint64(hash_word(word)) for word in words}


def read_words(texts: list[str], stopwords: dict[str, str], limit: int) -> Words:
    """The flags of normalised texts; `stopwords` maps languages to their words, counted in the first `limit` characters."""
    n, kinds = len(texts), len(stopwords)
    out = Words(np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), np.zeros((n, kinds), dtype=np.int64), np.zeros((n, kinds), dtype=bool),
                np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool))  # fmt: skip
    listed = Lexicon([words.split() for words in stopwords.values()])
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=n)
    for start, stop in chunks(lengths):
        scan = Scan(texts[start:stop])
        code, prefix, at = scan.code, scan.prefix(), slice(start, stop)
        lower, upper = code - np.uint8(97) < 26, code - np.uint8(65) < 26
        alnum = lower | upper | (code - np.uint8(48) < 10) | (code == WORD) | (code == UPPER)
        begin, end = scan.runs(alnum)
        stem = np.flatnonzero(_stems()(scan.hashes(prefix, begin, np.minimum(begin + 4, len(code)))))
        out.harmful[start + scan.owner(begin[stem])] = True
        phrase = _may_refuse(scan.hashes(prefix, begin, end))
        out.refuses[start + scan.owner(begin[phrase])] = True
        odd = start + np.flatnonzero(scan.odd)
        out.harmful[odd] = out.refuses[odd] = True
        _count_stopwords(scan, prefix, listed, limit, kinds, out, start)
        within = np.minimum(scan.length, limit)
        upto = np.zeros(len(code) + 1, dtype=np.int32)
        np.cumsum(lower | upper, out=upto[1:], dtype=np.int32)
        out.letters[at] = upto[scan.start + within] - upto[scan.start]
        out.foreign[start + scan.owner(np.flatnonzero(code >= 128))] = True
    return out


def _may_refuse(run: np.ndarray) -> np.ndarray:
    """Places among the hashes of runs at which a phrase of refusal may begin."""
    w = _phrases()
    run = np.append(run, np.zeros(2, dtype=np.uint64))
    i = np.flatnonzero(run[:-2] == w["i"])
    second, third = run[i + 1], run[i + 2]
    maybe = (second == w["m"]) | (second == w["am"]) | (second == w["cannot"]) | (second == w["must"])
    maybe |= (second == w["can"]) & ((third == w["t"]) | (third == w["not"]))
    maybe |= ((second == w["won"]) | (second == w["don"])) & (third == w["t"])
    maybe |= ((second == w["will"]) & (third == w["not"])) | ((second == w["refuse"]) & (third == w["to"]))
    an = np.flatnonzero((run[:-2] == w["an"]) & (run[1:-1] == w["ai"]))
    my = np.flatnonzero((run[1:-1] == w["my"]) & ((run[:-2] == w["against"]) | (run[:-2] == w["violate"]) | (run[:-2] == w["violates"])))
    return np.concatenate([i[maybe], an, my])


def _count_stopwords(scan: Scan, prefix: np.ndarray, listed: Lexicon, limit: int, kinds: int, out: Words, start: int) -> None:
    """Fill `hits` (stop-words of each language) and `varied` (two different ones, as written) of the texts of a scan."""
    code = scan.code
    inside = ~BLANK[code]
    inside[scan.stop] = False
    begin, end = scan.runs(inside)
    owner = scan.owner(begin)
    border = scan.start[owner] + limit
    keep = begin < border
    begin, end, owner = begin[keep], np.minimum(end, border)[keep], owner[keep]
    first, last = begin.copy(), end.copy()
    guillemet = np.isin(scan.points, _GUILLEMETS) if (code >= 128).any() else None

    def stripped(places: np.ndarray) -> np.ndarray:
        found = _STRIPPED[code[places]]
        return found if guillemet is None else found | guillemet[places]

    for side in (0, 1):
        moving = np.arange(len(first))
        while len(moving):
            moving = moving[first[moving] < last[moving]]
            moving = moving[stripped(first[moving] if side == 0 else last[moving] - 1)]
            if side == 0:
                first[moving] += 1
            else:
                last[moving] -= 1
    bits = listed(scan.hashes(prefix, first, last))
    found = np.flatnonzero((bits > 0) & (first < last))
    if not len(found):
        return
    written = scan.hashes(prefix, begin[found], end[found])
    for k in range(kinds):
        mine = (bits[found] >> k) & 1 > 0
        if not mine.any():
            continue
        who, word = owner[found[mine]], written[mine]
        head = np.flatnonzero(np.diff(who, prepend=-1))
        out.hits[start + who[head], k] = np.diff(np.append(head, len(who)))
        out.varied[start + who[head], k] = np.minimum.reduceat(word, head) != np.maximum.reduceat(word, head)
