"""What the template sees: every text of the report made visible, cut to a limit or left out; figures and tables made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cupel.report import figures, svg
from cupel.report import tables as tb
from cupel.report import text as t

VERDICTS = {
    "train": ("good", "Train", "Train on all rows as they are."),
    "train_curated": ("good", "Train on curated rows", "Train on the rows that curation keeps."),
    "recheck": ("warn", "Check again first", "Have pairs checked again before training."),
    "do_not_train": ("bad", "Do not train", "Do not train on these labels."),
    "cannot_tell": ("open", "Cannot tell", "The audit cannot tell whether these labels can be trusted."),
}
"""Verdict code: tone of the banner, its words, and the sentence used where the report gives none."""

SEVERITIES = {"error": ("bad", "Error"), "warning": ("warn", "Warning"), "info": ("open", "Note")}

BASES = {
    "single": "Each pair has one vote. From one vote, how often labels are wrong can be bounded but not pinned to a point.",
    "repeats": "Pairs have several votes. How often voters of the same pair disagree gives the estimate.",
    "trusted": "Trusted answers for a sample of the pairs give the estimate; the pairs were drawn by a stated plan.",
}

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


@dataclass(frozen=True)
class Limits:
    """How much of what may grow is shown."""

    pair_text: int = 1500  # characters of a prompt or response
    text: int = 600  # characters of any other text
    name: int = 120  # characters of a name, id or reason
    pairs: int = 50
    findings: int = 40
    items: int = 30  # of other lists

    def halved(self) -> Limits:
        """Half of everything except pairs."""
        return Limits(
            max(self.pair_text // 2, 1),
            max(self.text // 2, 8),
            max(self.name // 2, 8),
            self.pairs,
            max(self.findings // 2, 1),
            max(self.items // 2, 1),
        )


def build(report: Mapping[str, Any], limits: Limits, *, redact: bool) -> dict[str, Any]:
    """The template's variables; every section is there, `None` where the report lacks it."""
    missing = report.get("missing") or {}
    why = {name: t.short(missing.get(name) or sentence, limits.text) for name, sentence in ABSENT.items()}
    given = report.get("verdict") or {}
    return {
        "title": t.short(report.get("title") or "Audit of preference data", limits.name),
        "redact": redact,
        "why": why,
        "verdict": _verdict(given, limits),
        "numbers": [_number(item, limits) for item in list(report.get("numbers") or [])[:6]],
        "actions": [
            {"text": t.short(item.get("text", ""), limits.text), "command": t.short(item.get("command") or "", limits.text)}
            for item in list(given.get("actions") or [])[: limits.items]
        ],
        "would_change": _texts(given.get("would_change"), limits),
        "power": _power(report, limits),
        "flip_rate": _flip_rate(report, limits),
        "findings": _findings(report, limits, redact),
        "worklist": _worklist(report, limits, redact),
        "curation": _curation(report.get("curation"), limits),
        "training": _training(report.get("training"), limits),
        "annotators": _annotators(report.get("annotators"), limits),
        "quarantine": _quarantine(report.get("quarantine"), limits, redact),
        "method": _texts(report.get("method"), limits),
        "limits": _texts(report.get("limits"), limits),
        "run": _run(report.get("run"), limits),
    }


def _texts(values: Any, limits: Limits) -> list[str]:
    return [t.short(value, limits.text) for value in list(values or [])[: limits.items]]


def _verdict(given: Mapping[str, Any], limits: Limits) -> dict[str, str] | None:
    if not given:
        return None
    code = str(given.get("code", ""))
    if code not in VERDICTS:
        raise ValueError(f"verdict code {code!r} is none of {', '.join(VERDICTS)}")
    tone, words, sentence = VERDICTS[code]
    return {"code": code, "tone": tone, "words": words, "sentence": t.short(given.get("sentence") or sentence, limits.text)}


def _number(item: Mapping[str, Any], limits: Limits) -> dict[str, str]:
    value = t.short(item.get("value", ""), 40)
    unit = "points" if value.endswith("points") else "percent" if "%" in value else "plain"
    between = t.interval(item.get("low"), item.get("high"), unit=unit, digits=2 if unit == "plain" else 1)
    return {
        "label": t.short(item.get("label", ""), limits.name),
        "value": value,
        "interval": between,
        "n": "" if item.get("n") is None else t.count(item["n"]),
        "source": t.short(item.get("source") or "", limits.name),
        "note": t.short(item.get("note") or "", limits.text),
    }


