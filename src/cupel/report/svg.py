"""Pictures drawn by hand as inline SVG: no script, no style attribute, colours from the page's classes.

Horizontal positions are percentages and heights are pixels, so that one picture fits a phone and a desk while its letters keep
their size. Each picture is `role="img"` with a title and a description; the page puts a table of the same numbers beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from cupel.report import text as t

LEFT, RIGHT = 0.5, 99.5  # where the axis begins and ends, in per cent of the width


@dataclass(frozen=True)
class Span:
    """One row of an interval plot: a bar from `low` to `high`, a mark at `point` where there is one, and its words."""

    label: str
    low: float | None
    high: float | None
    point: float | None
    words: str


def tag(name: str, *children: Markup, **attributes: Any) -> Markup:
    """An element with escaped attributes (`class_` is `class`, `_` becomes `-` except in camel case names).

    >>> str(tag("text", escape("a<b"), class_="label", x=1.5))
    '<text class="label" x="1.5">a&lt;b</text>'
    """
    pairs = "".join(f' {_attribute(key)}="{escape(_short(value))}"' for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{pairs}>{''.join(children)}</{name}>") if children else Markup(f"<{name}{pairs}/>")


def picture(
    key: str, title: str, description: str, parts: Sequence[Markup], *, height: float, width: str = "100%", **attributes: Any
) -> Markup:
    """An `svg` element that a screen reader announces as one image."""
    head = (tag("title", escape(title), id=f"{key}-title"), tag("desc", escape(description), id=f"{key}-desc"))
    names = f"{key}-title {key}-desc"
    return tag("svg", *head, *parts, class_="plot", role="img", aria_labelledby=names, width=width, height=height, **attributes)


def intervals(
    key: str, title: str, description: str, rows: Sequence[Span], *, axis: tuple[float, float], ticks: Sequence[float],
    label: Callable[[float], str], zero: bool = False,
) -> Markup:  # fmt: skip
    """Intervals on one shared axis, a row each; ends beyond it stop at its edge with an arrow head; `zero` draws a line at 0."""
    parts, step = [], 50
    bottom = step * len(rows) + 6
    for tick in ticks:
        strong = zero and abs(tick) < 1e-12
        x = _x(tick, axis)
        parts.append(tag("line", class_="zero" if strong else "grid", x1=_p(x), x2=_p(x), y1=20, y2=bottom))
        parts.append(tag("text", escape(label(tick)), class_="tick", x=_p(x), y=bottom + 18, text_anchor=_anchor(x)))
    for i, row in enumerate(rows):
        top = step * i + 14
        y = top + 19
        parts.append(tag("text", escape(row.label), class_="label", x=_p(LEFT), y=top))
        parts.append(tag("text", escape(row.words), class_="value", x=_p(RIGHT), y=top, text_anchor="end"))
        parts.append(tag("line", class_="track", x1=_p(LEFT), x2=_p(RIGHT), y1=y, y2=y))
        if row.low is not None and row.high is not None:
            a, b = _x(row.low, axis), _x(row.high, axis)
            parts.append(tag("rect", class_="span", x=_p(a), y=y - 6, width=_p(max(b - a, 0.4)), height=12, rx=3))
            for end, beyond in ((a, row.low < axis[0]), (b, row.high > axis[1])):
                if beyond:
                    parts.append(
                        tag(
                            "text",
                            escape("\u25c2" if end == a else "\u25b8"),
                            class_="label",
                            x=_p(end),
                            y=y + 5,
                            text_anchor="middle",
                        )
                    )
        if row.point is not None:
            x = _x(row.point, axis)
            parts.append(tag("circle", class_="point", cx=_p(x), cy=y, r=6))
    return picture(key, title, description, parts, height=bottom + 26)


def dots(key: str, title: str, description: str, filled: int) -> Markup:
    """One hundred circles, the first `filled` of them full and the others rings: a natural frequency."""
    parts = []
    for i in range(100):
        row, column = divmod(i, 10)
        full = i < filled
        parts.append(tag("circle", class_="dot" if full else "ring", cx=11 + 22 * column, cy=11 + 22 * row, r=8 if full else 7.25))
    return picture(key, title, description, parts, height=220, width="220", viewBox="0 0 220 220")


def histogram(
    key: str, title: str, description: str, edges: Sequence[float], up: Sequence[float], down: Sequence[float] | None,
    names: tuple[str, str], label: Callable[[float], str],
) -> Markup:  # fmt: skip
    """Shares per bin: the first series stands above the line, the second hangs below it, each scaled by its own total."""
    shares = [_shares(up)] + ([_shares(down)] if down is not None else [])
    tallest = max((max(series, default=0.0) for series in shares), default=0.0) or 1.0
    axis = (edges[0], edges[-1] if edges[-1] > edges[0] else edges[0] + 1.0)
    room = 84
    base = room + 22
    parts = [tag("text", escape(names[0]), class_="label", x=_p(RIGHT), y=14, text_anchor="end")]
    for series, sign, css in zip(shares, (-1, 1), ("bar", "bar-other"), strict=False):
        for i, share in enumerate(series):
            tall = room * share / tallest
            a, b = _x(edges[i], axis), _x(edges[i + 1], axis)
            if share > 0:
                parts.append(
                    tag(
                        "rect",
                        class_=css,
                        x=_p(a),
                        y=base - tall if sign < 0 else base,
                        width=_p(max(b - a - 0.2, 0.2)),
                        height=max(tall, 1),
                    )
                )
    low = base + (room + 20 if down is not None else 0)
    if down is not None:
        parts.append(tag("text", escape(names[1]), class_="label", x=_p(RIGHT), y=low - 4, text_anchor="end"))
    parts.append(tag("line", class_="zero", x1=_p(LEFT), x2=_p(RIGHT), y1=base, y2=base))
    for value in round_ticks(*axis):
        x = _x(value, axis)
        parts.append(tag("text", escape(label(value)), class_="tick", x=_p(x), y=low + 18, text_anchor=_anchor(x)))
    return picture(key, title, description, parts, height=low + 26)


def reliability(key: str, title: str, description: str, rows: Sequence[tuple[float, float, float | None, float | None]]) -> Markup:
    """Observed against stated shares, both from 0 to 1, with the diagonal on which they are equal."""
    tall, top = 220, 8
    axis = (0.0, 1.0)

    def y(value: float) -> float:
        return top + tall * (1 - min(max(value, 0.0), 1.0))

    parts = [tag("line", class_="track", x1=_p(_x(0, axis)), x2=_p(_x(1, axis)), y1=y(0), y2=y(1))]
    for tick in (0.0, 0.5, 1.0):
        x = _x(tick, axis)
        parts.append(tag("line", class_="grid", x1=_p(LEFT), x2=_p(RIGHT), y1=y(tick), y2=y(tick)))
        parts.append(tag("text", escape(t.percent(tick, 0)), class_="tick", x=_p(x), y=top + tall + 18, text_anchor=_anchor(x)))
        if tick:
            parts.append(tag("text", escape(f"{t.percent(tick, 0)} right"), class_="tick", x=_p(LEFT), y=y(tick) + 15))
    for predicted, observed, low, high in rows:
        x = _p(_x(predicted, axis))
        if low is not None and high is not None:
            parts.append(tag("line", class_="whisker", x1=x, x2=x, y1=y(low), y2=y(high)))
        parts.append(tag("circle", class_="point", cx=x, cy=y(observed), r=5))
    return picture(key, title, description, parts, height=top + tall + 26)


def bars(key: str, title: str, description: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
    """One bar per row, as long as its share of the largest; label and words stand above it."""
    largest = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for i, (label, value, words) in enumerate(rows):
        top = 42 * i + 14
        parts.append(tag("text", escape(label), class_="label", x=_p(LEFT), y=top))
        parts.append(tag("text", escape(words), class_="value", x=_p(RIGHT), y=top, text_anchor="end"))
        parts.append(tag("line", class_="track", x1=_p(LEFT), x2=_p(RIGHT), y1=top + 13, y2=top + 13))
        if value > 0:
            parts.append(
                tag(
                    "rect",
                    class_="bar",
                    x=_p(LEFT),
                    y=top + 8,
                    width=_p(max((RIGHT - LEFT) * value / largest, 0.4)),
                    height=10,
                    rx=2,
                )
            )
    return picture(key, title, description, parts, height=42 * max(len(rows), 1))


def spark(low: float | None, high: float | None, point: float | None, axis: tuple[float, float] = (0.0, 1.0)) -> Markup:
    """A small interval for a table's row: hidden from screen readers, since the row's cells say the same numbers."""
    parts = [tag("line", class_="track", x1=_p(LEFT), x2=_p(RIGHT), y1=9, y2=9)]
    if low is not None and high is not None:
        a, b = _x(low, axis), _x(high, axis)
        parts.append(tag("rect", class_="span", x=_p(a), y=5, width=_p(max(b - a, 0.6)), height=8, rx=2))
    if point is not None:
        parts.append(tag("circle", class_="point", cx=_p(_x(point, axis)), cy=9, r=4))
    return tag("svg", *parts, class_="spark", aria_hidden="true", width="100%", height=18)


def rebin(edges: Sequence[float], series: Sequence[Sequence[float]], most: int = 40) -> tuple[list[float], list[list[float]]]:
    """Neighbouring bins joined until at most `most` are left, counts added.

    >>> rebin([0, 1, 2, 3, 4], [[1, 2, 3, 4]], most=2)
    ([0, 2, 4], [[3, 7]])
    """
    k = len(edges) - 1
    join = -(-k // most)
    kept = [edges[i] for i in range(0, k, join)] + [edges[k]]
    return kept, [[sum(counts[i : i + join]) for i in range(0, k, join)] for counts in series]


def round_ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers between two ends.

    >>> round_ticks(-6, 7), round_ticks(0, 1000)
    ([-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0], [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(power * times for times in (1, 2, 5, 10) if (high - low) / (power * times) <= 7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 12) + 0.0 for i in range(first, last + 1)]


def _shares(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total if total > 0 else 0.0 for value in values]


def _x(value: float, axis: tuple[float, float]) -> float:
    inside = (min(max(value, axis[0]), axis[1]) - axis[0]) / (axis[1] - axis[0])
    return LEFT + (RIGHT - LEFT) * inside


def _p(value: float) -> str:
    return f"{_short(round(value, 2))}%"


def _anchor(x: float) -> str:
    return "start" if x < LEFT + 3 else "end" if x > RIGHT - 3 else "middle"


def _short(value: Any) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)


def _attribute(key: str) -> str:
    return key if key == "viewBox" else key.rstrip("_").replace("_", "-")
