"""From results to files: the report's dict, and everything that `audit` and `refine` write into OUT, each file atomically."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.records.schema import OUTCOMES, TRAIN
from cupel.report.cycles import circles_part

if TYPE_CHECKING:
    from cupel.audit.result import Audit
    from cupel.audit.types import Finding
    from cupel.curate.policy import Curated

WORKLIST = 50
BASIS_WORDS = {
    "single": "one vote per pair: bounds only",
    "repeats": "pairs with votes of several people",
    "trusted": "pairs re-checked by a person",
}


def audit_report(audit: Audit, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The report's parts that an audit alone can fill; see `cupel.report.types.Report`."""
    data = audit.to_json()
    report: dict[str, Any] = {
        "title": "How far these votes can be trusted",
        "verdict": data["verdict"],
        "numbers": headline(audit, None),
        "power": data["power"],
        "flip_rate": data["flip_rate"],
        "findings": data["findings"],
        "worklist": worklist(audit),
        "suspicion_hist": _suspicion_histogram(audit),
        "lengths": _length_histogram(audit),
        "annotators": data["annotators"],
        "quarantine": _quarantine(audit),
        "method": _method(audit),
        "limits": _limits(audit),
        "missing": {
            "training": "No model was trained: cupel audit looks at the data only. cupel refine trains plain and robust models."
        },
    }
    drawn = circles_part(audit)
    if drawn is not None:
        report["circles"] = drawn
    if run is not None:
        report["run"] = _run_part(audit, run)
    return report


