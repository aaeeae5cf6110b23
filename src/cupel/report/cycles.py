"""The strongest circles of a tournament: items on a ring, an arrow from each winner to the one it beats, and the same as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from cupel.report import svg
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.figures import Figure
from cupel.report.limits import Limits

if TYPE_CHECKING:
    from cupel.audit.result import Audit

#: items that one picture shows; circles are drawn from the strongest on while their items fit
ITEMS = 9
WIDTH, HEIGHT, RADIUS = 480, 380, 126
_DOT = 6.0


def figure(
    found: Mapping[str, Any], names: Sequence[str], *, key: str = "cycles", test: Mapping[str, Any] | None = None,
    part: Sequence[int] | None = None, said: str | None = None,
) -> Figure | None:  # fmt: skip
    """The circles of three of `Cyclicity.recorded()` with names for its items; None where there are none.

    An arrow is drawn per margin, wider where the margin is larger. test: `CycleTest.recorded()`, which the caption then quotes; said: a
    caption in place of ours. part: which of several sets (prompts) each item belongs to: only the strongest circle's is drawn, the table
    lists all. Names are texts of strangers: made visible, cut and escaped. Raises IndexError where a circle names an item without a name.

    >>> one = {"items": [0, 1, 2], "margins": [1.0, 0.5, 2.0], "strength": 0.5}
    >>> made = figure({"share": 1.0, "independent": 1, "triangles": [one], "n_triangles": 1}, ["<a>", "b", "c"])
    >>> made.table.rows[0][0], str(made.svg).count('class="arrow"'), "&lt;a&gt;" in made.svg
    ('<a> over b over c over <a>', 3, True)
    """
    shown: list[int] = []
    drawn: list[Mapping[str, Any]] = []
    for one in found["triangles"]:
        if part is not None and drawn and part[one["items"][0]] != part[drawn[0]["items"][0]]:
            continue
        new = [item for item in one["items"] if item not in shown]
        if len(shown) + len(new) > ITEMS:
            break
        shown += new
        drawn.append(one)
    if not drawn:
        return None
    edges: dict[tuple[int, int], float] = {}
    for one in drawn:
        a, b, c = one["items"]
        edges |= dict(zip(((a, b), (b, c), (c, a)), one["margins"], strict=True))
    spelt = [_round(one, names, 30) for one in drawn]
    described = "; ".join(spelt[:6])
    rows = [
        (_round(one, names, 60), *(t.plain(round(margin, 2)) for margin in one["margins"]), t.plain(round(one["strength"], 2)))
        for one in found["triangles"]
    ]
    count = found["n_triangles"]
    data = tb.table(
        f"{t.count(count)} circle{'' if count == 1 else 's'} of three, the strongest first",
        ["Circle", "First over second#", "Second over third#", "Third over first#", "Weakest margin#"],
        rows,
        limit=20,
        note="" if count <= len(rows) else f"{t.count(count - len(rows))} weaker circles are left out.",
    )
    picture = svg.picture(
        f"fig-{key}",
        f"{len(drawn)} of {t.count(count)} circles, the strongest first" if count > 1 else "The one circle",
        f"{len(shown)} items on a ring; an arrow runs from the preferred to the other. {described}.",
        _ring(shown, edges, names),
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
    )
    return Figure(picture, caption(found, test) if said is None else said, data)


def circles_part(audit: Audit) -> dict[str, Any] | None:
    """The circles that the check `cycles` found, with the texts of their responses (`CirclesPart`); None where it found none.

    The responses of a circle have no texts where the audit calls one of its votes possibly harmful.
    """
    from cupel.curate.ledger import rows_of
    from cupel.records.text import render

    votes = audit.votes
    finding = next((f for f in audit.findings if f.name == "cycles" and f.status == "finding"), None)
    triangles = [] if finding is None else list(finding.details.get("strongest", ()))
    if finding is None or not triangles:
        return None
    ids = [name for one in triangles for name in one["votes"]]
    row_of = rows_of(votes, ids)
    rows = np.array([row_of[name] for name in ids])
    harmful = np.isin(rows, np.concatenate([np.zeros(0, np.int64), *(f.rows for f in audit.findings if f.name == "harmful_text")]))
    harmful = np.repeat(harmful.reshape(-1, 3).any(axis=1), 3)
    items = np.array([item for one in triangles for item in one["items"]])
    hidden = set(items[harmful].tolist())
    where = np.unique(items, return_index=True)[1]  # a step in which each item is the preferred one
    best = np.where(votes.sign[rows] > 0, votes.first[rows], votes.second[rows])
    return {
        "triangles": [{key: one[key] for key in ("items", "margins", "strength")} for one in triangles],
        "n_triangles": int(finding.details["cyclic_triads"]),
        "names": [None if i in hidden else votes.responses[int(best[step])].as_py() for i, step in enumerate(where.tolist())],
        "prompt_of": votes.prompt[rows[where]].tolist(),
        "prompt": "" if harmful[0] else render(votes.prompts[int(votes.prompt[rows[0]])].as_py()),
    }


def of_votes(given: Mapping[str, Any], limits: Limits, *, redact: bool) -> Figure | None:
    """The circles that the check `cycles` found (`CirclesPart`): responses by number and beginning, without texts where `redact`.

    >>> one = {"items": [0, 1, 2], "margins": [3, 1, 2], "strength": 1}
    >>> given = {"triangles": [one], "n_triangles": 1, "names": ["<a>", "b", None], "prompt_of": [0, 0, 0], "prompt": "Which?"}
    >>> made = of_votes(given, Limits(), redact=False)
    >>> made.caption.partition(". ")[0], made.table.rows[0][0]
    ('Responses to the prompt “Which?”', '1: <a> over 2: b over 3 over 1: <a>')
    """
    names = [str(i) if redact or not name else f"{i}: {name}" for i, name in enumerate(given["names"], start=1)]
    prompt = "" if redact else t.turns(str(given.get("prompt") or ""), limits.text)
    said = f"Responses to the prompt \u201c{t.short(prompt, limits.name)}\u201d. " if prompt.strip() else "Responses to one prompt. "
    said += (
        "An arrow runs from the response that was preferred to the other; the numbers are votes for it minus votes against it. "
        "No rating of these responses agrees with all arrows: people may weigh several things, or some of the votes are wrong."
    )
    if len(set(given["prompt_of"])) > 1:
        said += " The table has other prompts, too."
    return figure(given, names, key="circles", part=given["prompt_of"], said=said)


def caption(found: Mapping[str, Any], test: Mapping[str, Any] | None = None) -> str:
    """The cyclic share in words, with the test against chance where there is one.

    >>> caption({"share": 0.25, "independent": 3, "n_triangles": 1})
    'An arrow runs from the preferred item to the other. 25.0\\u202f% of the preferences go round: no rating of single items explains them.'
    """
    said = "An arrow runs from the preferred item to the other. "
    if not found["independent"]:
        return said + "The compared pairs form no loop: no circle could be seen."
    said += f"{t.percent(found['share'])} of the preferences go round: no rating of single items explains them."
    if test is None:
        return said
    by_chance = f"With this number of votes chance alone makes {t.percent(test['expected'])}"
    verdict = "more than chance explains" if test["p"] <= 0.05 else "not more than chance explains"
    return f"{said} {by_chance}; this is {verdict} (p = {t.plain(round(test['p'], 3))})."


def _round(one: Mapping[str, Any], names: Sequence[str], width: int) -> str:
    a, b, c = (t.short(names[item], width) for item in one["items"])
    return f"{a} over {b} over {c} over {a}"


def _ring(items: Sequence[int], edges: Mapping[tuple[int, int], float], names: Sequence[str]) -> list[Markup]:
    """Arrows below, then dots, then names outside the ring, then margins near the tails of their arrows."""
    middle = (WIDTH / 2, HEIGHT / 2)
    turn = {item: 2 * math.pi * k / len(items) - math.pi / 2 for k, item in enumerate(items)}
    place = {item: (middle[0] + RADIUS * math.cos(a), middle[1] + RADIUS * math.sin(a)) for item, a in turn.items()}
    largest = max(edges.values())
    arrows: list[Markup] = []
    numbers: list[Markup] = []
    for (winner, loser), margin in edges.items():
        (x1, y1), (x2, y2) = place[winner], place[loser]
        length = math.hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        tip = (x2 - dx * (_DOT + 3), y2 - dy * (_DOT + 3))
        foot = (tip[0] - dx * 12, tip[1] - dy * 12)
        width = 1.5 + 3.5 * margin / largest
        arrows.append(svg.tag("line", class_="arrow", x1=x1, y1=y1, x2=foot[0], y2=foot[1], stroke_width=width))
        corners = (tip, (foot[0] - dy * 6, foot[1] + dx * 6), (foot[0] + dy * 6, foot[1] - dx * 6))
        arrows.append(svg.tag("polygon", class_="bar", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)))
        at = (x1 + dx * length * 0.38, y1 + dy * length * 0.38 + 4)
        numbers.append(svg.tag("text", escape(f"{margin:.2g}"), class_="value", x=at[0], y=at[1], text_anchor="middle"))
    labels: list[Markup] = []
    for item in items:
        across, down = math.cos(turn[item]), math.sin(turn[item])
        anchor = "middle" if abs(across) < 0.25 else "start" if across > 0 else "end"
        x, y = middle[0] + (RADIUS + 14) * across, middle[1] + (RADIUS + 18) * down + 5
        labels.append(svg.tag("circle", class_="point", cx=place[item][0], cy=place[item][1], r=_DOT))
        labels.append(svg.tag("text", escape(t.label(names[item], 14)), class_="label", x=x, y=y, text_anchor=anchor))
    return [*arrows, *labels, *numbers]
