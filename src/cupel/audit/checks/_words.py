"""One look at the words of normalised texts: languages by their stop-words, and what cannot be a refusal or a harmful word.

Words are compared as numbers of up to eight bytes, exactly. As in `_texts` a flag is a necessary condition of an expression.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cupel.audit.checks._bytes import ALNUM, Joined, Part, table
from cupel.records.minhash import MASKS, hash_words

_STRIPPED = table(b".,;:!?\"'()[]")
#: how the words begin that `harmful_text` looks for; a full stop stands for the end of the word
_STEMS = (
    "suicid", "kill.", "murder", "rape", "rapi", "molest", "pedophil", "paedophi", "porn", "bomb", "explosiv", "meth.", "methamph",
    "heroin", "cocaine", "terroris", "nazi", "neonazi", "genocid", "fuck", "motherfu", "bitch", "cunt", "whore", "slut", "self.", "tortur",
    "behead", "incest",
)  # fmt: skip
#: characters in which `one_sided_refusals` looks, and bytes that a character may have
_LOOK, _WIDEST = 300, 4


@dataclass
class Words:
    """Of each text: harmful, refuses (bool [m]: it can); hits int32 [m, languages], stop-words; varied bool, two different ones as
    written; letters bool: 20 letters of ASCII among the first characters."""

    harmful: np.ndarray
    refuses: np.ndarray
    hits: np.ndarray
    varied: np.ndarray
    letters: np.ndarray


def number(word: str) -> int:
    """The bytes of a word of at most eight, as the number that they are in memory.

    >>> hex(number("it"))
    '0x7469'
    """
    return int.from_bytes(word.encode(), "little")


class Lookup:
    """A table of numbers: `lookup[values]` is what each value stands for, 0 for one that is not in it.

    >>> Lookup({number("a"): 3})[np.array([number("a"), number("b")], dtype=np.uint64)].tolist()
    [3, 0]
    """

    def __init__(self, values: dict[int, int]) -> None:
        keys = np.array(sorted(values), dtype=np.uint64)
        rng = np.random.default_rng(0)
        bits = max(6, (8 * len(keys)).bit_length())
        while True:  # multiply and shift, until no two of the numbers meet
            self._factor, self._shift = rng.integers(1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1), np.uint64(64 - bits)
            at = keys * self._factor >> self._shift
            if len(np.unique(at)) == len(keys):
                break
        self._key = np.full(1 << bits, ~np.uint64(0), dtype=np.uint64)
        self._value = np.zeros(1 << bits, dtype=np.uint8)
        self._key[at], self._value[at] = keys, [values[int(key)] for key in keys]

    def __getitem__(self, values: np.ndarray) -> np.ndarray:
        at = values * self._factor >> self._shift
        return np.where(self._key[at] == values, self._value[at], np.uint8(0))


def read_words(part: Part, stopwords: dict[str, str], limit: int, enough: int) -> Words:
    """The flags of the normalised texts of a part; `stopwords` maps languages to their words, counted in the first `limit` characters.

    enough: letters among these that `letters` asks for.
    """
    texts = part.normal
    m = len(texts.stop)
    within = np.minimum(texts.stop, texts.start + limit)
    for i in np.flatnonzero(part.wide & (texts.stop - texts.start > limit)).tolist():
        within[i] = texts.start[i] + len(part.pieces[i].decode()[:limit].encode())
    data = texts.data[: int(texts.stop[-1]) + 1] if m else texts.data[:0]
    upto = np.zeros(len(data) + 1, dtype=np.int32)
    np.cumsum(data - np.uint8(97) < 26, out=upto[1:], dtype=np.int32)
    alnum = ALNUM[data]
    first = alnum.copy()
    first[1:] &= ~alnum[:-1]
    begin = np.flatnonzero(first)
    eight = texts.eight()
    run = eight[begin]
    hits, varied = _count_stopwords(texts, data, eight, within, tuple(stopwords.values()))
    return Words(
        harmful=texts.holding(begin[_harmful(run)]),
        refuses=texts.holding(_refusing(texts, begin, run, part.wide)),
        hits=hits,
        varied=varied,
        letters=upto[within] - upto[texts.start] >= enough,
    )


def _word(run: np.ndarray, *words: str) -> np.ndarray:
    """bool: runs of letters and digits (their eight bytes) that are one of the words, of at most seven bytes."""
    out = np.zeros(len(run), dtype=bool)
    for word in words:
        size = len(word)
        out |= ((run & MASKS[size]) == np.uint64(number(word))) & ~ALNUM[(run >> np.uint64(8 * size)).astype(np.uint8)]
    return out


@lru_cache(maxsize=1)
def _stems() -> Lookup:
    return Lookup({number(stem.rstrip(".")[:4]): 1 for stem in _STEMS})


def _harmful(run: np.ndarray) -> np.ndarray:
    """Positions of the runs that begin like one of the words."""
    maybe = np.flatnonzero(_stems()[run & MASKS[4]])
    some = run[maybe]
    keep = np.zeros(len(maybe), dtype=bool)
    for stem in _STEMS:
        keep |= _word(some, stem[:-1]) if stem.endswith(".") else (some & MASKS[len(stem)]) == np.uint64(number(stem))
    return maybe[keep]


def _refusing(texts: Joined, begin: np.ndarray, run: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Places at which a phrase of refusal may begin."""
    low = run.astype(np.uint16)
    maybe = np.flatnonzero((low & np.uint16(255) == ord("i")) | (low == number("an")) | (low == number("my")))
    owner = np.minimum(texts.owner(begin[maybe]), len(texts.stop) - 1)
    maybe = maybe[begin[maybe] - texts.start[owner] <= np.where(wide[owner], _WIDEST * _LOOK, _LOOK)] if len(maybe) else maybe
    around = np.concatenate([np.zeros(1, np.uint64), run, np.zeros(2, np.uint64)])
    before, here, second, third = (around[maybe + k] for k in range(4))
    i = _word(second, "m", "am", "cannot", "must") | (_word(second, "can") & _word(third, "t", "not"))
    i |= _word(second, "won", "don") & _word(third, "t")
    i |= (_word(second, "will") & _word(third, "not")) | (_word(second, "refuse") & _word(third, "to"))
    found = _word(here, "i") & i
    found |= _word(here, "an") & _word(second, "ai")
    found |= _word(here, "my") & ((before == np.uint64(number("violates"))) | _word(before, "against", "violate"))
    return begin[maybe[found]]


