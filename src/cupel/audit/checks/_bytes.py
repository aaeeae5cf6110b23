"""Texts as bytes, a part at a time: as they came, and normalised; what the looks of `_texts` and `_words` are computed from.

No text becomes a Python string here unless it is not ASCII, or holds white space other than single spaces. What is kept of a table of texts
is some numbers a text, so the texts may lie on disk.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cupel.records.minhash import buffers, chunks

#: bytes of text handled at a time
SIZE = 1 << 19
_LOWER = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))
#: zeros after a buffer, so that eight bytes can be read from any place
_PAD = bytes(16)


def normalise(text: str) -> str:
    """The text as it is compared: NFC, ends stripped, every run of white space one space, lower case.

    >>> normalise("  Two\\n Words ")
    'two words'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split()).lower()


def table(chosen: bytes | range, *more: bytes | range) -> np.ndarray:
    """bool [256]: which bytes are chosen."""
    out = np.zeros(256, dtype=bool)
    for part in (chosen, *more):
        out[list(part)] = True
    return out


BLANK = table(range(9, 14), range(28, 33))
DIGIT = table(b"0123456789")
ALNUM = table(range(48, 58), range(65, 91), range(97, 123))


@dataclass
class Joined:
    """m texts end to end. data: uint8 [N + padding], zeros after N; start, stop int64 [m]."""

    data: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of text, N."""
        return int(self.stop[-1]) if len(self.stop) else 0

    def owner(self, at: np.ndarray) -> np.ndarray:
        """The text of each place, int64."""
        return np.searchsorted(self.stop, at, side="right")

    def holding(self, at: np.ndarray) -> np.ndarray:
        """bool [m]: texts that hold one of the places."""
        out = np.zeros(len(self.stop) + 1, dtype=bool)  # one more for places behind the end
        out[self.owner(at)] = True
        return out[:-1]

    def counting(self, at: np.ndarray) -> np.ndarray:
        """int64 [m]: how many of the places each text holds."""
        return np.bincount(self.owner(at), minlength=len(self.stop))[: len(self.stop)]

    def eight(self) -> np.ndarray:
        """uint64: the eight bytes from each place on, as a number whose lowest byte comes first."""
        return np.ndarray((len(self.data) - 7,), dtype="<u8", buffer=self.data.data, strides=(1,))


@dataclass
class Part:
    """Some texts: `first` is the position of the first one in its table.

    raw      the texts as they came (of a chat: the contents of its turns)
    normal   the same, normalised, with one space after each text
    pieces   the normalised texts, UTF-8
    compared what two texts are compared by: the pieces, but a chat with its roles
    chars    int64 [m], characters without white space at the ends; wide: bool [m], not ASCII; chat: bool [m]
    """

    first: int
    raw: Joined
    normal: Joined
    pieces: list[bytes]
    compared: list[bytes]
    chars: np.ndarray
    wide: np.ndarray
    chat: np.ndarray


def parts(texts: pa.Array, used: np.ndarray | None = None, plain: Callable[[str], str | None] | None = None) -> Iterator[Part]:
    """The texts some half a million bytes at a time; those that are not `used` (bool [n]) count as empty.

    plain: what a text that begins with [ reads as without the clothes of a chat, None where it is no chat.
    """
    texts = texts.cast(pa.large_string())
    for first, stop in chunks(texts, SIZE):
        offsets, data = buffers(texts.slice(first, stop - first))
        yield _part(first, data[offsets[0] : offsets[-1]], offsets - offsets[0], None if used is None else used[first:stop], plain)


def _part(first: int, raw: np.ndarray, offsets: np.ndarray, used: np.ndarray | None, plain: Callable[[str], str | None] | None) -> Part:
    whole = raw.tobytes()
    compared: dict[int, bytes] = {}
    chat = np.zeros(len(offsets) - 1, dtype=bool)
    replaced: dict[int, bytes] = {}
    if plain is not None:
        begins = np.flatnonzero(offsets[:-1] < offsets[1:])
        for i in begins[raw[offsets[begins]] == ord("[")].tolist():
            text = whole[offsets[i] : offsets[i + 1]].decode()
            found = plain(text) if used is None or used[i] else None
            if found is not None:
                chat[i], replaced[i], compared[i] = True, found.encode(), normalise(text).encode()
    if used is not None:
        replaced.update(dict.fromkeys(np.flatnonzero(~used).tolist(), b""))
    if replaced:
        size = np.diff(offsets)
        kept = [whole[low:high] for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        for i, text in replaced.items():
            kept[i], size[i] = text, len(text)
        whole = b"".join(kept)
        offsets = np.concatenate([[0], np.cumsum(size)])
    joined = Joined(np.frombuffer(whole + _PAD, dtype=np.uint8), offsets[:-1], offsets[1:])
    chars, wide = np.diff(offsets), np.zeros(len(chat), dtype=bool)
    data = joined.data[: len(whole)]
    wide[joined.owner(np.flatnonzero(data >= 0x80))] = True
    special = wide | _collapses(joined)
    lower = whole.translate(_LOWER)
    pieces = [lower[low:high] for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    for i in np.flatnonzero(special).tolist():
        text = whole[offsets[i] : offsets[i + 1]].decode()
        chars[i] = len(text.strip())
        pieces[i] = normalise(text).encode()
    stop = np.cumsum(np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces)) + 1) - 1
    normal = Joined(np.frombuffer(b" ".join(pieces) + b" " + _PAD, dtype=np.uint8), np.concatenate([[0], stop[:-1] + 1]), stop)
    same = pieces if not compared else [compared.get(i, piece) for i, piece in enumerate(pieces)]
    return Part(first, joined, normal, pieces, same, chars, wide, chat)


def _collapses(joined: Joined) -> np.ndarray:
    """bool [m]: there may be white space other than single spaces, or at an end."""
    data = joined.data[: joined.size]
    blank = np.flatnonzero(data <= 32)
    kind = data[blank]
    odd = kind != 32
    odd[1:] |= blank[1:] - blank[:-1] == 1
    out = joined.holding(blank[odd])
    filled = np.flatnonzero(joined.start < joined.stop)
    out[filled] |= BLANK[data[joined.start[filled]]] | BLANK[data[joined.stop[filled] - 1]]
    return out
