"""`cupel convert IN OUT --to NAME`: the same data in another format, losses stated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c

#: what --to takes; the same names as `cupel.records.convert.TARGETS`, which is not imported for the sake of --help
TARGETS = "trl, votes, trl_conversational, trl_implicit, kto, openrlhf, axolotl, llama_factory or openai."


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("convert", help="The same data in the format that a trainer reads; what the format cannot hold is stated.")(convert)


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file of preferences; - reads standard input.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .parquet, .jsonl, .json or .csv.")],
    to: Annotated[str, typer.Option("--to", help=TARGETS)] = "trl",
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
    force: c.ForceOption = False,
) -> None:
    """Convert a file; an existing OUT is kept unless --force."""
    from cupel.tasks import convert_file

    console = c.Console(json=as_json, quiet=quiet)
    with console.progress() as progress:
        summary = convert_file(
            source, target, to=to, map=c.parse_map(map_), format=format_, max_bad=max_bad, dry_run=dry_run, force=force, progress=progress
        )  # fmt: skip
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)
