"""What the audit of a log says: findings, a verdict, and both as `audit.json` holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.audit.interactions.checks import run_checks
from cupel.audit.interactions.context import Context, gini
from cupel.audit.types import Action, Finding, Verdict
from cupel.environment import versions
from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.interactions.order import distinct

if TYPE_CHECKING:
    import pyarrow as pa

#: with fewer events nothing is said about a log
FEWEST = 100


@dataclass(frozen=True)
class LogAudit:
    """Everything that the audit of one log found; see `audit_log`."""

    log: Log
    verdict: Verdict
    findings: tuple[Finding, ...]
    seed: int
    versions: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `audit.json` holds."""
        users, items = (int((self.log.counts(axis) > 0).sum()) for axis in ("user", "item"))
        return {
            "kind": "interactions", "n_events": len(self.log), "n_users": users, "n_items": items,
            "n_pairs": len(distinct(self.log.pairs())), "gini": round(gini(self.log.counts()[self.log.counts() > 0]), 6),
            "notes": list(self.log.notes),
            "verdict": {
                "code": self.verdict.code, "sentence": self.verdict.sentence,
                "actions": [{"text": a.text, "command": a.command} for a in self.verdict.actions],
                "would_change": list(self.verdict.would_change),
            },
            "findings": [finding.to_json() for finding in self.findings],
            "seed": self.seed, "options": dict(self.options), "versions": dict(self.versions),
        }  # fmt: skip

    def flagged(self) -> pa.Table:
        """`flagged.parquet`: row, user, item and the names of the row checks that found it, for each event that any of them found."""
        import pyarrow as pa

        named = [(f.name, f.rows) for f in self.findings if f.scope == "row" and f.status == "finding"]
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for _, rows in named)])
        code = np.repeat(np.arange(len(named)), [len(rows) for _, rows in named])
        order = np.argsort(rows, kind="stable")
        distinct, counts = np.unique(rows, return_counts=True)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        names = pa.array([name for name, _ in named], pa.string())
        return pa.table(
            {
                "row": pa.array(distinct, pa.int64()),
                "user": pa.array(self.log.users[self.log.user[distinct]].tolist(), pa.string()),
                "item": pa.array(self.log.items[self.log.item[distinct]].tolist(), pa.string()),
                "reasons": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(pa.array(code[order], pa.int64()))),
            }
        )

    def __str__(self) -> str:
        return f"{self.verdict.code}: {self.verdict.sentence}"


def audit_log(
    log: Log, *, against: Mapping[str, Log] | None = None, only: Sequence[str] | None = None, seed: int = 0,
    progress: Callable[[int, int], None] | None = None, options: Mapping[str, Any] | None = None,
) -> LogAudit:  # fmt: skip
    """Run the checks on a log of interactions and say what follows.

    against: test logs by name, whose pairs must not occur in this one. only: names of checks. seed: recorded; no check draws.
    InputError for a log without events or an unknown check.

    >>> found = audit_log(Log.of(["a"] * 3, [1, 2, 2]))
    >>> found.verdict.code, [f.name for f in found.findings if f.status == "finding"][:2]
    ('cannot_tell', ['duplicate_events', 'everything_observed'])
    """
    if not len(log):
        raise InputError("there are no events to audit: every row was set aside or the file has none")
    findings = run_checks(log, Context(against=against), only, progress)
    recorded = {"only": list(only) if only else None, "against": sorted(against) if against else None, **(options or {})}
    return LogAudit(log, decide(len(log), findings), tuple(findings), seed, versions(), recorded)


def decide(n: int, findings: Sequence[Finding]) -> Verdict:
    """The verdict, a pure function of the findings; the rules are tried in order.

    1. fewer than 100 events: cannot_tell. 2. a finding of severity error: recheck. 3. a warning about rows: train_curated. 4. else train.
    Events carry no label that could be wrong in a way that is seen without training, so there is no label error and no do_not_train.

    >>> decide(1000, []).code
    'train'
    """
    found = [f for f in findings if f.status == "finding"]
    errors = [f for f in found if f.severity == "error"]
    rows = [f for f in found if f.severity == "warning" and f.scope == "row"]
    others = [f for f in found if f.severity == "warning" and f.scope != "row"]
    actions = tuple(Action(f"{_words(f)}: {f.remedy}.") for f in [*errors, *rows, *others])
    if n < FEWEST:
        return Verdict("cannot_tell", f"{n:,} events are too few to say anything about.", actions, (f"{FEWEST:,} events or more.",))
    if errors:
        told = f"Settle this first: {'; '.join(f.message for f in errors)}."
        return Verdict("recheck", told, actions, ("A split without these pairs.",))
    if rows:
        told = f"Train without the rows of {_listed(rows)}, or say that they are in."
        return Verdict("train_curated", told, actions, ("A log without these rows.",))
    if others:
        return Verdict("train", f"Nothing speaks against training; mind {_listed(others)} when results are read.", actions, ())
    return Verdict("train", "No check found anything that speaks against training on this log.", (), ())


def _words(finding: Finding) -> str:
    return finding.name.replace("_", " ").capitalize()


def _listed(findings: Sequence[Finding]) -> str:
    return " and ".join(", ".join(f.name.replace("_", " ") for f in findings).rsplit(", ", 1))
