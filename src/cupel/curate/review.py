"""A blind sheet of pairs for a person, and the way back from the answers to rows.

The sheet shows a prompt and two sides in shuffled order, and nothing about what was recorded or why the pair was chosen. What maps it back
(row, part, stratum, which side is shown left) is kept apart, in a key that also works without the votes' labels: they are in the data.

Three parts: `random`, drawn equally from six strata of suspicion, estimates the label error; `worklist`, the most suspicious pairs,
repairs; `disagreement`, held-out pairs on which two models disagree, compares them. Worklist and disagreement rows never enter the rate.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.curate.cells import guard, unguard
from cupel.curate.ledger import rows_of
from cupel.errors import InputError
from cupel.records.schema import HELDOUT, TRAIN, Votes

VERSION = 1
KEY_NAME = "review_key.json"
COLUMNS = ("sheet_id", "prompt", "left", "right", "answer", "note")
ANSWERS = ("left", "right", "tie", "unsure")
PARTS = ("random", "worklist", "disagreement")
#: share of the sheet for the random part where nothing else is asked
RANDOM_SHARE = 2 / 3


@dataclass(frozen=True)
class Sheet:
    """A blind sheet: `rows` as they are shown, and the `key` that maps them back."""

    rows: tuple[Mapping[str, str], ...]
    key: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def parts(self) -> dict[str, int]:
        """Number of pairs of each part."""
        found = [entry["part"] for entry in self.key["rows"].values()]
        return {part: found.count(part) for part in PARTS if part in found}

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the sheet (UTF-8 with a mark, for spreadsheets) and `review_key.json` beside it, atomically; the sheet's path."""
        from cupel.records.files import atomic_write, write_json

        place = Path(path)
        write_json(place.parent / KEY_NAME, self.key)
        out = io.StringIO(newline="")
        writer: csv.DictWriter[str] = csv.DictWriter(out, list[str](COLUMNS), lineterminator="\r\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: guard(value) for name, value in row.items()})
        with atomic_write(place) as temporary:
            temporary.write_bytes(b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "replace"))
        return place


@dataclass(frozen=True)
class Answers:
    """A person's answers to rows of the votes; arrays of length k, one per answered or unanswered row of the sheet.

    ids       of the votes
    outcome   object: "a", "b" or "tie" in the orientation of the row (first, second), "" where blank or unsure
    part      "random", "worklist" or "disagreement"
    stratum   int64, of the random part, -1 elsewhere
    sizes     rows of each stratum in the data the random part was drawn from
    blank, unsure  rows without an answer, rows with the answer unsure
    """

    ids: tuple[str, ...]
    outcome: tuple[str, ...]
    part: tuple[str, ...]
    stratum: np.ndarray
    sizes: np.ndarray
    blank: int
    unsure: int

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, votes: Votes) -> np.ndarray:
        """Position of each answer's row in `votes`, -1 where it is not among them: int64 [k]."""
        where = rows_of(votes, self.ids)
        return np.array([where.get(name, -1) for name in self.ids], dtype=np.int64)

    def signs(self) -> np.ndarray:
        """+1 the first side, -1 the second, 0 a tie, NaN no answer: float64 [k]."""
        table = {"a": 1.0, "b": -1.0, "tie": 0.0, "": np.nan}
        return np.array([table[outcome] for outcome in self.outcome])

    def signs_for(self, votes: Votes) -> np.ndarray:
        """The answers laid on `votes`: float64 [n], NaN where nobody answered."""
        out = np.full(len(votes), np.nan)
        rows = self.rows(votes)
        out[rows[rows >= 0]] = self.signs()[rows >= 0]
        return out

    def agrees(self, votes: Votes) -> np.ndarray:
        """1 where the answer is the recorded outcome, 0 where it is another, NaN where nobody answered: float64 [k].

        InputError where an answered row is not in `votes`.
        """
        rows = self.rows(votes)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise InputError(
                f"{len(missing):,} of {len(self):,} checked rows are not in the data (first: id {self.ids[missing[0]]}). "
                "Give the answers together with the file, options and seed the sheet was made from."
            )
        said = self.signs()
        return np.where(np.isnan(said), np.nan, (said == votes.sign[rows]).astype(float))

    def to_json(self) -> dict[str, Any]:
        """Counts: answered, blank, unsure, and answered by part."""
        done = [part for part, outcome in zip(self.part, self.outcome, strict=True) if outcome]
        return {
            "n": len(self),
            "answered": len(done),
            "blank": self.blank,
            "unsure": self.unsure,
            "parts": {p: done.count(p) for p in PARTS if p in done},
        }


