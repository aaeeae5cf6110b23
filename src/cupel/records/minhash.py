"""MinHash signatures of texts, straight from Arrow's buffers: hashes of words, of runs of words, and their minima under 64 permutations.

Broder 1997, "On the resemblance and containment of documents". A word is a run of letters and digits without regard to case, or one CJK
character; what lies between is ignored. Words are hashed from their bytes, eight at a time, runs of words (shingles) by prefix sums of a
polynomial over word hashes, so that no text becomes a Python string. Composed and decomposed letters are different (the texts are not
normalised).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa

#: permutations of a signature
PERMUTATIONS = 64
#: bytes of text hashed at a time; the arrays of a chunk stay in the processor's cache
_CHUNK = 1 << 18
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
#: the value of a text without words, everywhere
EMPTY = np.iinfo(np.uint32).max
#: a byte of ASCII -> its lower case where it is a letter or digit, else 0; other bytes stay
_FOLD = bytes(ord(chr(byte).lower()) if byte < 0x80 and chr(byte).isalnum() else byte if byte >= 0x80 else 0 for byte in range(256))
#: the lowest 0, 1, ..., 8 bytes of a uint64
MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
#: words of more bytes than this are hashed one by one
_LONG = 64
_NONE = np.zeros(0, dtype=np.int64)


def chunks(texts: pa.Array, size: int = _CHUNK) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of texts with about `size` bytes each."""
    offsets, _ = buffers(texts)
    at = 0
    while at < len(texts):
        stop = int(np.searchsorted(offsets, offsets[at] + size, side="right")) - 1
        stop = min(max(stop, at + 1), len(texts))
        yield at, stop
        at = stop


def buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [n + 1] offsets, uint8 bytes that they point into) of a large_string array without nulls."""
    _, offsets, data = texts.buffers()
    found = np.frombuffer(offsets, dtype=np.int64, count=len(texts) + 1, offset=8 * texts.offset) if offsets else np.zeros(1, np.int64)
    return found, np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.zeros(0, dtype=np.uint8)


def mix(x: np.ndarray) -> np.ndarray:
    """Bijective scrambling of uint64 (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 hashes of the words of all texts in order, int64 [n + 1] where the words of each text begin).

    >>> hashes, starts = words(pa.array(["Two words", "two  WORDS!", ""], pa.large_string()))
    >>> starts.tolist(), bool((hashes[:2] == hashes[2:]).all())
    ([0, 2, 4, 4], True)
    """
    offsets, data = buffers(texts)
    ends, raw = offsets - offsets[0], data[offsets[0] : offsets[-1]]
    n = len(raw)
    if not n:
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts) + 1, dtype=np.int64)
    folded = np.zeros(n + 8, dtype=np.uint8)
    folded[:n] = np.frombuffer(raw.tobytes().translate(_FOLD), dtype=np.uint8)
    single, after = _fold_wide(folded, raw) if raw.max() >= 0x80 else (_NONE, _NONE)
    inside = folded[:n] != 0
    first, last = inside.copy(), inside.copy()  # of a word
    first[1:] &= ~inside[:-1]
    last[:-1] &= ~inside[1:]
    filled = ends[:-1] < ends[1:]
    for flag, place in ((first, ends[:-1][filled]), (last, ends[1:][filled] - 1)):  # no word reaches from one text into the next
        flag[place] = inside[place]
    first[single], last[after - 1] = True, True
    following, before = after[after < n], single[single > 0] - 1
    first[following], last[before] = inside[following], inside[before]
    begin, stop = np.flatnonzero(first), np.flatnonzero(last) + 1
    return hash_words(folded, begin, stop - begin), np.searchsorted(begin, ends).astype(np.int64)


def hash_words(folded: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """uint64 of each word from its bytes, eight at a time (`folded` has eight zeros at its end)."""
    eight = np.ndarray((len(folded) - 7,), dtype="<u8", buffer=folded.data, strides=(1,))
    out = mix((eight[begin] & MASKS[np.minimum(size, 8)]) + size.astype(np.uint64) * _BASE)
    long = np.flatnonzero(size > 8)
    for at in range(8, _LONG, 8):
        if not len(long):
            return out
        rest = size[long] - at
        out[long] = mix(out[long] ^ (eight[begin[long] + at] & MASKS[np.minimum(rest, 8)]))
        long = long[rest > 8]
    for i in long.tolist():  # no word, but what an encoder of bytes makes
        word = folded[begin[i] : begin[i] + size[i]].tobytes()
        out[i] = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
    return out


def shingles(texts: pa.Array, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 hashes of the runs of `width` words, int64 [n + 1] starts); a shorter text has one of all its words, or none.

    >>> shingles(pa.array(["a b c", "a", ""], pa.large_string()), 2)[1].tolist()
    [0, 2, 3, 3]
    """
    return runs(*words(texts), width)


