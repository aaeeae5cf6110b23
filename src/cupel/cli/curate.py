"""`cupel curate FILE OUT`: what should I train on?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("curate", help="Write train.parquet, heldout.parquet and the ledger of every change, from an audited folder.")(
        curate
    )


def curate(
    file: Annotated[str, typer.Argument(help="The file that was audited.")],
    out: Annotated[Path, typer.Argument(help="The folder that audit or refine wrote.")],
    flip_above: c.FlipAboveOption = None,
    drop: c.DropOption = None,
    replay: Annotated[Path | None, typer.Option("--replay", help="Apply this ledger instead of deciding anew.")] = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Curate the audited data; with --replay the same ledger gives the same bytes."""
    from cupel.tasks import curate_file

    console = c.Console(json=as_json, quiet=quiet)
    summary = curate_file(file, out, flip_above=flip_above, drop=tuple(drop or ()), replay=replay, dry_run=dry_run)
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)
