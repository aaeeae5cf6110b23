"""Near-duplicates of texts: MinHash over word shingles, banding to find candidates, exact Jaccard similarity to decide.

Broder 1997, "On the resemblance and containment of documents". Everything runs on arrays: words are hashed by prefix sums of a
polynomial over code points, shingles by a polynomial over word hashes, and permutations are multiply-add maps on 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

_CHUNK = 1 << 17  # code points hashed at a time: what is computed from them then stays in the processor's caches
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_PERMUTATIONS, _BANDS = 64, 16
SIMILAR = 0.8


def _mix(x: np.ndarray) -> np.ndarray:
    """Bijective scrambling of uint64 (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _powers(base: np.uint64, n: int) -> np.ndarray:
    out = np.full(n, base, dtype=np.uint64)
    if n:
        out[0] = 1
    return np.multiply.accumulate(out)


def _classes() -> np.ndarray:
    """uint8 per code point of the first planes: 0 separates words, 1 is part of a word, 2 is a word by itself (CJK)."""
    table = np.ones(0x110000, dtype=np.uint8)
    ascii_words = [ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
    table[:0x80] = 0
    table[ascii_words] = 1
    table[0x80:0xC0] = 0  # Latin-1 controls, spaces and signs
    table[0x2000:0x2070] = 0  # general punctuation
    table[0x3000:0x3040] = 0  # CJK punctuation
    table[0xFF00:0xFF10] = 0  # full-width punctuation
    for low, high in ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2FA20)):
        table[low:high] = 2
    return table


def chunks(texts: list[str]) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of texts with about `_CHUNK` characters each."""
    start, size = 0, 0
    for i, t in enumerate(texts):
        size += len(t) + 1
        if size >= _CHUNK:
            yield start, i + 1
            start, size = i + 1, 0
    if start < len(texts):
        yield start, len(texts)


class WordHasher:
    """Hashes of the words of many texts at once; words are runs of letters and digits, or single CJK characters."""

    def __init__(self) -> None:
        self._classes = _classes()
        self._mixed = _mix(np.arange(0x110000, dtype=np.uint64) + np.uint64(1))
        self._up = _powers(_BASE, 0)
        self._down = _powers(_INVERSE, 0)

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(uint64 word hashes in order, int64 [len(texts) + 1] where the words of each text begin)."""
        joined = "\n".join(texts) + "\n"
        points = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
        kind = self._classes[points]
        ends = np.cumsum([len(t) + 1 for t in texts]) if texts else np.zeros(0, dtype=np.int64)
        if len(self._up) < len(points):
            self._up, self._down = _powers(_BASE, len(points)), _powers(_INVERSE, len(points))
        inside = kind > 0
        single = kind == 2
        before = np.concatenate([[np.uint8(0)], kind[:-1]])
        begin = np.flatnonzero(inside & ((before == 0) | single | (before == 2)))
        after = np.concatenate([kind[1:], [np.uint8(0)]])
        stop = np.flatnonzero(inside & ((after == 0) | single | (after == 2))) + 1
        prefix = np.zeros(len(points) + 1, dtype=np.uint64)
        np.cumsum(self._mixed[points] * self._up[: len(points)], out=prefix[1:])
        words = _mix((prefix[stop] - prefix[begin]) * self._down[begin])
        return words, np.concatenate([[0], np.searchsorted(begin, ends)]).astype(np.int64)


