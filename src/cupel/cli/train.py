"""`cupel train reward | policy | sft`: what model does it give?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the group of training commands to the application."""
    group = typer.Typer(help="Train a model from comparisons.", no_args_is_help=True, rich_markup_mode=None)
    group.command("reward", help="A linear reward head on frozen embeddings, reading (p, w).")(reward)
    group.command("policy", help="A language model from comparisons: any objective under any treatment of noise.")(policy)
    group.command("sft", help="A language model that imitates the preferred responses.")(sft)
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


_File = Annotated[str, typer.Argument(help="A recipe (.yaml), or preferences: a raw file or the train.parquet that curate wrote.")]
_Out = Annotated[Path | None, typer.Option("--out", help="Folder that receives model, log and checkpoints; a run in it is resumed.")]
_Model = Annotated[str | None, typer.Option("--model", help="Folder or name of a causal language model.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any other option of a recipe as name=value, e.g. batch_tokens=4096; repeatable.")
]
_Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the data.")]
_BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Comparisons of an optimiser step, over all processes.")]
_Rate = Annotated[float | None, typer.Option("--learning-rate", help="Largest learning rate of the schedule.")]
_Length = Annotated[int | None, typer.Option("--max-length", help="Tokens of prompt and response together.")]
_Lora = Annotated[int | None, typer.Option("--lora", help="Rank of a low-rank adapter; 0 trains all weights.")]
_Seed = Annotated[int | None, typer.Option("--seed", help="The one seed; same seed, same bytes.")]


def policy(
    file: _File,
    model: _Model = None,
    out: _Out = None,
    objective: Annotated[str | None, typer.Option("--objective", help="name:argument=value,... e.g. sigmoid:beta=0.1, simpo, kto.")] = None,
    treatment: Annotated[str | None, typer.Option("--treatment", help="name:argument=value,... e.g. em:flip=0.2,by=annotator.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="start, live, refresh:N, ema:D, none, or a folder.")] = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    max_length: _Length = None,
    lora: _Lora = None,
    seed: _Seed = None,
    set_: _Set = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    no_progress: c.NoProgressOption = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew: the checkpoints in OUT are removed.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Train a policy; running again with the same OUT resumes."""
    changes = {
        "model": model, "out": out, "objective": objective, "treatment": treatment, "reference": reference, "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "max_length": max_length, "lora": lora, "seed": seed,
    }  # fmt: skip
    _train(file, "policy", changes, set_, c.Console(json=as_json, quiet=quiet, no_progress=no_progress), dry_run, force)


def sft(
    file: _File,
    model: _Model = None,
    out: _Out = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    max_length: _Length = None,
    lora: _Lora = None,
    seed: _Seed = None,
    set_: _Set = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    no_progress: c.NoProgressOption = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew: the checkpoints in OUT are removed.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Imitate the preferred responses; running again with the same OUT resumes."""
    changes = {
        "model": model, "out": out, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "max_length": max_length,
        "lora": lora, "seed": seed,
    }  # fmt: skip
    _train(file, "sft", changes, set_, c.Console(json=as_json, quiet=quiet, no_progress=no_progress), dry_run, force)


def _train(file: str, kind: str, changes: dict[str, Any], more: list[str] | None, console: c.Console, dry_run: bool, force: bool) -> None:
    from cupel.errors import InputError
    from cupel.training import train_policy_file

    for entry in more or ():
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {entry!r} is not of the form name=value, e.g. --set batch_tokens=4096")
        changes[name.strip()] = value.strip()
    with console.progress() as progress:
        summary = train_policy_file(file, kind, changes, dry_run=dry_run, force=force, progress=progress)
    console.emit(summary)
    if not console.json:
        for line in summary["words"]:
            console.say(line)