def _power(report: Mapping[str, Any], limits: Limits) -> dict[str, Any] | None:
    given = report.get("power")
    if not given:
        return None
    caught, precision = _by_share(given.get("caught_at")), _by_share(given.get("precision_at"))
    biased_given = given.get("length_biased") or {}
    biased = _by_share(biased_given.get("caught_at") or biased_given)
    grids = []
    for name, key, values in (
        ("Errors planted at random", "caught", caught),
        ("Errors planted toward the longer side", "caught-long", biased),
    ):
        worst = 0.1 if 0.1 in values else max(values, default=None)
        if worst is not None:
            grids.append(figures.caught(name, key, values[worst], worst))
    worst = 0.1 if 0.1 in caught else max(caught, default=None)
    lead = ""
    if worst is not None:
        hundred, of = round(100 * caught[worst]), t.percent(worst, 0)
        lead = f"Of 100 planted errors it would catch {hundred} in its worst {of}; "
        lead += f"rows picked at random would catch {round(100 * worst)}."
        rate = t.number(given.get("planted_rate")) or 0.0
        if rate > worst:
            lead += f" No more than {round(100 * worst / rate)} fit into so few rows."
    rows = [
        (
            f"worst {t.percent(share, 0)}",
            f"{round(100 * caught[share])} of 100",
            f"{round(100 * share)} of 100",
            f"{round(100 * precision[share])} of 100" if share in precision else t.NOTHING,
            f"{round(100 * biased[share])} of 100" if share in biased else t.NOTHING,
        )
        for share in sorted(caught)[: limits.items]
    ]
    heads = [
        "Rows looked at",
        "Planted errors caught#",
        "At random#",
        "Planted errors among those rows#",
        "Caught, planted toward the longer side#",
    ]
    if not biased:
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    auc, between = t.number(given.get("auc")), t.interval(given.get("auc_low"), given.get("auc_high"), unit="plain", digits=3)
    ranked = ""
    if auc is not None:
        ranked = f"Of 100 pairs of one planted error and one other row, it ranks the error as more suspect in {round(100 * auc)}"
        ranked += f" (area under the curve {auc:.3f}{', 95 % interval ' + between if between else ''})."
    long = t.number(biased_given.get("auc"))
    if long is not None:
        ranked += f" With errors planted toward the longer side the area is {long:.3f}."
    sees = given.get("verdict") == "can_see"
    hist = report.get("suspicion_hist")
    return {
        "lead": lead,
        "ranked": ranked,
        "sees": sees,
        "grids": grids,
        "rate": t.percent(given.get("planted_rate"), 0),
        "n": t.count(given["n"]) if given.get("n") else "",
        "table": tb.table("Planted errors caught, by how many rows are looked at", heads, rows) if rows else None,
        "hist": figures.suspicion(hist) if hist else None,
    }


def _by_share(values: Any) -> dict[float, float]:
    """`{"0.10": 0.71}` or `{"caught_at_0.10": 0.71}` as numbers; what is not a share of rows is left out."""
    found: dict[float, float] = {}
    for key, value in (values or {}).items():
        text = str(key).rpartition("_")[2] or str(key)
        try:
            share = float(text)
        except ValueError:
            continue
        at = t.number(value)
        if 0 < share < 1 and at is not None and not str(key).startswith("precision"):
            found[share] = min(max(at, 0.0), 1.0)
    return found


