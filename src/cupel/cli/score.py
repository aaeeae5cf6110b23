"""`cupel score MODEL FILE`: the file with score, margin and p_correct columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("score", help="Write the file with the columns score, margin and p_correct of a reward model.")(score)


def score(
    model: Annotated[Path, typer.Argument(help="A folder that train reward wrote.")],
    file: Annotated[str, typer.Argument(help="Comparisons to score.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")] = Path("scored.parquet"),
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Score both sides of every comparison; a score does not depend on which others are scored with it."""
    from cupel.tasks import score_file

    console = c.Console(json=as_json, quiet=quiet)
    summary = score_file(model, file, out, map=c.parse_map(map_), format=format_, max_bad=max_bad, dry_run=dry_run)
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)
