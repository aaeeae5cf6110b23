"""Near-duplicates among any number of texts: bands of MinHash signatures on disk, every candidate compared exactly.

64 permutations in 16 bands of 4: two texts with a Jaccard similarity s share a band with probability 1 - (1 - s^4)^16. Bands lie in a
file each and are grouped one at a time (24 bytes per text in memory); signatures, shortened to 16 bits, are mapped (128 bytes per text on
disk); texts are read from Arrow's buffers, which may be mapped too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.groups import by_appearance, join, roots
from cupel.records.minhash import PERMUTATIONS, Signer, buffers, chunks, mix, shingles
from cupel.records.stream.spool import Column

BANDS = 16
SIMILAR = 0.8
#: in a bucket larger than this each text is compared with the first and the one before it, never all with all
LARGEST = 32
#: pairs compared at a time, and bytes of their texts
_PAIRS, _BYTES = 4096, 1 << 20
#: bits that tell pairs apart inside one sorted array
_LOW = np.uint64(51)


@dataclass(frozen=True)
class NearDuplicates:
    """What a search found.

    cluster     int32 [n]: texts that are nearly the same, directly or through others, share a number (by first appearance)
    pairs       int64 [m, 2]: pairs i < j that were found alike; enough of them to connect each cluster, or all (`every`)
    similarity  float64 [m]: their exact Jaccard similarity
    compared    pairs whose similarity was computed exactly
    """

    cluster: np.ndarray
    pairs: np.ndarray
    similarity: np.ndarray
    compared: int


def caught(similarity: float) -> float:
    """Probability that two texts of this Jaccard similarity become a candidate pair: 1 - (1 - s^4)^16.

    >>> [round(caught(s), 4) for s in (0.3, 0.5, 0.8)]
    [0.122, 0.6439, 0.9998]
    """
    return 1 - (1 - similarity ** (PERMUTATIONS // BANDS)) ** BANDS


def near_duplicates(
    texts: pa.Array, *, words: int = 5, at_least: float = SIMILAR, seed: int = 0, every: bool = False,
    spool: str | os.PathLike[str] | None = None, signed: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
    among: np.ndarray | None = None, then: Callable[[pa.Array], pa.Array] | None = None,
) -> NearDuplicates:  # fmt: skip
    """Texts that share at least `at_least` of their runs of `words` words (Jaccard similarity |A & B| / |A | B| of the sets of runs).

    texts: string or large_string without nulls; a memory-mapped array stays on disk. Texts without words have no near-duplicates.
    every: find all pairs (of candidates in buckets of at most 32 texts), not only enough to connect each cluster.
    spool: where bands and signatures go while the search runs; None: where temporary files go.
    signed: signatures made elsewhere by `Signer(words, seed)`, as (signature [64, k], runs [k]) of consecutive parts of the texts.
    among: bool [n], the texts that take part; all where None. then: what is compared in place of some texts (such as their composed form).
    Raises InputError where `at_least` is not in (0, 1], `words` is less than 1, or `signed` describes another number of texts.

    >>> found = near_duplicates(pa.array(["a b c d e f", "A, b; c d e f!", "g h i j k l"]))
    >>> found.cluster.tolist(), found.pairs.tolist(), found.similarity.tolist()
    ([0, 0, 1], [[0, 1]], [1.0])
    """
    if not 0 < at_least <= 1:
        raise InputError(f"at_least is {at_least}; it is a share of runs in (0, 1]. Write 0.8 for four fifths.")
    if words < 1:
        raise InputError(f"words is {words}; a run has at least one word. Write 5 for answers, 3 for prompts.")
    texts = _one(texts)
    if spool is not None:
        Path(spool).mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="cupel-bands-", dir=spool))
    try:
        return _Search(texts, Runs(texts, words, then), at_least, seed, place).run(every, signed, among)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def similarity(
    texts: pa.Array, a: np.ndarray, b: np.ndarray, *, words: int = 5, then: Callable[[pa.Array], pa.Array] | None = None
) -> np.ndarray:
    """float64 [len(a)]: the exact Jaccard similarity of the runs of `words` words of the texts at positions a and b.

    >>> similarity(pa.array(["a b c", "a b c d"]), np.array([0]), np.array([1]), words=2).round(3).tolist()
    [0.667]
    """
    return Runs(_one(texts), words, then).jaccard(a, b)


def _one(texts: pa.Array) -> pa.Array:
    return (texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts).cast(pa.large_string())


class Runs:
    """The runs of words of texts, and how many two texts share."""

    def __init__(self, texts: pa.Array, words: int, then: Callable[[pa.Array], pa.Array] | None) -> None:
        self.texts, self.words, self._then = texts, words, then

    def of(self, some: pa.Array) -> pa.Array:
        """What is compared in place of some texts."""
        return some if self._then is None else self._then(some)

    def jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float64: the exact similarity of the texts at positions a and b (equal runs are told by 51 bits of their hashes)."""
        offsets, _ = buffers(self.texts)
        out = np.zeros(len(a))
        weight = np.cumsum(offsets[a + 1] - offsets[a] + offsets[b + 1] - offsets[b])
        low = 0
        while low < len(a):
            before = weight[low - 1] if low else 0
            high = min(max(int(np.searchsorted(weight, before + _BYTES)), low + 1), low + _PAIRS, len(a))
            out[low:high] = self._jaccard(a[low:high], b[low:high])
            low = high
        return out

    def _jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        rows, place = np.unique(np.concatenate([a, b]), return_inverse=True)
        hashes, starts = shingles(self.of(self.texts.take(pa.array(rows))), self.words)
        text = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(starts))
        runs = _distinct(text << _LOW | hashes >> (np.uint64(64) - _LOW))
        owner = (runs >> _LOW).astype(np.int64)
        size = np.bincount(owner, minlength=len(rows))
        start = np.cumsum(size) - size
        runs &= (np.uint64(1) << _LOW) - np.uint64(1)
        left, right = place.reshape(-1)[: len(a)], place.reshape(-1)[len(a) :]
        keys = np.sort(np.concatenate([_labelled(runs, start[side], size[side]) for side in (left, right)]))
        shared = keys[1:][keys[1:] == keys[:-1]] >> _LOW
        both = np.bincount(shared.astype(np.int64), minlength=len(a))
        union = size[left] + size[right] - both
        return np.where(union > 0, both / np.maximum(union, 1), 0.0)


