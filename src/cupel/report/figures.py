"""From numbers to a figure: a picture, a caption, and a table of the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cupel.report import svg
from cupel.report import tables as tb
from cupel.report import text as t


@dataclass(frozen=True)
class Figure:
    """What the page shows together: the picture, a caption in words, the data."""

    svg: Markup
    caption: str
    table: tb.Table


def label_error(rate: Mapping[str, Any]) -> Figure:
    """Label error on an axis from 0 to 50 %: the estimate with its interval, the bounds, or both where the basis gives both."""
    low, high, point = (t.number(rate.get(key)) for key in ("low", "high", "estimate"))
    own = point_interval(rate)
    rows = []
    if point is not None and own is not None:
        rows.append(svg.Span("95 % interval", *own, point, f"{t.percent(point)} ({t.interval(*own)})"))
    if own != (low, high):
        rows.append(svg.Span("Bounds", low, high, None if rows else point, t.interval(low, high) or t.NOTHING))
    described = "; ".join(
        f"{row.label} from {t.percent(row.low)} to {t.percent(row.high)}"
        + (f" with a mark at {t.percent(row.point)}" if row.point is not None else "")
        for row in rows
    )
    drawn = svg.intervals(
        "fig-label-error",
        "Share of labels that are wrong",
        f"An axis from 0 to 50 per cent. {described}.",
        rows,
        axis=(0.0, 0.5),
        ticks=[0, 0.1, 0.2, 0.3, 0.4, 0.5],
        label=lambda tick: t.percent(tick, 0),
    )
    data = tb.table(
        f"Label error by basis {t.short(rate.get('basis', ''), 40)}",
        ["What", "Estimate#", "Lower end#", "Upper end#", "n#"],
        [(row.label, t.percent(row.point), t.percent(row.low), t.percent(row.high), t.count(rate.get("n"))) for row in rows],
    )
    return Figure(drawn, "The axis ends at 50 %: a label that is wrong half the time says nothing.", data)


def point_interval(rate: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """The interval of the estimate: `low`, `high` with trusted answers, `details` with repeats (there they are bounds), else none."""
    if t.number(rate.get("estimate")) is None:
        return None
    details = rate.get("details") or {}
    if rate.get("basis") == "trusted":
        return t.number(rate.get("low")), t.number(rate.get("high"))
    if "point_low" in details and "point_high" in details:
        return t.number(details["point_low"]), t.number(details["point_high"])
    return None


def caught(name: str, key: str, share: float, worst: float) -> Figure:
    """Planted errors caught in the worst rows as one hundred dots."""
    hundred = round(100 * share)
    of = t.percent(worst, 0)
    drawn = svg.dots(
        f"fig-{key}",
        f"{name}: {hundred} of 100 caught",
        f"100 circles, {hundred} of them full: the planted errors found in the worst {of} of rows.",
        hundred,
    )
    rows = [("caught", hundred), ("missed", 100 - hundred), ("caught by picking rows at random", round(100 * worst))]
    data = tb.table(f"{name}: of 100 planted errors, in the worst {of} of rows", ["", "of 100#"], rows)
    return Figure(drawn, f"{name}: {hundred} of 100 caught in the worst {of} of rows; at random {round(100 * worst)}.", data)


def suspicion(hist: Mapping[str, Any]) -> Figure | None:
    """Suspicion of all rows above the line, of planted errors below it."""
    planted = hist.get("planted_counts")
    series = [hist.get("counts", []), *([planted] if planted is not None else [])]
    made = _histogram_data(hist.get("edges", []), series)
    if made is None:
        return None
    edges, counts = made
    said = "All rows stand above the line" + (", planted errors hang below it." if planted is not None else ".")
    drawn = svg.histogram(
        "fig-suspicion",
        "Suspicion of the rows",
        f"Histogram of suspicion from {t.plain(edges[0])} to {t.plain(edges[-1])}. {said}",
        edges,
        counts[0],
        counts[1] if planted is not None else None,
        ("All rows", "Planted errors"),
        t.plain,
    )
    heads = ["Suspicion", "Rows#", *(["Planted errors#"] if planted is not None else [])]
    gap = " The further the lower part lies to the right, the better the audit sees." if planted is not None else ""
    return Figure(
        drawn,
        f"Suspicion per row, larger is more suspect. {said} Each part is scaled to its own total.{gap}",
        _bins("Suspicion", heads, edges, counts),
    )


def lengths(hist: Mapping[str, Any]) -> Figure | None:
    """Lengths of the chosen sides above the line, of the rejected below it."""
    made = _histogram_data(hist.get("edges", []), [hist.get("chosen", []), hist.get("rejected", [])])
    if made is None:
        return None
    edges, counts = made
    unit = t.short(hist.get("unit") or "characters", 30)
    said = "Chosen sides stand above the line, rejected sides hang below it."
    drawn = svg.histogram(
        "fig-lengths",
        "Length of the chosen and the rejected side",
        f"Histogram of length in {unit} from {t.plain(edges[0])} to {t.plain(edges[-1])}. {said}",
        edges,
        counts[0],
        counts[1],
        ("Chosen", "Rejected"),
        t.plain,
    )
    return Figure(
        drawn,
        f"Length in {unit}. {said}",
        _bins("Length of the sides", [f"Length in {unit}", "Chosen#", "Rejected#"], edges, counts),
    )


def reliability(bins: Mapping[str, Any]) -> Figure | None:
    """Share of labels that were right against the stated probability."""
    predicted, observed = list(bins.get("predicted", []))[:50], list(bins.get("observed", []))[:50]
    k = min(len(predicted), len(observed))
    low, high, n = ([*list(bins.get(key) or [])[:k], *([None] * k)][:k] for key in ("low", "high", "n"))
    rows = [
        (p, o, t.number(a), t.number(b))
        for p, o, a, b in zip(map(t.number, predicted), map(t.number, observed), low, high, strict=False)
        if p is not None and o is not None
    ]
    if not rows:
        return None
    described = "Points on the diagonal mean that stated and observed shares agree. " + "; ".join(
        f"stated {t.percent(p, 0)}, observed {t.percent(o, 0)}" for p, o, *_ in rows[:12]
    )
    drawn = svg.reliability("fig-reliability", "Stated against observed", described, rows)
    data = tb.table(
        "Stated probability that a label is right, and the share that was",
        ["Stated", "Observed#", "95 % interval#", "n#"],
        [(t.percent(p), t.percent(o), t.interval(a, b) or t.NOTHING, t.count(size)) for (p, o, a, b), size in zip(rows, n, strict=False)],
    )
    return Figure(
        drawn,
        "Across: the stated probability that a label is right. Up: the share that was right. On the line the two agree.",
        data,
    )


def models(rows: Sequence[Mapping[str, Any]], width: int) -> Figure | None:
    """Held-out accuracy of each model with its interval."""
    spans = [
        svg.Span(
            t.label(str(row.get("model", ""))),
            t.number(row.get("low")),
            t.number(row.get("high")),
            t.number(row.get("accuracy")),
            t.percent(row.get("accuracy")),
        )
        for row in rows[:20]
    ]
    ends = [end for span in spans for end in (span.low, span.high, span.point) if end is not None]
    if not ends:
        return None
    axis, ticks = round_axis(ends, (0.0, 1.0))
    described = "; ".join(f"{span.label} {span.words}, {t.interval(span.low, span.high) or 'no interval'}" for span in spans)
    drawn = svg.intervals(
        "fig-models", "Held-out accuracy", described, spans, axis=axis, ticks=ticks, label=lambda tick: t.percent(tick, 0)
    )
    return Figure(
        drawn,
        "Accuracy on held-out comparisons. The bar is the 95 % interval, the mark the estimate.",
        tb.models(rows, width=width),
    )


def differences(rows: Sequence[Mapping[str, Any]], width: int) -> Figure | None:
    """Paired differences with a line at zero."""
    spans = [
        svg.Span(
            t.label(str(row.get("name", ""))),
            t.number(row.get("low")),
            t.number(row.get("high")),
            t.number(row.get("difference")),
            t.points(row.get("difference")),
        )
        for row in rows[:20]
    ]
    ends = [end for span in spans for end in (span.low, span.high, span.point) if end is not None]
    if not ends:
        return None
    axis, ticks = round_axis([*ends, 0.0], (-1.0, 1.0))
    described = "; ".join(f"{span.label} {span.words}, {t.interval(span.low, span.high, unit='points') or 'no interval'}" for span in spans)
    drawn = svg.intervals(
        "fig-differences",
        "Paired differences in accuracy",
        described,
        spans,
        axis=axis,
        ticks=ticks,
        zero=True,
        label=lambda tick: t.points(tick, 0).removesuffix(" points"),
    )
    caption = "Percentage points. A bar that crosses the line at zero leaves open which model is better."
    return Figure(drawn, caption, tb.differences(rows, width=width))


def shares(key: str, title: str, counts: Sequence[tuple[str, int]], head: str, total: int) -> Figure:
    """Counts as bars with their share of the whole."""
    rows = [(label, float(n), f"{t.count(n)} ({t.percent(n / total)})" if total else t.count(n)) for label, n in counts]
    described = "; ".join(f"{label} {words}" for label, _, words in rows)
    data = tb.table(
        title, [head, "Rows#", "Share#"], [(label, t.count(n), t.percent(n / total) if total else t.NOTHING) for label, n in counts]
    )
    return Figure(svg.bars(f"fig-{key}", title, described, rows), f"{title}, {t.count(total)} rows in all.", data)


def _histogram_data(edges: Sequence[Any], series: Sequence[Sequence[Any]]) -> tuple[list[float], list[list[float]]] | None:
    """Edges and counts as finite floats in at most 40 bins; `None` where there is nothing to draw."""
    marks = [t.number(edge) for edge in edges]
    clean = [mark for mark in marks if mark is not None]
    if len(clean) < 2 or len(clean) != len(marks) or sorted(clean) != clean:
        return None
    counts = [[max(t.number(value) or 0.0, 0.0) for value in values] for values in series]
    if any(len(values) != len(clean) - 1 for values in counts) or sum(counts[0]) == 0:
        return None
    return svg.rebin(clean, counts)


def _bins(caption: str, heads: Sequence[str], edges: Sequence[float], counts: Sequence[Sequence[float]]) -> tb.Table:
    rows = [(f"{t.plain(edges[i])} to {t.plain(edges[i + 1])}", *(values[i] for values in counts)) for i in range(len(edges) - 1)]
    return tb.table(caption, heads, rows)


def round_axis(ends: Sequence[float], inside: tuple[float, float]) -> tuple[tuple[float, float], list[float]]:
    """The narrowest round axis with 3 to 7 ticks that holds all ends."""
    low, high = min(ends), max(ends)
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        first, last = int(low // step), int(-(-high // step))
        if last - first <= 6:
            break
    last = max(last, first + 1)
    axis = (max(first * step, inside[0]), min(last * step, inside[1]))
    ticks = [round(step * i, 4) for i in range(first, last + 1)]
    return axis, [tick for tick in ticks if axis[0] - 1e-9 <= tick <= axis[1] + 1e-9]
