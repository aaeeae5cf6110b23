"""Files on disk: written whole or not at all, byte for byte the same for the same content, one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cupel.errors import InputError

#: name of the lock file inside an output directory
LOCK = ".cupel.lock"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error, and vanishes otherwise.

    The data is flushed to the disk before the rename, so a reader (or a run that resumes) sees the old file or the new one, never
    a part.
    Parent directories are made. Raises InputError where the place cannot be written.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_write(place) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> place.read_text(), len(list(place.parent.iterdir()))
    ('whole', 1)
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}. Choose another place with --out.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        _sync_directory(target.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}. What stood there before is untouched and finished stages are kept: free "
            "some space, or choose another place with --out, and run the same command again."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def to_json(obj: Any) -> str:
    """Canonical JSON text: sorted keys, two spaces, a newline at the end; NaN and infinities become null.

    Numpy scalars and arrays, tuples and sets (sorted) are written as their plain equivalents.

    >>> to_json({"b": float("nan"), "a": (1, 2)}).splitlines()[-2]
    '  "b": null'
    """
    return json.dumps(plain(obj), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line to a log. Raises InputError where the disk refuses; a line cut short is for the reader to leave out.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> append_line(place, "one"), append_line(place, "two"), place.read_text().split()
    (None, None, ['one', 'two'])
    """
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}. Finished work is kept: free some space, or choose another place with --out, "
            f"and run the same command again"
        ) from error


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `to_json(obj)` atomically in UTF-8 (a lone surrogate is written as its JSON escape, e.g. `\\\\ud800`)."""
    data = to_json(obj).encode("utf-8", "backslashreplace")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_parquet(path: str | os.PathLike[str], table: pa.Table, *, exact: bool = False) -> None:
    """Write a table atomically as Parquet (zstd); the same table gives the same bytes under the same pyarrow.

    exact: keep Arrow's own names inside list columns ("item", where the Parquet standard says "element"), so that pyarrow reads
    back the very same types.
    """
    import pyarrow.parquet as pq

    options: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "row_group_size": 65536}
    with atomic_write(path) as temporary:
        pq.write_table(table.combine_chunks(), temporary, use_compliant_nested_type=not exact, **options)


def write_lines(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON Lines, atomically, keys in the order given."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n", errors="backslashreplace") as out:
        for row in rows:
            out.write(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a directory, of the sorted names and hashes of the files in it."""
    place = Path(path)
    if place.is_dir():
        digest = hashlib.sha256()
        for file in sorted(f for f in place.rglob("*") if f.is_file()):
            digest.update(f"{file.relative_to(place).as_posix()}\0{sha256_file(file)}\n".encode())
        return digest.hexdigest()
    with open(place, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def lock(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Hold the only writer's place in an output directory; raises InputError at once where another process holds it.

    An advisory lock on `.cupel.lock` (fcntl): it ends with the process, however that ends, so nothing has to be cleaned up after
    a kill.
    On systems without fcntl (Windows) the directory is made and no lock is taken.
    """
    place = Path(directory)
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"cannot write into {place}: {error.strerror or error}. Choose another place with --out.") from error
    try:
        _take(handle, place)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield place
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _take(handle: int, place: Path) -> None:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this platform
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise InputError(
            f"another cupel process (id {owner}) is writing into {place}. Wait until it ends, or choose another place with --out."
        ) from error


def plain(obj: Any) -> Any:
    """The same content in the types JSON knows."""
    if obj is None or isinstance(obj, str | bool | int):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, set | frozenset):
        return [plain(value) for value in sorted(obj)]
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if hasattr(obj, "tolist"):  # numpy scalars and arrays
        return plain(obj.tolist())
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    raise TypeError(f"{type(obj).__name__} cannot be written as JSON")


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":  # pragma: no cover - a directory cannot be opened there
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
