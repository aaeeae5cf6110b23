"""Semantic ids: a few codes per item, the first ones shared by items that are alike, the last one telling apart those that share the rest.

Rajput et al. 2023 (TIGER, arXiv:2305.05065) as in card 40-mender; codes and the last code count from 0.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import InputError

#: of the format that files hold
FORMAT = "cupel-semantic-ids"
#: standard deviations below this are taken as this: encoders have components that never move
FLOOR = 1e-6


@dataclass(frozen=True)
class SemanticIds:
    """Codes of I items at C levels, the last of which resolves collisions.

    codes      int64 [I, C]: no two items have the same
    sizes      how many codes there are at each level
    codebooks  float32 [size, d] for each level but the last: the vectors that the codes stand for; () where unknown
    residual   mean square of what is left after each level but the last, as a share of the variance; () where unknown

    InputError where two items share an id, or a code lies outside its level.
    """

    codes: np.ndarray
    sizes: tuple[int, ...]
    codebooks: tuple[np.ndarray, ...] = ()
    residual: tuple[float, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        codes = self.codes
        if codes.ndim != 2 or codes.shape[1] != len(self.sizes):
            raise InputError(f"ids of {len(self.sizes)} levels are an array [items, {len(self.sizes)}], not of shape {codes.shape}")
        outside = (codes < 0) | (codes >= np.array(self.sizes))
        if outside.any():
            row, level = (int(x[0]) for x in np.nonzero(outside))
            raise InputError(
                f"{int(outside.any(axis=1).sum()):,} items have a code outside their level (first: item {row}, level {level}: "
                f"{int(codes[row, level])} of {self.sizes[level]} codes)"
            )
        _, first, count = np.unique(codes, axis=0, return_index=True, return_counts=True)
        if (count > 1).any():
            row = int(first[count > 1][0])
            other = int(np.flatnonzero((codes == codes[row]).all(axis=1))[1])
            raise InputError(
                f"{int(count[count > 1].sum()):,} items share their semantic id with another (first: items {row} and {other}, "
                f"{tuple(codes[row].tolist())}): `resolved` adds the code that tells them apart"
            )

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def offsets(self) -> np.ndarray:
        """The token of code 0 of each level, int64 [C]; token 0 pads and begins."""
        return 1 + np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def tokens(self) -> np.ndarray:
        """The codes in one vocabulary, int64 [I, C]: code k of level l is 1 + (codes of the levels before) + k.

        >>> SemanticIds(np.array([[0, 1], [2, 0]]), (3, 2)).tokens().tolist()
        [[1, 5], [3, 4]]
        """
        return self.codes + self.offsets

    def items(self, tokens: np.ndarray) -> np.ndarray:
        """Items of token sequences [n, C], int64 [n]; -1 where no item has that id.

        >>> SemanticIds(np.array([[0, 1], [2, 0]]), (3, 2)).items(np.array([[3, 4], [1, 4]])).tolist()
        [1, -1]
        """
        place = np.cumprod([1, *(size for size in self.sizes[::-1])])[:-1][::-1]
        known = self.codes @ place
        codes = np.asarray(tokens, np.int64) - self.offsets
        inside = ((codes >= 0) & (codes < np.array(self.sizes))).all(axis=1)
        turn = np.argsort(known)
        at = np.minimum(np.searchsorted(known[turn], codes @ place), len(known) - 1)
        return np.where(inside & (known[turn[at]] == codes @ place), turn[at], -1)

    def facts(self) -> dict[str, Any]:
        """What tells a collapsed quantiser: codes in use per level, distinct prefixes, and how many items share one (a histogram)."""
        _, shared = np.unique(self.codes[:, :-1], axis=0, return_counts=True)
        sizes, count = np.unique(shared, return_counts=True)
        return {
            "items": len(self), "sizes": list(self.sizes), "used": [len(np.unique(column)) for column in self.codes.T],
            "prefixes": len(shared), "collisions": {int(k): int(n) for k, n in zip(sizes, count, strict=True)},
            "residual": list(self.residual),
        }  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: codes, codebooks, and the sizes in its header."""
        from safetensors.numpy import save_file

        tensors = {"codes": self.codes.astype(np.int64)}
        tensors |= {f"codebook.{level}": np.ascontiguousarray(book, np.float32) for level, book in enumerate(self.codebooks)}
        about = {"format": FORMAT, "version": 1, "sizes": self.sizes, "residual": self.residual}
        save_file(tensors, str(path), metadata={"about": json.dumps(about)})  # one entry: the library does not keep the order of several

    @classmethod
    def load(cls, path: str | Path) -> SemanticIds:
        """Ids of a file that `save` wrote. InputError for other files."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get("about", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read as semantic ids: {error}") from error
        if about.get("format") != FORMAT:
            raise InputError(f"{path} does not hold semantic ids (format {about.get('format')!r})")
        books = tuple(tensors[f"codebook.{level}"] for level in range(len(tensors) - 1))
        return cls(tensors["codes"], tuple(about["sizes"]), books, tuple(about["residual"]))


def standardised(vectors: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """(x - mean) / max(standard deviation, floor) of each component, float32 [I, d]."""
    x = np.asarray(vectors, np.float64)
    return ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), floor)).astype(np.float32)


def quantised(x: np.ndarray, codebooks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(codes int64 [n, L], what is left [n, d]) of residual quantisation: at each level the nearest code, then its vector taken off.

    c_l = argmin_k ||r_l - C_l[k]||, r_(l+1) = r_l - C_l[c_l], r_1 = x. The first of equally near codes.

    >>> books = [np.array([[0.0, 0.0], [4.0, 4.0]]), np.array([[0.0, 0.0], [1.0, -1.0]])]
    >>> codes, left = quantised(np.array([[5.0, 3.0], [4.4, 4.1]]), books)
    >>> codes.tolist(), left.round(6).tolist()
    ([[1, 1], [1, 0]], [[0.0, 0.0], [0.4, 0.1]])
    """
    left, codes = np.array(x, copy=True), []
    for book in codebooks:
        distance = (book * book).sum(axis=1) - 2 * left @ book.T
        codes.append(distance.argmin(axis=1))
        left = left - book[codes[-1]]
    return np.stack(codes, axis=1).astype(np.int64), left


