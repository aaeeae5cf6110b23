"""`cupel audit LOG`: the same command for a log of interactions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cupel.cli import common as c
from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.runs import RefineOptions

MAX_FINDINGS = 8


def audit_interactions(
    console: c.Console, file: str, out: Path, options: RefineOptions, *, kind: str | None, dry_run: bool, fail_on: Sequence[str] | None
) -> None:
    """Audit a log and write the results into `out`; or, with dry_run, say what it is."""
    from cupel.audit.interactions.files import audit_log_file, headline, refuse_options_of_votes

    rates = [condition for condition in fail_on or () if condition.startswith("flip-rate")]
    if rates:
        raise InputError(f"--fail-on {rates[0]!r}: a log of interactions has no label error; name a verdict or a check")
    if dry_run:
        from cupel.interactions.reading import read_log

        refuse_options_of_votes(options)
        log = read_log(file, map=options.map, format=options.format, max_bad=options.max_bad)
        facts = {
            "kind": "interactions",
            "n_events": len(log),
            "n_users": len(log.users),
            "n_items": len(log.items),
            "notes": list(log.notes),
        }
        console.emit(facts)
        if not console.json:
            for name, value in facts.items():
                console.say(f"  {name:<10} {' '.join(value) if isinstance(value, list) else value}")
            console.say("  Nothing was written (--dry-run).")
        return
    with console.progress() as progress:
        result = audit_log_file(file, out, options, kind=kind, progress=progress, say=console.say)
    report = result.to_json()
    console.emit(report)
    if not console.json:
        console.say(f"\n{result}\n")
        for number in headline(report):
            console.say(f"  {number['label']}: {number['value']} ({number['source']})")
        found = sorted((f for f in result.findings if f.status == "finding"), key=lambda f: ("error", "warning", "info").index(f.severity))
        for finding in found[:MAX_FINDINGS]:
            console.say(f"  {finding.severity}: {finding.message}")
        console.say(f"  {len(found)} findings, {sum(f.status == 'clean' for f in result.findings)} checks clean.")
        console.say(f"  The page: {out / 'report.html'}")
    c.check_thresholds(fail_on, report)
