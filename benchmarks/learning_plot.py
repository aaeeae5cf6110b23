"""The learning benchmark as a picture and a table: `docs/_static/learning.svg` and README's second screen, made from its result alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

#: columns of the table and the picture, in order: key -> words
COLUMNS = {
    "base": "the model before", "sft": "SFT on the same chosen", "dpo": "DPO", "tuned": "DPO, tuned on noisy pairs", "ipo": "IPO",
    "simpo": "SimPO", "cpo": "CPO", "dpo+cdpo": "DPO + cDPO (told the rate)", "dpo+rdpo": "DPO + rDPO (told the rate)",
    "dpo+em": "DPO + EM (told nothing)",
}  # fmt: skip
#: what the picture draws -> colour
DRAWN = {"tuned": "#1f5fa8", "dpo+em": "#0b7a75", "dpo+rdpo": "#d17a00", "dpo+cdpo": "#8a6fb0", "dpo": "#b3261e", "sft": "#777777"}
WIDE, TALL, LEFT, TOP, RIGHT, BOTTOM = 760, 400, 64, 44, 250, 52


def learning_table(result: Mapping[str, Any], test: str = "seen") -> list[list[str]]:
    """Rows of the table: per cent of pairs ranked right, with the 95 % interval; a header first."""
    columns = result["details"]["table"].get(test, {})
    rates = sorted({rate for values in columns.values() for rate in values}, key=lambda rate: float(rate[:-1]))
    rows = [["", *(f"{rate[:-1]} % flips" for rate in rates)]]
    for key, words in COLUMNS.items():
        if key in columns:
            cells = [columns[key].get(rate) for rate in rates]
            rows.append([words, *("" if cell is None else f"{cell[0]:.1f} [{cell[1]:.1f}, {cell[2]:.1f}]" for cell in cells)])
    return rows


def learning_picture(result: Mapping[str, Any]) -> str:
    """Accuracy on new pairs of the same paradigms over the planted rate, bands are 95 % intervals; standalone SVG."""
    columns = result["details"]["table"].get("seen", {})
    drawn = {key: columns[key] for key in DRAWN if len(columns.get(key, {})) > 1}
    every = [value for values in drawn.values() for cell in values.values() for value in cell[1:]] + [50.0]
    low, high = 5 * int(min(every) // 5), 5 * (int(max(every) // 5) + 1)
    base = columns.get("base", {}).get("0%")

    def x(rate: str) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * float(rate[:-1]) / 40

    def y(value: float) -> float:
        return TOP + (TALL - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {TALL}" width="{WIDE}" height="{TALL}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>New pairs ranked right, by planted flips</title>',
        f'<rect width="{WIDE}" height="{TALL}" fill="#ffffff"/>',
        f'<text x="{LEFT - 44}" y="20" fill="#222" font-size="15" font-weight="600">New pairs ranked right, per cent</text>',
    ]
    for value in range(low, high + 1, 10 if high - low > 30 else 5):
        parts.append(f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{value}</text>')
    for rate in ("0%", "10%", "20%", "30%", "40%"):
        parts.append(f'<text x="{x(rate):.1f}" y="{TALL - BOTTOM + 22}" text-anchor="middle" fill="#555">{rate[:-1]} %</text>')
    middle = (LEFT + WIDE - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{TALL - 8}" text-anchor="middle" fill="#555">labels swapped in training</text>')
    if base:
        ends_at = f'x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(base[0]):.1f}" y2="{y(base[0]):.1f}"'
        parts.append(f'<line {ends_at} stroke="#999" stroke-dasharray="4 4"/>')
    ends = []
    for key, values in drawn.items():
        rates = sorted(values, key=lambda rate: float(rate[:-1]))
        upper = [f"{x(rate):.1f},{y(values[rate][2]):.1f}" for rate in rates]
        lower = [f"{x(rate):.1f},{y(values[rate][1]):.1f}" for rate in reversed(rates)]
        line = " ".join(f"{x(rate):.1f},{y(values[rate][0]):.1f}" for rate in rates)
        parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{DRAWN[key]}" opacity="0.07"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{DRAWN[key]}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x(rate):.1f}" cy="{y(values[rate][0]):.1f}" r="4" fill="{DRAWN[key]}"/>' for rate in rates]
        ends.append((y(values[rates[-1]][0]), x(rates[-1]), key))
    if base:
        ends.append((y(base[0]), float(WIDE - RIGHT), "base"))
    for place, (_, _, key) in zip(_apart([at for at, _, _ in sorted(ends)], 18.0), sorted(ends), strict=True):
        colour = DRAWN.get(key, "#999")
        parts.append(f'<text x="{WIDE - RIGHT + 14}" y="{place + 4:.1f}" fill="{colour}">{escape(COLUMNS[key])}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _apart(places: Sequence[float], least: float) -> list[float]:
    """Ascending places moved down until neighbours are `least` apart."""
    found: list[float] = []
    for place in places:
        found.append(place if not found else max(place, found[-1] + least))
    return found
