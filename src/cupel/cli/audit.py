"""`cupel audit FILE`: can I trust this data, and which rows not?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c

KindOption = Annotated[str | None, typer.Option("--kind", help="interactions or votes; detected where not given.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("audit", help="Can I trust this data, and which rows not? Writes audit.json, verdicts.parquet, report.html.")(audit)


def audit(
    file: Annotated[str, typer.Argument(help="A file or folder of preferences, or a log of interactions; - reads standard input.")],
    out: c.OutOption = Path("out"),
    kind: KindOption = None,
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
    redact: c.RedactOption = False,
    fail_on: c.FailOnOption = None,
    seed: c.SeedOption = 0,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
    no_progress: c.NoProgressOption = False,
    force: c.ForceOption = False,
) -> None:
    """Audit a file and write the results into `--out`."""
    from cupel.cli.screens import audit_screen, dry_run_screen
    from cupel.pipeline import audit_file
    from cupel.runs import RefineOptions

    console = c.Console(json=as_json, quiet=quiet, no_progress=no_progress)
    options = RefineOptions(
        map=c.parse_map(map_), format=format_, max_bad=max_bad, heldout=heldout, encoder=encoder, device=device,
        allow_download=allow_download, only=tuple(only) if only else None, against=tuple(map(str, against)) if against else None,
        trusted=str(trusted) if trusted else None, sample=sample, context=context, redact=redact, seed=seed, force=force,
    )  # fmt: skip
    from cupel.audit.interactions.files import is_log

    if is_log(file, kind, options.map):
        from cupel.cli.audit_log import audit_interactions

        audit_interactions(console, file, out, options, kind=kind, dry_run=dry_run, fail_on=fail_on)
        return
    if dry_run:
        dry_run_screen(console, file, options)
        return
    with console.progress() as progress:
        result = audit_file(file, out, options, progress=progress, say=console.say)
    report = result.to_json()
    console.emit(report)
    if not as_json:
        audit_screen(console, result, out, file, options)
    c.check_thresholds(fail_on, report)