def _flip_rate(report: Mapping[str, Any], limits: Limits) -> dict[str, Any] | None:
    given = report.get("flip_rate")
    if not given:
        return None
    basis = str(given.get("basis", ""))
    low, high, point = (t.number(given.get(key)) for key in ("low", "high", "estimate"))
    between = t.interval(low, high)
    own = figures.point_interval(given)
    if point is not None:
        spans = [f"95 % interval {t.interval(*own)}"] if own is not None and t.interval(*own) else []
        spans += [f"bounds {between}"] if between and own != (low, high) else []
        lead = f"About {round(100 * point)} of 100 labels are wrong" + (f" ({'; '.join(spans)})." if spans else ".")
    elif between:
        lead = f"Between {round(100 * (low or 0))} and {round(100 * (high or 0))} of 100 labels are wrong "
        lead += f"(bounds {between}); a point cannot be given."
    else:
        lead = "Neither an estimate nor bounds can be given."
    details = {t.words(t.short(str(key), limits.name)): value for key, value in (given.get("details") or {}).items()}
    rel = report.get("reliability")
    return {
        "basis": t.short(basis, 40),
        "meaning": BASES.get(basis, ""),
        "lead": lead,
        "figure": figures.label_error(given) if between else None,
        "n": t.count(given["n"]) if given.get("n") else "",
        "assumptions": _texts(given.get("assumptions"), limits),
        "details": tb.mapping("Details of the estimate", ("Quantity", "Value#"), details, limit=limits.items, width=limits.name)
        if details
        else None,
        "reliability": figures.reliability(rel) if rel else None,
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
        "shown": [_finding(item, limits, redact) for item in found[: limits.findings]],
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


def _finding(item: Mapping[str, Any], limits: Limits, redact: bool) -> dict[str, Any]:
    tone, level = SEVERITIES.get(str(item.get("severity", "info")), SEVERITIES["info"])
    count, n = t.number(item.get("count")) or 0, t.number(item.get("n")) or 0
    of = f"{t.count(count)} of {t.count(n)} ({t.percent(count / n)})" if n else t.count(count) if count else ""
    details = {t.words(t.short(str(key), limits.name)): value for key, value in (item.get("details") or {}).items()}
    if redact:
        details = {key: value for key, value in details.items() if t.number(value) is not None or isinstance(value, bool)}
    examples = list(item.get("examples") or [])
    name = str(item.get("name", ""))
    return {
        "name": t.short(name, limits.name),
        "heading": t.words(t.short(name, limits.name)),
        "tone": tone,
        "level": level,
        "of": of,
        "message": t.short(item.get("message") or "", limits.text),
        "remedy": t.short(item.get("remedy") or "", limits.text),
        "examples": [] if redact else [t.short(value, limits.name) for value in examples[:5]],
        "more": 0 if redact else max(len(examples) - 5, 0),
        "details": tb.mapping("Details", ("Quantity", "Value#"), details, limit=min(limits.items, 12), width=limits.name)
        if details
        else None,
    }


def _worklist(report: Mapping[str, Any], limits: Limits, redact: bool) -> dict[str, Any] | None:
    given = list(report.get("worklist") or [])
    if not given:
        return None
    return with_pairs(
        {"pairs": [_pair(i, item, limits, redact) for i, item in enumerate(given[: limits.pairs], 1)], "n": len(given)},
        limits.pairs,
    )


def with_pairs(worklist: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The worklist with its first `most` pairs: six open, the others folded together, and how many are left out."""
    shown = worklist["pairs"][:most]
    return {**worklist, "open": shown[:6], "folded": shown[6:], "shown": len(shown), "left_out": worklist["n"] - len(shown)}


_RECORDED = {"left": "left", "right": "right", "tie": "a tie", "both_bad": "both bad"}


def _pair(i: int, item: Mapping[str, Any], limits: Limits, redact: bool) -> dict[str, Any]:
    def text(key: str) -> t.Cut:
        value = item.get(key)
        return t.cut(t.turns(value if isinstance(value, str) else t.plain(value), limits.pair_text), limits.pair_text)

    suspicion = t.number(item.get("suspicion"))
    recorded = str(item.get("recorded", ""))
    return {
        "i": i,
        "id": t.short(item.get("id", ""), limits.name),
        "harmful": bool(item.get("harmful")),
        "texts": None if redact else {key: text(key) for key in ("prompt", "left", "right")},
        "recorded": _RECORDED.get(recorded) or t.short(recorded, 40),
        "annotator": t.short(item.get("annotator") or "", limits.name),
        "suspicion": "" if suspicion is None else t.plain(suspicion),
        "reasons": [t.short(reason, limits.name) for reason in list(item.get("reasons") or [])[:8]],
    }


_CURATED = ("keep", "reweight", "flip", "drop", "review")


def _curation(given: Any, limits: Limits) -> dict[str, Any] | None:
    if not given:
        return None
    counts = given.get("counts") or {}
    rows = [(t.words(name), int(t.number(counts.get(name)) or 0)) for name in _CURATED]
    total = sum(n for _, n in rows)
    precision = given.get("precision")
    stated: list[tuple[str, str]] = []
    if isinstance(precision, Mapping):
        stated = [
            (t.words(t.short(str(key), limits.name)), _precision(value, limits)) for key, value in list(precision.items())[: limits.items]
        ]
    elif precision is not None:
        stated = [("Of the flips", _precision(precision, limits))]
    entries = given.get("ledger_entries")
    return {
        "figure": figures.shares("curation", "What curation did to the rows", rows, "Decision", total),
        "precision": stated,
        "entries": None if entries is None else t.count(entries),
    }


def _precision(value: Any, limits: Limits) -> str:
    if isinstance(value, Mapping):
        between = t.interval(value.get("low"), value.get("high"))
        return t.percent(value.get("estimate")) + (f" ({between})" if between else "")
    return t.percent(value) if t.number(value) is not None else t.short(value, limits.text)


def _training(given: Any, limits: Limits) -> dict[str, Any] | None:
    if not given or not given.get("rows"):
        return None
    rows: Sequence[Mapping[str, Any]] = list(given["rows"])
    return {
        "models": figures.models(rows, limits.name),
        "reading": t.short(given.get("reading") or "", limits.text),
        "differences": figures.differences(list(given.get("differences") or []), limits.name),
        "table": tb.models(rows, width=limits.name),
    }


def _annotators(given: Any, limits: Limits) -> dict[str, Any] | None:
    rows = list(given or [])
    if not rows:
        return None
    shown = [
        (
            t.short(row.get("name", ""), min(limits.name, 40)),
            t.count(row.get("n")),
            t.percent(row.get("agreement")),
            t.interval(row.get("low"), row.get("high")) or t.NOTHING,
            svg.spark(t.number(row.get("low")), t.number(row.get("high")), t.number(row.get("agreement"))),
        )
        for row in rows[:50]
    ]
    more = len(rows) - len(shown)
    heads = (
        tb.Column("Annotator"),
        tb.Column("Votes", True),
        tb.Column("Agreement", True),
        tb.Column("95 % interval", True),
        tb.Column("0 to 100 %", graphic=True),
    )
    title = "How often an annotator's answers agree with the others'"
    return {
        "first": tb.Table(title, heads, tuple(shown[:12])),
        "others": tb.Table(f"{title}, continued", heads, tuple(shown[12:])),
        "note": f"{t.count(more)} further {'annotator is' if more == 1 else 'annotators are'} left out." if more else "",
    }


def _quarantine(given: Any, limits: Limits, redact: bool) -> dict[str, Any] | None:
    if not given:
        return None
    if not given.get("n"):
        return {"n": "0"}
    reasons = sorted((given.get("reasons") or {}).items(), key=lambda pair: (-(t.number(pair[1]) or 0), str(pair[0])))
    table = tb.table(
        "Why rows were set aside",
        ["Reason", "Rows#"],
        [(t.short(str(name), limits.name), n) for name, n in reasons],
        limit=limits.items,
    )
    first = [
        (
            t.plain(row.get("line")),
            t.short(row.get("reason") or "", limits.name),
            "" if redact else t.short(row.get("detail") or "", limits.name),
        )
        for row in list(given.get("first") or [])[:10]
    ]
    heads = ["Line", "Reason", "Detail"]
    if redact:
        heads, first = heads[:2], [row[:2] for row in first]
    return {
        "n": t.count(given["n"]),
        "one": given["n"] == 1,
        "table": table,
        "first": tb.table("The first rows set aside", heads, first) if first else None,
    }


def _run(given: Any, limits: Limits) -> dict[str, Any] | None:
    if not given:
        return None
    facts = {
        "Input": given.get("input_name"),
        "Input, SHA-256": given.get("input_sha256"),
        "Seed": given.get("seed"),
        "Encoder": given.get("encoder"),
        "Encoder, hash": given.get("encoder_hash"),
    }
    rows = [(name, t.short(str(value), limits.name)) for name, value in facts.items() if value is not None]
    versions = sorted((given.get("versions") or {}).items())
    return {
        "command": t.short(given.get("command") or "", limits.text),
        "facts": tb.table("This run", ["What", "Value"], rows) if rows else None,
        "versions": tb.mapping("Versions", ("Package", "Version"), dict(versions), limit=limits.items, width=60) if versions else None,
    }
