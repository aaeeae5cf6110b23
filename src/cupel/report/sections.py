"""What the template sees of rows and models: worklist, curation, training, annotators, rows set aside, and how the run was started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.report import figures, svg
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.limits import Limits


def worklist(report: Mapping[str, Any], limits: Limits, redact: bool) -> dict[str, Any] | None:
    """The pairs to look at first, and how many are left out; None without any."""
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


def curation(given: Any, limits: Limits) -> dict[str, Any] | None:
    """Rows by what was done about them, and the stated precision of flips; None where nothing was curated."""
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


def training(given: Any, limits: Limits) -> dict[str, Any] | None:
    """Models, paired differences and what they allow to be said; None where no model was trained."""
    if not given or not given.get("rows"):
        return None
    rows: Sequence[Mapping[str, Any]] = list(given["rows"])
    return {
        "models": figures.models(rows, limits.name),
        "reading": t.short(given.get("reading") or "", limits.text),
        "differences": figures.differences(list(given.get("differences") or []), limits.name),
        "table": tb.models(rows, width=limits.name),
    }


def annotators(given: Any, limits: Limits) -> dict[str, Any] | None:
    """Agreement of each annotator with the others, the first twelve open; None without annotators."""
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


def quarantine(given: Any, limits: Limits, redact: bool) -> dict[str, Any] | None:
    """Rows set aside by reason, and the first of them; None where it was not recorded."""
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


def run(given: Any, limits: Limits) -> dict[str, Any] | None:
    """Command, input and versions; None where they were not recorded."""
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
