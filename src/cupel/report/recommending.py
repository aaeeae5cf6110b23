"""Recommenders side by side as one page: metrics with intervals, paired differences, rare items, weights, what is shown. No script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.report import svg
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.figures import Figure, round_axis
from cupel.report.html import environment, style, style_hash

#: characters of a name and of a sentence; models that are drawn; rows of a table
NAME, TEXT, DRAWN, ROWS = 60, 600, 20, 400
#: what a form of a metric is called
FORMS = {"ips": "inverse propensity", "snips": "self-normalised within users", "pooled": "self-normalised over all users"}


def page(result: Mapping[str, Any], *, title: str) -> str:
    """The page of `Recommending.to_json()`; the same gives the same bytes. Names are escaped, hidden characters spelt out."""
    css = style()
    return environment().get_template("recommending.html.j2").render(view(result, title), css=css, css_hash=style_hash(css))


def view(result: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The template's variables."""
    whole, *rest = result["parts"]
    plain = sorted((metric for metric in whole["value"] if " " not in metric), key=_place)
    weighted = sorted((metric for metric in whole["value"] if " " in metric), key=_place)
    several = len(result["models"]) > 1
    return {
        "title": t.short(title, NAME),
        "sentences": [t.said(line, TEXT) for line in _sentences(result, whole)],
        "figure_": _values_figure(result, whole),
        "models": _table(result, whole, plain, "Metrics of each model, with 95 % intervals over users"),
        "gaps_figure": _gaps_figure(result, whole) if several else None,
        "gaps": _gaps(result, whole, plain) if several else None,
        "rare": [_table(result, part, plain, f"Only {part['name']}: {t.count(part['events'])} events") for part in rest],
        "rare_gaps": [_gaps(result, part, plain) for part in rest] if several else [],
        "weighted": _table(result, whole, weighted, "Weighted metrics") if weighted else None,
        "weights": [t.said(line, TEXT) for line in _weights(result["weighing"])] if weighted else [],
        "shown": _shown(result),
        "how": tb.mapping("How it is counted", ("What", "How"), _how(result), width=TEXT),
        "notes": [t.said(note, TEXT) for note in result["notes"]],
    }


def _place(metric: str) -> tuple[int, int]:
    """Longer lists first, and what is divided before what is not: tables are wide, and the headline stands first."""
    name, _, form = metric.partition(" ")
    return -int(name.partition("@")[2]), ["", "snips", "pooled", "ips"].index(form)


def _sentences(result: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    best, metric = result["ranking"][0], result["headline"]
    out = [f"Highest {metric}: {best} with {_value(whole['value'][metric][best])}."]
    for said in dict.fromkeys(result["verdicts"].values()):
        names = [name for name, word in result["verdicts"].items() if word == said]
        out.append(f"{', '.join(names)}: {said}.")
    return out


def _value(share: Mapping[str, Any]) -> str:
    between = t.interval(share["low"], share["high"], unit="plain", digits=4)
    number = t.number(share["estimate"])
    if number is None:
        return t.NOTHING
    return f"{number:.4f} ({between})" if between else f"{number:.4f}"


def _gap(share: Mapping[str, Any]) -> str:
    number, low, high = (t.number(share[key]) for key in ("estimate", "low", "high"))
    if number is None:
        return t.NOTHING
    said = _signed(number)
    return said if low is None or high is None else f"{said} ({_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", t.MINUS)


def _table(result: Mapping[str, Any], part: Mapping[str, Any], metrics: Sequence[str], caption: str) -> tb.Table:
    rows = [(t.short(name, NAME), *(_value(part["value"][metric][name]) for metric in metrics)) for name in result["ranking"]]
    heads = ["Model", *(f"{_named(metric)}#" for metric in metrics)]
    return tb.table(f"{caption}, {t.count(part['users'])} users", heads, rows, limit=ROWS)


def _named(metric: str) -> str:
    name, _, form = metric.partition(" ")
    return f"{name}, {FORMS[form]}" if form else name


