"""Directories for what is needed only while a process runs; what a killed process left is removed when the next one is made.

Each holds a file `owner` with the name of the machine, locked (flock) for as long as its process lives: the lock ends with the process,
however that ends. A directory is certainly abandoned where it has our name, belongs to this user, was made on this machine, and its lock
can be taken. Where there are no such locks (Windows), nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "cupel-spool-"
OWNER = "owner"

#: the locks of this process: directory -> (handle, process)
_held: dict[Path, tuple[int, int]] = {}


def make(parent: str | os.PathLike[str] | None = None) -> Path:
    """A new directory under `parent` (where temporary files go), held by this process; abandoned ones there are removed first."""
    above = Path(parent) if parent is not None else Path(tempfile.gettempdir())
    sweep(above)
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    _hold(place)
    return place


def release(place: Path) -> None:
    """Remove a directory that this process made."""
    handle, process = _held.get(place, (-1, os.getpid()))
    if process != os.getpid():  # a fork of the process that made it
        return
    shutil.rmtree(place, ignore_errors=True)
    if handle >= 0:
        del _held[place]
        os.close(handle)


@contextlib.contextmanager
def scratch(parent: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A directory that is removed when the block ends.

    >>> with scratch() as place:
    ...     place.is_dir()
    True
    >>> place.exists()
    False
    """
    place = make(parent)
    try:
        yield place
    finally:
        release(place)


def sweep(parent: Path) -> list[Path]:
    """Remove what killed processes left under `parent`; the directories that were removed."""
    gone = []
    with contextlib.suppress(OSError):
        for place in sorted(parent.glob(f"{PREFIX}*")):
            if _abandoned(place):
                shutil.rmtree(place, ignore_errors=True)
                gone.append(place)
    return gone


def _hold(place: Path) -> None:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this platform
        return
    handle = os.open(place / f"{OWNER}.new", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(handle, platform.node().encode())
        os.rename(place / f"{OWNER}.new", place / OWNER)  # locked before it can be seen
    except OSError:  # a file system without locks: never called abandoned
        os.close(handle)
        (place / f"{OWNER}.new").unlink(missing_ok=True)
        return
    _held[place] = handle, os.getpid()


def _abandoned(place: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this platform
        return False
    try:
        if place.is_symlink() or place.stat().st_uid != os.getuid():
            return False
        handle = os.open(place / OWNER, os.O_RDWR)
    except OSError:  # no owner (yet), or not ours to read
        return False
    try:
        if os.read(handle, 1024) != platform.node().encode():
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
