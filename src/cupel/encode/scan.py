"""Many texts as one array of characters, with their runs of letters: what array programs need instead of one regular expression a text.

Python's `re` decides what a character is: `\\w` is `str.isalnum` or an underscore, `\\s` is `str.isspace`, and words are compared after
`str.lower`. A character is folded to one byte: ASCII as it is, everything else to a class. The few characters whose lower case depends
on their neighbours, has another length or is ASCII (U+0130, U+03A3, U+212A) mark their text as `odd`, as do lone surrogates: such
texts are for the slow path.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

#: characters handled at a time: arrays of eight bytes a character then stay within some megabytes
CHUNK = 1 << 17
SEPARATOR = 0  # between two texts
#: classes beyond ASCII: any other sign, part of a word, white space, and the marks that are counted by name
OTHER, WORD, SPACE, APOSTROPHE, QUOTE, DASH, UPPER, UPPER_SIGN, LOOSE, ODD = range(128, 138)
KINDS = 138

_NAMED = {"’": APOSTROPHE, "“": QUOTE, "”": QUOTE, "«": QUOTE, "»": QUOTE, "–": DASH, "—": DASH}
_ODD = (0x130, 0x3A3, 0x212A)
_UNSEEN = 255
_SIZE = 0x110000
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


def mix(x: np.ndarray) -> np.ndarray:
    """Bijective scrambling of uint64 (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def powers(base: np.uint64, n: int) -> np.ndarray:
    """base^0 ... base^(n-1) modulo 2^64."""
    out = np.full(n, base, dtype=np.uint64)
    if n:
        out[0] = 1
    return np.multiply.accumulate(out)


class _Tables:
    """Folding, lower case and hash of every code point; what lies beyond ASCII is filled in when it is first met."""

    def __init__(self) -> None:
        self.fold = np.full(_SIZE, _UNSEEN, dtype=np.uint8)
        self.fold[:128] = np.arange(128)
        self.fold[0] = 1  # 0 is the separator
        points = np.arange(_SIZE, dtype=np.uint64)
        points[65:91] += np.uint64(32)
        self.hash = mix(points + np.uint64(1))
        self.up, self.down = powers(_BASE, CHUNK), powers(_INVERSE, CHUNK)
        self.unstable: set[int] = set()

    def learn(self, points: np.ndarray) -> None:
        for point in np.unique(points).tolist():
            sign = chr(point)
            if point in _ODD:
                kind = ODD
            elif sign in _NAMED:
                kind = _NAMED[sign]
            elif sign.isspace():
                kind = SPACE
            elif unicodedata.combining(sign) and not sign.isalnum():
                kind = LOOSE
            elif sign.isalnum():
                kind = UPPER if sign.isupper() else WORD
            else:
                kind = UPPER_SIGN if sign.isupper() else OTHER
            if kind != ODD and unicodedata.normalize("NFC", sign) != sign:
                self.unstable.add(point)
            self.fold[point] = kind
            if kind != ODD and sign.lower() != sign:
                self.hash[point] = mix(np.array([ord(sign.lower())], dtype=np.uint64) + np.uint64(1))[0]

    def reach(self, n: int) -> None:
        if len(self.up) < n:
            self.up, self.down = powers(_BASE, n), powers(_INVERSE, n)


_tables: list[_Tables] = []


def tables() -> _Tables:
    """The tables, made when first asked for."""
    if not _tables:
        _tables.append(_Tables())
    return _tables[0]


def _bytes(chosen: str, more: tuple[int, ...] = ()) -> np.ndarray:
    table = np.zeros(256, dtype=bool)
    table[[*map(ord, chosen), *more]] = True
    return table


_LOWER = "abcdefghijklmnopqrstuvwxyz"
#: bool [256]: part of a word to `[^\W_]`
ALNUM = _bytes(_LOWER + _LOWER.upper() + "0123456789", (WORD, UPPER))
#: bool [256]: white space to `\s`
BLANK = _bytes("\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f ", (SPACE,))
#: uint8 [256]: ASCII capitals made small
SMALL = np.arange(256, dtype=np.uint8)
SMALL[65:91] += 32


class Scan:
    """Some texts as arrays; N characters with one separator after each text, m texts.

    code    uint8 [N], the folded characters
    start   int64 [m], where each text begins; stop int64 [m], where it ends (the place of its separator)
    odd     bool [m], for the slow path
    """

    def __init__(self, texts: Sequence[str]) -> None:
        t = tables()
        length = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        joined = ("\0".join(texts) + "\0").encode("utf-32-le", "surrogatepass")
        self.points = np.frombuffer(joined, dtype=np.uint32)
        self.stop = np.cumsum(length + 1) - 1
        self.start = self.stop - length
        self.length = length
        code = t.fold[self.points]
        unseen = code == _UNSEEN
        if unseen.any():
            t.learn(self.points[unseen])
            code = t.fold[self.points]
        code[self.stop] = SEPARATOR
        self.code = code
        self.odd = np.zeros(len(texts), dtype=bool)
        strange = np.flatnonzero(code == ODD)
        if len(strange):
            self.odd[self.owner(strange)] = True

    @property
    def loose(self) -> np.ndarray:
        """bool [m]: texts that composition (NFC) may change, or that are odd."""
        at = np.flatnonzero((self.code == LOOSE) | (self.code == ODD))
        unstable = tables().unstable
        if unstable:
            at = np.union1d(at, np.flatnonzero(np.isin(self.points, np.array(sorted(unstable), dtype=np.uint32))))
        out = np.zeros(len(self.stop), dtype=bool)
        out[self.owner(at)] = True
        return out

    def owner(self, at: np.ndarray) -> np.ndarray:
        """The text of each place, int64; places ascending."""
        return np.searchsorted(self.stop, at, side="left")

    def per_text(self, at: np.ndarray) -> np.ndarray:
        """int64 [m]: how many of the places `at` (ascending) lie in each text."""
        return np.diff(np.searchsorted(at, self.stop), prepend=0) if len(self.stop) else np.zeros(0, dtype=np.int64)

    def counts(self) -> np.ndarray:
        """int64 [m, KINDS]: how often each folded character occurs."""
        m = len(self.stop)
        place = np.repeat(np.arange(m, dtype=np.int64) * KINDS, self.length + 1)
        place += self.code
        return np.bincount(place, minlength=m * KINDS).reshape(m, KINDS)

    def runs(self, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(begin, end) int64 of the runs of places where `inside` (bool [N], False at separators) holds."""
        edge = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        if len(inside) and inside[0]:
            edge = np.concatenate([[0], edge])
        return edge[::2], edge[1::2]

    def prefix(self) -> np.ndarray:
        """uint64 [N + 1]: prefix sums of the polynomial over lower-case code points that `hashes` takes differences of."""
        t = tables()
        n = len(self.points)
        t.reach(n)
        out = np.zeros(n + 1, dtype=np.uint64)
        np.cumsum(t.hash[self.points] * t.up[:n], out=out[1:])
        return out

    def hashes(self, prefix: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """uint64: a hash of each stretch of characters in lower case, the same wherever it stands."""
        return mix((prefix[end] - prefix[begin]) * tables().down[begin])


def hash_word(word: str) -> int:
    """The hash that `Scan.hashes` gives to a word in lower case.

    >>> scan = Scan(["say IT"])
    >>> int(scan.hashes(scan.prefix(), np.array([4]), np.array([6]))[0]) == hash_word("it")
    True
    """
    t = tables()
    points = np.frombuffer(word.encode("utf-32-le"), dtype=np.uint32)
    return int(mix(np.array([(t.hash[points] * powers(_BASE, len(points))).sum(dtype=np.uint64)]))[0])


class Lexicon:
    """Lists of words, looked up by hash: which lists a word is on, as bits.

    >>> lexicon = Lexicon([["a", "b"], ["b"]])
    >>> lexicon(np.array([hash_word("b"), hash_word("x")], dtype=np.uint64)).tolist()
    [3, 0]
    """

    def __init__(self, lists: Sequence[Sequence[str]]) -> None:
        bits: dict[int, int] = {}
        for k, words in enumerate(lists):
            for word in words:
                bits[hash_word(word)] = bits.get(hash_word(word), 0) | 1 << k
        keys = np.array(sorted(bits), dtype=np.uint64)
        width = 1 << (4 * max(1, len(keys))).bit_length()
        shift, chosen = 0, None
        for shift in range(52):  # a slice of the hash on which no two of the words meet, else the width grows
            at = (keys >> np.uint64(shift)) & np.uint64(width - 1)
            if len(np.unique(at)) == len(keys):
                chosen = at
                break
        while chosen is None:
            width *= 2
            at = keys & np.uint64(width - 1)
            shift, chosen = 0, at if len(np.unique(at)) == len(keys) else None
        self._shift, self._mask = np.uint64(shift), np.uint64(width - 1)
        self._key = np.zeros(width, dtype=np.uint64)
        self._bit = np.zeros(width, dtype=np.int64)
        self._key[chosen.astype(np.int64)] = keys
        self._bit[chosen.astype(np.int64)] = [bits[int(k)] for k in keys]

    def __call__(self, hashes: np.ndarray) -> np.ndarray:
        """int64: the bits of the lists that hold each word, 0 for a word on none."""
        at = ((hashes >> self._shift) & self._mask).astype(np.int64)
        return np.where(self._key[at] == hashes, self._bit[at], 0)


def chunks(lengths: np.ndarray, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of texts that have about `size` characters together; no run is empty.

    >>> list(chunks(np.array([3, 4, 9]), size=8))
    [(0, 2), (2, 3)]
    """
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64) + 1)
    start, done = 0, 0
    while start < len(ends):
        stop = int(np.searchsorted(ends, done + size, side="left")) + 1
        stop = min(max(stop, start + 1), len(ends))
        yield start, stop
        start, done = stop, int(ends[stop - 1])
