"""MinHash signatures of texts, straight from Arrow's buffers: hashes of words, of runs of words, and their minima under 64 permutations.

Broder 1997, "On the resemblance and containment of documents". A word is a run of letters and digits without regard to case, or one CJK
character; what lies between is ignored. Words are hashed by prefix sums of a polynomial over code points, runs of words (shingles) by one
over word hashes, so that no text becomes a Python string. Composed and decomposed letters are different (the texts are not normalised).
"""

from __future__ import annotations

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
    points, ends = _points(texts)
    if not len(points):
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts) + 1, dtype=np.int64)
    kind, value = _kinds()[points], _values(points)
    up, down = _powers(len(points) + 1)
    inside, single = kind > 0, kind == 2
    edge = np.zeros(len(points) + 1, dtype=bool)  # a word may not reach from one text into the next
    edge[ends] = True
    apart = np.ones(len(points) + 1, dtype=bool)  # between i - 1 and i no word goes on
    apart[1:-1] = ~inside[1:] | ~inside[:-1] | single[1:] | single[:-1] | edge[1:-1]
    begin = np.flatnonzero(inside & apart[:-1])
    stop = np.flatnonzero(inside & apart[1:]) + 1
    prefix = np.zeros(len(points) + 1, dtype=np.uint64)
    np.cumsum(value * up[: len(points)], out=prefix[1:])
    hashes = mix((prefix[stop] - prefix[begin]) * down[begin])
    return hashes, np.searchsorted(begin, ends).astype(np.int64)


def shingles(texts: pa.Array, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 hashes of the runs of `width` words, int64 [n + 1] starts); a shorter text has one of all its words, or none.

    >>> shingles(pa.array(["a b c", "a", ""], pa.large_string()), 2)[1].tolist()
    [0, 2, 3, 3]
    """
    word, starts = words(texts)
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


def _points(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(code points of all texts, int64 [n + 1] where each text begins): bytes as they are where all of them are ASCII."""
    offsets, data = buffers(texts)
    data, ends = data[offsets[0] : offsets[-1]], offsets - offsets[0]
    if not len(data) or data.max() < 0x80:
        return data, ends
    lead = (data & 0xC0) != 0x80
    place = np.concatenate([[0], np.cumsum(lead)])
    at = np.flatnonzero(lead)
    points = data[at].astype(np.uint32)
    wide = np.flatnonzero(points >= 0x80)
    first, spot = points[wide], at[wide]
    following = [data[np.minimum(spot + i, len(data) - 1)].astype(np.uint32) & 0x3F for i in (1, 2, 3)]
    two = (first & 0x1F) << 6 | following[0]
    three = (first & 0x0F) << 12 | following[0] << 6 | following[1]
    four = (first & 0x07) << 18 | following[0] << 12 | following[1] << 6 | following[2]
    points[wide] = np.where(first < 0xE0, two, np.where(first < 0xF0, three, four))
    return points, place[ends]


@cache
def _kinds() -> np.ndarray:
    """uint8 per code point: 0 separates words, 1 is part of a word, 2 is a word by itself (CJK)."""
    table = np.ones(0x110000, dtype=np.uint8)
    table[:0x80] = [chr(point).isalnum() for point in range(0x80)]
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
def _hashed() -> np.ndarray:
    """uint64 per code point below `_CASED`: the scrambled number of its lower case."""
    lower = [chr(point).lower() for point in range(_CASED)]
    return mix(np.array([ord(text) if len(text) == 1 else point for point, text in enumerate(lower)], dtype=np.uint64) + np.uint64(1))


def _values(points: np.ndarray) -> np.ndarray:
    table = _hashed()
    if points.dtype == np.uint8:
        return table[points]
    out = table[np.minimum(points, _CASED - 1)]
    high = np.flatnonzero(points >= _CASED)
    out[high] = mix(points[high].astype(np.uint64) + np.uint64(1))
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