def review_sheet(
    votes: Votes,
    suspicion: np.ndarray,
    *,
    n: int = 100,
    seed: int = 0,
    worklist_share: float | None = None,
    disagreement: Sequence[int] | np.ndarray | None = None,
) -> Sheet:
    """A blind sheet of n pairs (fewer where the data has fewer).

    Of n, a fifth goes to held-out pairs on which models disagree if `disagreement` (positions in `votes`, in the order to take) is given;
    of the rest two thirds are the random part (n/6 of it per stratum of suspicion) and one third the worklist. `worklist_share` replaces
    the third: 0 gives all to the estimate. Random and worklist rows are training rows with a preference; a pair is shown once: a worklist
    row whose pair is already on the sheet gives way to the next. Random rows are drawn per row, so a repeated pair may stand there twice.
    suspicion [n_votes], larger is more suspect. InputError for n < 1 or where no row can be checked.
    """
    from cupel.votes.trusted import trusted_plan

    if n < 1:
        raise InputError(f"--n {n} asks for no pairs; give a number from 1 up (100 is usual)")
    share = 1 - RANDOM_SHARE if worklist_share is None else worklist_share
    if not 0 <= share < 1:
        raise InputError(f"worklist_share is a share in [0, 1), not {share}")
    usable = np.flatnonzero((votes.split != HELDOUT) & (votes.sign != 0) & (votes.first != votes.second))
    if len(usable) == 0:
        raise InputError(
            f"none of the {len(votes):,} votes is a training row that prefers one of two different sides: nothing can be checked"
        )
    apart = np.zeros(0, dtype=np.int64) if disagreement is None else np.asarray(disagreement, dtype=np.int64)
    if len(apart) and (apart.min() < 0 or apart.max() >= len(votes) or (votes.split[apart] == TRAIN).any()):
        raise InputError("disagreement rows are positions of held-out rows of the votes; training rows would enter the training data")
    apart = apart[: n // 5]
    n_random = min(len(usable), max(1, round((n - len(apart)) * (1 - share))))
    plan = trusted_plan(suspicion[usable], n_random, seed)
    chosen = [(int(usable[r]), "random", int(s)) for r, s in zip(plan.rows, plan.stratum, strict=True)]
    shown = {int(votes.pair[row]) for row, _, _ in chosen}
    for row in map(int, usable[np.argsort(-suspicion[usable], kind="stable")]):
        if len(chosen) >= n - len(apart):
            break
        if int(votes.pair[row]) not in shown:
            shown.add(int(votes.pair[row]))
            chosen.append((row, "worklist", -1))
    chosen += [(row, "disagreement", -1) for row in apart.tolist()]
    rng = np.random.default_rng([seed, 7])
    order, swap = rng.permutation(len(chosen)), rng.random(len(chosen)) < 0.5
    names = dict(zip((row for row, _, _ in chosen), votes.ids.take(pa.array([row for row, _, _ in chosen])).to_pylist(), strict=True))
    rows, entries = [], {}
    for k in order.tolist():
        row, part, stratum = chosen[k]
        name = _sheet_id(names[row], seed)
        sides = [votes.responses[int(votes.first[row])].as_py(), votes.responses[int(votes.second[row])].as_py()]
        left, right = sides[::-1] if swap[k] else sides
        rows.append(
            {
                "sheet_id": name,
                "prompt": _words(votes.prompts[int(votes.prompt[row])].as_py()),
                "left": left,
                "right": right,
                "answer": "",
                "note": "",
            }
        )
        entries[name] = {"id": names[row], "part": part, "stratum": stratum, "left": "second" if swap[k] else "first"}
    key = {"version": VERSION, "seed": seed, "sizes": [int(size) for size in plan.sizes], "rows": entries}
    return Sheet(tuple(rows), key)


def read_reviewed(path: str | os.PathLike[str], key: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> Answers:
    """The answers in a filled-in sheet, or in a plain table of re-checked rows.

    A sheet has the column sheet_id; its key is `key`, else `review_key.json` beside it. Words are read whatever their case; "l", "r", "a"
    (left) and "b" (right) are understood. A plain file (CSV, JSONL, Parquet) has the columns id and label (a: the first side, b: the
    second, tie), a person's blind re-check of those rows, and `part`: "random" where the rows were drawn at random from all rows (they
    then estimate the rate, as one stratum), "worklist" where they were picked. InputError, with the line, for anything else.
    """
    rows = _table(Path(path))
    if not rows:
        raise InputError(f"{path} holds no rows; fill in the column answer of the sheet that `cupel review` wrote")
    if "sheet_id" in rows[0]:
        return _from_sheet(Path(path), rows, key)
    return _from_plain(Path(path), rows)


# ---- reading --------------------------------------------------------------------------------------------------------------------

_WORDS = {
    "left": "left",
    "l": "left",
    "a": "left",
    "right": "right",
    "r": "right",
    "b": "right",
    "tie": "tie",
    "=": "tie",
    "unsure": "unsure",
    "?": "unsure",
}


def _from_sheet(path: Path, rows: list[dict[str, str]], key: str | os.PathLike[str] | Mapping[str, Any] | None) -> Answers:
    content = key if isinstance(key, Mapping) else _read_key(Path(key) if key is not None else path.parent / KEY_NAME, path)
    entries = content["rows"]
    column = next((name for name in ("answer", "your answer") if name in rows[0]), None)
    if column is None:
        raise InputError(f"{path} has no column answer (it has {', '.join(rows[0])}); the sheet's columns must stay as they are")
    ids, outcome, part, stratum, seen = [], [], [], [], {}
    blank = unsure = 0
    for line, row in enumerate(rows, start=2):
        name = unguard(row["sheet_id"] or "").strip()
        if not name and not any((value or "").strip() for value in row.values()):
            continue
        if name not in entries:
            raise InputError(
                f"{path}, line {line}: sheet_id {name!r} is not in the key: the sheet and review_key.json are not from the same run"
            )
        if name in seen:
            raise InputError(
                f"{path}, line {line}: sheet_id {name!r} stands there twice (first: line {seen[name]}); keep one answer for each pair"
            )
        seen[name] = line
        said = unguard(row[column] or "").strip().lower()
        if said and said not in _WORDS:
            bad = sum((unguard(r[column] or "").strip().lower() or "tie") not in _WORDS for r in rows)
            raise InputError(
                f"{path}, line {line}: the answer {row[column]!r} is none of {', '.join(ANSWERS)} ({bad:,} such answers in all)"
            )
        entry, word = entries[name], _WORDS.get(said, "")
        blank += not word
        unsure += word == "unsure"
        ids.append(entry["id"])
        part.append(entry["part"])
        stratum.append(entry["stratum"])
        outcome.append({"tie": "tie", "unsure": "", "": ""}.get(word) if word not in ("left", "right") else _side(word, entry["left"]))
    if not any(outcome):
        raise InputError(
            f"none of the {len(ids):,} pairs in {path} is answered ({blank:,} blank, {unsure:,} unsure). "
            f"Write {', '.join(ANSWERS)} into the column answer"
        )
    return Answers(
        tuple(ids),
        tuple(outcome),
        tuple(part),
        np.array(stratum, dtype=np.int64),
        np.array(content["sizes"], dtype=np.int64),
        blank,
        unsure,
    )


def _side(word: str, left: str) -> str:
    return "a" if (word == "left") == (left == "first") else "b"


def _from_plain(path: Path, rows: list[dict[str, str]]) -> Answers:
    missing = [name for name in ("id", "label", "part") if name not in rows[0]]
    if missing:
        why = (
            " part says how the rows were chosen: random (drawn at random from all rows) or worklist (picked)." if "part" in missing else ""
        )
        raise InputError(
            f"{path} has no column {', '.join(missing)} (it has {', '.join(rows[0])}). A trusted file is a sheet that `cupel review` "
            f"wrote, or a table with the columns id, label (a, b or tie) and part.{why}"
        )
    ids, outcome, part, seen = [], [], [], {}
    for line, row in enumerate(rows, start=2):
        name, label, kind = (str(row[c] if row[c] is not None else "").strip() for c in ("id", "label", "part"))
        if label.lower() not in ("a", "b", "tie", ""):
            raise InputError(f"{path}, row {line - 1}: the label {label!r} of id {name} is none of a, b, tie")
        if kind not in ("random", "worklist"):
            raise InputError(f"{path}, row {line - 1}: the part {kind!r} of id {name} is neither random nor worklist")
        if name in seen:
            raise InputError(f"{path}, row {line - 1}: id {name} stands there twice (first: row {seen[name]}); keep one label for each row")
        seen[name] = line - 1
        ids.append(name)
        outcome.append(label.lower())
        part.append(kind)
    if not any(outcome):
        raise InputError(f"none of the {len(ids):,} rows in {path} has a label")
    stratum = np.array([0 if kind == "random" else -1 for kind in part], dtype=np.int64)
    return Answers(tuple(ids), tuple(outcome), tuple(part), stratum, np.array([1], dtype=np.int64), sum(not o for o in outcome), 0)


def _read_key(place: Path, sheet: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(place.read_text("utf-8"))
        if content["version"] != VERSION or not isinstance(content["rows"], dict) or not content["sizes"]:
            raise ValueError(f"version {content['version']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the key of {sheet} cannot be read ({place}: {error}). Keep {KEY_NAME}, which `cupel review` wrote, beside the sheet"
        ) from error
    return content


def _table(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV (comma, semicolon or tab), JSON Lines or Parquet file as dictionaries."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.ParquetFile(path).read().to_pylist()
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            if any(not isinstance(row, dict) or set(row) != set(rows[0]) for row in rows):
                raise ValueError("the lines are not objects with the same fields")
            return rows
        limit = csv.field_size_limit(2**31 - 1)
        try:
            head = text.splitlines()[0] if text else ""
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), restkey=""))
        finally:
            csv.field_size_limit(limit)
        if any("" in row and row[""] for row in rows):
            raise ValueError("a row has more cells than the header")
        return [{str(name).strip(): value for name, value in row.items() if name} for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({str(error).splitlines()[0]}); give CSV, JSONL or Parquet in UTF-8") from error


def _sheet_id(name: str, seed: int) -> str:
    """Opaque, the same on every run, and no hint at the row's place in the data."""
    return "p" + hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()[:10]


def _words(prompt: str) -> str:
    from cupel.records.text import render

    return render(prompt)
