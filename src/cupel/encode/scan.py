"""Many texts as one array of characters: what array programs need instead of one regular expression a text.

Python's `re` decides what a character is: `\\w` is `str.isalnum` or an underscore, `\\s` is `str.isspace`, `\\d` is `str.isdecimal`, and
words are compared after `str.lower`. A character is one byte: ASCII as it is, everything else folded to a class. Texts of ASCII are
taken from Arrow's buffer and never become Python strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.records.arrow import pc
from cupel.records.minhash import hash_words

SEPARATOR = 0  # after each text
#: classes beyond ASCII: any other sign, part of a word, white space, and what is counted or looked for by name
OTHER, WORD, SPACE, APOSTROPHE, QUOTE, CLOSING, DASH, DIGIT, BULLET, UPPER, UPPER_SIGN, TITLE = range(128, 140)
_CASED = UPPER  # from here on: what lower case may change
#: U+0130, the one character whose lower case has another length: a text that holds it cannot be scanned
UNEVEN = "\u0130"

_NAMED = {
    "\u2019": APOSTROPHE, "\u201c": QUOTE, "\u201d": CLOSING, "\u00ab": QUOTE, "\u00bb": QUOTE, "\u2013": DASH, "\u2014": DASH,
    "\u2022": BULLET,
}  # fmt: skip
_UNSEEN = 255
_PAD = 16  # zeros after the last separator, so that eight bytes can be read from any place
_LOWER = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))
_NO_NUL = b"\x01" + bytes(range(1, 256))
_fold: list[np.ndarray] = []


def _folded(points: np.ndarray) -> np.ndarray:
    """uint8: each code point as it is kept; the table (a megabyte) is filled in as characters are met."""
    if not _fold:
        table = np.full(0x110000, _UNSEEN, dtype=np.uint8)
        table[:128] = np.arange(128)
        table[0] = 1  # 0 is the separator
        _fold.append(table)
    table = _fold[0]
    code = table[points]
    unseen = code == _UNSEEN
    if unseen.any():
        for point in np.unique(points[unseen]).tolist():
            table[point] = _kind(chr(point))
        code = table[points]
    return code


def _kind(sign: str) -> int:
    if sign in _NAMED:
        return _NAMED[sign]
    if sign.isspace():
        return SPACE
    if sign.isdecimal():
        return DIGIT
    if sign.isalnum():
        return UPPER if sign.isupper() else TITLE if sign != sign.lower() else WORD
    return UPPER_SIGN if sign.isupper() else OTHER


def _padded(data: bytes, stop: np.ndarray) -> np.ndarray:
    """uint8 of texts joined by NUL, the last one followed by one too; a NUL inside a text becomes another control character."""
    if data.count(0) == len(stop) - 1:
        return np.frombuffer(data + bytes(1 + _PAD), dtype=np.uint8)
    code = np.frombuffer(data.translate(_NO_NUL) + bytes(1 + _PAD), dtype=np.uint8).copy()
    code[stop] = SEPARATOR
    return code


def steps(ends: np.ndarray) -> np.ndarray:
    """Differences of ascending numbers, the first one's to 0.

    >>> steps(np.array([2, 5, 5]))
    array([2, 3, 0])
    """
    out = ends.copy()
    out[1:] -= ends[:-1]
    return out


class Scan:
    """m texts as arrays of N characters, one separator after each text, and a few zeros at the end.

    code    uint8 [N + 16], the folded characters; small: the same of the texts in lower case
    start   int64 [m], where each text begins; stop int64 [m], where it ends (the place of its separator); length = stop - start
    """

    def __init__(self, texts: pa.Array) -> None:
        """texts: large_string, none of which holds `UNEVEN`."""
        whole = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
        joined: Any = pc.binary_join(whole, pa.scalar("\0", pa.large_string()))[0]
        self.length = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
        self.stop = np.cumsum(self.length + 1) - 1
        self.start = self.stop - self.length
        data = joined.as_buffer().to_pybytes()
        self._lower = ""
        self._byte: np.ndarray | None = None
        if data.isascii():
            self.code = _padded(data, self.stop)
            self.small = self._hashed = np.frombuffer(self.code.tobytes().translate(_LOWER), dtype=np.uint8)
            return
        text = data.decode()
        code = _folded(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32))
        self.code = self._wide(code)
        if code.max() < _CASED:
            self.small = np.frombuffer(self.code.tobytes().translate(_LOWER), dtype=np.uint8)
            data = data.translate(_LOWER)
            self._lower = data.decode()
        else:
            self._lower = text.lower()  # a NUL ends a word: no text's lower case depends on its neighbours
            self.small = self._wide(_folded(np.frombuffer(self._lower.encode("utf-32-le"), dtype=np.uint32)))
            data = self._lower.encode()
        self._hashed = np.frombuffer(data + bytes(1 + _PAD), dtype=np.uint8)
        self._byte = np.flatnonzero(self._hashed[: len(data) + 1] & 0xC0 != 0x80)  # where each character begins, and the end

    def _wide(self, code: np.ndarray) -> np.ndarray:
        out = np.zeros(len(code) + 1 + _PAD, dtype=np.uint8)
        out[: len(code)] = code
        out[self.stop] = SEPARATOR
        return out

    @property
    def size(self) -> int:
        """N: characters and separators."""
        return int(self.stop[-1]) + 1

    def eight(self) -> np.ndarray:
        """uint64: the eight bytes of `small` from each place on, as a number whose lowest byte comes first."""
        return np.ndarray((len(self.small) - 7,), dtype="<u8", buffer=self.small.data, strides=(1,))

    def lower(self, i: int) -> str:
        """Text i in lower case."""
        start, stop = int(self.start[i]), int(self.stop[i])
        return self._lower[start:stop] if self._lower else self.small[start:stop].tobytes().decode()

    def holding(self, at: np.ndarray) -> np.ndarray:
        """bool [m]: texts that hold one of the places."""
        out = np.zeros(len(self.stop), dtype=bool)
        out[np.searchsorted(self.stop, at)] = True
        return out

    def per_text(self, at: np.ndarray, stop: np.ndarray | None = None) -> np.ndarray:
        """int64 [m]: how many of the places `at` (ascending) lie in each text; of other numbers, before the `stop` of each text."""
        return steps(np.searchsorted(at, self.stop if stop is None else stop))

    def hashes(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """uint64: a hash of each stretch of characters in lower case, the same wherever it stands."""
        if self._byte is None:
            return hash_words(self._hashed, begin, end - begin)
        first = self._byte[begin]
        return hash_words(self._hashed, first, self._byte[end] - first)


def hash_of(words: Sequence[str]) -> np.ndarray:
    """uint64: the hashes that `Scan.hashes` gives to words in lower case.

    >>> import pyarrow as pa
    >>> scan = Scan(pa.array(["say IT"], pa.large_string()))
    >>> bool(scan.hashes(np.array([4]), np.array([6])) == hash_of(["it"]))
    True
    """
    data = [word.encode() for word in words]
    size = np.array([len(word) for word in data], dtype=np.int64)
    return hash_words(np.frombuffer(b"".join(data) + bytes(_PAD), dtype=np.uint8), np.cumsum(size) - size, size)


class Lexicon:
    """Lists of words, looked up by hash: which words are on a list, and on which lists.

    member: int64 [kinds, lists], which lists hold the words of each kind.

    >>> lexicon = Lexicon([["a", "b"], ["b"]])
    >>> found, kind = lexicon(hash_of(["x", "b"]))
    >>> found.tolist(), lexicon.member[kind].tolist()
    ([1], [[1, 1]])
    """

    def __init__(self, lists: Sequence[Sequence[str]]) -> None:
        words = sorted({word for words in lists for word in words})
        holds = np.array([[word in chosen for chosen in lists] for word in words], dtype=np.int64).reshape(len(words), len(lists))
        self.member, kind = np.unique(holds, axis=0, return_inverse=True)
        hashes = hash_of(words)
        # a slice of the hash on which no two of the words meet, else the width grows
        places = (
            (width, shift, (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1))
            for width in range((4 * len(words)).bit_length(), 40) for shift in range(64 - width)
        )  # fmt: skip
        width, shift, at = next((w, s, at) for w, s, at in places if len(np.unique(at)) == len(words))
        self._shift, self._mask = np.uint64(shift), np.uint64((1 << width) - 1)
        self._key = np.zeros(1 << width, dtype=np.uint64)
        self._kind = np.full(1 << width, -1, dtype=np.int64)
        self._key[at.astype(np.int64)] = hashes
        self._kind[at.astype(np.int64)] = kind.reshape(-1)

    def __call__(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the words that are on a list, their kinds), int64."""
        at = ((hashes >> self._shift) & self._mask).view(np.int64)
        found = np.flatnonzero(self._key[at] == hashes)
        kind = self._kind[at[found]]
        return found[kind >= 0], kind[kind >= 0]