@lru_cache(maxsize=4)
def _listed(lists: tuple[str, ...]) -> Lookup:
    bits: dict[int, int] = {}
    for k, words in enumerate(lists):
        for word in words.split():
            bits[number(word)] = bits.get(number(word), 0) | 1 << k
    return Lookup(bits)


def _count_stopwords(
    texts: Joined, data: np.ndarray, eight: np.ndarray, within: np.ndarray, lists: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(hits, varied) of `Words`, from what stands between spaces, without the signs around it."""
    m = len(texts.stop)
    hits, varied = np.zeros((m, len(lists)), dtype=np.int32), np.zeros((m, len(lists)), dtype=bool)
    end = np.flatnonzero(data == 32)  # one after each text too
    count = np.diff(np.searchsorted(end, texts.stop), prepend=-1)
    begin = np.empty_like(end)
    begin[:1] = 0
    begin[1:] = end[:-1] + 1
    border = np.repeat(within, count)
    keep = np.flatnonzero(begin < border)
    begin, end = begin[keep], np.minimum(end[keep], border[keep])
    first, last = begin.copy(), end.copy()
    guillemets = bool(((data == 0xC2)[:-1] & ((data == 0xAB) | (data == 0xBB))[1:]).any())
    for front in (True, False):
        moving = np.arange(len(first))
        while len(moving):
            moving = moving[first[moving] < last[moving]]
            place = first[moving] if front else last[moving] - 1
            step = _STRIPPED[data[place]].astype(np.int64)
            if guillemets:
                lead = place if front else place - 1
                second = data[lead + 1]
                step[(data[lead] == 0xC2) & ((second == 0xAB) | (second == 0xBB))] = 2
            moving, step = moving[step > 0], step[step > 0]
            if front:
                first[moving] += step
            else:
                last[moving] -= step
    size = last - first
    short = np.flatnonzero((size > 0) & (size <= 8))
    bits = _listed(lists)[eight[first[short]] & MASKS[size[short]]]
    there = np.flatnonzero(bits)
    found = short[there]
    if not len(found):
        return hits, varied
    written = hash_words(texts.data, begin[found], end[found] - begin[found])
    owner = np.repeat(np.arange(m), count)[keep[found]]
    for k in range(len(lists)):
        mine = (bits[there] >> np.uint8(k)) & np.uint8(1) > 0
        if not mine.any():
            continue
        who, word = owner[mine], written[mine]
        head = np.flatnonzero(np.diff(who, prepend=-1))
        hits[who[head], k] = np.diff(np.append(head, len(who)))
        varied[who[head], k] = np.minimum.reduceat(word, head) != np.maximum.reduceat(word, head)
    return hits, varied


def languages_of(hits: np.ndarray, varied: np.ndarray, least: int) -> np.ndarray:
    """int8 [m]: 1 + index of the language with `least` hits or more, on two different words, and twice as many as the next one; else 0."""
    if not len(hits):
        return np.zeros(0, dtype=np.int8)
    best, rows = hits.argmax(axis=1), np.arange(len(hits))
    most, next_most = hits[rows, best], np.sort(hits, axis=1)[:, -2]
    return np.where((most >= least) & varied[rows, best] & (most >= 2 * next_most), best + 1, 0).astype(np.int8)
