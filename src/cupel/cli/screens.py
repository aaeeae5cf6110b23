"""The screens that end a run: under twenty lines, for people, on standard error."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.cli.common import Console, estimate_words

if TYPE_CHECKING:
    from cupel.audit.result import Audit
    from cupel.pipeline import Refined
    from cupel.runs import RefineOptions

MAX_ACTIONS = 4


def _number_line(number: dict[str, Any]) -> str:
    line = f"  {number['label']}: {number['value']}"
    low, high = number.get("low"), number.get("high")
    if low is not None and high is not None:
        line += f" ({100 * low:.1f} to {100 * high:.1f})"
    if number.get("n") is not None:
        line += f", n = {number['n']:,}"
    return f"{line}; {number['source']}" if number.get("source") else line


def _concrete(text: str, out: Path, file: str, options: RefineOptions) -> str:
    """A text with FILE and OUT filled in; the files keep the placeholders, so that they do not depend on where they lie.

    After `cupel refine` or `cupel audit`, FILE becomes the file with the options of this run, so that the command repeats it.

    >>> from cupel.runs import RefineOptions
    >>> _concrete("cupel refine FILE --out OUT", Path("out"), "votes.jsonl", RefineOptions(map={"group": "topic"}))
    'cupel refine votes.jsonl --map group=topic --out out'
    """
    from cupel.runs import command_line

    repeated = command_line("", file, options).strip()
    text = re.sub(r"\b(cupel (?:refine|audit)) FILE\b", lambda found: f"{found[1]} {repeated}", text)
    return re.sub(r"\bOUT\b", lambda _: shlex.quote(str(out)), re.sub(r"\bFILE\b", lambda _: shlex.quote(file), text))


def _verdict_lines(audit: Audit, numbers: list[dict[str, Any]], out: Path, file: str, options: RefineOptions) -> list[str]:
    lines = ["", f"{audit.verdict.code}: {audit.verdict.sentence}", ""]
    lines += [_number_line(number) for number in numbers]
    lines.append("")
    for index, action in enumerate(audit.verdict.actions[:MAX_ACTIONS], start=1):
        lines.append(f"  {index}. {_concrete(action.text, out, file, options)}")
        if action.command:
            lines.append(f"     {_concrete(action.command, out, file, options)}")
    if audit.verdict.would_change:
        lines.append(f"  Would change this: {audit.verdict.would_change[0]}")
    return lines


def audit_screen(console: Console, audit: Audit, out: Path, file: str, options: RefineOptions) -> None:
    """Verdict, three numbers, next actions, and where the page is."""
    from cupel.report.assemble import headline

    for line in [*_verdict_lines(audit, headline(audit, None), out, file, options), f"  The page: {out / 'report.html'}"]:
        console.say(line)


def refine_screen(console: Console, result: Refined, out: Path, file: str, options: RefineOptions) -> None:
    """As `audit_screen`, with what training on the data is worth."""
    from cupel.report.assemble import headline, reading

    for line in _verdict_lines(result.audit, headline(result.audit, result.evaluation), out, file, options):
        console.say(line)
    console.say(f"  {reading(result.evaluation)}")
    console.say(f"  The page: {out / 'report.html'}")


def dry_run_screen(console: Console, file: str, options: RefineOptions) -> None:
    """Format, counts and a rough time; nothing is written."""
    from cupel.api import read

    votes = read(file, map=options.map, format=options.format, max_bad=options.max_bad, heldout=options.heldout, seed=options.seed)
    texts = len(votes.prompts) + len(votes.responses)
    facts = {
        "format": votes.source_format, "detection": votes.meta.get("detection"), "n_comparisons": len(votes),
        "n_quarantined": len(votes.quarantine), "n_prompts": len(votes.prompts), "n_responses": len(votes.responses),
        "n_annotators": len(votes.annotators), "n_heldout": len(votes.heldout), "estimated_time": estimate_words(len(votes), texts),
    }  # fmt: skip
    console.emit(facts)
    if not console.json:
        for name, value in facts.items():
            console.say(f"  {name:<16} {value:,}" if isinstance(value, int) else f"  {name:<16} {value}")
        console.say("  Nothing was written (--dry-run).")