def _gaps(result: Mapping[str, Any], part: Mapping[str, Any], metrics: Sequence[str]) -> tb.Table:
    others = [name for name in result["ranking"] if name != result["reference"]]
    rows = [(t.short(name, NAME), *(_gap(part["difference"][metric][name]) for metric in metrics)) for name in others]
    note = "Intervals are of one difference each: among many, one in twenty excludes 0 by chance."
    heads = ["Model", *(f"{metric}#" for metric in metrics)]
    return tb.table(f"Minus {t.short(result['reference'], NAME)}, same users, {part['name']}", heads, rows, limit=ROWS, note=note)


def _values_figure(result: Mapping[str, Any], whole: Mapping[str, Any]) -> Figure | None:
    metric = result["headline"]
    shares = [(name, whole["value"][metric][name]) for name in result["ranking"][:DRAWN]]
    caption = f"{metric} with 95 % intervals over users. Models may differ although their intervals overlap: see the differences."
    return _figure("fig-models", f"{metric} of each model", caption, shares, _value, zero=False)


def _gaps_figure(result: Mapping[str, Any], whole: Mapping[str, Any]) -> Figure | None:
    metric = result["headline"]
    shares = [(name, whole["difference"][metric][name]) for name in result["ranking"] if name != result["reference"]][:DRAWN]
    base = t.short(result["reference"], NAME)
    caption = f"{metric} minus that of {base}, paired on the same users. A bar that crosses the line at zero leaves open which is better."
    return _figure("fig-gaps", f"{metric} minus {base}", caption, shares, _gap, zero=True)


def _figure(
    key: str, title: str, caption: str, shares: Sequence[tuple[str, Mapping[str, Any]]], words: Any, *, zero: bool
) -> Figure | None:
    rows = [
        svg.Span(t.label(t.short(name, NAME)), t.number(share["low"]), t.number(share["high"]), t.number(share["estimate"]), words(share))
        for name, share in shares
    ]
    ends = [end for row in rows for end in (row.low, row.high, row.point) if end is not None]
    if not ends:
        return None
    axis, ticks = round_axis([*ends, 0.0] if zero else ends, (-1.0, 1.0) if zero else (0.0, 1.0))
    described = "; ".join(f"{row.label} {row.words}" for row in rows)
    drawn = svg.intervals(key, title, described, rows, axis=axis, ticks=ticks, label=t.plain, zero=zero)
    return Figure(drawn, caption, tb.table(title, ["Model", "Value (95 % interval)#"], [(row.label, row.words) for row in rows]))


def _weights(how: Mapping[str, Any]) -> list[str]:
    return [
        f"Weights are 1 / max(propensity, {how['clip']:g}); propensities from {how['source']}, the smallest {how['smallest']:.3g}.",
        f"{t.count(how['events'])} events weigh as {t.count(how['effective'])} equal ones; the 1 % with most weight carry "
        f"{t.percent(how['top'])} of it; {t.percent(how['clipped'])} are clipped.",
        *how["warnings"],
    ]


def _shown(result: Mapping[str, Any]) -> tb.Table:
    rows = []
    for name in result["ranking"]:
        one = result["shown"][name]
        rows.append(
            (
                t.short(name, NAME), t.percent(one["coverage"]), f"{one['gini']:.3f}", f"{one['popularity']:,.1f}",
                t.percent(one["percentile"]), t.percent(one["short"]),
            )
        )  # fmt: skip
    heads = ["Model", "Catalogue shown#", "Gini of exposure#", "Training events of an item shown#", "Items less popular#", "Empty places#"]
    return tb.table(f"What lists of {max(result['ks'])} show", heads, rows, limit=ROWS)


def _how(result: Mapping[str, Any]) -> dict[str, str]:
    seeds = ", ".join(f"{name} {count}" for name, count in result["training_seeds"].items())
    return {
        "Ranking": f"all {t.count(result['items_ranked'])} items for every user of the test, but those the user had in training or that "
        f"are masked ({t.plain(result['items_left_out'])} on average); nothing is sampled",
        "Intervals": f"95 %, {t.count(result['draws'])} bootstrap draws of users, seed {result['seed']}; all models share the draws, so "
        "differences are paired",
        "Training seeds": f"{seeds}; metrics are means over seeds, and intervals hold what seeds add",
        "Rare items": f"at most {t.count(result['rare_at_most'])} training events; ranked among all items",
    }
