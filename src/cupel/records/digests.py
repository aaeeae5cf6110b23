"""SHA-256 digests of many texts, and the order of their bytes."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pyarrow as pa

#: texts taken out of Arrow at a time
_STEP = 1 << 16


def digests(texts: pa.Array) -> np.ndarray:
    """uint64 [n, 4]: the SHA-256 of each text's UTF-8 bytes, in their order in memory.

    >>> digests(pa.array([""], pa.large_string())).tobytes().hex()[:8]
    'e3b0c442'
    """
    sha = hashlib.sha256
    parts = []
    for low in range(0, len(texts), _STEP):
        some = texts.slice(low, _STEP).cast(pa.large_binary()).to_pylist()
        parts.append(b"".join([sha(text).digest() for text in some]))
    return np.frombuffer(b"".join(parts), dtype=np.uint64).reshape(-1, 4)


def ranks(digest: np.ndarray) -> np.ndarray:
    """int32 [n]: the place of each digest (uint64 [n, 4], all different) when they are sorted as bytes.

    >>> ranks(digests(pa.array(["a", "b", "c"], pa.large_string()))).tolist()
    [2, 1, 0]
    """
    order = np.argsort(_number(digest[:, 0]), kind="stable")
    ordered = digest[order, 0]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort([_number(digest[:, i]) for i in (3, 2, 1, 0)])
    out = np.empty(len(digest), dtype=np.int32)
    out[order] = np.arange(len(digest), dtype=np.int32)
    return out


def _number(words: np.ndarray) -> np.ndarray:
    """Eight bytes as the number whose order is that of the bytes."""
    return words.byteswap() if sys.byteorder == "little" else words
