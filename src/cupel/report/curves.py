"""Curves over the steps of a run, drawn like the house's other pictures: straight segments, marks where something was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from cupel.report import svg
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.figures import Figure

#: colours of the lines; a page that draws curves adds this to its style sheet
CSS = """
.curve { stroke-linecap: round; } .one { stroke: var(--mark); stroke-width: 2; } .two { stroke: var(--other); stroke-width: 3.5; }
.dot-one { fill: var(--mark); } .dot-two { fill: var(--other); }
"""
#: evaluations drawn at most; more points than pixels say nothing
MOST = 120
_TALL = 190


@dataclass(frozen=True)
class Line:
    """A curve: name, steps, values (None: a gap), colour class (one, two), ends of intervals, whether each point is marked."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str = "one"
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    marked: bool = False


def curve(
    key: str, title: str, caption: str, lines: Sequence[Line], *, label: Callable[[float], str], level: float | None = None,
    inside: tuple[float, float] = (-math.inf, math.inf),
) -> Figure | None:  # fmt: skip
    """Lines over steps on shared axes, with a table of the same numbers; None where there is no number to draw.

    level: a horizontal line that means something (0, or one half); inside: values beyond which no axis goes.

    >>> made = curve("loss", "Loss", "Lower is better.", [Line("training", [1, 2, 3], [0.7, 0.6, None])], label=str)
    >>> made.table.rows[1], curve("loss", "Loss", "", [Line("training", [1], [None])], label=str)
    (('2', '0.6'), None)
    """
    lines = [line for line in map(_thin, lines) if any(value is not None for value in line.y)]
    if not lines:
        return None
    xs = [x for line in lines for x in line.x]
    ys = [value for line in lines for values in (line.y, line.low or (), line.high or ()) for value in values if value is not None]
    across = (0.0, max(xs)) if max(xs) > 0 else (0.0, 1.0)
    up = _room([*ys, *([] if level is None else [level])], inside)
    top = 22 * len(lines) + 14

    def at(value: float) -> float:
        return top + _TALL * (1 - (min(max(value, up[0]), up[1]) - up[0]) / (up[1] - up[0]))

    parts = []
    for tick in svg.round_ticks(*up):
        parts.append(svg.tag("line", class_="grid", x1=_p(svg.LEFT), x2=_p(svg.RIGHT), y1=at(tick), y2=at(tick)))
        parts.append(svg.tag("text", escape(label(tick)), class_="tick", x=_p(svg.LEFT), y=at(tick) - 4))
    if level is not None:
        parts.append(svg.tag("line", class_="zero", x1=_p(svg.LEFT), x2=_p(svg.RIGHT), y1=at(level), y2=at(level)))
    for tick in svg.round_ticks(*across):
        x = _across(tick, across)
        anchor = "start" if x < svg.LEFT + 3 else "end" if x > svg.RIGHT - 3 else "middle"
        parts.append(svg.tag("text", escape(t.plain(tick)), class_="tick", x=_p(x), y=top + _TALL + 20, text_anchor=anchor))
    for n, line in enumerate(lines):
        y = 22 * n + 12
        parts.append(svg.tag("line", class_=f"curve {line.colour}", x1=_p(svg.LEFT), x2=_p(5), y1=y - 4, y2=y - 4))
        if line.marked:
            parts.append(svg.tag("circle", class_=f"dot-{line.colour}", cx=_p(2.75), cy=y - 4, r=4))
        parts.append(svg.tag("text", escape(t.label(line.name, 40)), class_="label", x=_p(7), y=y))
    for line in lines:
        parts.extend(_drawn(line, lambda x: _p(_across(x, across)), at))
    described = "; ".join(_described(line, label) for line in lines)
    drawn = svg.picture(f"fig-{key}", title, f"Curves over optimiser steps. {described}.", parts, height=top + _TALL + 28)
    return Figure(drawn, caption, _table(title, lines, label))


def windows(steps: np.ndarray, values: dict[str, np.ndarray], most: int = 80) -> tuple[int, list[float], dict[str, list[float | None]]]:
    """(steps per window, last step of each, means of each series): neighbouring steps averaged until at most `most` windows are left.

    >>> windows(np.arange(1, 5), {"loss": np.array([1.0, 3.0, np.nan, np.nan])}, most=2)
    (2, [2.0, 4.0], {'loss': [2.0, None]})
    """
    join = max(-(-len(steps) // most), 1)
    starts = range(0, len(steps), join)
    found: dict[str, list[float | None]] = {}
    for name, series in values.items():
        parts = [series[i : i + join] for i in starts]
        found[name] = [float(np.nanmean(part)) if np.isfinite(part).any() else None for part in parts]
    return join, [float(steps[min(i + join, len(steps)) - 1]) for i in starts], found


def _thin(line: Line) -> Line:
    """At most MOST points, evenly spread, the last one among them; steps without a value stay as gaps."""
    every = -(-len(line.x) // MOST)
    if every <= 1:
        return line
    keep = slice((len(line.x) - 1) % every, None, every)
    ends = (None if line.low is None else line.low[keep], None if line.high is None else line.high[keep])
    return Line(line.name, line.x[keep], line.y[keep], line.colour, *ends, marked=line.marked)


def _drawn(line: Line, across: Callable[[float], str], at: Callable[[float], float]) -> list[Markup]:
    parts = []
    for x, low, high in zip(line.x, line.low or (), line.high or (), strict=False):
        if low is not None and high is not None:
            parts.append(svg.tag("line", class_="whisker", x1=across(x), x2=across(x), y1=at(low), y2=at(high)))
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    for (x1, y1), (x2, y2) in pairwise(points):
        parts.append(svg.tag("line", class_=f"curve {line.colour}", x1=across(x1), x2=across(x2), y1=at(y1), y2=at(y2)))
    if line.marked or len(points) == 1:
        parts.extend(svg.tag("circle", class_=f"dot-{line.colour}", cx=across(x), cy=at(y), r=4) for x, y in points)
    return parts


def _described(line: Line, label: Callable[[float], str]) -> str:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    (x1, y1), (x2, y2) = points[0], points[-1]
    return f"{line.name}: {label(y1)} at step {t.plain(x1)}, {label(y2)} at step {t.plain(x2)}"


def _table(title: str, lines: Sequence[Line], label: Callable[[float], str]) -> tb.Table:
    known = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    rows = []
    for x in sorted({x for values in known for x in values}):
        cells = [values.get(x) for values in known]
        rows.append([t.plain(x), *(t.NOTHING if cell is None else label(cell) for cell in cells)])
    return tb.table(title, ["Step", *(f"{line.name}#" for line in lines)], rows, limit=MOST * 2)


def _room(values: Sequence[float], inside: tuple[float, float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
    pad = 0.06 * (high - low)
    return max(low - pad, inside[0]), min(high + pad, inside[1])


def _across(value: float, axis: tuple[float, float]) -> float:
    return svg.LEFT + (svg.RIGHT - svg.LEFT) * (value - axis[0]) / (axis[1] - axis[0])


def _p(value: float) -> str:
    return f"{round(value, 2):g}%"
