"""Work in stages, each keyed by the content it depends on, so that killed work resumes to the same bytes.

A stage's key is the SHA-256 of its name, the digest of cupel's own source, and the parts that the caller names (input hashes, options,
the keys of the stages before it). Its value is written into a temporary folder, with the SHA-256 of each file, flushed, and renamed into
place: a folder that exists is whole. A folder whose files are not what was written (a disk that lies, a flipped bit) is set aside and its
stage computed again. What a stage returns is always what was read back from disk, so a resumed run and a fresh one compute with the same
numbers. No clock is read, and
linear algebra runs on one thread: the number of cores changes no bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.errors import InputError
from cupel.learners.threads import one_blas_thread

if TYPE_CHECKING:
    import numpy as np

    from cupel.audit.types import Finding
    from cupel.records.schema import Votes


#: the file inside a stage's folder that lists what was written
DIGESTS = "digests.json"
#: folders of more bytes than this are checked on several threads
_LARGE = 64 << 20


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 (hex) over the package's Python sources and templates, in path order: what "the same code" means for a stage."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in {".py", ".j2", ".css", ".txt"}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def stage_key(name: str, parts: Mapping[str, Any]) -> str:
    """Hex key of a stage from its name and JSON-able parts.

    >>> stage_key("read", {"seed": 0}) == stage_key("read", {"seed": 0})
    True
    >>> stage_key("read", {"seed": 0}) == stage_key("read", {"seed": 1})
    False
    """
    text = json.dumps([name, code_digest(), parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _computed(compute: Callable[[], Any]) -> Any:
    with one_blas_thread():
        return compute()


@dataclass(frozen=True)
class Codec:
    """How a stage's value is written into a folder and read back."""

    save: Callable[[Path, Any], None]
    load: Callable[[Path], Any]


@dataclass
class Stages:
    """A folder of finished stages. With `directory=None` nothing is kept and every stage is computed.

    Either way a value is what was written and read back, so that Python, the command line and a resumed run compute with the same.
    """

    directory: Path | None = None
    on_start: Callable[[str], None] | None = None
    on_done: Callable[[str, bool], None] | None = None

    def run(self, name: str, parts: Mapping[str, Any], compute: Callable[[], Any], codec: Codec) -> Any:
        """The stage's value: read back if its folder exists and is whole, else computed, written atomically and read back.

        Raises InputError where the value cannot be written (a full disk); the stages before it stay.
        """
        if self.directory is None:
            if self.on_start:
                self.on_start(name)
            with tempfile.TemporaryDirectory() as folder:
                codec.save(Path(folder), _computed(compute))
                value = codec.load(Path(folder))
            if self.on_done:
                self.on_done(name, False)
            return value
        path = self.directory / f"{name}-{stage_key(name, parts)[:16]}"
        reused = path.is_dir() and self._whole(path)
        if not reused:
            if self.on_start:
                self.on_start(name)
            self._keep(path, _computed(compute), codec)
        value = codec.load(path)
        if self.on_done:
            self.on_done(name, reused)
        return value

    def _keep(self, path: Path, value: Any, codec: Codec) -> None:
        """Write a value and its digests into a folder beside `path`, flush them, and rename the folder into place."""
        temporary = path.parent / f".{path.name}.{os.getpid()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            codec.save(temporary, value)
            (temporary / DIGESTS).write_text(json.dumps(digests(temporary), sort_keys=True), "utf-8")
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent, deep=False)
        except (OSError, InputError) as error:  # a codec may have put the system's refusal into words already
            refused = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(refused, OSError):
                raise
            raise InputError(
                f"the stage {path.name.rpartition('-')[0]} cannot be kept in {path.parent}: {refused.strerror or refused}. The stages "
                "finished before it are kept: free some space there, or choose another place with --out, and run the same command again."
            ) from refused
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _whole(self, path: Path) -> bool:
        """Whether the files of a finished stage are those that were written; otherwise they are set aside, and a warning says so."""
        try:
            expected = json.loads((path / DIGESTS).read_text("utf-8"))
            found = digests(path)
        except (OSError, ValueError) as error:
            expected, found = {}, {str(error): ""}
        if expected == found:
            return True
        changed = sorted(set(expected.items()) ^ set(found.items()))
        logging.getLogger("cupel.stages").warning(
            "the kept stage %s is damaged (first: %s); it was set aside and is computed again", path, changed[0][0]
        )
        shutil.rmtree(path, ignore_errors=True)
        return False

    def scratch(self, name: str) -> Path | None:
        """Where a computation may put files that its codec will link into the stage: on the same disk, and pruned after a kill."""
        return None if self.directory is None else self.directory / f".{name}.{os.getpid()}"

    def prune(self) -> None:
        """Remove half-written folders that a killed run left."""
        if self.directory and self.directory.is_dir():
            for path in sorted(self.directory.glob(".*")):
                shutil.rmtree(path, ignore_errors=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by path, but for the list of them itself; large files are read side by side."""
    from concurrent.futures import ThreadPoolExecutor

    from cupel.records.files import sha256_file

    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != DIGESTS)
    if sum(p.stat().st_size for p in files) < _LARGE:
        found = [sha256_file(p) for p in files]
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            found = list(pool.map(sha256_file, files))
    return {p.relative_to(folder).as_posix(): digest for p, digest in zip(files, found, strict=True)}


def _flush(folder: Path, *, deep: bool = True) -> None:
    """Flush the files of a folder, and the folder, to the disk."""
    for path in [*(sorted(folder.rglob("*")) if deep else ()), folder]:
        if path.is_dir() and os.name != "posix":  # pragma: no cover - a directory cannot be opened there
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- codecs ---------------------------------------------------------------------------------------------------------------------


def _save_json(path: Path, value: Any) -> None:
    from cupel.records.files import write_json

    write_json(path / "value.json", value)


def _load_json(path: Path) -> Any:
    return json.loads((path / "value.json").read_text("utf-8"))


def _save_arrays(path: Path, value: Mapping[str, np.ndarray]) -> None:
    import numpy as np
    from safetensors.numpy import save

    (path / "value.safetensors").write_bytes(save({k: np.ascontiguousarray(v) for k, v in sorted(value.items())}))


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path / "value.safetensors")


def _save_votes(path: Path, value: Votes) -> None:
    from cupel.records.store import save

    save(value, path / "votes")


def _load_votes(path: Path) -> Votes:
    from cupel.records.store import load

    return load(path / "votes")


def _save_findings(path: Path, value: list[Finding]) -> None:
    _save_json(path, [finding.to_json() for finding in value])
    _save_arrays(path, {f"{i:04d}": finding.rows.astype("int64") for i, finding in enumerate(value)})


def _load_findings(path: Path) -> list[Finding]:
    from cupel.audit.types import Finding

    rows = _load_arrays(path)
    loaded = []
    for i, entry in enumerate(_load_json(path)):
        entry["examples"] = tuple(entry["examples"])
        loaded.append(Finding(**entry, rows=rows[f"{i:04d}"]))
    return loaded


JSON = Codec(_save_json, _load_json)
ARRAYS = Codec(_save_arrays, _load_arrays)
VOTES = Codec(_save_votes, _load_votes)
FINDINGS = Codec(_save_findings, _load_findings)
