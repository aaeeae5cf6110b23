"""`read_stream`: a file of any size -> the votes that reading it at once would give, with its texts on disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import InputError, RecordError
from cupel.records.arrow import pc
from cupel.records.build import extra_columns, refuse_bad, set_aside
from cupel.records.columns import Frame, as_strings, kinds
from cupel.records.digests import digests
from cupel.records.formats import choose
from cupel.records.formats.unfolding import NO_COMPARISON
from cupel.records.schema import BOTH_BAD, SKIP, TIE, A, B, Quarantined, Votes
from cupel.records.sources import Rows
from cupel.records.store import pack
from cupel.records.stream.finish import finish
from cupel.records.stream.frames import BatchFrame, Facts, settle_votes
from cupel.records.stream.kinds import Seen
from cupel.records.stream.opening import CannotStream, open_reader
from cupel.records.stream.scratch import make, release
from cupel.records.stream.sink import Batch, Sink
from cupel.records.stream.spool import Column, Spool

#: formats that read each row by itself; others may need several rows at once
ROW_BY_ROW = frozenset({"trl", "trl_conversational", "trl_implicit", "hh", "pairs", "votes", "arena"})
#: rows by which a file is recognised
HEAD = 256
#: a file whose columns are not understood after so many passes is read at once
PASSES = 8
_ELSEWHERE = "Free some space there, or choose a larger disk: --out on the command line, spool= or TMPDIR in Python."
#: where more rows than this are set aside and refused, they are counted and not listed
KEPT_ASIDE = 200_000


def read_stream(
    source: str | os.PathLike[str], *, map: Mapping[str, str] | None = None, format: str | None = None, max_bad: float = 0.01,
    seed: int = 0, heldout: float = 0.2, max_field: int = 1_000_000, spool: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Votes:  # fmt: skip
    """The comparisons of a file, as `read` gives them, without ever holding the file or its texts in memory.

    The same rows, ids, groups, split and quarantine as reading at once. What stays in memory is one batch of rows (8 MiB of text) and
    25 to 75 bytes per row; texts, columns and the rows as they came are written into a spool and mapped from there.

    spool: an empty or new directory to write into and to keep (`open_spool` opens it again); None makes one where temporary files go
    (TMPDIR), which vanishes with the votes. It takes up to twice the size of the file.
    progress: called with (bytes read, bytes of the file); a file that needs another pass begins again.
    The other options are those of `read`. Raises RecordError as `read` does, and CannotStream where the file or its format has to be
    read at once; InputError where the disk is full.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> _ = (place / "rows.jsonl").write_text('{"prompt": "p", "chosen": "x", "rejected": "y"}\\n')
    >>> votes = read_stream(place / "rows.jsonl", heldout=0)
    >>> len(votes), votes.response_texts()
    (1, ['x', 'y'])
    """
    if not 0 <= max_bad <= 1:
        raise RecordError(f"max_bad is {max_bad}; it is a share of rows in [0, 1]. Write 0.01 for one per cent.")
    if not isinstance(source, str | os.PathLike) or os.fspath(source) == "-":
        raise CannotStream("only files stream; this source is read at once (stream=False). Write it to a file to stream it.")
    path = Path(os.fspath(source))
    work = _Import(path, map, format, max_bad, max_field, progress)
    place = _place(spool, work.reader.size)
    try:
        votes = work.run(place, heldout, seed)
    except BaseException as error:
        if spool is None:
            release(place)
        else:
            shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"the disk is full: the spool {place} does not fit. {_ELSEWHERE}") from error
        raise
    return votes.with_(spool=Spool(place, _parts(votes), temporary=spool is None))


def _parts(votes: Votes) -> dict[str, Any]:
    return dict(votes.spool.parts)


def _place(spool: str | os.PathLike[str] | None, size: int) -> Path:
    """The directory of the spool. Raises InputError where it holds something else, or where its disk is clearly too small."""
    if spool is None:
        place = make()
    else:
        place = Path(os.fspath(spool))
        if place.is_dir() and any(place.iterdir()):
            raise InputError(f"the spool {place} is not empty. Name a new directory.")
        place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if free < size:
        if spool is None:
            release(place)
        raise InputError(
            f"the spool of a file of {size / 1e9:.1f} GB takes up to {2 * size / 1e9:.1f} GB, and {place.parent} has {free / 1e9:.1f} GB "
            f"free. {_ELSEWHERE}"
        )
    return place


class _Import:
    """Passes over one file until what a pass assumed of the file is what it found."""

    def __init__(
        self, path: Path, map: Mapping[str, str] | None, format: str | None, max_bad: float, max_field: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        self.progress = progress
        self.path, self.map, self.format, self.max_bad, self.max_field = path, map, format, max_bad, max_field
        self.columns = kinds(map)
        self.reader = open_reader(path, self.columns)
        self.taken: tuple[np.ndarray, np.ndarray] | None = None

    def run(self, place: Path, heldout: float, seed: int) -> Votes:
        """All passes, then what is known only at the end."""
        facts = Facts(self.reader.head(HEAD))
        for _ in range(PASSES):
            head, facts = self._head(facts)
            with contextlib.closing(_Pass(self, head, facts, place)) as one:
                found = one.run()
                if found != facts:
                    facts, self.taken = found, None
                    continue
                if self.taken is None:
                    self.taken = one.repeated_ids()
                    if len(self.taken[0]):
                        continue
                return one.finish(heldout, seed)
        raise CannotStream(f"{self.path} has columns of too many types ({PASSES} passes did not settle). Read it at once (stream=False).")

    def _head(self, facts: Facts) -> tuple[Frame, Facts]:
        """The first rows as a frame, by which the format is recognised; the facts may grow to hold them."""
        for _ in range(PASSES):
            seen = Seen(self.columns)
            seen.known(facts.kinds)
            tables: list[pa.Table] = []
            with contextlib.closing(self.reader.batches(facts.kinds, seen)) as batches:
                for rows in batches:
                    if rows is None:
                        break
                    tables.append(rows.table)
                    if sum(table.num_rows for table in tables) >= HEAD:
                        break
                else:
                    rows = None if seen.wrong else Rows(pa.table({}), np.zeros(0, np.int64))
            if rows is not None:
                table = pa.concat_tables(tables).slice(0, HEAD).combine_chunks() if tables else pa.table({})
                frame = Frame(table, self.map, self.max_field)
                return frame, facts.with_batch(frame)
            facts = Facts(seen.settle(), facts.whole, facts.numbers)
        raise CannotStream(f"the first rows of {self.path} are of too many types. Read it at once (stream=False).")


class _Pass:
    """One pass: every batch parsed under the same assumptions and written into the spool."""

    def __init__(self, work: _Import, head: Frame, facts: Facts, place: Path) -> None:
        self.work, self.head, self.facts, self.place = work, head, facts, place
        self.importer = choose(head, work.format)
        self.name: str = self.importer.NAME
        _require(head, self.importer)
        if self.name not in ROW_BY_ROW:
            raise CannotStream(f"format {self.name} makes comparisons from several rows or values, and is read at once (stream=False).")
        if "vote" in self.importer.NEEDS:
            settle_votes(head, facts)
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.aside = open(place / "quarantine.jsonl", "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()
        self.ids = Column(place / "ids.seen", "<u8", 2), Column(place / "ids.rows", "<i8")
        self.sink = Sink(place)

    def run(self) -> Facts:
        """What the pass found the facts to be; the spool is whole where they are what it assumed."""
        seen = Seen(self.work.columns)
        seen.known(self.facts.kinds)
        found = self.facts
        wrong = False
        for rows in self.work.reader.batches(self.facts.kinds, seen):
            if self.work.progress is not None:
                self.work.progress(self.work.reader.at, self.work.reader.size)
            if rows is None:
                wrong = True
                continue
            frame = BatchFrame(rows.table, self.head, self.facts)
            if rows.table.num_rows:
                found = found.with_batch(frame)
            wrong = wrong or found != self.facts
            if not wrong:
                self._batch(rows, frame)
        self.aside.close()
        settled = seen.settle() if seen.found else self.facts.kinds
        return Facts(settled, found.whole, found.numbers)

    def _batch(self, rows: Rows, frame: BatchFrame) -> None:
        if rows.table.num_rows == 0:
            self._set_aside(rows.quarantine)
            return
        parsed = self.importer.parse(frame)
        if getattr(parsed, "origin", None) is not None:
            raise CannotStream(f"format {self.name} makes several comparisons of a row, and is read at once (stream=False).")
        identical = pc.equal(parsed.first, parsed.second).to_numpy(zero_copy_only=False)
        indifferent = np.isin(parsed.outcome, (TIE, BOTH_BAD, SKIP))
        frame.mark(identical & ~indifferent, "identical_sides", "both sides are the same text, and one of them is preferred")
        extra = extra_columns(frame)
        ids = self._ids(frame)
        n = len(frame)
        keep = np.ones(n, dtype=bool)
        keep[list(frame.bad)] = False
        self._set_aside(sorted([*rows.quarantine, *set_aside(rows, frame)], key=lambda q: q.line))
        self.rows += n
        if not keep.any():
            return
        index = None if keep.all() else pa.array(np.flatnonzero(keep))

        def kept(values: Any) -> Any:
            if isinstance(values, np.ndarray):
                return values if index is None else values[keep]
            return values if index is None else values.take(index)

        def names(name: str) -> tuple[np.ndarray, tuple[str, ...]]:
            codes, found = frame.codes(name)
            return kept(codes), found

        outcome = kept(parsed.outcome)
        p = np.where(outcome == A, 1.0, np.where(outcome == B, 0.0, 0.5))
        w = np.where((outcome == SKIP) | (outcome == BOTH_BAD), 0.0, 1.0)
        numbers = {name: kept(values) for name, values in extra.items()} | {"line": kept(rows.line)}
        numbers["p"] = np.where(np.isnan(numbers["p"]), p, numbers["p"])
        numbers["w"] = np.where(np.isnan(numbers["w"]), w, numbers["w"])
        group = kept(as_strings(frame.column("group"), frame.names["group"])) if frame.has("group") else None
        prompt, first, second = (kept(_flat(values)) for values in (parsed.prompt, parsed.first, parsed.second))
        people, models = names("annotator"), (names("model_first"), names("model_second"))
        self.sink.add(Batch(prompt, first, second, outcome, numbers, people, *models, group, kept(ids), kept(rows.table)))

    def _ids(self, frame: BatchFrame) -> pa.Array:
        """The ids that the batch gives; those that an earlier row took are marked once that is known."""
        if not frame.has("id"):
            return pa.nulls(len(frame), pa.large_string())
        ids = as_strings(frame.column("id"), frame.names["id"])
        if self.work.taken is None:
            usable = ids.is_valid().to_numpy(zero_copy_only=False)
            usable[list(frame.bad)] = False
            at = np.flatnonzero(usable)
            self.ids[0].append(digests(ids.take(pa.array(at)))[:, :2])
            self.ids[1].append(self.rows + at)
            return ids
        rows, first = self.work.taken
        low, high = np.searchsorted(rows, [self.rows, self.rows + len(frame)])
        for row, other in zip((rows[low:high] - self.rows).tolist(), first[low:high].tolist(), strict=True):
            detail = f"id {ids[row].as_py()[:80]!r} is taken by row {other + 1}"
            why = f"{detail}; if it names the pair, not the vote: --map item_id={frame.names['id']}"
            frame.bad.setdefault(row, ("duplicate_id", why))
        return ids

    def close(self) -> None:
        """End the pass, however far it came."""
        self.aside.close()
        for column in self.ids:
            column.close()
        self.sink.close()

    def repeated_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows whose id an earlier row has, in order; that row of each)."""
        none = np.zeros(0, dtype=np.int64)
        key, row = self.ids[0].read(), self.ids[1].read()
        order = np.argsort(key[:, 0], kind="stable")
        found = key[order, 0]
        if not len(found) or not (found[1:] == found[:-1]).any():
            return none, none
        order = np.lexsort((row, key[:, 1], key[:, 0]))
        same = np.concatenate([[False], (key[order[1:]] == key[order[:-1]]).all(axis=1)])
        head = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        later, first = row[order[same]], row[order[head[same]]]
        at = np.argsort(later, kind="stable")
        return later[at], first[at]

    def _set_aside(self, quarantine: list[Quarantined]) -> None:
        for q in quarantine:
            self.counts[q.reason] += 1
            self.aside.write(json.dumps([q.line, q.reason, q.detail, q.raw], ensure_ascii=True) + "\n")

    def finish(self, heldout: float, seed: int) -> Votes:
        """The votes, where enough rows are sound. Raises RecordError as reading at once does."""
        bad = sum(self.counts.values())
        kept = self.sink.rows
        total = kept + bad
        name = str(self.work.path)
        if not total:
            raise RecordError(f"{name} has no rows. Give a file with at least one comparison.")
        if bad:
            with open(self.place / "quarantine.jsonl", encoding="utf-8") as file:
                first = Quarantined(*json.loads(next(file)))
            if bad > KEPT_ASIDE and (bad - self.counts[NO_COMPARISON] > self.work.max_bad * total or not kept):
                parts = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())
                raise RecordError(
                    f"{bad:,} of {total:,} rows of {name} cannot be used (allowed: {self.work.max_bad:.2%}): {parts}; first: line "
                    f"{first.line}: {first.detail}. Correct them, name the columns with --map NEW=COLUMN, or allow more with --max-bad."
                )
            lines = (self.place / "quarantine.jsonl").read_text("utf-8").splitlines()
            refuse_bad([Quarantined(*json.loads(line)) for line in lines], total, self.work.max_bad, name)
        head = self.head
        facts = {
            "source": self.sink.source is not None,
            "order_known": self.importer.ORDER_KNOWN,
            "source_format": self.name,
        }
        meta = {
            "source": name,
            "detection": "; ".join([*head.detection, *(f"in doubt: {doubt}" for doubt in head.doubts)]),
            "doubts": tuple(head.doubts),
            "notes": tuple(self.work.reader.notes(self.facts.kinds)),
            "columns": dict(sorted(head.names.items())),
            "groups": f"column {head.names['group']}" if head.has("group") else "connected prompts and responses",
            "n_rows": total,
            "n_rows_kept": kept,
            "losses": (),
        }
        for file in (self.place / "ids.seen", self.place / "ids.rows"):
            file.unlink()
        split = head.mapped.get("split")
        return finish(self.sink, {**facts, "meta": pack(meta)}, grouped=head.has("group"), split=split, heldout=heldout, seed=seed)


def _flat(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _require(head: Frame, importer: ModuleType) -> None:
    from cupel.records.reading import require_columns

    require_columns(head, importer.NAME, importer.NEEDS)
