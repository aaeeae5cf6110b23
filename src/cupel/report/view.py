"""What the template sees: every text of the report made visible, cut to a limit or left out; figures and tables made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.report import cycles, evidence, figures, sections
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.limits import Limits, texts

VERDICTS = {
    "train": ("good", "Train", "Train on all rows as they are."),
    "train_curated": ("good", "Train on curated rows", "Train on the rows that curation keeps."),
    "recheck": ("warn", "Check again first", "Have pairs checked again before training."),
    "do_not_train": ("bad", "Do not train", "Do not train on these labels."),
    "cannot_tell": ("open", "Cannot tell", "The audit cannot tell whether these labels can be trusted."),
}
"""Verdict code: tone of the banner, its words, and the sentence used where the report gives none."""

SEVERITIES = {"error": ("bad", "Error"), "warning": ("warn", "Warning"), "info": ("open", "Note")}

SECTIONS = {
    "actions": "Next actions",
    "power": "Can the audit see?",
    "label-error": "Label error",
    "findings": "Findings",
    "worklist": "Worklist",
    "curation": "Curation",
    "training": "Plain and robust",
    "annotators": "Annotators",
    "quarantine": "Quarantine",
    "method": "Method",
}
"""Sections below the verdict in the order of the page, and their names in its navigation. A report of other data names those it has."""

ABSENT = {
    "verdict": "This report carries no verdict.",
    "numbers": "No headline numbers were given.",
    "actions": "No next action was given.",
    "power": "No errors were planted in this run, so how well the audit sees was not measured.",
    "flip_rate": "Label error was not estimated in this run.",
    "findings": "No checks were run.",
    "worklist": "No pairs were picked for checking again in this run.",
    "curation": "Nothing was curated in this run; `cupel curate FILE OUT` does it.",
    "training": "No model was trained in this run, so plain and robust cannot be compared; `cupel refine FILE` trains both.",
    "annotators": "The data names no annotators, or none shares enough pairs with others to be compared.",
    "quarantine": "Whether rows were set aside was not recorded.",
    "method": "No description of the method was given.",
    "limits": "No limits were stated.",
    "run": "How this run was started was not recorded.",
}


def build(report: Mapping[str, Any], limits: Limits, *, redact: bool) -> dict[str, Any]:
    """The template's variables; every section that the page has is there, `None` where the report lacks it."""
    missing = report.get("missing") or {}
    why = {name: t.short(missing.get(name) or sentence, limits.text) for name, sentence in ABSENT.items()}
    given = report.get("verdict") or {}
    return {
        "title": t.short(report.get("title") or "Audit of preference data", limits.name),
        "redact": redact,
        "sections": _sections(report.get("sections")),
        "why": why,
        "verdict": _verdict(given, limits),
        "numbers": [_number(item, limits) for item in list(report.get("numbers") or [])[:6]],
        "actions": [
            {"text": t.said(item.get("text", ""), limits.text), "command": t.short(item.get("command") or "", limits.text)}
            for item in list(given.get("actions") or [])[: limits.items]
        ],
        "would_change": texts(given.get("would_change"), limits),
        "power": evidence.power(report, limits),
        "flip_rate": evidence.flip_rate(report, limits),
        "findings": _findings(report, limits, redact),
        "worklist": sections.worklist(report, limits, redact),
        "curation": sections.curation(report.get("curation"), limits),
        "training": sections.training(report.get("training"), limits),
        "annotators": sections.annotators(report.get("annotators"), limits),
        "quarantine": sections.quarantine(report.get("quarantine"), limits, redact),
        "method": texts(report.get("method"), limits),
        "limits": texts(report.get("limits"), limits),
        "run": sections.run(report.get("run"), limits),
    }


