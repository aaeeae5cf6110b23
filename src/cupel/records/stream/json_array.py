"""A JSON array of rows in batches: the top-level array is split into its values, and each is read like a line of JSON Lines.

A value ends at a comma that is in no string and in no bracket of its own. Where every piece is JSON by itself and the pieces stand between
brackets, the whole is JSON; so nothing else has to be checked, and a piece that is none makes the file none, as when it is read at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NoReturn

import numpy as np

from cupel.errors import RecordError
from cupel.records.schema import Quarantined
from cupel.records.stream.json_lines import JsonLines
from cupel.records.stream.lines import LONGEST_LINE, Block, is_utf8, open_bytes, read_bytes, refuse_encoding

_BLANK = b" \t\n\r"
_COMMA, _CLOSE = 44, 93
#: what each byte does to the depth of brackets, and which bytes are looked at at all
_STEP, _LOOK = np.zeros(256, dtype=np.int8), np.zeros(256, dtype=bool)
_STEP[[ord("["), ord("{")]], _STEP[[ord("]"), ord("}")]] = 1, -1
_LOOK[[ord(letter) for letter in "[]{},"]] = True


class JsonArray(JsonLines):
    """A file of one array; its values are numbered from 1 on, as lines are."""

    def empty(self, broken: list[Quarantined]) -> NoReturn:
        """The array holds nothing."""
        raise RecordError(f"{self.name} has no rows. Give a file with at least one comparison.")

    def broken(self, aside: list[Quarantined]) -> None:
        """A value that is no JSON makes the file none."""
        if aside:
            _refuse(self.name, f"{aside[0].detail}, in value {aside[0].line:,} of the array")

    def blocks(self, size: int) -> Iterator[Block]:
        """The values, one per line, about `size` bytes at a time."""
        stream, raw = open_bytes(self.path)
        with raw:
            rest, offset, lines = self._opened(stream, size)
            number, ended = 1, False
            while not ended:
                pieces, cut, ended = _split(rest, self.name)
                if not is_utf8(rest[:cut]):
                    refuse_encoding(rest[:cut], offset, lines, self.name)
                offset, lines, rest = offset + cut, lines + rest.count(b"\n", 0, cut), rest[cut:]
                if pieces and not (ended and number == 1 and pieces == [b""]):
                    if not all(pieces):
                        _refuse(self.name, f"value {number + pieces.index(b''):,} of the array is missing")
                    yield Block(b"\n".join(pieces) + b"\n", number, raw.tell())
                    number += len(pieces)
                if not ended:
                    if len(rest) > LONGEST_LINE:
                        raise RecordError(f"{self.name}: value {number:,} is longer than {LONGEST_LINE >> 20:,} MiB, which is no row.")
                    data = read_bytes(stream, size, self.name)
                    if not data:
                        _refuse(self.name, "the array does not end")
                    rest += data
            while rest:
                if rest.strip(_BLANK):
                    _refuse(self.name, "there is more after the end of the array")
                rest = read_bytes(stream, size, self.name)

    def _opened(self, stream: IO[bytes], size: int) -> tuple[bytes, int, int]:
        """(what follows the bracket in what was read so far, its offset, the newlines before it)."""
        offset = lines = 0
        data = read_bytes(stream, size, self.name)
        if data[:3] == b"\xef\xbb\xbf":
            data, offset = data[3:], 3
        while data and not data.strip(_BLANK):
            offset, lines = offset + len(data), lines + data.count(b"\n")
            data = read_bytes(stream, size, self.name)
        start = len(data) - len(data.lstrip(_BLANK)) + 1
        if data[start - 1 : start] != b"[":
            _refuse(self.name, "it does not begin with a bracket")
        return data[start:], offset + start, lines + data.count(b"\n", 0, start)


def _split(data: bytes, name: str) -> tuple[list[bytes], int, bool]:
    """(the values that end here, without blanks around and between their parts; where the last of them ends; whether the array does)."""
    codes = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(codes == 34)
    slashes = np.flatnonzero(codes == 92)
    if len(slashes):
        first = np.concatenate([[True], slashes[1:] != slashes[:-1] + 1])
        odd = (slashes - np.maximum.accumulate(np.where(first, slashes, 0))) % 2 == 0  # an odd number of them up to here
        quotes = quotes[~np.isin(quotes - 1, slashes[odd])]
    looked = np.flatnonzero(_LOOK[codes])
    looked = looked[np.searchsorted(quotes, looked) % 2 == 0]
    depth = np.cumsum(_STEP[codes[looked]], dtype=np.int64)
    below = np.flatnonzero(depth < 0)
    stop = int(below[0]) if len(below) else len(looked)
    cuts = looked[:stop][(depth[:stop] == 0) & (codes[looked[:stop]] == _COMMA)].tolist()
    if len(below):
        if data[looked[stop]] != _CLOSE:
            _refuse(name, "a brace closes the array")
        cuts.append(int(looked[stop]))
    control = np.flatnonzero(codes[: cuts[-1] if cuts else 0] < 32)
    if (np.searchsorted(quotes, control) % 2 == 1).any():
        _refuse(name, "a string holds a line break or another control character")
    pieces, start = [], 0
    for cut in cuts:
        piece = data[start:cut].strip(_BLANK)
        if b"\n" in piece or b"\r" in piece:
            piece = piece.replace(b"\n", b" ").replace(b"\r", b" ")
        pieces.append(piece)
        start = cut + 1
    return pieces, start, bool(len(below))


def _refuse(name: str, why: str) -> NoReturn:
    raise RecordError(f"{name} is not JSON: {why}. Write one row per line (.jsonl), where one bad line costs one line.")
