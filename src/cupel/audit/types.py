"""What an audit says: findings, label error with its basis, power, verdict. Frozen, plain, and equal to what `audit.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Scope = Literal["dataset", "row"]
Status = Literal["finding", "clean", "not_applicable"]
Severity = Literal["info", "warning", "error"]
Basis = Literal["single", "repeats", "trusted"]
VerdictCode = Literal["train", "train_curated", "recheck", "do_not_train", "cannot_tell"]


@dataclass(frozen=True)
class Finding:
    """What one check found. `rows` are positions in the audited votes (all of them, for curation); `examples` the first ids."""

    name: str
    scope: Scope
    status: Status
    severity: Severity = "info"
    count: int = 0
    n: int = 0
    message: str = ""
    remedy: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    examples: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The finding without its row positions (verdicts.parquet names them in `reasons`)."""
        return {
            "name": self.name, "scope": self.scope, "status": self.status, "severity": self.severity, "count": self.count,
            "n": self.n, "message": self.message, "examples": list(self.examples), "remedy": self.remedy,
            "details": dict(self.details),
        }  # fmt: skip


@dataclass(frozen=True)
class FlipRate:
    """Label error rate P(recorded != true preference) with its basis: bounds only for `single`, a point and interval otherwise."""

    basis: Basis
    estimate: float | None
    low: float
    high: float
    assumptions: tuple[str, ...]
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Power:
    """How well planted flips are found: area under the curve with its interval, and natural frequencies in the worst rows."""

    auc: float
    auc_low: float
    auc_high: float
    planted_rate: float
    caught_at: Mapping[str, float]  # {"0.05": share of planted flips in the worst 5 %, "0.10": ...}
    precision_at: Mapping[str, float]
    verdict: Literal["can_see", "cannot_tell"]
    length_biased: Mapping[str, float] = field(default_factory=dict)  # the same figures for length-biased plants
    n: int = 0
    raw_auc: float | None = None  # before the correction for `cyclic_errors`
    cyclic_errors: float = 0.0  # share of votes that cycles prove wrong, if true preferences are transitive


@dataclass(frozen=True)
class Action:
    """One thing to do next, with the command that does it."""

    text: str
    command: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer on one line, what to do, and what would change it."""

    code: VerdictCode
    sentence: str
    actions: tuple[Action, ...]
    would_change: tuple[str, ...]
