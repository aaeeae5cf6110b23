"""`cupel train reward FILE`: what model does it give?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the group of training commands to the application."""
    group = typer.Typer(help="Train a model from comparisons.", no_args_is_help=True, rich_markup_mode=None)
    group.command("reward", help="A linear reward head on frozen embeddings, reading (p, w).")(reward)
    app.add_typer(group, name="train")


def reward(
    file: Annotated[str, typer.Argument(help="Preferences: a raw file, or the train.parquet that curate wrote.")],
    out: c.OutOption = Path("reward"),
    treatment: Annotated[str, typer.Option("--treatment", help="none, em, em-annotator, conservative or unbiased.")] = "none",
    flip: Annotated[float | None, typer.Option("--flip", help="Known flip rate, for conservative and unbiased.")] = None,
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    encoder: c.EncoderOption = "static",
    device: c.DeviceOption = "cpu",
    allow_download: c.DownloadOption = False,
    seed: c.SeedOption = 0,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Train on every row of the file and write the model and metrics.json."""
    from cupel.tasks import train_file

    console = c.Console(json=as_json, quiet=quiet)
    summary = train_file(
        file, out, treatment=treatment, flip=flip, map=c.parse_map(map_), format=format_, max_bad=max_bad, encoder=encoder,
        device=device, allow_download=allow_download, seed=seed, dry_run=dry_run,
    )  # fmt: skip
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)
