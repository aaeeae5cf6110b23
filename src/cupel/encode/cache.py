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
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cupel.encode.base import Encoder, Progress, text_bytes

_KEY = 32  # bytes of a SHA-256
_NAME = 32  # hexadecimal digits of the checksum that name a shard


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
    missing: dict[bytes, int] = {}  # key -> row among the distinct texts, in order of first occurrence
    where = np.zeros(len(texts), dtype=np.int64)
    first: list[int] = []
    for i, data in enumerate(text_bytes(texts)):
        row = missing.setdefault(hashlib.sha256(data).digest(), len(missing))
        where[i] = row
        if row == len(first):
            first.append(i)
    out = np.zeros((len(first), encoder.dim), dtype=np.float32)
    total = len(first)
    for shard in sorted(folder.glob("*.safetensors")):
        if not missing:
            break
        _take(shard, missing, out, log)
    if progress is not None:
        progress(total - len(missing), total)
    pending = list(missing.items())
    for start in range(0, len(pending), encoder.shard):
        part = pending[start : start + encoder.shard]
        rows = [row for _, row in part]
        done = total - len(pending) + start
        vectors = encoder.encode([texts[first[row]] for row in rows], _shifted(progress, done, total))
        out[rows] = vectors
        if folder is not None:
            try:
                _put(folder, b"".join(key for key, _ in part), np.ascontiguousarray(vectors, dtype=np.float32))
            except OSError as error:
                log(f"vectors cannot be kept in {folder} ({error}); this run goes on without, the next one encodes again")
                folder = None
    return out if len(first) == len(texts) else out[where]


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda part, _: progress(done + part, total)


def _take(shard: Path, missing: dict[bytes, int], out: np.ndarray, log: Callable[[str], None]) -> None:
    """Fill the rows of `out` that this shard knows, after its checksum; keys found leave `missing`."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    try:
        with safe_open(shard, framework="numpy") as file:  # reads the keys alone: most shards hold nothing that is wanted
            keys = file.get_tensor("keys").tobytes()
        wanted = [(i, key) for i in range(len(keys) // _KEY) if (key := keys[i * _KEY : (i + 1) * _KEY]) in missing]
        if not wanted:
            return
        data = shard.read_bytes()
        if hashlib.sha256(data).hexdigest()[:_NAME] != shard.stem:
            raise ValueError("its checksum does not match its name")
        vectors = load(data)["vectors"]
        if vectors.shape != (len(keys) // _KEY, out.shape[1]):
            raise ValueError(f"it holds vectors of shape {vectors.shape}")
    except FileNotFoundError:
        return  # another run set it aside
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        _set_aside(shard, error, log)
        return
    rows = [missing.pop(key) for _, key in wanted]
    out[rows] = vectors[[i for i, _ in wanted]]


def _set_aside(shard: Path, error: Exception, log: Callable[[str], None]) -> None:
    aside = shard.with_suffix(".damaged")
    try:
        os.replace(shard, aside)
        log(f"cache file {shard.name} is damaged ({error}); it was set aside as {aside} and its texts are encoded again")
    except OSError:
        log(f"cache file {shard} is damaged ({error}); its texts are encoded again")


def _put(folder: Path, keys: bytes, vectors: np.ndarray) -> None:
    """Write one shard: whole under a temporary name first, then renamed to its checksum."""
    from safetensors.numpy import save

    data = save({"keys": np.frombuffer(keys, dtype=np.uint8).reshape(-1, _KEY), "vectors": vectors})
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