def shingle(words: np.ndarray, starts: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 hashes of runs of `width` words, int64 starts per text); a shorter text has one shingle of all its words, or none."""
    count = np.diff(starts)
    prefix = np.zeros(len(words) + 1, dtype=np.uint64)
    np.cumsum(words * _powers(_BASE, len(words)), out=prefix[1:])
    made = np.where(count >= width, count - width + 1, np.minimum(count, 1))
    out = np.concatenate([[0], np.cumsum(made)]).astype(np.int64)
    offset = np.arange(out[-1]) - np.repeat(out[:-1], made)
    begin = np.repeat(starts[:-1], made) + offset
    stop = begin + np.repeat(np.minimum(count, width), made)
    return _mix((prefix[stop] - prefix[begin]) * _powers(_INVERSE, len(words) + 1)[begin]), out


class Sketch:
    """MinHash signatures of texts, and what follows from them.

    texts: normalised texts; words: length of a shingle in words; seed: of the permutations.
    64 permutations in 16 bands of 4: two texts with a Jaccard similarity of .8 become candidates with probability
    1 - (1 - .8^4)^16 = .9998, of .5 with .64, of .3 with .12; candidates are decided by their exact similarity.
    """

    def __init__(self, texts: list[str], *, words: int, seed: int) -> None:
        self.texts = texts
        self.width = words
        rng = np.random.default_rng([seed, 7])
        self._a = rng.integers(0, 1 << 63, size=_PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._b = rng.integers(0, 1 << 63, size=_PERMUTATIONS, dtype=np.uint64)
        self._hash = WordHasher()

    def shingles(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(uint64 shingle hashes, int64 starts per text)."""
        return shingle(*self._hash(texts), self.width)

    @cached_property
    def signatures(self) -> np.ndarray:
        """uint32 [len(texts), 64]; texts without words have the largest value everywhere."""
        out = np.full((len(self.texts), _PERMUTATIONS), np.iinfo(np.uint32).max, dtype=np.uint32)
        high = np.uint64(32)
        for start, stop in chunks(self.texts):
            hashes, starts = self.shingles(self.texts[start:stop])
            filled = np.flatnonzero(np.diff(starts) > 0)
            if not len(filled):
                continue
            at, values = starts[filled], np.empty(len(hashes), dtype=np.uint64)
            least = np.empty((_PERMUTATIONS, len(filled)), dtype=np.uint64)
            for k in range(_PERMUTATIONS):  # the shift keeps the order, so it can wait until the least is known
                np.multiply(hashes, self._a[k], out=values)
                values += self._b[k]
                np.minimum.reduceat(values, at, out=least[k])
            out[start + filled] = (least >> high).T
        return out

    def jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float64: exact Jaccard similarity |A & B| / |A | B| of the shingle sets of the texts at positions a and b."""
        from scipy.sparse import csr_matrix

        out = np.zeros(len(a))
        for low in range(0, len(a), 4096):
            left, right = a[low : low + 4096], b[low : low + 4096]
            rows, place = np.unique(np.concatenate([left, right]), return_inverse=True)
            hashes, starts = self.shingles([self.texts[i] for i in rows.tolist()])
            column = np.unique(hashes, return_inverse=True)[1].reshape(-1)
            sets = csr_matrix((np.ones(len(hashes)), column, starts), shape=(len(rows), int(column.max(initial=-1)) + 1))
            sets.sum_duplicates()
            sets.data[:] = 1
            size = np.diff(sets.indptr)
            left, right = place.reshape(-1)[: len(left)], place.reshape(-1)[len(left) :]
            both = np.asarray(sets[left].multiply(sets[right]).sum(axis=1)).reshape(-1)
            union = size[left] + size[right] - both
            out[low : low + 4096] = np.where(union > 0, both / np.maximum(union, 1), 0.0)
        return out

    def similar(self, a: np.ndarray, b: np.ndarray, at_least: float = SIMILAR) -> np.ndarray:
        """bool: the texts at positions a and b have a Jaccard similarity of `at_least` (exact, after a screen by signatures)."""
        estimate = np.array([], dtype=np.float64)
        if len(a):
            estimate = np.concatenate(
                [(self.signatures[a[i : i + 65536]] == self.signatures[b[i : i + 65536]]).mean(axis=1) for i in range(0, len(a), 65536)]
            )
        maybe = np.flatnonzero(estimate >= at_least - 0.25)  # 5 standard errors of an estimate from 64 permutations
        out = np.zeros(len(a), dtype=bool)
        out[maybe] = self.jaccard(a[maybe], b[maybe]) >= at_least
        return out

    def pairs(self, at_least: float = SIMILAR, among: np.ndarray | None = None) -> np.ndarray:
        """int64 [m, 2]: near-duplicate texts (i < j), enough of them to connect each set of alike texts.

        In a bucket each text is compared with the first and with the one before it, so that a thousand copies cost two thousand
        comparisons and not half a million. among: positions to look at; all where None.
        """
        index = np.arange(len(self.texts)) if among is None else np.asarray(among)
        filled = self.signatures.min(axis=1, initial=np.iinfo(np.uint32).max) < np.iinfo(np.uint32).max
        index = index[filled[index]]
        size = np.int64(len(self.texts))
        found = []
        width = _PERMUTATIONS // _BANDS
        for band in range(_BANDS):
            key = np.zeros(len(index), dtype=np.uint64)
            for k in range(band * width, (band + 1) * width):
                key = _mix(key ^ self.signatures[index, k].astype(np.uint64)) + _BASE
            order = np.argsort(key, kind="stable")
            same = key[order][1:] == key[order][:-1]
            head = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0)) if len(order) else order
            later = np.flatnonzero(same) + 1
            for other in (later - 1, head[later]):
                i, j = index[order[other]], index[order[later]]
                found.append(np.minimum(i, j) * size + np.maximum(i, j))
        codes = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
        a, b = codes // size, codes % size
        keep = self.similar(a, b, at_least)
        return np.stack([a[keep], b[keep]], axis=1)

    def clusters(self, labels: np.ndarray, at_least: float = SIMILAR) -> np.ndarray:
        """int64 [len(texts)]: texts with one label, and near-duplicates, share a number.

        labels: equal after normalising means equal number; only one text of each takes part in the search.
        """
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        unique, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        near = self.pairs(at_least, among=first)
        place = np.full(len(self.texts), -1)
        place[first] = np.arange(len(unique))
        ends = place[near]
        graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(unique), len(unique)))
        return connected_components(graph, directed=False)[1][inverse.reshape(-1)].astype(np.int64)
