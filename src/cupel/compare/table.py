"""The survival table as Markdown."""

from __future__ import annotations

from cupel.compare.result import Cell, Comparison


def markdown(found: Comparison) -> str:
    """One table per objective: treatments down, cases across, gain over tuned plain in points; baselines and recommendations with it."""
    out = [f"# Survival table: {_safe(found.name)}", ""]
    out += [
        f"{found.n:,} {found.about.rows} in {found.groups:,} {found.about.groups}; {found.n_test:,} tested by {found.judged_by}; seeds "
        f"{', '.join(map(str, found.options.seeds))}. Cells: points of {found.about.measure} over tuned plain training with the same "
        "objective; **bold** where the interval that holds for all cells at once excludes 0.",
        "",
    ]
    cases = [case.label for case in found.options.cases]
    for objective in found.options.objectives:
        out += ["## " + _safe(objective), "", _row(["", *cases]), _row(["---"] * (1 + len(cases)))]
        for name in ("tuned_plain", "untuned_plain", "clean", "length_only"):
            words = {"length_only": found.about.beside}.get(name, name.replace("_", " "))
            out.append(_row([words, *[f"{getattr(found.baseline(objective, case), name):.3f}" for case in cases]]))
        for treatment in found.options.treatments[1:]:
            cells = [_find(found, objective, treatment, case) for case in cases]
            out.append(_row([f"`{_safe(treatment)}`", *[said(cell) for cell in cells]]))
        picks = [next(c for c in found.recommendations if (c.objective, c.case) == (objective, case)) for case in cases]
        out += [_row(["recommended by noisy validation", *[said(cell) for cell in picks]]), ""]
    out += ["## Recommended over the whole grid", "", _row(["case", "gain", "interval", "recovered", "recommended"]), _row(["---"] * 5)]
    for cell in (c for c in found.recommendations if c.objective == "any"):
        chosen = ", ".join(f"`{_safe(name)}` {count}x" for name, count in (cell.chosen or {}).items())
        recovered = "-" if cell.recovered is None else f"{100 * cell.recovered:.0f} %"
        out.append(
            _row([cell.case, f"{100 * cell.gain:+.1f}", f"[{100 * cell.all_low:+.1f}, {100 * cell.all_high:+.1f}]", recovered, chosen])
        )
    if found.refused:
        out += ["", "## Refused", ""]
        out += [f"- `{_safe(r['objective'])}` with `{_safe(r['treatment'])}`: {_safe(r['reason'])}" for r in found.refused]
    return "\n".join(out) + "\n"


def said(cell: Cell | None) -> str:
    """A cell as text: its gain in points, bold where it differs from 0 with all intervals at once; a dash where it was refused."""
    if cell is None:
        return "-"
    text = f"{100 * cell.gain:+.1f}"
    return f"**{text}**" if cell.all_low > 0 or cell.all_high < 0 else text


def _find(found: Comparison, objective: str, treatment: str, case: str) -> Cell | None:
    try:
        return found.cell(objective, treatment, case)
    except KeyError:
        return None


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _safe(text: str) -> str:
    """Text that cannot end a table's cell or a code span, on one line."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())
