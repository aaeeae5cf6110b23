"""Runs on a suite as one page: scores with intervals, paired differences to the first run, subsets, matrices. No script, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.report import svg
from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.figures import Figure
from cupel.report.html import environment, style, style_hash

#: characters of a name and of a sentence; runs that are drawn; rows of a table
NAME, TEXT, DRAWN, ROWS = 60, 600, 20, 400
LONGER = "the longer response"


def page(result: Mapping[str, Any], *, title: str) -> str:
    """The page of a suite's result (`SuiteResult.to_json`); same result, same bytes. Every text is escaped, hidden characters spelt out."""
    css = style()
    return environment().get_template("leaderboard.html.j2").render(view(result, title), css=css, css_hash=style_hash(css))


def view(result: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The template's variables."""
    runs = list(result["ranking"])
    head = result["rows"][0]
    return {
        "title": t.short(title, NAME),
        "suite": t.short(result["suite"], NAME),
        "sentences": [t.said(sentence, TEXT) for sentence in _sentences(result, runs, head)],
        "figure_": _figure(head, runs),
        "runs": _runs(result, runs, head) if runs else None,
        "subsets": _subsets(result, runs),
        "differences": _differences(result, runs) if len(runs) > 1 else None,
        "matrices": _matrices(result, runs),
        "how": tb.mapping("How it is counted", ("What", "How"), _how(result), width=TEXT),
        "notes": [t.said(note, TEXT) for note in result["notes"]],
    }


def _sentences(result: Mapping[str, Any], runs: Sequence[str], head: Mapping[str, Any]) -> list[str]:
    if not runs:
        return ["No run was scored: the page shows what the longer response scores. Give models, or files of recorded scores."]
    best, first = runs[0], result["models"][0]
    out = [f"Highest: {best} with {_score(head['accuracy'][best])} ({head['name']})."]
    if result["level_with_best"]:
        out.append(f"Cannot be told apart from it: {', '.join(result['level_with_best'])}.")
    for said in dict.fromkeys(result["verdicts"][name] for name in runs if name != first):
        names = [name for name in runs if result["verdicts"].get(name) == said]
        out.append(f"{', '.join(names)}: {said}.")
    close = [name for name in runs if not _above(head["over_length"][name])]
    if close:
        out.append(f"Not shown to be better than always preferring the longer response: {', '.join(close)}.")
    return [*out, *_outside(result["outside"])]


def _outside(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings of runs whose training texts were others than the suite's."""
    return [
        f"Out of distribution: {t.percent(said['beyond']['estimate'])} of the responses lie further from the training texts of {name} "
        f"than 99 % of those do, where {t.percent(said['expected'])} is expected: what it scores here is extrapolated."
        for name, said in found.items()
        if said["warns"]
    ]


def _above(share: Mapping[str, Any]) -> bool:
    low = t.number(share["low"])
    return low is not None and low > 0


def _score(share: Mapping[str, Any]) -> str:
    between = t.interval(share["low"], share["high"])
    return f"{t.percent(share['estimate'])} ({between})" if between else t.percent(share["estimate"])


def _gap(share: Mapping[str, Any]) -> str:
    """A difference in percentage points, which the heading names."""
    between = t.interval(share["low"], share["high"], unit="points")
    return (f"{t.points(share['estimate'])} ({between})" if between else t.points(share["estimate"])).replace(" points", "")


def _figure(head: Mapping[str, Any], runs: Sequence[str]) -> Figure:
    shares = [(name, head["accuracy"][name]) for name in runs[:DRAWN]] + [(LONGER, head["length_only"])]
    rows = [svg.Span(t.label(t.short(name, NAME)), *_ends(share), t.number(share["estimate"]), _score(share)) for name, share in shares]
    cells = [(t.short(name, NAME), t.percent(s["estimate"]), t.interval(s["low"], s["high"]) or t.NOTHING) for name, s in shares]
    words = t.short(head["name"], NAME)
    drawn = svg.intervals(
        "fig-runs", f"Scores: {words}", "An axis from 0 to 100 per cent, a row for each run with its interval.", rows,
        axis=(0.0, 1.0), ticks=[0, 0.25, 0.5, 0.75, 1.0], label=lambda tick: t.percent(tick, 0),
    )  # fmt: skip
    left_out = f" {len(runs) - DRAWN} further runs are in the table." if len(runs) > DRAWN else ""
    caption = f"{words}, with 95 % intervals over prompts. Runs may differ although their intervals overlap: see the differences.{left_out}"
    return Figure(drawn, caption, tb.table(f"Scores: {words}", ["Run", "Score#", "95 % interval#"], cells, limit=ROWS))


def _ends(share: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return t.number(share["low"]), t.number(share["high"])


def _runs(result: Mapping[str, Any], runs: Sequence[str], head: Mapping[str, Any]) -> tb.Table:
    first = result["models"][0]
    rows = []
    for name in runs:
        gap = head["difference"].get(name)
        rows.append(
            (
                t.short(name, NAME), _score(head["accuracy"][name]), t.NOTHING if gap is None else _gap(gap),
                _gap(result["to_best"][name]) if name in result["to_best"] else t.NOTHING,
                _gap(head["over_length"][name]), t.percent(result["tied"][name]),
                *([t.count(result["training_seeds"][name])] if _seeded(result) else []),
            )
        )  # fmt: skip
    minus = (t.short(first, NAME), "the highest", "the longer response")
    heads = ["Run", "Score (95 % interval)#", *(f"Minus {name}, points#" for name in minus), "Equal scores#"]
    heads += ["Training seeds#"] if _seeded(result) else []
    note = "The highest run is found on the same prompts, so it looks further ahead of the others than it is." if len(runs) > 2 else ""
    return tb.table(f"Runs by score ({t.short(head['name'], NAME)}), {t.count(head['n'])} items", heads, rows, limit=ROWS, note=note)


def _seeded(result: Mapping[str, Any]) -> bool:
    """Whether a run is several training seeds."""
    return any(count > 1 for count in result["training_seeds"].values())


def _listed(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if row["level"] != "cell"]


def _subsets(result: Mapping[str, Any], runs: Sequence[str]) -> tb.Table:
    rows = [
        (
            t.short(row["name"], NAME), t.count(row["n"]), t.count(row["groups"]),
            *(_score(row["accuracy"][name]) for name in runs), _score(row["length_only"]),
        )
        for row in _listed(result)
    ]  # fmt: skip
    heads = ["Part", "Items#", "Prompts#", *(f"{t.short(name, NAME)}#" for name in runs), "The longer response#"]
    return tb.table("Every reported number, with 95 % intervals over prompts", heads, rows, limit=ROWS)


def _differences(result: Mapping[str, Any], runs: Sequence[str]) -> tb.Table:
    first = result["models"][0]
    others = [name for name in runs if name != first]
    rows = [(t.short(row["name"], NAME), *(_gap(row["difference"][name]) for name in others)) for row in _listed(result)]
    note = (
        "Intervals are of one difference each. Among many, one in twenty excludes 0 by chance: a verdict is given for the first row only."
    )
    heads = ["Part", *(f"{t.short(name, NAME)}#" for name in others)]
    return tb.table(
        f"Paired differences to {t.short(first, NAME)} on the same prompts, percentage points", heads, rows, limit=ROWS, note=note
    )


def _matrices(result: Mapping[str, Any], runs: Sequence[str]) -> list[tb.Table]:
    """A table per matrix and run: right responses down, wrong ones across."""
    cells: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = {}
    for row in result["rows"]:
        if row["at"] is not None:
            matrix, i, j = row["at"]
            cells.setdefault(matrix, {})[int(i), int(j)] = row
    axes = [t.short(name, NAME) for name in result["axes"]]
    found = []
    for matrix, held in cells.items():
        for run in (*runs, None):
            name = LONGER if run is None else t.short(run, NAME)

            def share(i: int, j: int, run: str | None = run, held: Mapping[tuple[int, int], Any] = held) -> str:
                row = held[i, j]
                return _score(row["length_only"] if run is None else row["accuracy"][run])

            rows = [(f"right: {axis}", *(share(i, j) for j in range(len(axes)))) for i, axis in enumerate(axes)]
            heads = ["", *(f"wrong: {axis}#" for axis in axes)]
            found.append(tb.table(f"{t.short(matrix, NAME)}, {name}: share of right responses that score above", heads, rows))
    return found


def _how(result: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Weighting": result["weighting"],
        "Equal scores": result["equal_scores"],
        "Intervals": f"95 %, {t.count(result['draws'])} bootstrap draws of prompts within subsets, seed {result['seed']}; all runs share "
        "the draws, so differences are paired"
        + ("; a run of several training seeds counts by their mean, and what seeds add widens its intervals" if _seeded(result) else ""),
        "Scored": f"{t.count(result['requests'])} different (prompt, response) of {t.count(result['n'])} items, each once",
        "Format": result["description"],
    }
