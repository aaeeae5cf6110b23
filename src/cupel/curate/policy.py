"""What should be trained on: a few careful defaults, everything else by the user's word, and a ledger of every change.

By itself curation drops only pairs with nothing to choose between and weighs doubtful rows down. It changes a label only where a person
said so, or above a P(wrong) that the user set, and then prints how many of those changes it expects to be right. Held-out rows are
never touched: cleaning them would make any model look better.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.audit.types import Finding
from cupel.curate.ledger import Change, Kind, Ledger, Source, State, continued, replayed_state, votes_digest
from cupel.errors import InputError
from cupel.records.schema import HELDOUT, OUTCOMES, TRAIN, A, B, Votes

if TYPE_CHECKING:
    import pyarrow as pa

    from cupel.curate.review import Answers

#: checks after which there is nothing to choose between
NOTHING_TO_CHOOSE = ("identical_sides", "empty_sides", "equal_after_normalising")
#: without P(correct): share of the training rows called doubtful, and the least factor on their weight
DOUBTFUL_SHARE = 0.10
LEAST_FACTOR = 0.5
#: rows of a table that are put together at a time, and of a row group of the files
ROWS = 1 << 16


@dataclass(frozen=True)
class Curated:
    """The curated votes and how they came about.

    whole    all rows of the source, p and w as training should read them, with those that are not kept; kept: bool, which are
    ledger   every change; `replay(original, ledger)` gives `votes` again
    summary  counts by action, estimated precision of flips, what was not done and why
    losses   what `to_trl` cannot hold, one sentence each

    `votes`, `train` and `heldout` of streamed votes come without `source`, which would have to be read into memory; `write` and the tables
    hold its columns.
    """

    whole: Votes
    kept: np.ndarray
    ledger: Ledger
    summary: Mapping[str, Any]

    @cached_property
    def votes(self) -> Votes:
        """Kept rows, training and held-out, in the order of the source."""
        return self._rows(self.kept)

    @cached_property
    def train(self) -> Votes:
        """The training rows."""
        return self._rows(self.kept & (self.whole.split == TRAIN))

    @cached_property
    def heldout(self) -> Votes:
        """The held-out rows, as they were recorded."""
        return self._rows(self.kept & (self.whole.split == HELDOUT))

    def _rows(self, mask: np.ndarray) -> Votes:
        return (self.whole if self.whole.spool is None else self.whole.with_(source=None)).take(mask)

    @property
    def digest(self) -> str:
        """SHA-256 of the ledger: two curations with the same digest have the same training data."""
        return self.ledger.digest

    @cached_property
    def losses(self) -> tuple[str, ...]:
        """What is lost in `to_trl()`, one sentence each; first that TRL ignores weights, where any differ."""
        return tuple(self._hard("train")[1])

    def to_table(self, split: str = "train") -> pa.Table:
        """The split as a table of votes with p and w: what `train.parquet` and `heldout.parquet` hold. Nothing is lost in it."""
        import pyarrow as pa

        return pa.concat_tables(self._tables(split)).combine_chunks()

    def write(self, path: str | os.PathLike[str], split: str = "train") -> None:
        """Write `to_table(split)` as Parquet, some ten thousand rows at a time; the file appears when it is whole."""
        import pyarrow.parquet as pq

        from cupel.records.files import atomic_write

        tables = self._tables(split)
        first = next(tables)
        with (
            atomic_write(path) as temporary,
            pq.ParquetWriter(temporary, first.schema, compression="zstd", compression_level=3) as writer,
        ):
            for table in chain((first,), tables):
                writer.write_table(table)

    def _tables(self, split: str) -> Iterator[pa.Table]:
        """The table of a split in parts of `ROWS` rows."""
        import pyarrow as pa

        from cupel.records.convert import to_rows
        from cupel.records.stream.parts import compact

        rows = self._positions(split)
        for low in range(0, max(len(rows), 1), ROWS):
            part = compact(self.whole.take(rows[low : low + ROWS]))
            table, _ = to_rows(part, "votes")
            for name, values in (("p", part.p), ("w", part.w)):
                column = pa.array(values, pa.float64())
                at = table.schema.get_field_index(name)
                table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
            yield table

    def to_trl(self, split: str = "train") -> pa.Table:
        """The split as hard rows of a TRL preference table; `losses` says what that leaves out: TRL ignores weights and probabilities."""
        return self._hard(split)[0]

    def _hard(self, split: str) -> tuple[pa.Table, list[str]]:
        from cupel.records.convert import to_rows

        rows = self.whole.take(self._positions(split))
        table, losses = to_rows(rows, "trl")
        decided = rows.sign != 0
        soft = int((decided & (rows.p != np.where(rows.sign > 0, 1.0, 0.0))).sum())
        weighted = int((decided & (rows.w != 1)).sum())
        losses = [loss for loss in losses if not loss.startswith(("the weights of", "the probabilities of"))]  # said better here
        if weighted or soft:
            losses.insert(
                0,
                f"TRL ignores weights and probabilities: {weighted:,} of {int(decided.sum()):,} rows have a weight other than 1 "
                f"and {soft:,} a probability other than 0 or 1; in the table they count as full, hard labels",
            )
        return table, losses

    def _positions(self, split: str) -> np.ndarray:
        if split not in ("train", "heldout"):
            raise InputError(f"there is no split {split!r}; choose train or heldout")
        return np.flatnonzero(self.kept & (self.whole.split == (TRAIN if split == "train" else HELDOUT)))


def curate(
    votes: Votes,
    suspicion: np.ndarray,
    p_correct: np.ndarray | None = None,
    findings: Sequence[Finding] = (),
    *,
    flip_above: float | None = None,
    drop: Sequence[str] = (),
    trusted: Answers | None = None,
    consensus: bool = False,
    can_see: bool = True,
    previous: Ledger | None = None,
    seed: int = 0,
) -> Curated:
    """The votes as they should be trained on; only rows of the training split change.

    suspicion   [n] larger is more suspect; p_correct [n] P(recorded label is right), NaN or None where unknown (basis `single`)
    findings    of the audit: rows of identical, empty or equal sides are dropped; `drop` names further row checks to drop
    flip_above  turn labels with P(wrong) = 1 - p_correct above this, in [0.5, 1); needs p_correct
    trusted     a person's answers: theirs are the labels of those rows ("correct"), and what they confirm is not weighed down
    consensus   on pairs with votes of two or more people, p <- posterior that the first side is better given all votes on the pair
                (one coin per annotator); then train with treatment none, EM would correct the same noise twice
    can_see     False where the audit's power says "cannot tell": then suspicion changes no weight
    previous    the ledger to continue: rows it changed and this call does not are restored
    Doubtful rows are weighed down: w <- w min(1, 2 p_correct) where p_correct is known, so rows more likely right than wrong keep
    their weight; else the most suspect tenth gets w <- w (1 - r/2), r from 0 (least suspect of them) to 1: a gentle rank, because with
    one label per pair nothing says how many of them are wrong. InputError for options that cannot be followed.
    """
    n = len(votes)
    suspicion = np.asarray(suspicion, dtype=np.float64)
    known = np.full(n, np.nan) if p_correct is None else np.asarray(p_correct, dtype=np.float64)
    if suspicion.shape != (n,) or known.shape != (n,):
        raise InputError(f"{n:,} votes need as many suspicions and p_correct, not {suspicion.shape} and {known.shape}")
    _check_flip(flip_above, known[votes.split == TRAIN])
    plan = _Plan(votes)
    plan.drops(findings, drop)
    if trusted is not None:
        plan.corrections(trusted)
    if flip_above is not None:
        plan.flips(known, flip_above)
    if consensus:
        plan.consensus()
    plan.weights(suspicion, known, can_see)
    options = {
        "flip_above": flip_above, "drop": sorted(drop), "consensus": consensus, "can_see": bool(can_see), "seed": seed,
        "trusted": None if trusted is None else trusted.to_json(),
    }  # fmt: skip
    digest = votes_digest(votes)
    ledger = continued(votes, plan.changes(), options, previous, digest)
    return _curated(votes, replayed_state(votes, ledger, digest), ledger, plan.summary(known, flip_above, digest), consensus)


def recreate(votes: Votes, ledger: Ledger) -> Curated:
    """The curated data made again from the original votes and a ledger: the same bytes. InputError as `replay`."""
    state = replayed_state(votes, ledger)
    summary = {"replayed": True, "actions": ledger.counts(), "n_before": len(votes), "n_after": int(state.kept.sum())}
    return _curated(votes, state, ledger, summary, bool(ledger.options.get("consensus")))


def _curated(votes: Votes, state: State, ledger: Ledger, summary: Mapping[str, Any], consensus: bool) -> Curated:
    whole = state.whole(votes)
    return Curated(whole.with_(meta={**whole.meta, "target": "consensus"}) if consensus else whole, state.kept, ledger, summary)


class _Plan:
    """The wanted state of each row, and the first reason for its change; held-out rows cannot be named."""

    def __init__(self, votes: Votes) -> None:
        self.input = votes
        self.train = votes.split == TRAIN
        self.state = State.of(votes)
        self.why: dict[int, tuple[Kind, str, Source, float | None]] = {}
        self.confirmed = np.zeros(len(votes), dtype=bool)
        self.notes: list[str] = []

    def drops(self, findings: Sequence[Finding], names: Sequence[str]) -> None:
        wanted = {name.replace("-", "_") for name in names}
        byname = {finding.name: finding for finding in findings if finding.scope == "row"}
        unknown = sorted(wanted - set(byname))
        if unknown:
            raise InputError(f"--drop {unknown[0]}: no row check of that name was run; there are {', '.join(sorted(byname)) or 'none'}")
        for name in [*NOTHING_TO_CHOOSE, *sorted(wanted - set(NOTHING_TO_CHOOSE))]:
            finding = byname.get(name)
            if finding is None or finding.status != "finding":
                continue
            source: Source = "option" if name in wanted and name not in NOTHING_TO_CHOOSE else "check"
            for row in finding.rows[self.train[finding.rows] & self.state.kept[finding.rows]].tolist():
                self.state.kept[row] = False
                self.why[row] = ("drop", name, source, None)
        if not self.state.kept[self.train].any() and self.train.any():
            raise InputError(f"these checks would drop all {int(self.train.sum()):,} training rows; name fewer with --drop")

    def corrections(self, trusted: Answers) -> None:
        rows, said = trusted.rows(self.input), trusted.signs()
        trusted.agrees(self.input)  # names answered rows that are not in the data
        code = {1.0: A, -1.0: B, 0.0: OUTCOMES.index("tie")}
        for row, sign in zip(rows.tolist(), said.tolist(), strict=True):
            if np.isnan(sign) or not self.train[row] or not self.state.kept[row]:
                continue
            self.confirmed[row] = True
            if sign != self.input.sign[row]:
                self.state.outcome[row], self.state.p[row] = code[sign], (1 + sign) / 2
                self.state.w[row] = max(self.state.w[row], 1.0 if self.input.sign[row] == 0 else 0.0)
                self.why[row] = ("correct", "a person who checked the pair blind says otherwise", "reviewer", None)

    def flips(self, known: np.ndarray, above: float) -> None:
        rows = np.flatnonzero(self.train & self.state.kept & ~self.confirmed & (self.input.sign != 0) & (1 - known > above))
        for row in rows.tolist():
            self.state.outcome[row] = B if self.state.outcome[row] == A else A
            self.state.p[row] = 1 - self.state.p[row]
            self.why[row] = ("flip", f"P(wrong) {1 - known[row]:.3f} is above {above:g}", "posterior", float(1 - known[row]))

    def consensus(self) -> None:
        """One-coin posterior per pair, from the votes that are left; a correction by a person stays as it is."""
        from cupel.votes.one_coin import one_coin
        from cupel.votes.table import vote_table

        votes, state = self.input, self.state
        use = np.flatnonzero(self.train & state.kept & np.isin(state.outcome, (A, B)) & (votes.annotator >= 0))
        if len(use) == 0:
            raise InputError("consensus needs votes with known annotators; there are none among the training rows")
        pair = np.unique(votes.pair[use], return_inverse=True)[1].reshape(-1)
        who = np.unique(votes.annotator[use], return_inverse=True)[1].reshape(-1)
        people = np.bincount(np.unique(np.stack([pair, who]), axis=1)[0])
        low_first = votes.first[use] <= votes.second[use]
        label = ((state.outcome[use] == A) == low_first).astype(np.int64)  # 1: the response with the smaller index
        fit = one_coin(vote_table(pair, who, label, weight=state.w[use], n_annotators=int(who.max()) + 1, keep="all"))
        for k in np.flatnonzero((people[pair] >= 2) & ~self.confirmed[use]).tolist():
            row = int(use[k])
            p = float(fit.posterior[pair[k], 1] if low_first[k] else fit.posterior[pair[k], 0])
            if p != state.p[row]:
                state.p[row] = p
                self.why.setdefault(
                    row, ("consensus", f"posterior of the {int(people[pair[k]])} people who voted on the pair", "posterior", None)
                )

    def weights(self, suspicion: np.ndarray, known: np.ndarray, can_see: bool) -> None:
        rows = np.flatnonzero(self.train & self.state.kept & ~self.confirmed & (self.input.sign != 0))
        decided = np.zeros(len(self.train), dtype=bool)
        decided[[row for row, (kind, *_) in self.why.items() if kind in ("flip", "correct", "consensus")]] = True
        rows = rows[~decided[rows]]
        if not can_see:
            self.notes.append("No row was weighed down: the audit cannot tell which rows are wrong.")
            return
        if np.isfinite(known[rows]).any():
            factor = np.where(np.isfinite(known[rows]), np.minimum(1.0, 2 * known[rows]), 1.0)
            reason = "P(correct) is below one half"
        else:
            count = int(DOUBTFUL_SHARE * len(rows))
            ranked = np.argsort(-suspicion[rows], kind="stable")[:count]
            factor = np.ones(len(rows))
            factor[ranked] = 1 - (1 - LEAST_FACTOR) * (count - np.arange(count)) / max(count, 1)
            reason = f"among the most suspect {100 * DOUBTFUL_SHARE:g} %"
        self.state.w[rows] *= np.minimum(factor, 1.0)
        why = ("reweight", reason, "posterior", None)
        self.why.update(dict.fromkeys(rows[factor < 1].tolist(), why))

    def changes(self) -> Iterator[Change]:
        for row in sorted(self.why):
            kind, reason, source, precision = self.why[row]
            yield Change(row, kind, self.state.row(row), reason, source, precision)

    def summary(self, known: np.ndarray, above: float | None, digest: str) -> dict[str, Any]:
        kinds = [kind for kind, *_ in self.why.values()]
        flipped = [row for row, (kind, *_) in self.why.items() if kind == "flip"]
        precision = float(np.mean(1 - known[flipped])) if flipped else None
        words = (
            [f"{len(flipped):,} labels flipped; of 100 such flips about {100 * precision:.0f} are right, if P(wrong) is."]
            if precision is not None
            else []
        )
        if above is not None and not flipped:
            words.append(f"No row has P(wrong) above {above:g}: nothing was flipped.")
        return {
            "n_before": len(self.input), "n_after": int(self.state.kept.sum()), "n_train": int((self.state.kept & self.train).sum()),
            "n_heldout": int((~self.train).sum()), "actions": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "estimated_flip_precision": precision, "confirmed_by_reviewer": int(self.confirmed.sum()) - kinds.count("correct"),
            "input": digest, "notes": [*words, *self.notes],
        }  # fmt: skip


def _check_flip(above: float | None, known: np.ndarray) -> None:
    if above is None:
        return
    if not 0.5 <= above < 1:
        raise InputError(
            f"--flip-above {above} is not in [0.5, 1): below one half it would turn labels that are more likely right than wrong"
        )
    if not np.isfinite(known).any():
        raise InputError(
            "--flip-above needs the probability that a label is wrong, and one vote per pair does not give it: a confidently wrong "
            "model looks the same. Ways out: re-check pairs by hand (cupel review OUT --n 100, then --trusted), give data with several "
            "votes per pair, or curate without --flip-above, which weighs doubtful rows down."
        )
