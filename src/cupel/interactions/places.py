"""Where a log lies, a file or a folder, and what can be told of it before it is read: names, first lines, names of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cupel.errors import RecordError

#: bytes of a text file that are looked at to tell what it is
HEAD = 65_536
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Place:
    """A path as it was given, and the names that its columns were given: canonical name -> column, "" for a column not to be read."""

    path: Path
    map: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Names of the files in the folder, or that of the file."""
        return tuple(sorted(f.name for f in self.path.iterdir() if f.is_file())) if self.path.is_dir() else (self.path.name,)

    @property
    def folder(self) -> Path:
        """The folder, or that in which the file lies."""
        return self.path if self.path.is_dir() else self.path.parent

    def has(self, *names: str) -> bool:
        """Whether all of these files are there: in the folder, or as the file that was given."""
        return set(names) <= set(self.files)

    def beside(self, *names: str) -> Path | None:
        """The first of these files that lies in the folder, or beside the file."""
        return next((self.folder / name for name in names if (self.folder / name).is_file()), None)

    def described(self) -> str:
        """What is there, in words, for an error."""
        if self.path.is_dir():
            return f"The folder has {len(self.files)} files: {', '.join(self.files[:12]) or 'none'}."
        try:
            names = columns(self.path)
        except RecordError:
            names = []
        return f"Its columns: {', '.join(names[:40])}." if names else "It has no header that could be read."


def suffix(path: Path) -> str:
    """The ending that says what a file is, without that of compression.

    >>> suffix(Path("a.csv.gz")), suffix(Path("u.data"))
    ('.csv', '.data')
    """
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def head(path: Path, encoding: str = "utf-8") -> list[str]:
    """The first whole lines of a text file (also .gz); none of a file that is not text."""
    import gzip

    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            data: bytes = stream.read(HEAD)
    except (OSError, EOFError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if b"\0" in data:
        return []
    lines = data.decode(encoding, "replace").removeprefix("\ufeff").splitlines()
    return lines[:-1] if len(data) == HEAD and len(lines) > 1 else lines


def columns(path: Path) -> list[str]:
    """Names of a table's columns: of Parquet, of the first line of CSV and TSV, of the first row of JSON lines."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = suffix(path)
    if kind == ".parquet":
        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise RecordError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error
    lines = head(path)
    if not lines:
        return []
    if kind in (".jsonl", ".ndjson", ".json"):
        try:
            first = json.loads(lines[0])
        except ValueError:
            return []
        return list(first) if isinstance(first, dict) else []
    import csv

    return next(csv.reader(lines[:1], delimiter=separator(path, lines[0])), [])


def separator(path: Path, first: str) -> str:
    """What parts the columns of a text table: as the ending says, else a tab, comma, semicolon, bar or blank of the first line.

    >>> separator(Path("x.txt"), "1;2;3")
    ';'
    """
    known = SEPARATORS.get(suffix(path))
    if known and known in first:
        return known
    return next((mark for mark in "\t,;| " if mark in first), known or ",")
