"""Work in stages, each keyed by the content it depends on, so that killed work resumes to the same bytes.

A stage's key is the SHA-256 of its name, the digest of cupel's own source, and the parts that the caller names (input hashes, options,
the keys of the stages before it). Its value is written into a temporary folder and renamed into place: a folder that exists is whole.
What a stage returns is always what was read back from disk, so a resumed run and a fresh one compute with the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from cupel.audit.types import Finding
    from cupel.records.schema import Votes


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
        """The stage's value: read back if its folder exists, else computed, written atomically and read back."""
        if self.directory is None:
            if self.on_start:
                self.on_start(name)
            with tempfile.TemporaryDirectory() as folder:
                codec.save(Path(folder), compute())
                value = codec.load(Path(folder))
            if self.on_done:
                self.on_done(name, False)
            return value
        path = self.directory / f"{name}-{stage_key(name, parts)[:16]}"
        reused = path.is_dir()
        if not reused:
            if self.on_start:
                self.on_start(name)
            value = compute()
            self.directory.mkdir(parents=True, exist_ok=True)
            temporary = self.directory / f".{path.name}.{os.getpid()}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            codec.save(temporary, value)
            os.replace(temporary, path)
        value = codec.load(path)
        if self.on_done:
            self.on_done(name, reused)
        return value

    def prune(self) -> None:
        """Remove half-written folders that a killed run left."""
        if self.directory and self.directory.is_dir():
            for path in sorted(self.directory.glob(".*")):
                shutil.rmtree(path, ignore_errors=True)


# ---- codecs ---------------------------------------------------------------------------------------------------------------------


def _save_json(path: Path, value: Any) -> None:
    from cupel.records.files import write_json

    write_json(path / "value.json", value)


def _load_json(path: Path) -> Any:
    return json.loads((path / "value.json").read_text("utf-8"))


def _save_arrays(path: Path, value: Mapping[str, np.ndarray]) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in sorted(value.items())}, path / "value.safetensors")


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
