"""The bytes of a text file in blocks of whole lines, unpacked and checked to be UTF-8 as they come."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError

#: bytes read at a time
BLOCK = 8 << 20
#: a line longer than this is no row
LONGEST_LINE = 512 << 20
_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Block(NamedTuple):
    """Whole lines: their bytes (the last ends in a newline too), the number of the first, and the bytes of the file read so far."""

    data: bytes
    line: int
    read: int


def open_bytes(path: Path) -> tuple[IO[bytes], IO[bytes]]:
    """(the unpacked bytes, the file as it lies on disk)."""
    raw = open(path, "rb")  # noqa: SIM115 - the caller closes it
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return (cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw), raw


def head(path: Path, name: str, size: int = 1 << 20) -> str:
    """The beginning of a text file, to recognise it by."""
    stream, raw = open_bytes(path)
    with raw:
        data = read_bytes(stream, size, name)
    if data[:2] in _MARKS:
        refuse_encoding(data, 0, 0, name)
    return data.decode("utf-8", "ignore").removeprefix("\ufeff")


def blocks(path: Path, name: str, size: int = BLOCK) -> Iterator[Block]:
    """The lines of a file, about `size` bytes at a time. Raises RecordError at the first byte that is not UTF-8."""
    stream, raw = open_bytes(path)
    with raw:
        line, offset, rest = 1, 0, b""
        while True:
            data = read_bytes(stream, size, name)
            if not offset and not rest:
                if data[:2] in _MARKS:
                    refuse_encoding(data, 0, 0, name)
                if data[:3] == b"\xef\xbb\xbf":
                    data, offset = data[3:], 3
            whole = rest + data
            if data:
                cut = whole.rfind(b"\n") + 1
                if not cut:
                    if len(whole) > LONGEST_LINE:
                        raise RecordError(f"{name}: line {line:,} is longer than {LONGEST_LINE >> 20:,} MiB, which is no row.")
                    rest = whole
                    continue
                block, rest = whole[:cut], whole[cut:]
            else:
                block, rest = whole, b""
            if not block:
                return
            if not is_utf8(block):
                refuse_encoding(block, offset, line - 1, name)
            ended = block if block.endswith(b"\n") else block + b"\n"
            yield Block(ended, line, raw.tell())
            line += block.count(b"\n")
            offset += len(block)
            if not data:
                return


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    ends = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, ends, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def read_bytes(stream: IO[bytes], size: int, name: str) -> bytes:
    """The next `size` bytes, fewer at the end. RecordError where the disk or the gzip stream fails."""
    try:
        return stream.read(size)
    except EOFError as error:
        raise RecordError(f"{name} is cut off: the gzip stream ends too early. Copy or download it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise RecordError(f"{name} is not a sound gzip file: {error}. Copy or download it again.") from error
    except OSError as error:
        raise RecordError(f"cannot read {name}: {error.strerror or error}.") from error


def refuse_encoding(data: bytes, offset: int, lines: int, name: str) -> None:
    """Raise what `textual.decode` would for the whole file."""
    if data[:2] in _MARKS and not offset:
        raise RecordError(
            f"{name} is not UTF-8: it begins with the mark of UTF-16 at offset 0. Convert it: iconv -f UTF-16 -t UTF-8 {name} > fixed"
        )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines + data.count(b"\n", 0, error.start) + 1
        raise RecordError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start:,} (line {line:,}) cannot be read "
            f"({error.reason}). Convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > fixed"
        ) from error