def runs(word: np.ndarray, starts: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """`shingles` from the word hashes of some texts, uint64, and where those of each text begin, int64 [n + 1]."""
    count = np.diff(starts)
    up, down = _powers(len(word) + 1)
    prefix = np.zeros(len(word) + 1, dtype=np.uint64)
    np.cumsum(word * up[: len(word)], out=prefix[1:])
    made = np.where(count >= width, count - width + 1, np.minimum(count, 1))
    out = np.concatenate([[0], np.cumsum(made)]).astype(np.int64)
    begin = np.repeat(starts[:-1] - out[:-1], made) + np.arange(out[-1])
    stop = begin + np.repeat(np.minimum(count, width), made)
    return mix((prefix[stop] - prefix[begin]) * down[begin]), out


class Signer:
    """Signatures under one seed: the minima of 64 multiply-add permutations of the 32-bit shingle hashes."""

    def __init__(self, width: int, seed: int) -> None:
        self.width = width
        rng = np.random.default_rng([seed, 7])
        self._a = rng.integers(0, 1 << 31, size=PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._b = rng.integers(0, 1 << 32, size=PERMUTATIONS, dtype=np.uint32)

    def __call__(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(uint32 [64, n] signatures, int64 [n] shingles of each text); texts without words have EMPTY everywhere."""
        hashes, starts = shingles(texts, self.width)
        count = np.diff(starts)
        out = np.full((PERMUTATIONS, len(texts)), EMPTY, dtype=np.uint32)
        filled = np.flatnonzero(count > 0)
        if len(filled):
            short = (hashes >> np.uint64(32)).astype(np.uint32)
            at, values = starts[filled], np.empty_like(short)
            for k in range(PERMUTATIONS):
                np.multiply(short, self._a[k], out=values)
                np.add(values, self._b[k], out=values)
                out[k, filled] = np.minimum.reduceat(values, at)
        return out, count


def _fold_wide(folded: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fold characters beyond ASCII in place: signs become zeros, letters their lower case of as many bytes.

    Returns where characters that are words by themselves begin, and where they have ended.
    """
    lead = np.flatnonzero(raw >= 0xC0)
    first = raw[lead].astype(np.uint32)
    size = np.where(first < 0xE0, 2, np.where(first < 0xF0, 3, 4))
    tail = [raw[np.minimum(lead + i, len(raw) - 1)].astype(np.uint32) & 0x3F for i in (1, 2, 3)]
    two, three = (first & 0x1F) << 6 | tail[0], (first & 0x0F) << 12 | tail[0] << 6 | tail[1]
    point = np.where(size == 2, two, np.where(size == 3, three, (first & 0x07) << 18 | tail[0] << 12 | tail[1] << 6 | tail[2]))
    kind = _kinds()[point]
    for i in range(4):
        folded[lead[(kind == 0) & (size > i)] + i] = 0
    cased = np.flatnonzero(point < _CASED)
    lower = _lower()[point[cased]]
    changed = lower != point[cased]
    at, lower, wide = lead[cased[changed]], lower[changed], size[cased[changed]] == 3
    folded[at] = np.where(wide, 0xE0 | lower >> 12, 0xC0 | lower >> 6)
    folded[at + 1] = np.where(wide, 0x80 | (lower >> 6 & 0x3F), 0x80 | (lower & 0x3F))
    folded[at[wide] + 2] = 0x80 | (lower[wide] & 0x3F)
    single = kind == 2
    return lead[single], lead[single] + size[single]


@cache
def _kinds() -> np.ndarray:
    """uint8 per code point: 0 separates words, 1 is part of a word, 2 is a word by itself (CJK)."""
    table = np.ones(0x110000, dtype=np.uint8)
    table[:0x80] = 0  # `_FOLD` has done these
    table[0x80:0xC0] = 0  # Latin-1 controls, spaces and signs
    table[0x2000:0x2070] = 0  # general punctuation
    table[0x3000:0x3040] = 0  # CJK punctuation
    table[0xFF00:0xFF10] = 0  # full-width punctuation
    for low, high in ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2FA20)):
        table[low:high] = 2
    return table


#: code points below this have their lower case in a table; those above (scripts with case are rare there) stand for themselves
_CASED = 0x2000


@cache
def _lower() -> np.ndarray:
    """uint32 per code point below `_CASED`: its lower case, where that is one character of as many bytes."""
    out = np.arange(_CASED, dtype=np.uint32)
    for point in range(0x80, _CASED):
        lower = chr(point).lower()
        if len(lower) == 1 and 0x80 <= ord(lower) < _CASED and (ord(lower) < 0x800) == (point < 0x800):
            out[point] = ord(lower)
    return out


_tables: dict[str, np.ndarray] = {}


def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The powers 0, 1, ..., n - 1 of the base and of its inverse; made once, as long as was asked for."""
    if len(_tables.get("up", ())) < n:
        for name, base in (("up", _BASE), ("down", _INVERSE)):
            table = np.full(n, base, dtype=np.uint64)
            table[0] = 1
            _tables[name] = np.multiply.accumulate(table)
    return _tables["up"], _tables["down"]
