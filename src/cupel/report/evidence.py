"""What the template sees of "can the audit see?" and of the label error: planted errors caught, and the estimate with its basis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cupel.report import figures
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.limits import Limits, texts

BASES = {
    "single": "Each pair has one vote. From one vote, how often labels are wrong can be bounded but not pinned to a point.",
    "repeats": "Pairs have several votes. How often voters of the same pair disagree gives the estimate.",
    "trusted": "Trusted answers for a sample of the pairs give the estimate; the pairs were drawn by a stated plan.",
}


def power(report: Mapping[str, Any], limits: Limits) -> dict[str, Any] | None:
    """Planted errors caught by how many rows are looked at; None where none were planted."""
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


def flip_rate(report: Mapping[str, Any], limits: Limits) -> dict[str, Any] | None:
    """The label error with its basis, figure and assumptions; None where it was not estimated."""
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
        "assumptions": texts(given.get("assumptions"), limits),
        "details": tb.mapping("Details of the estimate", ("Quantity", "Value#"), details, limit=limits.items, width=limits.name)
        if details
        else None,
        "reliability": figures.reliability(rel) if rel else None,
    }
