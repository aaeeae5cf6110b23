"""`cupel review OUT`: a blind sheet of pairs for a person to check again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("review", help="Write review.csv: a blind sheet of pairs for a person; feed it back with --trusted.")(review)


def review(
    out: Annotated[Path, typer.Argument(help="The folder that audit or refine wrote.")],
    n: Annotated[int, typer.Option("--n", help="Number of pairs on the sheet.")] = 100,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
    force: c.ForceOption = False,
) -> None:
    """Write the sheet; an existing one is kept unless --force."""
    from cupel.tasks import write_review

    console = c.Console(json=as_json, quiet=quiet)
    summary = write_review(out, n=n, force=force, dry_run=dry_run)
    console.emit(summary)
    if not as_json:
        console.say(f"{summary['n']} pairs {'would go' if dry_run else 'are'} in {summary['path']} ({summary['parts']}).")
        console.say("Write left, right, tie or unsure into the column `answer`, then feed the sheet back:")
        console.say(f"  {summary['command']}")
