"""The result of an audit: frozen, printable, saved as the contract's files, and the door to review, curate and re-estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.audit.types import Finding, FlipRate, Power, Verdict
from cupel.errors import InputError
from cupel.records.schema import TRAIN, Votes

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from cupel.curate.policy import Curated
    from cupel.curate.review import Answers, Sheet

#: what may be done with a row, in the order in which one wins over the other
ROW_VERDICTS = ("drop", "flip", "review", "reweight", "keep")


@dataclass(frozen=True)
class Scores:
    """What the audit says about each row; arrays of length n.

    suspicion            larger is more suspect: minus the out-of-fold margin of the recorded label (0 for rows without a preference)
    label_predictability probability that the content (and the graph) predicts the recorded label: not a probability of being right
    p_correct            probability that the recorded label is right, NaN everywhere with basis `single`
    verdict              one of ROW_VERDICTS, as index
    content_margin       out-of-fold margin of the content alone, in the orientation of the recorded label
    """

    suspicion: np.ndarray
    label_predictability: np.ndarray
    p_correct: np.ndarray
    verdict: np.ndarray
    content_margin: np.ndarray


@dataclass(frozen=True)
class Audit:
    """Everything that one audit found; see `cupel.audit`."""

    votes: Votes
    verdict: Verdict
    flip_rate: FlipRate
    power: Power
    findings: tuple[Finding, ...]
    scores: Scores
    annotators: tuple[Mapping[str, Any], ...]
    seed: int
    encoder: Mapping[str, Any]
    versions: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    trusted: Mapping[str, Any] | None = None
    answers: Answers | None = None
    trusted_path: str | None = None

    # ---- tables -------------------------------------------------------------------------------------------------------------

    def reasons(self) -> list[list[str]]:
        """Per row, the names of the row checks that found it, plus `suspicious` where it is on the worklist."""
        return self._reasons().to_pylist()

    def _reasons(self) -> pa.Array:
        """`reasons` as an Arrow list array, put together from the rows that each name holds on."""
        import pyarrow as pa

        named = [(f.name, f.rows) for f in self.findings if f.scope == "row" and f.status == "finding"]
        named.append(("suspicious", np.flatnonzero(self.scores.verdict == ROW_VERDICTS.index("review"))))
        named.append(("held_out", np.flatnonzero(self.votes.split != TRAIN)))
        row = np.concatenate([rows for _, rows in named])
        code = np.repeat(np.arange(len(named)), [len(rows) for _, rows in named])
        order = np.argsort(row, kind="stable")  # stable: a row's names stay in the order above
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(self.votes)))])
        names = pa.array([name for name, _ in named], pa.string())
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(pa.array(code[order])))

    def verdict_table(self) -> pa.Table:
        """`verdicts.parquet`: id, suspicion, label_predictability, p_correct (null with basis `single`), verdict, reasons."""
        import pyarrow as pa

        s = self.scores
        return pa.table(
            {
                "id": self.votes.ids.cast(pa.string()),
                "suspicion": pa.array(s.suspicion, pa.float64()),
                "label_predictability": pa.array(s.label_predictability, pa.float64()),
                "p_correct": pa.array(s.p_correct, pa.float64(), mask=np.isnan(s.p_correct)),
                "verdict": pa.array(ROW_VERDICTS, pa.string()).take(pa.array(s.verdict)),
                "reasons": self._reasons().cast(pa.list_(pa.string())),
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row per vote, as `verdict_table`. Needs pandas."""
        try:
            return self.verdict_table().to_pandas()
        except ImportError as error:
            raise InputError("to_pandas needs pandas, which the base install leaves out: pip install pandas") from error

    def to_json(self) -> dict[str, Any]:
        """What `audit.json` holds."""
        rate, power = self.flip_rate, self.power
        counts = np.bincount(self.scores.verdict, minlength=len(ROW_VERDICTS)).tolist()
        return {
            "n_comparisons": len(self.votes),
            "n_train": int((self.votes.split == TRAIN).sum()),
            "n_quarantined": len(self.votes.quarantine),
            "source_format": self.votes.source_format,
            "detection": self.votes.meta.get("detection"),
            "split": self.votes.meta.get("split"),
            "verdict": {
                "code": self.verdict.code,
                "sentence": self.verdict.sentence,
                "actions": [{"text": a.text, "command": a.command} for a in self.verdict.actions],
                "would_change": list(self.verdict.would_change),
            },
            "flip_rate": {
                "basis": rate.basis, "estimate": rate.estimate, "low": rate.low, "high": rate.high,
                "assumptions": list(rate.assumptions), "n": rate.n, "details": dict(rate.details),
            },
            "power": {
                "auc": power.auc, "auc_low": power.auc_low, "auc_high": power.auc_high, "planted_rate": power.planted_rate,
                "caught_at": dict(power.caught_at), "precision_at": dict(power.precision_at), "verdict": power.verdict,
                "length_biased": dict(power.length_biased), "n": power.n,
            },
            "findings": [finding.to_json() for finding in self.findings],
            "row_verdicts": dict(zip(ROW_VERDICTS, counts, strict=True)),
            "annotators": [dict(row) for row in self.annotators],
            "trusted": self.trusted,
            "seed": self.seed,
            "encoder": dict(self.encoder),
            "options": dict(self.options),
            "versions": dict(self.versions),
        }  # fmt: skip

    # ---- what comes next ----------------------------------------------------------------------------------------------------

    def review(self, n: int = 100, *, disagreement: Sequence[int] | None = None) -> Sheet:
        """A blind sheet of `n` pairs for a person; `.to_csv("review.csv")` writes it with its key beside it."""
        from cupel.curate.review import review_sheet

        return review_sheet(self.votes, self.scores.suspicion, n=n, seed=self.seed, disagreement=disagreement)

    def with_trusted(self, path: str | Path) -> Audit:
        """The audit re-estimated with a person's answers (basis `trusted`); no text is encoded again."""
        from cupel.audit.run import apply_trusted

        return apply_trusted(self, Path(path))

    def curate(self, *, flip_above: float | None = None, drop: Sequence[str] = ()) -> Curated:
        """The data as it should be trained on, with the ledger of every change; held-out rows are never touched."""
        from cupel.audit.bridge import curate_audit

        return curate_audit(self, flip_above=flip_above, drop=tuple(drop))

    def save(self, directory: str | Path) -> Path:
        """Write audit.json, verdicts.parquet, report.html, quarantine.jsonl and, where a command repeats it, run.json.

        The same bytes as `cupel audit` writes for votes that `cupel.read` took from a file.
        """
        from cupel.report.assemble import save_audit
        from cupel.runs import record_of

        return save_audit(self, Path(directory), run=record_of(self))

    def with_(self, **changes: Any) -> Audit:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def _repr_html_(self) -> str:
        from cupel.report.assemble import audit_report
        from cupel.report.notebook import to_notebook_html

        return to_notebook_html(audit_report(self))

    def __str__(self) -> str:
        return f"{self.verdict.code}: {self.verdict.sentence}"
