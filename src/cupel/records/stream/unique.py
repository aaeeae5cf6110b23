"""Unique texts on disk: each text once, in the order of first appearance, found again by its SHA-256.

In memory is one table of int32 text numbers (open addressing, at most half full: 8 to 16 bytes per unique text). The digests themselves
(32 bytes per text) lie in a file that is mapped, and all 256 bits are compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from cupel.records.stream.spool import Column, Texts

_FEWEST = 1 << 12
#: digests put back at a time when the table grows
_CHUNK = 1 << 18


def encode(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """(distinct texts in order of first appearance, the number of each value among them)."""
    encoded = values.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)


class Unique:
    """The texts of a column of a file, each once."""

    def __init__(self, place: Path, name: str) -> None:
        self.texts = Texts(place, name)
        self.digests = Column(place / f"{name}.sha256", "<u8", 4)
        self._table = np.full(_FEWEST, -1, dtype=np.int32)

    def __len__(self) -> int:
        return self.texts.count

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """int64 [m]: the number of each digest, -1 where it is new."""
        out = np.full(len(wanted), -1, dtype=np.int64)
        stored = self.digests.read()
        mask = np.uint64(len(self._table) - 1)
        live = np.arange(len(wanted))
        slot = (wanted[:, 0] & mask).astype(np.int64)
        while len(live):
            number = self._table[slot[live]]
            filled = number >= 0
            live, number = live[filled], number[filled]
            same = (stored[number] == wanted[live]).all(axis=1)
            out[live[same]] = number[same]
            live = live[~same]
            slot[live] = (slot[live] + 1) & np.int64(mask)
        return out

    def add(self, texts: pa.Array, digest: np.ndarray) -> np.ndarray:
        """int64 [m]: numbers of texts that are distinct among themselves; those not seen before are written down."""
        number = self.find(digest)
        new = np.flatnonzero(number < 0)
        if len(new):
            number[new] = len(self) + np.arange(len(new))
            self.digests.append(digest[new])
            self.texts.append(texts if len(new) == len(texts) else texts.take(pa.array(new)))
            if 2 * len(self) > len(self._table):
                self._grow()
            else:
                self._insert(number[new], digest[new, 0])
        return number

    def _grow(self) -> None:
        size = len(self._table)
        while 2 * len(self) > size:
            size *= 2
        self._table = np.full(size, -1, dtype=np.int32)
        stored = self.digests.read()
        for low in range(0, len(self), _CHUNK):
            part = stored[low : low + _CHUNK, 0]
            self._insert(low + np.arange(len(part)), part)

    def _insert(self, number: np.ndarray, key: np.ndarray) -> None:
        """Give each number the first free slot from its key on; where several want one slot, one gets it and the others go on."""
        mask = np.int64(len(self._table) - 1)
        slot = (key & np.uint64(mask)).astype(np.int64)
        while len(number):
            free = self._table[slot] < 0
            self._table[slot[free]] = number[free]
            left = self._table[slot] != number
            number, slot = number[left], (slot[left] + 1) & mask

    def close(self) -> None:
        """Nothing more is added."""
        self.texts.close()
        self.digests.close()
