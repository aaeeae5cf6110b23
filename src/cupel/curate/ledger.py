"""Every change of the data, one line each, in the order they were made: append-only, and enough to make the curated data again.

The first line is a header: what the training rows were before (SHA-256 of their content) and with which options the changes were
decided. Each further line says which row, what was done, the row before and after, why, on whose word, and the estimated precision of
such a change.
Rows that were kept as they are have no line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.arrow import pc
from cupel.records.schema import OUTCOMES, TRAIN, Votes

VERSION = 1
Kind = Literal["drop", "flip", "reweight", "restore", "correct", "consensus"]
Source = Literal["check", "reviewer", "posterior", "option"]
#: rows digested at a time
_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of one row. before, after: {"outcome", "p", "w"}, None for a row that is not in the data (before or after it)."""

    seq: int
    id: str
    action: Kind
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str
    source: Source
    precision: float | None = None

    def line(self) -> str:
        """The entry as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Ledger:
    """All changes, oldest first, to the training rows whose content has the SHA-256 `input` (`votes_digest`)."""

    input: str
    options: Mapping[str, Any]
    entries: tuple[Entry, ...] = ()
    version: int = field(default=VERSION)

    def __len__(self) -> int:
        return len(self.entries)

    def header(self) -> str:
        """The first line."""
        content = {"ledger": self.version, "input": self.input, "options": dict(self.options)}
        return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)

    def text(self) -> str:
        """What the file holds."""
        return "".join(f"{line}\n" for line in (self.header(), *(entry.line() for entry in self.entries)))

    @property
    def digest(self) -> str:
        """SHA-256 of the file's content, hexadecimal."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Number of entries by action."""
        kinds = [entry.action for entry in self.entries]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the ledger as a new file, atomically."""
        from cupel.records.files import atomic_write

        with atomic_write(path) as temporary:
            temporary.write_bytes(self.text().encode())


def append(path: str | os.PathLike[str], ledger: Ledger) -> int:
    """Append to the file at `path` the entries of `ledger` that it does not hold; the number appended.

    Lines on disk are never changed: InputError where they are not the beginning of `ledger` (it was made from other votes or is not a
    continuation; see `curate(previous=...)`). Entries go out in one write that is flushed; half a line that a killed run left at the
    end is cut off.
    """
    place = Path(path)
    if not place.exists():
        ledger.write(place)
        return len(ledger)
    data = place.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    wanted = ledger.text().encode()
    if not whole or not wanted.startswith(whole):
        raise InputError(
            f"{place} already holds a ledger that these changes do not continue; it is never rewritten. "
            "Move it away, choose another OUT, or continue it."
        )
    with open(place, "r+b") as stream:
        stream.truncate(len(whole))
        stream.seek(len(whole))
        stream.write(wanted[len(whole) :])
        stream.flush()
        os.fsync(stream.fileno())
    return wanted[len(whole) :].count(b"\n")


def read_ledger(path: str | os.PathLike[str]) -> Ledger:
    """The ledger in a file. InputError, with the line, where it is none or not whole."""
    place = Path(path)
    try:
        lines = place.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place} cannot be read as a ledger ({error}); give the ledger.jsonl that curate wrote") from error
    number = 1
    try:
        head = json.loads(lines[0])
        if head["ledger"] != VERSION:
            raise InputError(f"{place} is a ledger of version {head['ledger']!r}; this cupel reads version {VERSION}")
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            entry = Entry(**json.loads(line))
            if entry.seq != number - 1:
                raise ValueError(f"seq is {entry.seq}, not {number - 1}: a line is missing or moved")
            entries.append(entry)
        return Ledger(head["input"], head["options"], tuple(entries))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{place}, line {number}: not a line of a ledger ({error}). Restore the file from where it was written") from error


def votes_digest(votes: Votes) -> str:
    """SHA-256 over what a ledger's changes rest on: ids, texts, outcomes, p and w of the training rows, in order; hexadecimal.

    Held-out rows are left out: nothing about them may move anything that is trained.
    """
    from cupel.records.digests import digests

    rows = np.flatnonzero(votes.split == TRAIN)
    digest = hashlib.sha256()
    asked, told = (digests(texts.cast(pa.large_string())).view(np.uint8).reshape(-1, 32) for texts in (votes.prompts, votes.responses))
    for low in range(0, len(rows), _ROWS):
        part = rows[low : low + _ROWS]
        texts = np.concatenate([asked[votes.prompt[part]], told[votes.first[part]], told[votes.second[part]]], axis=1).tobytes()
        names = votes.ids.take(pa.array(part)).to_pylist()
        digest.update(b"".join([f"{name}\0".encode() + texts[96 * i : 96 * i + 96] for i, name in enumerate(names)]))
    for column, kind in ((votes.outcome, "<i1"), (votes.p, "<f8"), (votes.w, "<f8")):
        digest.update(np.ascontiguousarray(column[rows], dtype=kind).tobytes())
    return digest.hexdigest()


def rows_of(votes: Votes, names: Iterable[str]) -> dict[str, int]:
    """The row of each of some ids; ids that are not in the votes are left out."""
    wanted = sorted(set(names))
    at = pc.index_in(votes.ids, value_set=pa.array(wanted, votes.ids.type))
    rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    return {wanted[k]: row for k, row in zip(at.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True)}


@dataclass
class State:
    """The rows while changes are applied: outcome, p, w and whether each is kept; copies, so that the votes stay as they were."""

    outcome: np.ndarray
    p: np.ndarray
    w: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, votes: Votes) -> State:
        """The votes before any change."""
        return cls(votes.outcome.copy(), votes.p.copy(), votes.w.copy(), np.ones(len(votes), dtype=bool))

    def row(self, i: int) -> dict[str, Any] | None:
        """A row as a ledger writes it."""
        if not self.kept[i]:
            return None
        return {"outcome": OUTCOMES[self.outcome[i]], "p": float(self.p[i]), "w": float(self.w[i])}

    def set(self, i: int, value: Mapping[str, Any] | None) -> None:
        """Make row i what a ledger says."""
        self.kept[i] = value is not None
        if value is not None:
            self.outcome[i], self.p[i], self.w[i] = OUTCOMES.index(value["outcome"]), value["p"], value["w"]

    def whole(self, votes: Votes) -> Votes:
        """All rows with their changed columns, those that are not kept among them."""
        return votes.with_(outcome=self.outcome, p=self.p, w=self.w)

    def votes(self, votes: Votes) -> Votes:
        """The kept rows with their changed columns, in the order of the source."""
        return self.whole(votes).take(self.kept)


def replay(votes: Votes, ledger: Ledger) -> Votes:
    """The curated votes, made again from the original votes and the ledger: the same rows, and the same bytes once written.

    InputError where the votes are not those that the ledger was made for, or where a line does not fit what came before it.
    """
    return replayed_state(votes, ledger).votes(votes)


def replayed_state(votes: Votes, ledger: Ledger, digest: str | None = None) -> State:
    """State of every row of `votes` after all entries of the ledger; checks as `replay`. digest: `votes_digest`, where it is known."""
    found = votes_digest(votes) if digest is None else digest
    if found != ledger.input:
        raise InputError(
            f"the ledger was made for other votes (content {ledger.input[:12]}..., these are {found[:12]}...). Give the same file, "
            "options and seed as then: they are in run.json."
        )
    state = State.of(votes)
    where = rows_of(votes, (entry.id for entry in ledger.entries))
    for entry in ledger.entries:
        i = where.get(entry.id)
        if i is None:
            raise InputError(f"ledger, entry {entry.seq}: there is no row {entry.id!r} in these votes")
        if votes.split[i] != TRAIN:
            raise InputError(f"ledger, entry {entry.seq}: row {entry.id!r} is held out; held-out rows are never changed")
        if state.row(i) != entry.before:
            raise InputError(
                f"ledger, entry {entry.seq}: row {entry.id!r} is not what the entry says it was; a line is missing or was edited"
            )
        try:
            state.set(i, entry.after)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"ledger, entry {entry.seq}: {entry.after!r} is not a row ({error})") from error
    return state


@dataclass(frozen=True, slots=True)
class Change:
    """A row's wanted state, and why; what `continued` turns into entries."""

    row: int
    action: Kind
    after: Mapping[str, Any] | None
    reason: str
    source: Source
    precision: float | None = None