class _Search:
    def __init__(self, texts: pa.Array, runs: Runs, at_least: float, seed: int, place: Path) -> None:
        self.texts, self.runs, self.at_least = texts, runs, at_least
        self.signer = Signer(runs.words, seed)
        self.short = Column(place / "signatures", "<u2", PERMUTATIONS)
        self.bands = [Column(place / f"band-{band:02d}", "<u8") for band in range(BANDS)]
        self.count = Column(place / "count", "<i4")
        self.compared = 0

    def run(self, every: bool, signed: Iterable[tuple[np.ndarray, np.ndarray]] | None, among: np.ndarray | None) -> NearDuplicates:
        self._sign(self._signatures() if signed is None else signed)
        n = len(self.texts)
        parent = np.arange(n, dtype=np.int32)
        pairs: list[np.ndarray] = []
        similar: list[np.ndarray] = []
        known = np.zeros(0, dtype=np.int64)  # pairs that were compared, as i * n + j, sorted
        filled = np.flatnonzero((self.count.read() > 0) if among is None else (self.count.read() > 0) & among)
        for band in self.bands:
            for a, b in self._candidates(band, filled, every):
                a, b = self._screened(a, b)
                if not every and len(a):
                    apart = roots(parent, a) != roots(parent, b)
                    a, b = a[apart], b[apart]
                code = a * np.int64(n) + b
                at = np.minimum(np.searchsorted(known, code), max(len(known) - 1, 0))
                new = known[at] != code if len(known) else np.ones(len(code), dtype=bool)
                a, b = a[new], b[new]
                if not len(a):
                    continue
                found = self.runs.jaccard(a, b)
                self.compared += len(a)
                known = np.union1d(known, code[new])
                alike = found >= self.at_least
                join(parent, a[alike], b[alike])
                pairs.append(np.stack([a[alike], b[alike]], axis=1))
                similar.append(found[alike])
        for column in (self.short, self.count, *self.bands):
            column.close()
        found = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
        values = np.concatenate(similar) if similar else np.zeros(0)
        order = np.lexsort((found[:, 1], found[:, 0]))
        cluster = by_appearance(roots(parent, np.arange(n)), max(n, 1))
        return NearDuplicates(cluster, found[order], values[order], self.compared)

    def _signatures(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for low, high in chunks(self.texts):
            yield self.signer(self.runs.of(self.texts.slice(low, high - low)))

    def _sign(self, signed: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Signatures and bands of all texts, to disk."""
        width, n = PERMUTATIONS // BANDS, 0
        for signature, count in signed:
            n += len(count)
            self.short.append(signature.astype(np.uint16).T)
            self.count.append(count)
            for band, column in enumerate(self.bands):
                key = np.zeros(len(count), dtype=np.uint64)
                for row in signature[band * width : (band + 1) * width]:
                    key = mix(key ^ row) + np.uint64(0x9E3779B97F4A7C15)
                column.append(key)
        if n != len(self.texts):
            raise InputError(f"{n:,} signatures were given for {len(self.texts):,} texts; sign every text once, in order")

    def _candidates(self, band: Column, filled: np.ndarray, every: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (i < j) of texts with the same key in a band, some at a time."""
        key = band.read()[filled]
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(order) else np.zeros(0, dtype=bool)
        starts = np.flatnonzero(new)
        size = np.diff(np.append(starts, len(order)))
        member = filled[order]
        step = 1 << 18
        for low in range(0, len(starts), step):
            head, many = starts[low : low + step], size[low : low + step]
            head, many = head[many > 1], many[many > 1]
            if not len(head):
                continue
            full = (many <= LARGEST) if every else (many <= 2)
            lefts, rights = [], []
            for count in np.unique(many[full]).tolist():
                one, two = np.triu_indices(count, 1)
                base = head[full & (many == count)][:, None]
                lefts.append((base + one).reshape(-1))
                rights.append((base + two).reshape(-1))
            base, more = head[~full], many[~full] - 1
            later = np.repeat(base + 1, more) + np.arange(more.sum()) - np.repeat(np.cumsum(more) - more, more)
            lefts += [np.repeat(base, more), later - 1]
            rights += [later, later]
            a, b = member[np.concatenate(lefts)], member[np.concatenate(rights)]
            code = np.unique(np.minimum(a, b) * np.int64(len(self.texts)) + np.maximum(a, b))
            for at in range(0, len(code), step):
                yield code[at : at + step] // len(self.texts), code[at : at + step] % len(self.texts)

    def _screened(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs whose signatures do not rule them out: five standard errors of the estimate from 64 permutations."""
        short = self.short.read()
        s = self.at_least
        slack = 5 * np.sqrt(max(s * (1 - s), 0.01) / PERMUTATIONS)
        keep = np.zeros(len(a), dtype=bool)
        for low in range(0, len(a), 1 << 15):
            same = short[a[low : low + (1 << 15)]] == short[b[low : low + (1 << 15)]]
            keep[low : low + (1 << 15)] = same.mean(axis=1) >= s - slack
        return a[keep], b[keep]


def _distinct(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _labelled(runs: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The runs of each pair's text, with the number of the pair above them."""
    label = np.repeat(np.arange(len(size), dtype=np.uint64), size)
    at = np.arange(size.sum()) + np.repeat(start - (np.cumsum(size) - size), size)
    return label << _LOW | runs[at]