def refined_report(audit: Audit, curated: Curated, evaluation: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The whole report of the main job."""
    report = audit_report(audit, run)
    report["numbers"] = headline(audit, evaluation)
    report["curation"] = {
        "counts": row_counts(audit, curated),
        "precision": curated.summary.get("estimated_flip_precision"),
        "ledger_entries": len(curated.ledger),
    }
    report["training"] = training_part(evaluation)
    del report["missing"]
    return report


def headline(audit: Audit, evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The three numbers, each with n, interval and source: label error, planted flips caught, and robust minus plain."""
    rate, power = audit.flip_rate, audit.power
    details = rate.details
    numbers = [
        {
            "label": "Label error",
            "value": "no estimate" if rate.estimate is None else f"{100 * rate.estimate:.1f} %",
            "n": rate.n,
            "low": details.get("point_low", rate.low) if rate.estimate is not None else rate.low,
            "high": details.get("point_high", rate.high) if rate.estimate is not None else rate.high,
            "source": BASIS_WORDS[rate.basis],
        },
        {
            "label": "Planted flips caught in the worst 10 %",
            "value": f"{100 * power.caught_at['0.10']:.0f} of 100" if "0.10" in power.caught_at else "not measured",
            "n": power.n,
            "low": None,
            "high": None,
            "source": f"{100 * power.planted_rate:.0f} % symmetric flips planted in the training rows; AUC {power.auc:.2f} "
            f"({power.auc_low:.2f} to {power.auc_high:.2f})",
        },
    ]
    found = _differences(evaluation) if evaluation else []
    if evaluation and found:
        d = found[0]
        numbers.append(
            {"label": "Robust minus plain, held-out accuracy", "value": f"{100 * d['difference']:+.1f} points",
             "n": evaluation["n"], "low": d["low"], "high": d["high"],
             "source": "paired bootstrap over held-out prompts, crossed with training seeds"}
        )  # fmt: skip
    else:
        stated = int((audit.votes.sign != 0).sum())
        numbers.append(
            {"label": "Votes that state a preference", "value": f"{stated:,}", "n": len(audit.votes), "source": "the file"}
        )
    return numbers


def training_part(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Rows, paired differences and the reading of plain against robust, from what `evaluation.json` holds."""
    accuracy, seeds = evaluation["accuracy"], evaluation["training_seeds"]
    rows = [
        _model_row(name, {subset: row[name] for subset, row in accuracy.items()}, int(seeds.get(name, 1)))
        for name in evaluation["models"]
    ]
    rows.append(_model_row("the longer side", evaluation["length_only"], None))
    return {"rows": rows, "differences": _differences(evaluation), "reading": reading(evaluation)}


def _model_row(name: str, shares: Mapping[str, Mapping[str, Any]], seeds: int | None) -> dict[str, Any]:
    votes = shares["votes"]
    row = {
        "model": name,
        "accuracy": votes["estimate"],
        "low": votes["low"],
        "high": votes["high"],
        "n": votes["n"],
        "seeds": seeds,
    }
    for subset, share in shares.items():
        if subset != "votes" and share["n"]:
            row[subset] = share["estimate"]
    return row


def _differences(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    base = evaluation["models"][0]
    return [
        {"name": f"{name} minus {base}", "difference": share["estimate"], "low": share["low"], "high": share["high"]}
        for name, share in evaluation["difference"].get("votes", {}).items()
        if share["estimate"] is not None and share["low"] is not None
    ]


def reading(evaluation: Mapping[str, Any]) -> str:
    """One sentence on the first paired difference: what its interval allows to be said, in points of held-out accuracy.

    >>> share = {"estimate": 0.03, "low": 0.01, "high": 0.05, "n": 900, "groups": 40}
    >>> reading({"models": ["plain", "robust"], "difference": {"votes": {"robust": share}}})
    'robust is better than plain on held-out votes by 1.0 to 5.0 points.'
    """
    found = _differences(evaluation)
    if not found:
        return "The held-out rows are too few, or share one prompt: no difference can be stated."
    d, base = found[0], evaluation["models"][0]
    name = evaluation["models"][1]
    low, high = 100 * d["low"], 100 * d["high"]
    if low > 0:
        return f"{name} is better than {base} on held-out votes by {low:.1f} to {high:.1f} points."
    if high < 0:
        return f"{name} is worse than {base} on held-out votes by {-high:.1f} to {-low:.1f} points: train the plain one."
    span = f"{low:+.1f} to {high:+.1f} points"
    return (
        f"No difference can be told between {name} and {base} on held-out votes ({span}): the simpler one will do. "
        "If errors fall on both sides alike, this head averages them out, and labels without any would gain it little too."
    )


def worklist(audit: Audit, n: int = WORKLIST) -> list[dict[str, Any]]:
    """The most suspicious training pairs, sides shuffled by the seed, recorded vote kept apart for the fold."""
    from cupel.audit.checks.context import pseudonyms
    from cupel.records.text import render

    votes, suspicion = audit.votes, audit.scores.suspicion
    rows = np.flatnonzero((votes.split == TRAIN) & (votes.sign != 0))
    order = _one_per_pair(votes.pair, rows[np.argsort(-suspicion[rows], kind="stable")], n)
    names = pseudonyms(votes.annotators)
    harmful = _named(order, [f for f in audit.findings if f.name == "harmful_text"])
    found = _named(order, [f for f in audit.findings if f.scope == "row" and f.status == "finding"])
    swap = np.random.default_rng(audit.seed).random(len(order)) < 0.5
    pairs = []
    for row, swapped in zip(order.tolist(), swap.tolist(), strict=True):
        first = votes.responses[int(votes.first[row])].as_py()
        second = votes.responses[int(votes.second[row])].as_py()
        outcome = OUTCOMES[int(votes.outcome[row])]
        side = {"a": "right" if swapped else "left", "b": "left" if swapped else "right"}.get(outcome, outcome)
        annotator = int(votes.annotator[row])
        pairs.append(
            {"id": votes.ids[row].as_py(), "prompt": render(votes.prompts[int(votes.prompt[row])].as_py()),
             "left": second if swapped else first, "right": first if swapped else second, "recorded": side,
             "annotator": names[annotator] if annotator >= 0 else None, "suspicion": float(suspicion[row]),
             "reasons": found[row], "harmful": bool(harmful[row])}
        )  # fmt: skip
    return pairs


def _one_per_pair(pair: np.ndarray, order: np.ndarray, n: int) -> np.ndarray:
    """The first n rows of an order that are not on a pair that stands before them."""
    seen: set[int] = set()
    chosen: list[int] = []
    for row in order:
        if len(chosen) == n:
            break
        if int(pair[row]) not in seen:
            seen.add(int(pair[row]))
            chosen.append(int(row))
    return np.array(chosen, dtype=np.int64)


def _named(rows: np.ndarray, findings: Sequence[Finding]) -> dict[int, list[str]]:
    """The names of the findings that each of the rows is in, in their order."""
    found: dict[int, list[str]] = {row: [] for row in rows.tolist()}
    for finding in findings:
        for row in rows[np.isin(rows, finding.rows)].tolist():
            found[row].append(finding.name)
    return found


def _suspicion_histogram(audit: Audit) -> dict[str, Any]:
    used = (audit.votes.split == TRAIN) & (audit.votes.sign != 0)
    values = audit.scores.suspicion[used]
    if len(values) == 0:
        return {"edges": [0.0, 1.0], "counts": [0]}
    low, high = np.quantile(values, [0.005, 0.995])
    edges = np.linspace(low, max(high, low + 1e-9), 31)
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0]
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _length_histogram(audit: Audit) -> dict[str, Any]:
    import pyarrow.compute as pc

    votes = audit.votes
    length = np.asarray(pc.utf8_length(votes.responses), dtype=np.float64)  # pyright: ignore[reportAttributeAccessIssue]
    stated = (votes.split == TRAIN) & (votes.sign != 0)
    won = np.where(votes.sign > 0, votes.first, votes.second)[stated]
    lost = np.where(votes.sign > 0, votes.second, votes.first)[stated]
    if len(won) == 0:
        return {"edges": [0.0, 1.0], "chosen": [0], "rejected": [0], "unit": "characters"}
    top = float(np.quantile(np.concatenate([length[won], length[lost]]), 0.99)) or 1.0
    edges = np.linspace(0, top, 25)
    return {
        "edges": edges.tolist(),
        "chosen": np.histogram(np.minimum(length[won], top), bins=edges)[0].tolist(),
        "rejected": np.histogram(np.minimum(length[lost], top), bins=edges)[0].tolist(),
        "unit": "characters",
    }


def _quarantine(audit: Audit) -> dict[str, Any]:
    rows = audit.votes.quarantine
    return {
        "n": len(rows),
        "reasons": dict(sorted(Counter(q.reason for q in rows).items())),
        "first": [{"line": q.line, "reason": q.reason, "detail": q.detail} for q in rows[:10]],
    }


def _method(audit: Audit) -> list[str]:
    votes = audit.votes
    train = int((votes.split == TRAIN).sum())
    return [
        f"{len(votes) - train:,} of {len(votes):,} votes were frozen as held-out rows before anything looked at a label, by whole "
        "groups of connected prompts. Checks, suspicion, label error, curation and training see the other rows only.",
        "Suspicion is minus the margin of the recorded label under a linear head on text vectors and surface facts (folds by prompt) "
        "and, where responses recur, under a Bradley-Terry fit that leaves the pair itself out.",
        "Power comes from flips that cupel planted in copies of the training rows and looked for again. Natural errors are harder to "
        "find than planted ones, and power says nothing about how many labels are wrong.",
        f"Texts became vectors by the encoder {audit.encoder['name']}; prompt and response are encoded apart.",
    ]


def _limits(audit: Audit) -> list[str]:
    limits = [
        "Suspicion is not proof: people differ on close calls, and an encoder can be wrong where people are right.",
        "A label error is measured against what most people, or the person who re-checked, would say; it is no judgement of taste.",
    ]
    if audit.encoder["name"] == "static":
        limits.append("The embedded encoder averages word vectors: it does not see word order.")
    if audit.flip_rate.basis == "single":
        limits.append("With one vote per pair a flipped label and a pair that the encoder does not understand look the same.")
    return limits


def _run_part(audit: Audit, run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "command": run["command"],
        "seed": audit.seed,
        "encoder": audit.encoder["name"],
        "encoder_hash": audit.encoder["hash"],
        "input_name": Path(run["input"]["path"] or "-").name,
        "input_sha256": run["input"]["sha256"] or "",
        "versions": dict(audit.versions),
    }


# ---- files ----------------------------------------------------------------------------------------------------------------------


def save_audit(audit: Audit, out: Path, *, redact: bool = False, run: Mapping[str, Any] | None = None) -> Path:
    """Write audit.json, verdicts.parquet, quarantine.jsonl, report.html and, where `run` is given, run.json."""
    _save_tables(audit, out)
    _save_page(audit_report(audit, run), out, redact)
    if run is not None:
        _save_run(run, out)
    return out


def save_refined(
    audit: Audit, curated: Curated, evaluation: Mapping[str, Any], out: Path, *, redact: bool, run: Mapping[str, Any]
) -> Path:
    """Everything of `save_audit`, with the curated data, its ledger, evaluation.json and the whole report."""
    from cupel.records.files import write_json

    _save_tables(audit, out)
    save_curated(curated, out)
    write_json(out / "evaluation.json", evaluation)
    _save_page(refined_report(audit, curated, evaluation, run), out, redact)
    _save_run(run, out)
    return out


def row_counts(audit: Audit, curated: Curated) -> dict[str, int]:
    """Training rows by what was done about them: kept as they were, weighed down, flipped, dropped, and sent to a person."""
    actions = curated.summary["actions"]
    flip = actions.get("flip", 0) + actions.get("correct", 0)
    reweight, drop = actions.get("reweight", 0), actions.get("drop", 0)
    train = int((audit.votes.split == TRAIN).sum())
    counts = audit.to_json()["row_verdicts"]
    return {"keep": train - flip - reweight - drop, "reweight": reweight, "flip": flip, "drop": drop, "review": counts["review"]}


def save_curated(curated: Curated, out: Path) -> None:
    """Write train.parquet, heldout.parquet and ledger.jsonl: the votes with the p and w that every learner reads, and every change."""
    curated.write(out / "train.parquet", "train")
    curated.write(out / "heldout.parquet", "heldout")
    curated.ledger.write(out / "ledger.jsonl")


def _save_tables(audit: Audit, out: Path) -> None:
    from cupel.records.files import write_json, write_lines, write_parquet
    from cupel.records.store import quarantine_rows

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "audit.json", audit.to_json())
    write_parquet(out / "verdicts.parquet", audit.verdict_table())
    write_lines(out / "quarantine.jsonl", quarantine_rows(audit.votes))


def _save_page(report: Mapping[str, Any], out: Path, redact: bool) -> None:
    from cupel.records.files import atomic_write
    from cupel.report.html import render

    page = render(report, redact=redact).encode("utf-8")
    with atomic_write(out / "report.html") as temporary:
        temporary.write_bytes(page)


def _save_run(run: Mapping[str, Any], out: Path) -> None:
    from cupel.records.files import write_json

    write_json(out / "run.json", run)