def continued(
    votes: Votes, changes: Iterable[Change], options: Mapping[str, Any], previous: Ledger | None = None, digest: str | None = None
) -> Ledger:
    """A ledger that leads from the votes (or from where `previous` left them) to the wanted rows.

    `changes` name each row at most once, with its state measured from the original votes; rows that `previous` changed and that are
    not named go back to what they were (`restore`). Where nothing differs nothing is written. digest: `votes_digest(votes)`,
    where it is known.
    """
    found = digest or votes_digest(votes)
    original = State.of(votes)
    state = replayed_state(votes, previous, found) if previous is not None else State.of(votes)
    entries = list(previous.entries) if previous is not None else []
    wanted = {change.row: change for change in changes}
    touched = sorted(set(rows_of(votes, (entry.id for entry in entries)).values()) | set(wanted))
    ids = dict(zip(touched, votes.ids.take(pa.array(touched, pa.int64())).to_pylist(), strict=True))
    for i in touched:
        change = wanted.get(i) or Change(i, "restore", original.row(i), "no longer called for", "option")
        before = state.row(i)
        if before != change.after:
            entries.append(
                Entry(len(entries) + 1, ids[i], change.action, before, change.after, change.reason, change.source, change.precision)
            )
            state.set(i, change.after)
    first = previous if previous is not None else Ledger(found, options)
    return Ledger(first.input, first.options, tuple(entries))
