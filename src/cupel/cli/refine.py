"""`cupel refine FILE`: the main job, from a file of untrusted votes to a verdict, a report, repaired data and a reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("refine", help="The main job: audit, curate, train plain and robust, evaluate, report. Run again to resume.")(
        refine
    )


def refine(
    file: Annotated[str | None, typer.Argument(help="A file or folder of preferences; - reads standard input.")] = None,
    out: c.OutOption = Path("out"),
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    heldout: c.HeldoutOption = 0.2,
    encoder: c.EncoderOption = "static",
    device: c.DeviceOption = "cpu",
    allow_download: c.DownloadOption = False,
    only: c.OnlyOption = None,
    against: c.AgainstOption = None,
    trusted: c.TrustedOption = None,
    sample: c.SampleOption = None,
    context: c.ContextOption = None,
    flip_above: c.FlipAboveOption = None,
    drop: c.DropOption = None,
    redact: c.RedactOption = False,
    fail_on: c.FailOnOption = None,
    from_run: Annotated[Path | None, typer.Option("--from", help="Repeat the run that this run.json describes.")] = None,
    seed: c.SeedOption = 0,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
    no_progress: c.NoProgressOption = False,
    force: c.ForceOption = False,
) -> None:
    """Chain audit, curate, train and evaluate, and end in one screen and one page."""
    from cupel.cli.screens import dry_run_screen, refine_screen
    from cupel.errors import InputError
    from cupel.pipeline import refine as run
    from cupel.runs import RefineOptions, options_from_run

    console = c.Console(json=as_json, quiet=quiet, no_progress=no_progress)
    if from_run is not None:
        file, options = options_from_run(from_run, file)
    else:
        options = RefineOptions(
            map=c.parse_map(map_), format=format_, max_bad=max_bad, heldout=heldout, encoder=encoder, device=device,
            allow_download=allow_download, only=tuple(only) if only else None, against=tuple(map(str, against)) if against else None,
            trusted=str(trusted) if trusted else None, sample=sample, context=context, flip_above=flip_above,
            drop=tuple(drop or ()), redact=redact, seed=seed, force=force,
        )  # fmt: skip
    if file is None:
        raise InputError("refine needs a FILE (or --from run.json), e.g. cupel refine votes.jsonl --out out")
    if dry_run:
        dry_run_screen(console, file, options)
        return
    with console.progress() as progress:
        result = run(file, out, options, progress=progress, say=console.say)
    console.emit(result.to_json())
    if not as_json:
        refine_screen(console, result, out, file, options)
    c.check_thresholds(fail_on, result.audit.to_json())