def resolved(codes: np.ndarray, size: int) -> np.ndarray:
    """Codes [I, L] with one more, int64 [I, L + 1]: the m-th item (from 0, in item order) with the same L codes gets m.

    InputError where more than `size` items share their codes.

    >>> resolved(np.array([[1, 2], [0, 0], [1, 2]]), 2).tolist()
    [[1, 2, 0], [0, 0, 0], [1, 2, 1]]
    """
    _, which, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    if count.max(initial=0) > size:
        worst = int(np.argmax(count))
        raise InputError(
            f"{int(count[worst]):,} items share the codes {tuple(codes[np.argmax(which == worst)].tolist())} and the last code tells "
            f"{size:,} apart: take more codes or levels, or a larger last code"
        )
    turn = np.argsort(which, kind="stable")
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    last = np.empty(len(codes), np.int64)
    last[turn] = np.arange(len(codes)) - start[which[turn]]
    return np.concatenate([codes, last[:, None]], axis=1)


def check_vectors(vectors: np.ndarray, missing: str, codes: int) -> np.ndarray:
    """Which items have a vector, bool [I]. InputError as `residual_kmeans`."""
    if missing not in ("error", "hash"):
        raise InputError(f"missing is error or hash, not {missing!r}")
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError(f"item vectors are a finite array [items, d], not of shape {vectors.shape} or with other values")
    there = (vectors != 0).any(axis=1)
    if missing == "error" and not there.all():
        raise InputError(
            f"{int((~there).sum()):,} of {len(there):,} items have no vector (first: item {int(np.argmin(there))}): give them a text, "
            f"leave them out, or let missing=hash give them codes without meaning"
        )
    if there.sum() < codes:
        raise InputError(f"{codes:,} codes need at least as many items with vectors, and there are {int(there.sum()):,}")
    return there


def hashed(items: np.ndarray, levels: int, codes: int, seed: int) -> np.ndarray:
    """Codes [n, levels] that say nothing: from the digest of (seed, item)."""
    out = np.empty((len(items), levels), np.int64)
    for row, item in enumerate(items.tolist()):
        digest = hashlib.sha256(f"{seed} {item}".encode()).digest()
        out[row] = [int.from_bytes(digest[4 * level : 4 * level + 4], "little") % codes for level in range(levels)]
    return out


def finished(
    found: np.ndarray, there: np.ndarray, size: int, codes: int, seed: int, books: Sequence[np.ndarray], left: Sequence[float]
) -> SemanticIds:
    """`SemanticIds` of the codes of those items that have a vector; the others get hashed ones."""
    whole = np.empty((len(there), found.shape[1]), np.int64)
    whole[there] = found
    whole[~there] = hashed(np.flatnonzero(~there), found.shape[1], codes, seed)
    notes = (f"{int((~there).sum()):,} items without a vector have codes from a hash",) if not there.all() else ()
    ids = resolved(whole, size)
    return SemanticIds(ids, (*[codes] * found.shape[1], size), tuple(np.asarray(b, np.float32) for b in books), tuple(left), notes)


def residual_kmeans(
    vectors: np.ndarray, *, levels: int = 3, codes: int = 32, last: int | None = None, seed: int = 0, missing: str = "error"
) -> SemanticIds:
    """Semantic ids by k-means of what the levels before left over.

    vectors  float32 [I, d] of the items' texts; standardised per component first (with a floor under the spread)
    levels, codes   of the quantiser; last: how many items may share their codes (default: codes)
    missing  what to do with items whose vector is 0: "error", or "hash" (codes without meaning, noted)

    Each codebook holds the means of what it is assigned, so the error never grows from level to level. InputError for items without
    vectors, fewer items than codes, and more than `last` items with the same codes.

    >>> ids = residual_kmeans(np.random.default_rng(0).normal(size=(40, 3)), levels=2, codes=4, last=16)
    >>> ids.codes.shape, bool(ids.residual[1] < ids.residual[0] < 1)
    ((40, 3), True)
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if levels < 1 or codes < 1:
        raise InputError(f"levels and codes are at least 1, not {levels} and {codes}")
    there = check_vectors(vectors, missing, codes)
    x = standardised(vectors[there])
    size = float((x.astype(np.float64) ** 2).mean())
    left, books, residual = x, [], []
    for level in range(levels):
        n = min(codes, len(np.unique(left, axis=0)))
        book = np.zeros((codes, x.shape[1]), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of vectors that differ by rounding alone; used codes are counted
            means = KMeans(n, n_init=1, max_iter=100, random_state=seed + level)  # pyright: ignore[reportArgumentType]
            book[:n] = means.fit(left).cluster_centers_
        book[n:] = book[0]  # fewer distinct vectors than codes: the codes beyond are never the first of the nearest
        left = quantised(left, [book])[1]
        books.append(book)
        residual.append(float((left.astype(np.float64) ** 2).mean()) / max(size, 1e-30))
    found, _ = quantised(x, books)
    return finished(found, there, codes if last is None else last, codes, seed, books, residual)
