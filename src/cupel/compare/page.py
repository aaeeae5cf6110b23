"""The survival table as one HTML page: a heat map per objective and the numbers beside it; no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from cupel.compare.result import Cell, Comparison
from cupel.report import svg
from cupel.report import text as t
from cupel.report.html import style, style_hash

#: gains in points at which the colour gets stronger
STEPS = (0.5, 2.0, 5.0)
_CSS = """
.heat text { font-size: 0.8125rem; }
.heat .up1 { fill: var(--good-line); fill-opacity: .16; } .heat .up2 { fill: var(--good-line); fill-opacity: .34; }
.heat .up3 { fill: var(--good-line); fill-opacity: .55; } .heat .flat { fill: var(--track); fill-opacity: .45; }
.heat .down1 { fill: var(--bad-line); fill-opacity: .14; } .heat .down2 { fill: var(--bad-line); fill-opacity: .3; }
.heat .down3 { fill: var(--bad-line); fill-opacity: .5; } .heat .none { fill: none; stroke: var(--line); }
.heat .sure { font-weight: 650; text-decoration: underline; }
"""


def page(found: Comparison) -> str:
    """The page; same comparison, same bytes. Every text of the user is escaped and hidden characters are spelt out."""
    css = style() + _CSS
    cases = [case.label for case in found.options.cases]
    head = Markup(
        '<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src {hash}; '
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n<title>{title}</title>\n<style>{css}</style>'
    ).format(hash=Markup(style_hash(css)), title=t.visible(found.name), css=Markup(css))
    sections = [_section("recommended", "Recommended", _recommended(found)), _section("method", "How it was measured", _method(found))]
    for i, objective in enumerate(found.options.objectives):
        sections.append(_section(f"objective-{i}", objective, _objective(found, objective, cases, f"heat-{i}")))
    if found.refused:
        rows = [(r["objective"], r["treatment"], r["reason"]) for r in found.refused]
        sections.append(_section("refused", "Refused", _table("Pairs that make no sense", ("objective", "treatment", "reason"), rows)))
    body = Markup(
        '<a class="skip" href="#main">Skip to the recommendation</a>\n<header class="top"><p class="brand">cupel '
        "<span>survival table</span></p><h1><bdi>{name}</bdi></h1></header>\n"
        '<main id="main" tabindex="-1">\n{sections}\n</main>\n'
        "<footer>Gains are points of {measure} over tuned plain training with the same objective. "
        "The same data, options and seeds give the same page.</footer>"
    ).format(measure=found.about.measure, name=t.visible(found.name), sections=Markup("\n").join(sections))
    return str(Markup('<!DOCTYPE html>\n<html lang="en">\n<head>\n{}\n</head>\n<body>\n{}\n</body>\n</html>\n').format(head, body))


def heat_map(key: str, title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell | None]]) -> Markup:
    """A grid of gains in points, a row per treatment: green for gains, red for losses, stronger at 0.5, 2 and 5 points; underlined where
    the interval that holds for all cells at once excludes 0; an empty frame where the pair was refused."""  # fmt: skip
    left, tall, top = 36.0, 30, 40
    wide = (svg.RIGHT - left) / max(len(columns), 1)
    parts = []
    for j, column in enumerate(columns):
        x = f"{left + wide * (j + 0.5):.2f}%"
        parts.append(svg.tag("text", escape(t.label(column, 14)), class_="tick", x=x, y=top - 12, text_anchor="middle"))
    for i, row in enumerate(rows):
        y = top + tall * i
        parts.append(svg.tag("text", escape(t.label(row, 32)), class_="label", x=f"{svg.LEFT:g}%", y=y + 19))
        for j in range(len(columns)):
            cell = cells[i][j]
            tone = "none" if cell is None else _tone(100 * cell.gain)
            place = {"x": f"{left + wide * j + 0.2:.2f}%", "y": y + 1, "width": f"{wide - 0.4:.2f}%", "height": tall - 2, "rx": 3}
            parts.append(svg.tag("rect", class_=tone, **place))
            if cell is not None:
                sure = "sure" if cell.all_low > 0 or cell.all_high < 0 else None
                x = f"{left + wide * (j + 0.5):.2f}%"
                words = t.points(cell.gain).removesuffix(" points")
                parts.append(svg.tag("text", escape(words), class_=sure, x=x, y=y + 19, text_anchor="middle"))
    picture = svg.picture(key, title, "The table below holds the same numbers.", parts, height=top + tall * len(rows) + 6)
    return Markup('<div class="heat">{}</div>').format(picture)


def _tone(points: float) -> str:
    strength = sum(abs(points) >= step for step in STEPS)
    return "flat" if not strength else f"{'up' if points > 0 else 'down'}{strength}"


def _recommended(found: Comparison) -> Markup:
    cells = [c for c in found.recommendations if c.objective == "any"]
    rows = [
        (
            c.case, t.percent(c.accuracy), t.points(c.gain), t.interval(c.all_low, c.all_high, unit="points"),
            t.NOTHING if c.recovered is None else t.percent(c.recovered, 0),
            ", ".join(f"{name} {count}x" for name, count in (c.chosen or {}).items()),
        )
        for c in cells
    ]  # fmt: skip
    first, head = found.options.objectives[0], ("case", found.about.measure, "gain", "95 % for all", "recovered", "recommended")
    return Markup(
        "<p>In each seed one cell of the whole grid is recommended by the noisy validation labels alone, and plain training unless the "
        "gain there is more than the luck of the best of so many cells (a bootstrap over groups, 95 %). This is what the recommendation "
        "reached on test prompts, against tuned plain training with {}.</p>{}"
    ).format(first, _table("Recommendations", head, rows))


def _method(found: Comparison) -> Markup:
    about = found.about
    words = (
        f"{found.n:,} {about.rows} in {found.groups:,} {about.groups}; {found.n_test:,} tested once or more, judged by {found.judged_by}. "
        f"{about.method} Intervals: 95 %, {about.groups} and seeds being chance; those for all cells at once by the largest deviation in a "
        f"bootstrap over {about.groups}. {found.diverged} columns did not stay finite."
    )
    return Markup("<p>{}</p>").format(words)


def _objective(found: Comparison, objective: str, cases: Sequence[str], key: str) -> Markup:
    treatments = found.options.treatments[1:]
    known = {(c.treatment, c.case): c for c in found.cells if c.objective == objective}
    picks = {c.case: c for c in found.recommendations if c.objective == objective}
    rows = [*treatments, "recommended"]
    cells = [[known.get((row, case)) for case in cases] for row in treatments] + [[picks.get(case) for case in cases]]
    picture = heat_map(key, f"Points over tuned plain training, {objective}", rows, cases, cells)
    bases = [(b.case, *(t.percent(x) for x in (b.tuned_plain, b.untuned_plain, b.clean, b.length_only))) for b in found.baselines
             if b.objective == objective]  # fmt: skip
    numbers = [
        (
            c.treatment, c.case, t.percent(c.accuracy), t.points(c.gain), t.interval(c.low, c.high, unit="points"),
            t.interval(c.all_low, c.all_high, unit="points"), f"{c.wins} / {c.losses}",
            t.NOTHING if c.recovered is None else t.percent(c.recovered, 0), t.percent(c.flip_rate),
        )
        for row in cells for c in row if c is not None
    ]  # fmt: skip
    return Markup('<figure>{}</figure>{}<details class="data"><summary>All numbers</summary>{}</details>').format(
        picture,
        _table(
            f"What stands beside, {found.about.measure}",
            ("case", "tuned plain", "untuned plain", "clean labels", found.about.beside),
            bases,
        ),
        _table(
            "Every cell",
            (
                "treatment", "case", found.about.measure, "gain", "95 % by itself", "95 % for all", "seeds won / lost", "recovered",
                "flip rate read",
            ),
            numbers,
        ),
    )


def _section(key: str, title: str, body: Markup) -> Markup:
    return Markup('<section aria-labelledby="{0}"><h2 id="{0}">{1}</h2><div class="body">{2}</div></section>').format(
        key, t.visible(title), body
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    cells = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(t.visible(str(value))) for value in row)) for row in rows
    )
    names = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    return Markup(
        '<div class="scroll"><table><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(caption, names, cells)