def _sections(given: Sequence[str] | None) -> dict[str, str]:
    """Id and name of each section of the page, in the page's order; all of them where the report names none."""
    if given is None:
        return SECTIONS
    unknown = [name for name in given if name not in SECTIONS]
    if unknown:
        raise ValueError(f"section {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    return {name: words for name, words in SECTIONS.items() if name in given}


def _verdict(given: Mapping[str, Any], limits: Limits) -> dict[str, str] | None:
    if not given:
        return None
    code = str(given.get("code", ""))
    if code not in VERDICTS:
        raise ValueError(f"verdict code {code!r} is none of {', '.join(VERDICTS)}")
    tone, words, sentence = VERDICTS[code]
    return {"code": code, "tone": tone, "words": words, "sentence": t.said(given.get("sentence") or sentence, limits.text)}


def _number(item: Mapping[str, Any], limits: Limits) -> dict[str, str]:
    value = t.said(item.get("value", ""), 40)
    unit = "points" if value.endswith("points") else "percent" if "%" in value else "plain"
    between = t.interval(item.get("low"), item.get("high"), unit=unit, digits=2 if unit == "plain" else 1)
    return {
        "label": t.said(item.get("label", ""), limits.name),
        "value": value,
        "interval": between,
        "n": "" if item.get("n") is None else t.count(item["n"]),
        "source": t.said(item.get("source") or "", limits.name),
        "note": t.short(item.get("note") or "", limits.text),
    }


def _findings(report: Mapping[str, Any], limits: Limits, redact: bool) -> dict[str, Any] | None:
    given = report.get("findings")
    lengths = report.get("lengths")
    if given is None:
        return None
    order = list(SEVERITIES)
    by = {status: [item for item in given if item.get("status") == status] for status in ("finding", "clean", "not_applicable")}
    found = sorted(
        by["finding"], key=lambda item: order.index(item.get("severity", "info")) if item.get("severity") in order else len(order)
    )
    most = 4 * limits.items
    return {
        "shown": [_finding(item, report, limits, redact) for item in found[: limits.findings]],
        "left_out": len(found) - min(len(found), limits.findings),
        "counts": [(SEVERITIES[level][1].lower(), sum(item.get("severity", "info") == level for item in found)) for level in order],
        "clean": [t.short(item.get("name", ""), limits.name) for item in by["clean"][:most]],
        "n_clean": len(by["clean"]),
        "skipped": [
            (t.short(item.get("name", ""), limits.name), t.short(item.get("message") or "no reason was given", limits.text))
            for item in by["not_applicable"][:most]
        ],
        "n_skipped": len(by["not_applicable"]),
        "lengths": figures.lengths(lengths) if lengths else None,
    }


def _finding(item: Mapping[str, Any], report: Mapping[str, Any], limits: Limits, redact: bool) -> dict[str, Any]:
    tone, level = SEVERITIES.get(str(item.get("severity", "info")), SEVERITIES["info"])
    count, n = t.number(item.get("count")) or 0, t.number(item.get("n")) or 0
    of = f"{t.count(count)} of {t.count(n)} ({t.percent(count / n)})" if n else t.count(count) if count else ""
    details = {t.words(t.short(str(key), limits.name)): value for key, value in (item.get("details") or {}).items()}
    if redact:
        details = {key: value for key, value in details.items() if t.number(value) is not None or isinstance(value, bool)}
    examples = list(item.get("examples") or [])
    name = str(item.get("name", ""))
    circles = report.get("circles") if name == "cycles" else None
    if circles:
        details.pop("Strongest", None)  # drawn
    return {
        "name": t.short(name, limits.name),
        "heading": t.words(t.short(name, limits.name)),
        "tone": tone,
        "level": level,
        "of": of,
        "message": t.short(item.get("message") or "", limits.text),
        "remedy": t.short(item.get("remedy") or "", limits.text),
        "figure": cycles.of_votes(circles, limits, redact=redact) if circles else None,
        "examples": [] if redact else [t.short(value, limits.name) for value in examples[:5]],
        "more": 0 if redact else max(len(examples) - 5, 0),
        "details": tb.mapping("Details", ("Quantity", "Value#"), details, limit=min(limits.items, 12), width=limits.name)
        if details
        else None,
    }
