"""Vectors on disk, addressed by content: a text is encoded once per encoder, by whichever run comes first.

    directory / encoder hash / <first 32 hexadecimal digits of the file's SHA-256>.safetensors
        keys     uint8   [n, 32]    SHA-256 of each text (the texts themselves are not stored)
        vectors  float32 [n, dim]

A shard's name is the checksum of its bytes. So two runs that write the same shard write the same file, a killed run leaves whole
shards only, and a damaged shard is noticed before any vector of it is used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cupel.encode.base import Encoder, Progress, Texts, text_bytes
from cupel.errors import EncoderError

_KEY = 32  # bytes of a SHA-256
_NAME = 32  # hexadecimal digits of the checksum that name a shard
_PART = 8192  # texts whose bytes are held at a time


def default_cache_dir() -> Path:
    """Where vectors are kept: $CUPEL_CACHE, else $XDG_CACHE_HOME/cupel, else ~/.cache/cupel. Nothing is created.

    >>> import os
    >>> before = os.environ.get("CUPEL_CACHE")
    >>> os.environ["CUPEL_CACHE"] = "/tmp/vectors"
    >>> default_cache_dir().as_posix()
    '/tmp/vectors'
    >>> if before is None: del os.environ["CUPEL_CACHE"]
    ... else: os.environ["CUPEL_CACHE"] = before
    """
    if own := os.environ.get("CUPEL_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "cupel"
    return Path.home() / ".cache" / "cupel"


def cache_bytes(directory: str | Path | None = None) -> int:
    """Bytes that the cache holds, all encoders together; 0 where it does not exist."""
    root = Path(directory) if directory is not None else default_cache_dir()
    return sum(path.stat().st_size for path in root.glob("*/*.safetensors"))


def encode_cached(
    encoder: Encoder,
    texts: Sequence[str],
    directory: str | Path | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> np.ndarray:
    """float32 [n, dim]: `encoder.encode(texts)`, where only texts that are not in the cache are encoded, each distinct text once.

    texts      a list, or anything with a length and slices (`Texts`), of which a few thousand are held at a time
    directory  the cache; `default_cache_dir()` where None
    progress   called as progress(done, total), in distinct texts; what the cache held counts as done
    log        receives a sentence when a shard is damaged (it is set aside and its texts are encoded again) or cannot be written
               (the vectors are right, but the next run starts over); the logger `cupel.encode` where None

    Interrupted, it loses at most the `encoder.shard` texts it was working on. Raises EncoderError where a text is not Unicode.

    >>> import tempfile
    >>> from cupel.encode import load_encoder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = encode_cached(load_encoder("static"), ["a", "b", "a"], folder)
    ...     again = encode_cached(load_encoder("static"), ["b", "a"], folder)
    >>> bool((first[[1, 0]] == again).all())
    True
    """
    log = log or logging.getLogger("cupel.encode").warning
    folder = (Path(directory) if directory is not None else default_cache_dir()) / encoder.hash
    keys = _keys(texts)
    where, first = _distinct(keys)
    total = len(first)
    out = np.zeros((total, encoder.dim), dtype=np.float32)
    wanted = _Wanted(keys[first])
    for shard in sorted(folder.glob("*.safetensors")):
        if not wanted.left:
            break
        _take(shard, wanted, out, log)
    if progress is not None:
        progress(total - wanted.left, total)
    pending = np.flatnonzero(wanted.missing)
    for start in range(0, len(pending), encoder.shard):
        rows = pending[start : start + encoder.shard]
        done = total - len(pending) + start
        vectors = encoder.encode([texts[int(i)] for i in first[rows]], _shifted(progress, done, total))
        out[rows] = vectors
        if folder is not None:
            try:
                _put(folder, keys[first[rows]], np.ascontiguousarray(vectors, dtype=np.float32))
            except OSError as error:
                log(f"vectors cannot be kept in {folder} ({error}); this run goes on without, the next one encodes again")
                folder = None
    return out if total == len(texts) else out[where]


def _keys(texts: Sequence[str]) -> np.ndarray:
    """uint8 [n, 32]: SHA-256 of each text."""
    out = np.empty((len(texts), _KEY), dtype=np.uint8)
    for start in range(0, len(texts), _PART):
        if isinstance(texts, Texts):
            data = texts.bytes(slice(start, start + _PART))
        else:
            try:
                data = text_bytes(texts[start : start + _PART])
            except EncoderError:
                text_bytes(list(texts))  # says how many of all of them, and which is the first
                raise
        digests = b"".join([hashlib.sha256(text).digest() for text in data])
        out[start : start + len(data)] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, _KEY)
    return out


def _words(keys: np.ndarray) -> np.ndarray:
    """The keys as four numbers each: uint64 [n, 4]."""
    return np.ascontiguousarray(keys).view("<u8").reshape(-1, _KEY // 8)


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which distinct text each text is, where each distinct text comes first), numbered in the order of first occurrence."""
    words = _words(keys)
    order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    head = order[new]  # the sort is stable: the first of equal texts
    rank = np.empty(len(head), dtype=np.int64)
    rank[np.argsort(head, kind="stable")] = np.arange(len(head))
    where = np.empty(len(order), dtype=np.int64)
    where[order] = rank[np.cumsum(new) - 1]
    return where, np.sort(head)


class _Wanted:
    """The distinct texts whose vectors are still missing, looked up by key."""

    def __init__(self, keys: np.ndarray) -> None:
        self.words = _words(keys)
        self._order = np.argsort(self.words[:, 0], kind="stable")
        self._sorted = self.words[self._order, 0]
        self.missing = np.ones(len(keys), dtype=bool)

    @property
    def left(self) -> int:
        """How many are missing."""
        return int(self.missing.sum())

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions among `keys`, rows of missing texts) where the two agree in all 32 bytes."""
        words = _words(keys)
        place = np.searchsorted(self._sorted, words[:, 0])
        place = np.minimum(place, max(len(self._sorted) - 1, 0))
        if not len(self._sorted):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        rows = self._order[place]
        # two wanted texts whose keys begin alike (odds of 2^-64) would hide one another: that one is then encoded again
        hit = np.flatnonzero((self.words[rows] == words).all(axis=1) & self.missing[rows])
        rows, once = np.unique(rows[hit], return_index=True)
        return hit[once], rows


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda part, _: progress(done + part, total)


def _take(shard: Path, wanted: _Wanted, out: np.ndarray, log: Callable[[str], None]) -> None:
    """Fill the rows of `out` that this shard knows, after its checksum; rows found are missing no more."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as file:  # reads the keys alone: most shards hold nothing that is wanted
            keys = np.asarray(file.get_tensor("keys"), dtype=np.uint8).reshape(-1, _KEY)
            at, rows = wanted.find(keys)
            if not len(rows):
                return
            with shard.open("rb") as data:
                if hashlib.file_digest(data, "sha256").hexdigest()[:_NAME] != shard.stem:
                    raise ValueError("its checksum does not match its name")
            vectors = file.get_tensor("vectors")
        if vectors.shape != (len(keys), out.shape[1]):
            raise ValueError(f"it holds vectors of shape {vectors.shape}")
    except FileNotFoundError:
        return  # another run set it aside
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        _set_aside(shard, error, log)
        return
    for a, b in _stretches(at, rows):  # most often one: shards hold texts in the order in which they first came
        out[rows[a] : rows[b - 1] + 1] = vectors[at[a] : at[b - 1] + 1]
    wanted.missing[rows] = False


def _stretches(at: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of the stretches within which both go up by one."""
    ends = [*(np.flatnonzero((np.diff(at) != 1) | (np.diff(rows) != 1)) + 1).tolist(), len(at)]
    return zip([0, *ends], ends, strict=False)


def _set_aside(shard: Path, error: Exception, log: Callable[[str], None]) -> None:
    aside = shard.with_suffix(".damaged")
    try:
        os.replace(shard, aside)
        log(f"cache file {shard.name} is damaged ({error}); it was set aside as {aside} and its texts are encoded again")
    except OSError:
        log(f"cache file {shard} is damaged ({error}); its texts are encoded again")


def _put(folder: Path, keys: np.ndarray, vectors: np.ndarray) -> None:
    """Write one shard: whole under a temporary name first, then renamed to its checksum."""
    from safetensors.numpy import save

    data = save({"keys": np.ascontiguousarray(keys), "vectors": vectors})
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / f"{hashlib.sha256(data).hexdigest()[:_NAME]}.safetensors")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
